"""Objectives: pure functions of tensors. See docs/objectives.md for the mathematics."""

from __future__ import annotations

from plait.objectives.contrastive import chance_level, info_nce, sigmoid_loss
from plait.objectives.gather import gather
from plait.objectives.gradient_caching import cached_step
from plait.objectives.plain import info_nce_plain, sigmoid_loss_plain
from plait.objectives.softened import softened_info_nce

__all__ = [
    "cached_step",
    "chance_level",
    "gather",
    "info_nce",
    "info_nce_plain",
    "sigmoid_loss",
    "sigmoid_loss_plain",
    "softened_info_nce",
]
