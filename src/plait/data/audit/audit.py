"""What is wrong with a data set, row by row: everything, not the first thing.

| kind | severity | what it means |
|---|---|---|
| kinds of `plait.data.base.sample.BadRow` | error | the row gives no sample: missing-file, empty-text ... |
| unreadable | error | the picture cannot be decoded |
| size-bomb | error | more pixels than the limit, by its header; it is not decoded |
| leakage | error | the same picture in two splits |
| near-leakage | warning | almost the same picture in two splits |
| duplicate-image, near-duplicate | warning | two samples show the same, and count as negatives |
| duplicate-text | warning | a sample has the same text twice |
| shared-text | note | different samples have the same text |
| one-text, mostly-one-text | error, warning | all, or nearly all, training pairs have the same text |
| no-caption | warning | the text is ``nan``, ``None``, ``-`` and the like, or the file's own name |
| over-long | warning | the tokenizer will cut the text |
| mismatch | warning | picture and text fit badly by a model's embeddings |
| question-without-image | error | a question that no picture answers |
| contradicting-answer | warning | a question about a picture twice, with answers that have none in common |
| duplicate-question | warning | a question about a picture twice |
| inconsistent-label, label-spelling | warning | one picture with several labels; ``Cat`` and ``cat`` |
| narrow-range | warning | a picture of more than 8 bits a value that uses few of them, and is dark or flat |
| no-end-marker | note | a JPEG without its last two bytes, otherwise whole |
| orphan-image | note | a picture that no row names |
| undecoded-picture | warning | pictures of a form that plait does not decode (HEIC, SVG, camera raw ...) |
| other kinds of `plait.data.readers.unread` | note | files that were not read, and why |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from plait.core.errors import DataError
from plait.core.notebook import MOST_LINES, table_html
from plait.data.audit.images import MAX_PIXELS, image_findings
from plait.data.audit.pairs import Vectors, mismatches
from plait.data.audit.questions import question_findings
from plait.data.audit.rows import Audited, Finding
from plait.data.audit.text import (
    label_findings,
    no_caption_findings,
    one_text_findings,
    text_findings,
)
from plait.data.base.dataset import PairDataset
from plait.data.base.notes import Note, as_json
from plait.data.base.sample import BadRow
from plait.data.open.open import Roots, find, mapped, rows
from plait.data.readers.assemble import assemble_traced
from plait.data.readers.encoding import text_encoding
from plait.data.readers.files import is_image, walk
from plait.data.readers.leave import Leave
from plait.data.readers.rows import Found, Rows
from plait.data.readers.unread import TEXTLESS, unread_notes
from plait.data.vqa.answers import is_question

_ORDER = {"error": 0, "warning": 1, "note": 2}


@runtime_checkable
class TextLengths(Protocol):
    """The part of `plait.modalities.text.tokenize.TextPreprocess` that is needed here."""

    max_length: int

    def lengths(self, texts: Sequence[str]) -> Any:
        """(n,) tokens of each text, none cut off."""


@dataclass(frozen=True)
class AuditReport:
    """Findings, the worst first.

    Attributes:
        source: what was audited.
        format: what it is.
        samples, texts: how many could be read.
        checks: what was looked for; without a tokenizer or embeddings some checks are missing.
        rows: the findings.
        notes: on files that were not read, with their counts: findings tell them in words.
    """

    source: str
    format: str
    samples: int
    texts: int
    checks: Sequence[str]
    rows: Sequence[Finding]
    notes: Sequence[Note] = ()

    def __repr__(self) -> str:
        found = ", ".join(f"{kind}: {count}" for kind, count in self.counts.items())
        return f"AuditReport({self.samples} samples, {self.texts} texts; {found or 'no findings'})"

    def _repr_html_(self) -> str:
        return table_html(
            [
                (repr(self), self.source),
                *((f"{row.severity}: {row.kind}", row.where) for row in self.rows[:MOST_LINES]),
            ]
        )

    @property
    def counts(self) -> dict[str, int]:
        """Findings by kind, the most frequent first."""
        return dict(Counter(finding.kind for finding in self.rows).most_common())

    @property
    def errors(self) -> int:
        """How many findings make training fail or lie."""
        return sum(finding.severity == "error" for finding in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source,
            "format": self.format,
            "samples": self.samples,
            "texts": self.texts,
            "checks": list(self.checks),
            "errors": self.errors,
            "counts": self.counts,
            "notes": [as_json(note) for note in self.notes],
            "findings": [{**asdict(finding), "where": finding.where} for finding in self.rows],
        }

    def table(self, limit: int = 50) -> str:
        """The findings as lines of text; more than ``limit`` of a kind are counted."""
        head = f"{self.source}: {self.format}, {self.samples} samples, {self.texts} texts"
        lines = [head, f"looked for: {', '.join(self.checks)}"]
        if not self.rows:
            return "\n".join([*lines, "nothing found"])
        shown: Counter[str] = Counter()
        width = max(len(finding.kind) for finding in self.rows)
        for finding in self.rows:
            shown[finding.kind] += 1
            if shown[finding.kind] <= limit:
                name = f" [{finding.id}]" if finding.id else ""
                lines.append(
                    f"{finding.severity:<7}  {finding.kind:<{width}}  "
                    f"{finding.where}{name}: {finding.detail}"
                )
        lines += [
            f"... and {count - limit} more of {kind}"
            for kind, count in shown.items()
            if count > limit
        ]
        summary = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        return "\n".join([*lines, f"{len(self.rows)} findings: {summary}"])


def audit(
    source: str | Path | PairDataset,
    *,
    columns: Mapping[str, str] | None = None,
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
    text_preprocess: TextLengths | None = None,
    embeddings: Vectors | None = None,
    max_pixels: int = MAX_PIXELS,
    images: bool = True,
) -> AuditReport:
    """Looks for everything above.

    Args:
        source: what `plait.data.open_dataset` takes, or a data set that is open.
        columns: as in `plait.data.open_dataset`.
        root: likewise.
        allow_outside: likewise.
        encoding: likewise.
        text_preprocess: the model's tokenizer, to find texts that it cuts.
        embeddings: of the model on this data set, to find pairs that do not fit.
        max_pixels: pictures with more are not decoded.
        images: decode the pictures (to find damaged and duplicate ones), which takes the time.

    Raises:
        DataError: there is no such source, or nothing in it that plait reads.
    """
    with text_encoding(encoding):
        audited, findings, found, bad = _read(source, columns, Leave.of(root, allow_outside))
    notes: list[Note] = []
    checks = ["rows", "texts", "labels"]
    findings += text_findings(audited)
    findings += one_text_findings(audited)
    findings += no_caption_findings(audited)
    findings += label_findings(audited)
    if any(map(is_question, audited.samples)):
        checks.append("questions")
        findings += question_findings(audited)
    if found is not None:
        checks.append("orphans")
        findings += _orphans(audited, found)
        notes = [note for note in found.notes if isinstance(note, Note)]
        notes += unread_notes(found, audited.samples, bad)
        findings += _unread(notes, found)
    if images:
        checks.append("pictures")
        findings += image_findings(audited, max_pixels)
    if text_preprocess is not None:
        checks.append("lengths")
        findings += _over_long(audited, text_preprocess)
    if embeddings is not None:
        checks.append("mismatches")
        findings += mismatches(audited, embeddings)
    findings.sort(key=lambda finding: _ORDER[finding.severity])
    texts = sum(len(sample.texts) for sample in audited.samples)
    name = source.format if isinstance(source, PairDataset) else str(source)
    format = audited.format
    return AuditReport(name, format, len(audited.samples), texts, checks, findings, notes)


def _read(
    source: str | Path | PairDataset, columns: Mapping[str, str] | None, leave: Leave
) -> tuple[Audited, list[Finding], Found | None, list[BadRow]]:
    if isinstance(source, str):
        from plait.data.open.catalog import CATALOG

        if source in CATALOG:
            source = CATALOG[source].open()
    if isinstance(source, PairDataset):
        findings = [_bad(row) for row in source.skipped]
        return Audited.of(source), findings, None, []
    found = mapped(find(source, leave, columns), columns)
    failures: list[Finding] = []
    traced = assemble_traced(_rows(found, failures))
    dataset = PairDataset(traced.samples, found.format, found.root)
    audited = Audited(traced.samples, dataset.splits, traced.places, traced.conflicts, found.format)
    if not (traced.samples or failures or traced.bad):
        problem = "no sample could be read"
        failures.append(Finding("unreadable-source", "error", str(found.root), None, "", problem))
    return audited, failures + [_bad(row) for row in traced.bad], found, traced.bad


def _rows(found: Found, failures: list[Finding]) -> Rows:
    """The rows, until a file fails as a whole."""
    try:
        yield from rows(found)
    except DataError as error:
        path = str(error.path or found.root)
        failures.append(Finding("unreadable-source", "error", path, error.row, "", error.problem))


def _bad(row: BadRow) -> Finding:
    return Finding(row.kind, "error", row.path, row.row, "", row.problem)


def _orphans(audited: Audited, found: Found) -> Iterator[Finding]:
    """Pictures beside the named ones that no row names."""
    paths = [sample.image.path for sample in audited.samples if sample.image is not None]
    named = {str(path) for path in paths if path is not None}
    if found.root.is_dir():
        every = [found.root / name for name in walk(found.root)]
    else:
        folders = dict.fromkeys(Path(name).parent for name in named)
        every = [path for folder in folders for path in sorted(folder.iterdir())]
    for path in every:
        if is_image(path.name) and str(path) not in named:
            yield Finding(
                "orphan-image", "note", str(path), None, "", "no good row names this picture"
            )


def _unread(notes: Sequence[Note], found: Found) -> Iterator[Finding]:
    """The notes on files that were not read; `_orphans` names the pictures among them."""
    for note in notes:
        if note.kind not in ("unnamed-picture", "unusable-picture", TEXTLESS):  # listed one by one
            told = str(found.root), None, "", str(note)
            if note.kind == "undecoded-picture":
                yield Finding(note.kind, "warning", *told)
            else:
                yield Finding(note.kind, "note", *told)


def _over_long(audited: Audited, text_preprocess: TextLengths) -> Iterator[Finding]:
    limit = text_preprocess.max_length
    for sample, places in zip(audited.samples, audited.places, strict=True):
        if not sample.texts:
            continue
        for length, text, place in zip(
            text_preprocess.lengths(sample.texts), sample.texts, places, strict=True
        ):
            if length > limit:
                detail = f"{length} tokens, and {limit} are kept: {text[:60]!r}"
                yield Finding("over-long", "warning", *place, sample.id, detail)
