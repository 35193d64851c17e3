"""``report.html`` and ``curves.png`` of a run: what was learnt, how well, and how to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.core.files import replacing, write_text
from plait.data.base.dataset import PairDataset
from plait.data.base.equal_texts import EqualTexts
from plait.evaluation.evaluate.gallery import corrected, gallery_of
from plait.evaluation.report.curves import curves, draw_curves
from plait.evaluation.report.data import read_run, write_examples
from plait.evaluation.report.html import page
from plait.models.alignment.alignment import AlignmentModel

REPORT, CURVES = "report.html", "curves.png"


def write_report(
    run: str | Path,
    *,
    model: AlignmentModel | None = None,
    dataset: PairDataset | None = None,
    seed: int = 0,
    equal_texts: EqualTexts = "same",
    **embedding: Any,
) -> Path:
    """Writes ``report.html`` (one file, no network, no script) and ``curves.png`` into a run folder.

    The page shows what the folder holds (see `plait.evaluation.report.data.ReportData`), so it can
    be written again at any time.

    Args:
        run: the folder.
        model: with ``dataset``, sample searches and mistakes are looked up anew (their vectors come
            from the cache when the model was just evaluated).
        dataset: the split that was evaluated.
        seed: of the choice of samples.
        equal_texts: see `plait.evaluation.evaluate.gallery.gallery_of`.
        embedding: as for `plait.engines.features.embed_dataset`.

    Returns:
        The path of the page.

    Raises:
        DataError: no such folder, or a damaged file in it.
    """
    folder = Path(run)
    data = read_run(folder)
    if model is not None and dataset is not None and len(dataset):
        from plait.engines.features import embed_dataset

        found = embed_dataset(model, dataset, **embedding)
        gallery = corrected(gallery_of(found, dataset, equal_texts=equal_texts), model.hubs)
        if len(gallery.image) and len(gallery.text):
            write_examples(folder, gallery, seed=seed)
            data = read_run(folder)
    drawn = curves(data.records)
    if drawn:
        with replacing(folder / CURVES) as temporary:
            draw_curves(drawn, temporary)
    write_text(folder / REPORT, page(data, drawn))
    return folder / REPORT
