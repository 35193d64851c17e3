"""Pictures that an index still has and the disk no longer: search passes over them, and counts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from plait.core.errors import SearchIndexError
from plait.core.files import is_below
from plait.core.modality import IMAGE
from plait.retrieval.store.store import Hit

ROUNDS = 4  # of looking further down the list
FURTHER = 4  # times as many hits in the next round
FEW = 20  # rows of an index that another folder may take the place of

Nearest = Callable[[int], list[Hit]]


def is_gone(path: str, roots: Sequence[str | Path] | None) -> bool:
    """Whether a picture's file was deleted or moved away.

    A folder that is not there as a whole was more likely not mounted: its pictures are not gone.
    Files outside the roots are not asked for, so that whoever makes an index learns nothing of the
    disk of those who search it.

    Args:
        path: absolute.
        roots: folders whose pictures may be shown; None: all may.
    """
    holding = [root for root in roots or () if is_below(path, (root,))]
    if roots is not None and not any(os.path.isdir(root) for root in holding):  # noqa: PTH112  many
        return False
    try:
        os.stat(path)  # noqa: PTH116  half the time of Path.stat
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def present(nearest: Nearest, k: int, roots: Sequence[str | Path] | None) -> tuple[list[Hit], int]:
    """The ``k`` nearest rows whose pictures are there, and how many nearer ones are gone.

    Args:
        nearest: of a number of hits, to the best of the index.
        k: how many are wanted; fewer come back where the index has no more.
        roots: see `is_gone`.
    """
    wanted = k
    for left in reversed(range(ROUNDS)):
        hits = nearest(wanted)
        found: list[Hit] = []
        gone = 0
        for hit in hits:
            row = hit.row
            absolute = row.path is not None and os.path.isabs(row.path)  # noqa: PTH117  many
            if row.modality == IMAGE and absolute and is_gone(str(row.path), roots):
                gone += 1
                continue
            found.append(hit)
            if len(found) == k:
                return found, gone
        if not left or not gone or len(hits) < wanted:
            break
        wanted *= FURTHER
    return found, gone


def check_emptied(known: int, kept: int, here: int, data: str | Path | None) -> None:
    """Refuses to drop all that an index has: its folder is more likely not mounted, or misspelt.

    Args:
        known: pictures of the index.
        kept: of them are in the data.
        here: pictures of the data.
        data: where they were looked for.

    Raises:
        SearchIndexError: none is kept, and there is no picture at all, or the index has many.
    """
    if known and not kept and (not here or known > FEW):
        pictures = "the picture" if known == 1 else f"any of the {known:,} pictures"
        raise SearchIndexError(
            f"{'the data' if data is None else data} does not hold {pictures} of the index: is it "
            "the right folder, and mounted? If all of them are gone: --allow-empty"
        )


def gone_note(count: int) -> str:
    """What a user is told of pictures that search passed over."""
    pictures = "1 picture is" if count == 1 else f"{count} pictures are"
    return (
        f"{pictures} no longer on the disk and left out: plait index RUN PICTURES --out INDEX --sync "
        "brings the index up to date"
    )
