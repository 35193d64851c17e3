"""Vectors in a file: what ``plait embed`` writes for tools other than plait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.core.errors import UserError
from plait.core.files import replacing

if TYPE_CHECKING:
    from plait.engines.features import Embeddings


def write_vectors(embeddings: Embeddings, out: Path) -> dict[str, Any]:
    """Writes image and text vectors with their ids; the format follows the file's ending.

    ``.npz``: arrays ``image`` (n, D), ``text`` (m, D), ``ids`` (n,), ``texts`` (m,) and
    ``text_owner`` (m,), the place in ``ids`` of the sample each text belongs to. ``.parquet``: one
    row a vector with ``id``, ``modality``, ``text`` and ``vector``.

    Raises:
        UserError: the file exists, or has another ending.
    """
    check_target(out)
    texts = list(embeddings.texts)
    with replacing(out) as temporary:
        _WRITERS[out.suffix](embeddings, texts, temporary)
    return {
        "out": str(out),
        "images": len(embeddings.image),
        "texts": len(embeddings.text),
        "dim": int(
            embeddings.image.shape[1] if len(embeddings.image) else embeddings.text.shape[1]
        ),
    }


def check_target(out: Path) -> None:
    """Refuses a file that exists or has another ending (`UserError`); ask before the long work."""
    if out.exists():
        raise UserError(f"{out} exists; plait does not overwrite it: name another file")
    if out.suffix not in _WRITERS:
        raise UserError(f"{out}: the ending must be {' or '.join(_WRITERS)}, not {out.suffix!r}")


def _write_npz(embeddings: Embeddings, texts: list[str], path: Path) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            image=embeddings.image,
            text=embeddings.text,
            ids=np.array(embeddings.ids, dtype=np.str_),
            texts=np.array(texts, dtype=np.str_),
            text_owner=embeddings.text_owner,
        )


def _write_parquet(embeddings: Embeddings, texts: list[str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = list(embeddings.ids)
    owners = [ids[place] for place in embeddings.text_owner]
    vectors = np.concatenate([embeddings.image, embeddings.text]).astype(np.float32)
    flat = pa.array(vectors.reshape(-1))
    table = pa.table(
        {
            "id": ids + owners,
            "modality": ["image"] * len(ids) + ["text"] * len(owners),
            "text": [None] * len(ids) + texts,
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    pq.write_table(table, path)


_WRITERS = {".npz": _write_npz, ".parquet": _write_parquet}
