"""How good is a model: retrieval, zero-shot classification, geometry, reports.

Metrics are pure functions of numpy arrays; `evaluate_alignment` and `write_report` put them
together.
"""

from __future__ import annotations

from plait.evaluation.caption_metrics import evaluate_captions
from plait.evaluation.clip_score import clip_scores
from plait.evaluation.evaluate import evaluate_alignment, evaluate_gallery
from plait.evaluation.gallery import Gallery, gallery_of
from plait.evaluation.report import write_report
from plait.evaluation.retrieval_metrics import mean_recall, retrieval, retrieval_by_language

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
