"""Texts and labels: repeated, shared, contradicting."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator

from plait.data.audit_rows import Audited, Finding

_SINGLE = ("label", "class", "category")


def normalised(text: str) -> str:
    """Without case, punctuation, width and spacing: texts that read the same compare equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = [" " if unicodedata.category(letter)[0] in "PZC" else letter for letter in folded]
    return " ".join("".join(kept).split()) or " ".join(folded.split())


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
            shown = json.dumps(sample.labels[name], ensure_ascii=False, default=str)
            detail = f"the rows of this picture state different values of {name!r}: {shown}"
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
            detail = f"{name} {value!r} ({counts[value]}) is spelt {usual!r} elsewhere"
            place, id = audited.places[number][0], audited.samples[number].id
            yield Finding("label-spelling", "warning", *place, id, detail)
