"""Flickr8k (Hodosh, Young and Hockenmaier 2013): photographs with five captions each.

The hub's copy embeds the pictures and has the official splits of 6,000, 1,000 and 1,000.
"""

from __future__ import annotations

from plait.data.base.dataset import PairDataset
from plait.data.sets import hub

REPOSITORY = "jxie/flickr8k"


def load() -> PairDataset:
    """All three splits.

    Raises:
        DataError: the hub cannot be reached.
    """
    return hub.load("flickr8k", REPOSITORY)
