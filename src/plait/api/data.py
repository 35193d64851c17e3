"""Data sets, their forms and their faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from plait.api.sources import Roots, Source, aligned_model, checked_policy
from plait.core.notebook import reported

if TYPE_CHECKING:
    from plait.data.audit.audit import AuditReport


@reported
def get_dataset(name: str, out: Source | None = None) -> dict[str, Any]:
    """Fetches or makes a catalogue data set; with ``out`` also writes it as an image folder."""
    from plait.data import open_dataset

    dataset = open_dataset(name)
    if out is not None:
        convert(name, out, "imagefolder")
    return {"name": name, "samples": len(dataset), "texts": dataset.texts, "out": out and str(out)}


@reported
def convert(
    source: Source,
    out: Source,
    to: str,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_row: str = "fail",
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Writes pairs in another format; refuses to overwrite."""
    from plait.data.writers.convert import convert as convert_data

    done = convert_data(
        source,
        out,
        to,
        columns=columns,
        on_bad_row=checked_policy(on_bad_row),
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )
    return done.to_json()


def audit(
    path: Source,
    *,
    model: Source | None = None,
    columns: Mapping[str, str] | None = None,
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> AuditReport:
    """Findings about pairs, row by row; a model adds over-long texts and likely mismatches."""
    from plait.data.audit.audit import audit as audit_data

    if model is None:
        return audit_data(
            path, columns=columns, root=root, allow_outside=allow_outside, encoding=encoding
        )
    from plait.data import open_dataset
    from plait.engines.features import embed_dataset
    from plait.modalities.text.tokenize import TextPreprocess

    loaded = aligned_model(model, "the audit's search for mismatches")
    dataset = open_dataset(
        path,
        columns=columns,
        on_bad_row="skip",
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
    )
    embeddings = embed_dataset(loaded, dataset, on_bad_row="skip")
    preprocess = loaded.tower("text").encoder.preprocess
    lengths = preprocess if isinstance(preprocess, TextPreprocess) else None
    return audit_data(
        path,
        columns=columns,
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
        text_preprocess=lengths,
        embeddings=embeddings,
    )
