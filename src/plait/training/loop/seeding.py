"""The seeds of one update."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_update(seed: int, stage: int, step: int, rank: int = 0) -> None:
    """Seeds python, numpy and torch for one update."""
    value = int(np.random.SeedSequence([seed, stage, step, rank]).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
