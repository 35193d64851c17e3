"""How good is a model: retrieval, zero-shot classification, geometry, reports.

Pure functions of numpy arrays; `evaluate_alignment` and `write_report` put them together.
"""

from __future__ import annotations

from plait.evaluation.retrieval_metrics import retrieval, retrieval_by_language

__all__ = ["retrieval", "retrieval_by_language"]
