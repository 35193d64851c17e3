"""What a recipe may say: one pydantic model a section, with the meaning of every key.

Types are strict (``"10"`` is not a number, ``yes`` is not 1) and unknown keys are refused with the
nearest known one. What spans sections is checked in `plait.training.recipe.combinations`; files,
overrides and messages are the business of `plait.training.recipe.recipe`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plait.modalities.image import levels
from plait.training.recipe.base import (
    Count,
    Section,
)
from plait.training.recipe.model import Model
from plait.training.recipe.stage import Stage


class Repeat(Section):
    """Training samples that come several times an epoch, each time with their next text.

    Attributes:
        field: of the samples' metadata.
        times: how often, by the field's value; all others once.
    """

    field: str
    times: dict[str, Count]


class Levels(Section):
    """What becomes black and white in pictures of more than 8 bits a value: one of the two.

    Attributes:
        window: two values, as the files state them.
        percentiles: of each picture's own values, e.g. ``[1, 99]``.
    """

    window: list[float] | None = None
    percentiles: list[float] | None = None

    def as_settings(self) -> levels.Levels:
        """As decoding takes them. Raises RecipeError where they are not one pair of numbers."""
        return levels.Levels.from_json(self.model_dump())


class Data(Section):
    """Which pairs, and how their texts become rows.

    Attributes:
        source: a path or a catalogue name; null means that ``--data`` must say.
        columns: the user's column names, e.g. ``{image: photo, text: title}``.
        root: a folder, or several, below which the files that rows name may lie, besides the folder of
            the data itself.
        allow_outside: they may lie anywhere.
        encoding: of text files that are not UTF-8, such as ``gbk``, ``shift_jis`` or ``latin-1``.
        levels: of pictures of more than 8 bits a value; null: what their files state. Whatever is made
            of the run keeps them.
        on_bad_row: ``fail`` at the first bad row, or ``skip`` and count.
        texts: ``one`` text of each image drawn anew every epoch, ``all`` (every text a row), or the
            ``first``.
        equal_texts: ``same``: texts that read the same (but for case, punctuation and spacing) are
            one: positives of one another in contrastive objectives, right answers in retrieval;
            ``apart``: each belongs to its own picture alone.
        languages: keep only texts of these languages (where the data says the language).
        without: modalities that a fusion model takes for absent, in training and ever after: a
            control for how much they tell.
        cache_pixels: keep decoded, resized pictures on disk, for encoders that train over many
            epochs on large pictures.
        repeat: samples that come several times an epoch: pairs of one's own among many others.
    """

    source: str | None = None
    columns: dict[str, str] | None = None
    root: str | list[str] | None = None
    allow_outside: bool = False
    encoding: str | None = None
    levels: Levels | None = None
    on_bad_row: Literal["fail", "skip"] = "fail"
    texts: Literal["one", "all", "first"] = "one"
    equal_texts: Literal["same", "apart"] = "same"
    languages: list[str] | None = None
    without: list[str] = []
    cache_pixels: bool = False
    repeat: Repeat | None = None


class Evaluation(Section):
    """Validation during training, and the test at the end.

    Attributes:
        split: what early stopping and the choice of the best weights look at.
        every: evaluate after this many epochs.
        best: keep the weights of the best evaluation rather than the last.
        metric: what is compared: of alignment ``mean_recall`` (mean of R@1, 5, 10 both ways),
            ``text_to_image.R@5`` and the like; of fusion ``vqa.accuracy``; ``loss`` of all. null:
            the first of these.
        patience: stop a stage after so many evaluations without improvement; null: never.
        test: the split of the final figures.
    """

    split: Literal["validation", "test", "train"] = "validation"
    every: Count = 1
    best: bool = True
    metric: str | None = None
    patience: Count | None = None
    test: Literal["validation", "test", "train"] | None = "test"


class Checkpoints(Section):
    """When to save what a killed run goes on from.

    Attributes:
        steps: after so many updates; null: not by count.
        seconds: after so long.
        keep: how many to keep.
    """

    steps: Count | None = None
    seconds: Annotated[float, Field(ge=0)] = 120.0
    keep: Count = 2


class Recipe(Section):
    """A whole run."""

    name: str
    data: Data = Data()
    model: Model
    stages: Annotated[list[Stage], Field(min_length=1, max_length=100)]
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    seed: Annotated[int, Field(ge=0, le=2**62)] = 0
