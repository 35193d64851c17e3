"""What is looked at before a language model's first update: mistakes that training would not tell.

A picture cut off at the end of a context, labels on the prompt, a prompt in other words than the
model was trained with: none of them stops training, all of them spoil it.

Legend: N positions, B rows of a batch, L layers, D features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plait.core.files import read_json
from plait.data.base.sample import Sample
from plait.models.bridged.model import BridgedModel
from plait.models.bridged.sequences import IGNORED, PLACEHOLDER, Writer
from plait.training.batches.material import Material
from plait.training.recipe.stage import Stage
from plait.training.tasks.qformer_task import QFORMER, WordSource, parts_of_first_stage
from plait.training.tasks.wording import Wording, pairs_of

LOOKED_AT = 2_000  # examples
BYTES_A_POSITION = 68  # of activations a layer and feature in float32, 34 of 16 bits (see below)


@dataclass(frozen=True)
class Preflight:
    """Of one stage.

    Attributes:
        stage: its name.
        examples: that were looked at.
        positions: (shortest, median, longest) of an example before it is cut.
        picture_positions: of each picture.
        cut: examples whose target is cut at the model's context.
        shown: one example; what is learned stands in ``[[ ]]``.
        memory: bytes of weights, of gradients and optimiser, and of activations, estimated.
        warnings: what looks wrong.
    reader: whose limit cuts, and whose activations are estimated.
    """

    stage: str
    examples: int
    positions: tuple[int, int, int]
    picture_positions: int
    cut: int
    shown: str
    memory: tuple[int, int, int]
    warnings: tuple[str, ...] = ()
    reader: str = "language model"

    def lines(self) -> list[str]:
        """For people."""
        low, middle, high = self.positions
        weights, training, activations = (size / 2**20 for size in self.memory)
        found = [
            f"Stage {self.stage}: {low} to {high} positions an example (median {middle}), "
            f"{self.picture_positions} of them for a picture; looked at {self.examples}.",
            f"Stage {self.stage}, one example, learned in [[ ]]: {self.shown}",
            f"Stage {self.stage}, memory by estimate: weights {weights:.0f} MiB, gradients and "
            f"optimiser {training:.0f} MiB, activations of the {self.reader} up to "
            f"{activations:.0f} MiB.",
        ]
        if self.cut:
            found.append(
                f"Stage {self.stage}: {self.cut} of {self.examples} examples are longer than the "
                f"{self.reader}'s context; the ends of their targets are cut."
            )
        return found + [f"Stage {self.stage}: {one}" for one in self.warnings]


def preflight(
    model: BridgedModel, stage: Stage, material: Material, source: str | None = None
) -> Preflight:
    """Looks at a stage before it trains.

    Args:
        model: prepared for the stage: what trains is marked.
        stage: with one task, of writing or of a Q-Former's first stage.
        material: its training split.
        source: the language model's (``hf/...``), for its chat template.

    Raises:
        DataError: a prompt that does not fit, by its row, or another number of ``<image>`` than a
            sample has pictures.
    """
    wording, writer = Wording(stage.tasks[0].prompt, stage.tasks[0].target), model.writer
    if stage.tasks[0].objective == QFORMER:
        return _first_stage(model, stage, wording, material)
    chosen = _looked_at(material)
    lengths, cut, shown = [], 0, ""
    for sample, text in chosen:
        prompt, target = wording.of(sample, text)
        before = writer.prompt(prompt, pictures=wording.pictures, where=sample.where)
        whole = len(before) + len(writer.ids(target)) + 1
        cut += writer.limit is not None and whole > writer.limit
        lengths.append(whole)
        if not shown:
            ids, labels = writer.example(
                prompt, target, pictures=wording.pictures, where=sample.where
            )
            shown = readable(writer, ids, labels)
    longest = min(max(lengths), writer.limit or max(lengths)) * (1 + stage.tasks[0].shots)
    return Preflight(
        stage.name,
        len(chosen),
        (min(lengths), int(np.median(lengths)), max(lengths)),
        writer.picture_tokens if wording.pictures else 0,
        cut,
        shown,
        _memory(model, stage.batch_size * longest),
        tuple(_warnings(wording, source)),
    )


def _looked_at(material: Material) -> list[tuple[Sample, str]]:
    return pairs_of(material)[:: max(1, len(material.texts) // LOOKED_AT)][:LOOKED_AT]


def _first_stage(
    model: BridgedModel, stage: Stage, wording: Wording, material: Material
) -> Preflight:
    """Of BLIP-2's first stage, where the Q-Former reads queries, then a start, words and an end."""
    bridge, _ = parts_of_first_stage(model)
    source = WordSource(material, wording, model.writer, bridge.max_length)
    texts = [wording.of(sample, text)[1] for sample, text in _looked_at(material)]
    words = [len(model.writer.ids(text)) + 2 for text in texts]
    ids = source.ids(texts[0])
    queries = bridge.count(model.picture_tokens)
    longest = queries + min(max(words), bridge.max_length)
    return Preflight(
        stage.name,
        len(texts),
        (queries + min(words), queries + int(np.median(words)), queries + max(words)),
        queries,
        sum(count > bridge.max_length for count in words),
        readable(model.writer, ids, ids),
        _memory(model, stage.batch_size * longest, len(bridge.layers), bridge.inner),
        (),
        "Q-Former",
    )


