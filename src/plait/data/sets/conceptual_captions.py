"""Conceptual Captions (Sharma et al. 2018): pictures of the web with cleaned alt texts.

The hub has links and texts; the pictures are fetched from where they are, once, into the cache.
Many links are dead by now: those rows are in ``.skipped``, with what the server said.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from plait.core.files import cache_home, digest
from plait.core.media import FileRef
from plait.data.base import splits
from plait.data.base.dataset import PairDataset
from plait.data.readers.assemble import assemble
from plait.data.readers.rows import Bad, Row, Rows, clean_texts
from plait.data.sets import hub
from plait.data.sets.download import fetch_all

NAME = "conceptual-captions"
REPOSITORY = "google-research-datasets/conceptual_captions"
CONFIG = "unlabeled"


def load(*, split: str = "all", limit: int | None = 10_000) -> PairDataset:
    """A part of the set; a sample's id is a hash of its link.

    Args:
        split: ``train``, ``validation`` or ``all``; there is no test split, so that one is filled
            from train (`plait.data.base.splits.assign`).
        limit: no more links of each split than this; None takes all three million.

    Raises:
        DataError: the hub cannot be reached, or none of the links.
    """
    wanted = splits.checked(split)
    rows: list[Row] = []
    jobs: list[tuple[str, Path]] = []
    folder = cache_home() / "sets" / NAME
    for name, table in hub.tables(NAME, REPOSITORY, CONFIG).items():
        its = splits.canonical(name)
        if its is None or wanted not in ("all", its):
            continue
        for number, entry in enumerate(itertools.islice(table, limit), 1):
            id = digest(entry["image_url"])
            path = folder / id[:2] / f"{id}.jpg"
            ref = FileRef(path, f"{id}.jpg")
            row = Row(f"{REPOSITORY}/{name}", number, name=ref.name, key=id, image=ref, split=its)
            row.texts, row.meta = (entry["caption"],), {"url": entry["image_url"]}
            rows.append(row)
            jobs.append((entry["image_url"], path))
    problems = fetch_all(jobs, "Fetching pictures")
    samples, bad = assemble(_checked(rows, problems), fail=False)
    return PairDataset(samples, NAME, folder, bad, detected=f"Hugging Face hub, {REPOSITORY}")


def _checked(rows: list[Row], problems: list[str | None]) -> Rows:
    for row, problem in zip(rows, problems, strict=True):
        if problem:
            yield row.bad("missing-file", f"{row.meta['url']} {problem}")
            continue
        try:
            row.texts = clean_texts(list(row.texts))
        except Bad as bad:
            yield row.bad(bad.kind, bad.problem)
            continue
        yield row
