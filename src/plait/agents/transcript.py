"""The transcript of an agent: Markdown that a person can read, with the pictures beside it."""

from __future__ import annotations

import json
import mimetypes
import re
from pathlib import Path
from urllib.parse import quote

from plait.agents.handles import Album
from plait.agents.record import CallRecord, Record
from plait.core.errors import UserError
from plait.core.files import replacing, write_text
from plait.core.foreign import clean

_SHOWN = 4000  # characters of a result; the whole one is in the JSON document


def check_free(path: Path) -> None:
    """Raises `UserError` when a transcript cannot go there."""
    if path.exists():
        raise UserError(f"{path} exists: name another file (--transcript)")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder: make it, or name another place")


def write_transcript(record: Record, album: Album, path: Path) -> None:
    """Writes the Markdown, and the pictures into a folder named like it."""
    folder = path.with_name(f"{path.stem}-pictures")
    links = {}
    for name in record.pictures:
        picture = album[name]
        ending = mimetypes.guess_extension(picture.mime) or ".bin"
        file = folder / f"{name.replace(':', '-')}{ending}"
        folder.mkdir(exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_bytes(picture.data)
        links[name] = quote(f"{folder.name}/{file.name}")
    write_text(path, as_markdown(record, links))


def as_markdown(record: Record, links: dict[str, str]) -> str:
    """The transcript.

    Args:
        record: of the run.
        links: by name of a picture where its file is, seen from the transcript.
    """
    state = {"answered": "answered", "stopped": "stopped without an answer"}.get(
        record.status, record.status
    )
    lines = [
        "# What the agent did",
        "",
        *_quoted(record.task),
        "",
        f"Model {_code(record.model)}; tools: {', '.join(map(_code, record.tools))}; "
        f"{len(record.steps)} steps in {record.seconds:.1f} s; {state}"
        + (f" ({_inert(record.reason)})." if record.reason else "."),
        "",
    ]
    returned = {name for step in record.steps for call in step.calls for name in call.pictures}
    given = [name for name in record.pictures if name not in returned]
    lines += _shown(given, record, links)
    for number, step in enumerate(record.steps, 1):
        is_answer = number == len(record.steps) and record.status == "answered"
        lines += [f"## Step {number} (the model took {step.thinking:.1f} s)", ""]
        if step.text and not is_answer:
            lines += [*_quoted(step.text), ""]
        for call in step.calls:
            lines += _call(call, record, links)
        if is_answer:
            lines += ["The answer below.", ""]
    lines += ["## Answer", "", _inert(record.answer or f"None: {record.reason}."), ""]
    return "\n".join(lines)


def _call(call: CallRecord, record: Record, links: dict[str, str]) -> list[str]:
    outcome = "failed" if call.failed else "done"
    made = "" if call.executed else ", not made"
    result = call.result
    if len(result) > _SHOWN:
        result = f"{result[:_SHOWN]}\n[{len(call.result) - _SHOWN} more characters]"
    return [
        f"### {_code(call.tool)}: {outcome}{made}, {call.seconds:.1f} s",
        "",
        *_fenced(json.dumps(call.arguments, ensure_ascii=False, indent=2), "json"),
        "",
        *_fenced(result, "text"),
        "",
        *_shown(call.pictures, record, links),
    ]


def _shown(names: list[str], record: Record, links: dict[str, str]) -> list[str]:
    if not names:
        return []
    lines = []
    for name in names:
        caption = re.sub(r"[\[\]\n\\<>`]", " ", record.pictures.get(name, name))
        link = links.get(name)
        lines.append(f"![{name}: {caption}]({link})" if link else f"{name}: {caption}")
    return [*lines, ""]


def _quoted(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in _inert(text).strip().splitlines()]


def _inert(text: str) -> str:
    """Markdown that shows nothing but itself: opening a file must fetch no picture, run no HTML."""
    text = text.replace("![", "!\\[")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", clean(text))


def _code(text: str) -> str:
    """In one line of code, whatever is in it."""
    return f"`{' '.join(clean(text).replace('`', ' ').split())}`"


def _fenced(text: str, kind: str) -> list[str]:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{kind}", clean(text), fence]