def readable(writer: Writer, ids: Sequence[int], labels: Sequence[int]) -> str:
    """An example as it is trained: pictures as ``<image> x 4``, learned tokens in ``[[ ]]``."""
    pieces: list[str] = []
    place, learning = 0, False
    while place < len(ids):
        if (labels[place] != IGNORED) != learning:
            learning = not learning
            pieces.append("[[" if learning else "]]")
        count = 1
        if ids[place] == writer.placeholder:
            while place + count < len(ids) and ids[place + count] == writer.placeholder:
                count += 1
            pieces.append(f"{PLACEHOLDER} x {count}")
        else:
            word = writer.tokenizer.id_to_token(ids[place])
            pieces.append(str(word))
        place += count
    return " ".join([*pieces, *(["]]"] if learning else [])])


def _memory(
    model: BridgedModel, positions: int, layers: int | None = None, width: int | None = None
) -> tuple[int, int, int]:
    """Bytes of weights; of gradients and two moments; of activations of the language model, or of
    so many layers of another width.

    Activations: 34 bytes a position, layer and feature at 16 bits (Korthikanti et al. 2022, equation
    2, without the attention's square term, which fused attention does not keep), twice in float32.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    training = sum(3 * p.numel() * 4 for p in model.parameters() if p.requires_grad)
    layers, width = layers or len(model.language.blocks), width or model.language.width
    return weights, training, BYTES_A_POSITION * positions * layers * width


def _warnings(wording: Wording, source: str | None) -> list[str]:
    found = []
    template = _chat_template(source)
    if template is not None and not any(mark in wording.prompt for mark in _marks(template)):
        found.append(
            f"{source} was trained with a chat template, and the prompt {wording.prompt!r} has none "
            f"of its marks ({', '.join(_marks(template)[:3])}): write them into prompt and target"
        )
    if wording.prompt and wording.prompt[-1].isspace() and wording.target.startswith("{"):
        found.append(
            "the prompt ends in a space: many tokenizers join it to the next word, so put it at the "
            "beginning of the target"
        )
    return found


def _chat_template(source: str | None) -> str | None:
    """Of a local folder in transformers' format, if it has one."""
    if source is None or not source.startswith("hf/"):
        return None
    folder = Path(source.removeprefix("hf/")).expanduser()
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = read_json(path) if path.is_file() else {}
    found = settings.get("chat_template")
    return found if isinstance(found, str) else None


def _marks(template: str) -> list[str]:
    """Words of a chat template that look like special tokens: ``<|im_start|>``, ``[INST]``."""
    return list(dict.fromkeys(re.findall(r"<\|?[A-Za-z_/]+\|?>|\[/?[A-Z]+\]", template)))
