"""Objectives: pure functions of tensors. See docs/objectives.md for the mathematics."""

from __future__ import annotations

from plait.objectives.contrastive import chance_level, info_nce, sigmoid_loss
from plait.objectives.plain import info_nce_plain, sigmoid_loss_plain

__all__ = [
    "chance_level",
    "info_nce",
    "info_nce_plain",
    "sigmoid_loss",
    "sigmoid_loss_plain",
]
