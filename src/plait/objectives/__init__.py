"""Objectives: pure functions of tensors. See docs/objectives.md for the mathematics."""

from __future__ import annotations

from plait.objectives.base.gather import gather
from plait.objectives.contrastive.contrastive import chance_level, info_nce, sigmoid_loss
from plait.objectives.contrastive.distillation import (
    affinity_mimicking,
    feature_mse,
    interactive_contrast,
)
from plait.objectives.contrastive.gradient_caching import cached_step
from plait.objectives.contrastive.plain import info_nce_plain, sigmoid_loss_plain
from plait.objectives.contrastive.ranking import hardest, ranking_loss
from plait.objectives.contrastive.softened import softened_info_nce
from plait.objectives.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_plain,
)
from plait.objectives.masked.lxmert import region_feature_loss, region_label_loss
from plait.objectives.masked.masked import mlm_loss, mrc_kl_loss, mrc_loss, mrfr_loss
from plait.objectives.masked.masking import mask_regions, mask_tokens
from plait.objectives.matching.matching import (
    Pairing,
    hard_negatives,
    hard_pairing,
    itm_loss,
    mined_pairing,
    random_pairing,
)
from plait.objectives.matching.transport import (
    cosine_cost,
    ipot,
    transport_cost,
    word_region_alignment,
)
from plait.objectives.vqa import soft_targets, vqa_bce, vqa_ce, vqa_kl

__all__ = [
    "Pairing",
    "affinity_mimicking",
    "cached_step",
    "chance_level",
    "cosine_cost",
    "feature_mse",
    "gather",
    "hard_negatives",
    "hard_pairing",
    "hardest",
    "info_nce",
    "info_nce_plain",
    "interactive_contrast",
    "ipot",
    "itm_loss",
    "linear_cross_entropy",
    "linear_cross_entropy_plain",
    "mask_regions",
    "mask_tokens",
    "mined_pairing",
    "mlm_loss",
    "mrc_kl_loss",
    "mrc_loss",
    "mrfr_loss",
    "random_pairing",
    "ranking_loss",
    "region_feature_loss",
    "region_label_loss",
    "sigmoid_loss",
    "sigmoid_loss_plain",
    "soft_targets",
    "softened_info_nce",
    "transport_cost",
    "vqa_bce",
    "vqa_ce",
    "vqa_kl",
    "word_region_alignment",
]
