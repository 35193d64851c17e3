"""The training-health report: what went wrong or nearly, in plain words, and what to do.

A function of the records in ``metrics.jsonl`` alone, so it can be made again from any run folder,
and a resumed run reports on its whole life.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Record = Mapping[str, Any]

NEAR_CHANCE = 0.95  # of ln(batch): closer than this is no better than guessing
SAME_TEXTS = 0.9  # of ln(batch): a floor above leaves nothing to learn
AT_FLOOR = 0.05  # of the way from the floor to ln(batch): closer is as good as at it
CLAMPED_SHARE = 0.2  # of the updates with the logit scale at its clamp
RANK_FALL = 0.5  # effective rank below this share of its best
LOSS_RISE = 1.1  # validation loss above this multiple of its best
DEAD_SHARE = 0.01  # of the gradient
SPIKE = 50.0  # times the median gradient norm


@dataclass(frozen=True)
class Finding:
    """One alarm.

    Attributes:
        kind: a word for programs, e.g. ``overfitting``.
        stage: name of the stage.
        message: what was seen, with figures.
        advice: what to try.
    """

    kind: str
    stage: str
    message: str
    advice: str

    def line(self) -> str:
        """For people."""
        return f"{self.stage}: {self.message} {self.advice}"

    def to_json(self) -> dict[str, str]:
        """For report.json."""
        return asdict(self)


@dataclass(frozen=True)
class History:
    """The records of one stage.

    Attributes:
        stage: its name.
        updates: records of kind ``update``.
        evaluations: records of kind ``validation``.
    """

    stage: str
    updates: Sequence[Record]
    evaluations: Sequence[Record]


def examine(records: Sequence[Record]) -> list[Finding]:
    """Every alarm of a run, stage by stage."""
    found: list[Finding] = []
    for stage in dict.fromkeys(record["stage"] for record in records):
        own = [record for record in records if record["stage"] == stage]
        history = History(
            stage,
            [record for record in own if record["kind"] == "update"],
            [record for record in own if record["kind"] == "validation"],
        )
        for check in CHECKS:
            found.extend(Finding(kind, stage, *rest) for kind, *rest in check(history))
    return found


Alarm = tuple[str, str, str]


def near_chance(history: History) -> Iterator[Alarm]:
    """InfoNCE stuck near ln(rows): every candidate looks alike to the model."""
    updates = history.updates
    tail = updates[-max(1, len(updates) // 10) :]
    if len(updates) < 10:
        return
    for name in tail[-1]["parts"]:
        if not name.startswith("info_nce"):
            continue
        loss = statistics.fmean(record["parts"][name] for record in tail)
        chance = math.log(tail[-1]["rows"])
        floor = statistics.fmean(record.get("floor", 0.0) for record in tail)
        if floor > SAME_TEXTS * chance:
            yield (
                "equal-texts",
                f"the loss {name} cannot fall below {floor:.2f}, and guessing gives {chance:.2f}: "
                "nearly all rows of a batch have texts that read the same, or show the same thing.",
                "There is next to nothing to tell apart: give pictures texts of their own "
                "(`plait data audit` lists texts that repeat).",
            )
        elif floor > 0 and loss < floor + AT_FLOOR * (chance - floor):
            yield (
                "loss-floor",
                f"the loss {name} ended at {loss:.2f}, and its floor is {floor:.2f}: of n rows whose "
                "texts read the same ln(n) is left, whatever the model.",
                "This is no fault: what is learnt shows in the figures, not in this number.",
            )
        elif loss > floor + NEAR_CHANCE * (chance - floor):
            yield (
                "near-chance",
                f"the loss {name} ended at {loss:.2f}, and guessing gives ln({tail[-1]['rows']}) "
                f"= {chance:.2f}: the model has learnt next to nothing.",
                "Check that texts belong to their pictures (`plait data audit`); then try a "
                "learning rate ten times higher, and one ten times lower; train longer.",
            )


def clamped_scale(history: History) -> Iterator[Alarm]:
    """The logit scale stands at its largest value."""
    known = [r for r in history.updates if None not in (r.get("scale"), r.get("max_scale"))]
    at_clamp = [r for r in known if r["scale"] >= 0.999 * r["max_scale"]]
    if known and len(at_clamp) > CLAMPED_SHARE * len(known):
        yield (
            "clamped-scale",
            f"the logit scale stood at its clamp of {known[-1]['max_scale']:g} for "
            f"{100 * len(at_clamp) / len(known):.0f}% of the updates: the loss wants sharper "
            "contrasts than it may have, often because the pairs are learnt by heart.",
            "If validation recall has stopped rising, train for fewer epochs or with more dropout; "
            "else raise model.temperature.max_scale.",
        )


def falling_rank(history: History) -> Iterator[Alarm]:
    """Embeddings retreat into few directions."""
    for modality in sorted({m for r in history.evaluations for m in r.get("rank", {})}):
        ranks = [r["rank"][modality] for r in history.evaluations if modality in r["rank"]]
        if len(ranks) > 1 and ranks[-1] < RANK_FALL * max(ranks):
            yield (
                "falling-rank",
                f"the effective rank of the {modality} embeddings fell from {max(ranks):.0f} to "
                f"{ranks[-1]:.0f}: they collapse into few directions.",
                "Lower the learning rate of that tower, raise the temperature, or use a larger "
                "batch (chunk keeps the memory).",
            )


def overfitting(history: History) -> Iterator[Alarm]:
    """Validation loss rises while training loss falls."""
    known = [r for r in history.evaluations if r.get("loss") is not None and r.get("train_loss")]
    if len(known) < 3:
        return
    best = min(range(len(known)), key=lambda i: known[i]["loss"])
    first, last = known[best], known[-1]
    if last["loss"] > LOSS_RISE * first["loss"] and last["train_loss"] < first["train_loss"]:
        yield (
            "overfitting",
            f"the validation loss rose from {first['loss']:.2f} (epoch {first['epoch']}) to "
            f"{last['loss']:.2f} while the training loss fell from {first['train_loss']:.2f} to "
            f"{last['train_loss']:.2f}: the gap is over-fitting.",
            "The weights of the best evaluation are kept (evaluation.best). To gain more: more "
            "pairs, augmentation (features.slots), dropout, weight decay, fewer epochs.",
        )


def gradients(history: History) -> Iterator[Alarm]:
    """Gradient norms, before clipping, that jump or vanish."""
    norms = [record["grad_norm"] for record in history.updates]
    if len(norms) < 10:
        return
    middle = statistics.median(norms)
    spikes = [record for record in history.updates if record["grad_norm"] > SPIKE * middle]
    if middle < 1e-6:
        yield (
            "vanishing-gradient",
            f"the gradient norm was {middle:.1e} in the median: nothing moves.",
            "Check that a part trains (`train:` in the recipe), and the temperature: far too small "
            "a one saturates the loss.",
        )
    elif spikes:
        worst = max(spikes, key=lambda record: record["grad_norm"])
        yield (
            "gradient-spikes",
            f"the gradient norm jumped to {worst['grad_norm']:.1f} at update {worst['step']} "
            f"(median {middle:.2f}; {len(spikes)} such updates).",
            "Lengthen schedule.warmup, lower the learning rate, or keep clip at 1.0; look at that "
            "batch's rows for broken pictures or texts.",
        )


def dead_modality(history: History) -> Iterator[Alarm]:
    """A tower that gets next to none of the gradient although it may train."""
    tail = history.updates[len(history.updates) // 2 :]
    if len(tail) < 5:
        return
    totals: dict[str, float] = {}
    for record in tail:
        for part, norm in record["part_norms"].items():
            if part not in ("temperature", "balance"):
                tower = part.split(".")[0]
                totals[tower] = totals.get(tower, 0.0) + norm
    whole = sum(totals.values())
    for tower, total in totals.items():
        if len(totals) > 1 and whole > 0 and total < DEAD_SHARE * whole:
            yield (
                "dead-modality",
                f"the {tower} tower got {100 * total / whole:.2f}% of the gradient in the second "
                "half: it has stopped learning.",
                "Give it a higher learning rate of its own, check that its inputs differ from row "
                "to row, and that its preprocessing fits its encoder.",
            )


CHECKS: tuple[Callable[[History], Iterator[Alarm]], ...] = (
    near_chance,
    clamped_scale,
    falling_rank,
    overfitting,
    gradients,
    dead_modality,
)
