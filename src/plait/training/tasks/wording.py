"""The words of a writing task: what is given of a sample, and what should follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plait.core.errors import DataError
from plait.data.base.sample import Sample
from plait.data.base.wording import filled
from plait.models.bridged.sequences import PLACEHOLDER, Writer
from plait.training.batches.material import Material


@dataclass(frozen=True)
class Wording:
    """The templates of a writing task (`plait.data.base.wording`; ``{text}`` is the sample's text).

    Attributes:
        prompt: what is given; ``<image>`` stands for the sample's picture.
        target: what is learned.
    """

    prompt: str
    target: str

    @property
    def pictures(self) -> int:
        """How many pictures a prompt shows.

        Raises:
            DataError: more than a sample has.
        """
        places = self.prompt.count(PLACEHOLDER)
        if places > 1:
            raise DataError(
                f"the prompt {self.prompt!r} has {places} {PLACEHOLDER} and a sample has one picture"
            )
        return places

    def of(self, sample: Sample, text: str) -> tuple[str, str]:
        """(prompt, target) of a sample.

        Raises:
            DataError: a label that is not there, or an empty target.
        """
        labels: Mapping[str, object] = {**sample.labels, "text": text}
        prompt = filled(self.prompt, labels, sample.where)
        target = filled(self.target, labels, sample.where)
        if not target.strip():
            raise DataError(f"the target {self.target!r} is empty here", path=sample.where)
        return prompt, target


def said(material: Material, wording: Wording) -> list[str]:
    """All prompts and targets of a split, for tokenizers."""
    found = []
    for sample, text in pairs_of(material):
        prompt, target = wording.of(sample, text)
        found.append(f"{prompt.replace(PLACEHOLDER, ' ')} {target}")
    return found


def longest_target(material: Material, wording: Wording, writer: Writer) -> int:
    """Tokens of the longest target, with its end."""
    targets = {wording.of(sample, text)[1] for sample, text in pairs_of(material)}
    return 1 + max(len(writer.ids(target)) for target in targets)


def pairs_of(material: Material) -> list[tuple[Sample, str]]:
    """Every text of a split with its sample."""
    texts = iter(material.texts)
    return [
        (sample, next(texts))
        for sample, count in zip(material.samples, material.counts.tolist(), strict=True)
        for _ in range(count)
    ]
