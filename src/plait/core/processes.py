"""The processes that train together."""

from __future__ import annotations

import os
from typing import Any

import torch


def join_processes() -> Any:
    """The `accelerate.Accelerator` of this process: its device, and those it was started with.

    On a processor alone accelerate joins them (over gloo) only where it is told to, and would let
    each train by itself.
    """
    from accelerate import Accelerator

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerator(cpu=several and not torch.accelerator.is_available())
