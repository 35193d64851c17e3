"""Texts and labels: repeated, shared, contradicting."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator

from plait.core import errors
from plait.data.audit.rows import Audited, Finding
from plait.data.base.equal_texts import normalised
from plait.data.readers.no_captions import no_captions

_SINGLE = ("label", "class", "category")


def text_findings(audited: Audited) -> Iterator[Finding]:
    """Texts that a sample has twice, and texts that different samples share."""
    owners: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, sample in enumerate(audited.samples):
        seen: dict[str, str] = {}
        for which, text in enumerate(sample.texts):
            key = normalised(text)
            if key in seen:
                detail = f"the sample has this text already: {text[:60]!r}"
                place = audited.places[number][which]
                yield Finding("duplicate-text", "warning", *place, sample.id, detail)
            else:
                seen[key] = text
                if "question" not in sample.labels:  # the same question of many pictures is meant
                    owners[key].append((number, which))
    for shared in owners.values():
        groups = {audited.samples[number].group_key for number, _ in shared}
        if len(groups) > 1:
            yield _shared(audited, shared)


MOSTLY = 0.9  # of the training pairs with one text


def one_text_findings(audited: Audited) -> Iterator[Finding]:
    """A training split whose pairs have all, or nearly all, the same text: nothing to tell apart."""
    having: dict[str, list[tuple[int, int]]] = defaultdict(list)
    pairs = 0
    for number, sample in enumerate(audited.samples):
        if audited.splits[number] != "train" or "question" in sample.labels or not sample.texts:
            continue
        pairs += 1
        for key, which in {
            normalised(text): which for which, text in enumerate(sample.texts)
        }.items():
            having[key].append((number, which))
    if pairs < 2:
        return
    places = max(having.values(), key=len)
    if len(places) < MOSTLY * pairs:
        return
    number, which = places[0]
    sample = audited.samples[number]
    shown = f"{sample.texts[which][:60]!r}"
    if len(having) == 1:
        detail = f"all {pairs} training pairs read {shown}: there is nothing to tell apart"
        yield Finding("one-text", "error", *audited.places[number][which], sample.id, detail)
        return
    detail = (
        f"{len(places)} of {pairs} training pairs read {shown}: they are positives of one another, so "
        "that next to nothing is left to learn"
    )
    yield Finding("mostly-one-text", "warning", *audited.places[number][which], sample.id, detail)


def no_caption_findings(audited: Audited) -> Iterator[Finding]:
    """Texts that say nothing of their picture."""
    for number, sample in enumerate(audited.samples):
        for which in no_captions(sample):
            detail = (
                f"{errors.shown(sample.texts[which])} is no caption: write one, or remove the row"
            )
            yield Finding(
                "no-caption", "warning", *audited.places[number][which], sample.id, detail
            )


def _shared(audited: Audited, shared: list[tuple[int, int]]) -> Finding:
    number, which = shared[0]
    others = ", ".join(audited.samples[other].id for other, _ in shared[1:4])
    more = f" and {len(shared) - 4} more" if len(shared) > 4 else ""
    splits = sorted({audited.splits[other] for other, _ in shared})
    across = f", across {' and '.join(splits)}" if len(splits) > 1 else ""
    sample = audited.samples[number]
    detail = f"{sample.texts[which][:60]!r} is also the text of {others}{more}{across}"
    return Finding("shared-text", "note", *audited.places[number][which], sample.id, detail)


def label_findings(audited: Audited) -> Iterator[Finding]:
    """Pictures whose rows state different labels, and labels that differ in spelling alone."""
    spellings: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    first: dict[tuple[str, str], int] = {}
    for number, sample in enumerate(audited.samples):
        for name in dict.fromkeys(audited.conflicts[number]):
            values = json.dumps(sample.labels[name], ensure_ascii=False, default=str)
            detail = (
                f"the rows of this picture state different values of {name!r}: {errors.cut(values)}"
            )
            last = audited.places[number][-1]
            yield Finding("inconsistent-label", "warning", *last, sample.id, detail)
        for name in _SINGLE:
            value = sample.labels.get(name)
            if isinstance(value, str):
                spellings[name, normalised(value)][value] += 1
                first.setdefault((name, value), number)
    for (name, _), counts in spellings.items():
        usual, *rare = [value for value, _ in counts.most_common()]
        for value in rare:
            number = first[name, value]
            detail = (
                f"{name} {errors.shown(value)} ({counts[value]}) is spelt {errors.shown(usual)} "
                "elsewhere"
            )
            place, id = audited.places[number][0], audited.samples[number].id
            yield Finding("label-spelling", "warning", *place, id, detail)
