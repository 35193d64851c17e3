"""How good is a model: retrieval, zero-shot classification, geometry, reports.

Metrics are pure functions of numpy arrays; `evaluate_alignment` and `write_report` put them
together.
"""

from __future__ import annotations

from plait.evaluation.evaluate.evaluate import evaluate_alignment, evaluate_gallery
from plait.evaluation.evaluate.gallery import Gallery, gallery_of
from plait.evaluation.metrics.captions import evaluate_captions
from plait.evaluation.metrics.clip_score import clip_scores
from plait.evaluation.metrics.retrieval import mean_recall, retrieval, retrieval_by_language
from plait.evaluation.report.report import write_report

__all__ = [
    "Gallery",
    "clip_scores",
    "evaluate_alignment",
    "evaluate_captions",
    "evaluate_gallery",
    "gallery_of",
    "mean_recall",
    "retrieval",
    "retrieval_by_language",
    "write_report",
]
