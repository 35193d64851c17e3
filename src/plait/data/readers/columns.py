"""Which column of a table plays which role: as the user maps them, else by their usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.core.errors import DataError, cut, did_you_mean, shown
from plait.core.modality import AUDIO, SENSOR, VIDEO
from plait.data.base.inline import is_picture_text
from plait.data.readers import talk
from plait.data.readers.files import is_image

# fmt: off
NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "file_name", "filename", "file", "image_path", "img_path", "img", "path",
              "filepath", "file_path", "image_file", "image_name", "image_file_name", "photo",
              "picture", "images", "file_names", "image_paths", "img_paths", "photos", "pictures",
              "base64", "image_base64", "img_base64", "image_bytes", "img_bytes", "image_data",
              "jpg", "jpeg", "png", "webp",
              "图片", "图像", "照片", "文件名", "图片名", "图片路径", "路径"),
    "text": ("text", "texts", "caption", "captions", "sentence", "sentences", "title",
             "description", "txt", "alt_text", "comment", "report", "raw",
             "文本", "文字", "标题", "描述", "说明"),
    "split": ("split", "划分"),
    "group": ("group", "分组"),
    "id": ("sample_id",),
    "language": ("language", "languages", "lang", "语言"),
    "audio": ("audio", "audio_path", "audio_file_name", "audio_file"),
    "video": ("video", "video_path", "video_file_name", "video_file"),
    "sensor": ("sensor", "sensor_path", "sensor_file_name", "sensor_file"),
    "labels": ("labels", "label", "class", "category", "question", "answer", "answers",
               "标签", "类别"),
}
_CODES = (
    "ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru "
    "sk sl sr sv sw ta th tr uk ur vi zh"
)
MOST_COLUMNS = 4096
LANGUAGES = frozenset(_CODES.split())
# fmt: on
MEDIA = (AUDIO, VIDEO, SENSOR)
_NUMBERED = re.compile(r"^(?P<base>[a-z_]*?[a-z])[_ -]?(?P<number>\d+)$")
_UNNAMED = re.compile(r"unnamed: ?\d+(\.\d+|_level_\d+)?|__index_level_\d+__", re.IGNORECASE)
_ADDRESSES = ("url", "image_url", "img_url", "image_link", "link", "urls", "image_urls")
_IN_LANGUAGE = re.compile(r"^(?P<base>[a-z_]*?[a-z])[_-](?P<code>[a-z]{2})([_-][a-z]{2,4})?$")


@dataclass(frozen=True, slots=True)
class Plan:
    """Columns by role.

    Attributes:
        texts: columns of texts, each with the language its name states.
        prompt: columns of what the text is the answer to, as Alpaca has them.
        naming: names a picture that is embedded without a name of its own.
        other: columns without a role: they go into ``meta``.
    """

    image: str | None
    texts: tuple[tuple[str, str | None], ...]
    split: str | None = None
    group: str | None = None
    id: str | None = None
    language: str | None = None
    prompt: tuple[str, ...] = ()
    media: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    naming: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For messages, e.g. ``pictures from 'image', texts from 'caption'``."""
        parts = [f"pictures from {self.image!r}"] if self.image else []
        parts += [f"{name} from {column!r}" for name, column in self.media.items()]
        if self.texts:
            parts.append("texts from " + ", ".join(repr(column) for column, _ in self.texts))
        for role in ("split", "group", "id", "language"):
            if getattr(self, role):
                parts.append(f"{role} from {getattr(self, role)!r}")
        return ", ".join(parts)


def unnamed(header: Sequence[str]) -> list[str]:
    """The names of columns, with those that are empty numbered as pandas does: ``Unnamed: 0``."""
    return [name or f"Unnamed: {place}" for place, name in enumerate(header)]


def is_unnamed(column: str) -> bool:
    """Whether a column has no name but a number: what pandas wrote its index as, or read it as."""
    return _UNNAMED.fullmatch(column) is not None


def ignored(plan: Plan, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence on columns without a name whose content is more than a count of the rows."""
    used = {plan.image, plan.id, *(column for column, _ in plan.texts), *plan.labels, *plan.other}
    for column in columns:
        if not is_unnamed(column) or column in used or column in plan.media.values():
            continue
        values = [row.get(column) for row in rows]
        filled = [value for value in values if value not in (None, "") and value == value]
        numbers = [str(value) for value in filled]
        count = any(
            numbers == [str(number) for number in range(start, start + len(numbers))]
            for start in (0, 1)
        )
        if filled and not count:
            return f"a column without a name is ignored (it holds {shown(filled[0])})"
    return None


def plan(
    columns: Sequence[str],
    mapping: Mapping[str, str],
    path: Path,
    examples: Sequence[Mapping[str, Any]] = (),
) -> Plan:
    """Gives every column its role.

    Args:
        columns: the columns of the table.
        mapping: role to column as the user says; several text columns with commas between them;
            an empty string switches a role off.
        path: the table, for messages.
        examples: some rows, to tell a column of picture names where no column is called so.

    Raises:
        DataError: an unknown role, a column that is not there, no pictures or no texts.
    """
    if len(columns) > MOST_COLUMNS:
        raise DataError(
            f"has {len(columns):,} columns, at most {MOST_COLUMNS:,} are read", path=path
        )
    _check(columns, mapping, path)
    stated = {one for wanted in mapping.values() for one in (wanted, *wanted.split(","))}
    every, columns = columns, [
        name for name in columns
        if not is_unnamed(name) or name in stated or _names_pictures(name, examples)
    ]  # fmt: skip
    lower = {column.lower().strip(): column for column in reversed(columns)}

    def role(name: str) -> str | None:
        if name in mapping:
            return mapping[name] or None
        return next((lower[alias] for alias in NAMES[name] if alias in lower), None)

    media = {name: column for name in MEDIA if (column := role(name))}
    taken = [column for column in media.values()]
    image = role("image") if "image" in mapping else _image(columns, lower, taken, examples)
    texts = _texts(columns, mapping, lower, [*taken, image], examples)
    prompt: tuple[str, ...] = ()
    if not texts and "text" not in mapping:
        texts, prompt = _instructed(lower)
    told = len(texts) == 1 and _is_talk(texts[0][0], examples)  # its turns may hold the pictures
    if image is None and not media and not told:
        raise DataError(
            _of_addresses(columns, path) or _missing("image", "pictures", every), path=path
        )
    if not texts:
        raise DataError(_missing("text", "texts", every), path=path)
    single = {name: role(name) for name in ("split", "group", "id", "language")}
    used = {image, *media.values(), *single.values(), *(column for column, _ in texts), *prompt}
    label = mapping.get("labels")
    labels = (
        tuple(label.split(",")) if label else () if label == "" else
        tuple(lower[name] for name in NAMES["labels"] if name in lower and lower[name] not in used)
    )  # fmt: skip
    naming = [lower[name] for name in (*NAMES["image"], "key", "id", "image_id") if name in lower]
    return Plan(
        image=image,
        texts=texts,
        prompt=prompt,
        media=media,
        labels=labels,
        naming=tuple(name for name in naming if name not in used),
        other=tuple(name for name in columns if name not in used and name not in labels),
        **single,
    )


def tells(columns: Sequence[str], examples: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a table has a column of files, addresses or texts."""
    lower = {column.lower().strip(): column for column in reversed(columns)}
    roles = ("image", "text", *MEDIA)
    if any(name in NAMES[role] for name in lower for role in roles) or lower.keys() & set(
        _ADDRESSES
    ):
        return True
    return _image(columns, lower, (), examples) is not None or bool(text_columns(tuple(columns)))


def text_columns(columns: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    """The columns that are called as texts are, with the language each name states."""
    lower = {column.lower().strip(): column for column in reversed(columns)}
    return _texts(columns, {}, lower, (), ())


def _check(columns: Sequence[str], mapping: Mapping[str, str], path: Path) -> None:
    for name, wanted in mapping.items():
        if name not in NAMES:
            hint = did_you_mean(name, NAMES)
            raise DataError(f"unknown role {name!r} in columns{hint}; roles: {', '.join(NAMES)}")
        several = wanted.split(",") if wanted not in columns and "," in wanted else [wanted]
        for column in filter(None, several):
            if column not in columns:
                hint = did_you_mean(column, columns) or f"; the columns are {', '.join(columns)}"
                raise DataError(f"there is no column {column!r} for {name}{hint}", path=path)


def _missing(role: str, what: str, columns: Sequence[str]) -> str:
    near = [hint for column in columns if (hint := did_you_mean(column, NAMES[role]))]
    hint = near[0] if near else f": name it {NAMES[role][0]!r}"
    if not near and any(map(is_unnamed, columns)):
        hint = f": one has no name, write {NAMES[role][0]!r} above it"
    told = ", ".join(shown(column) for column in columns)
    return (
        f"no column names the {what} (columns: {cut(told)}){hint}, or map it: --column {role}=COLUMN "
        f"(columns={{{role!r}: COLUMN}} in Python, data.columns.{role} in recipes)"
    )


def _image(
    columns: Sequence[str],
    lower: Mapping[str, str],
    taken: Sequence[str],
    examples: Sequence[Mapping[str, Any]],
) -> str | None:
    for alias in NAMES["image"]:
        if alias in lower and lower[alias] not in taken:
            return lower[alias]
    return next((column for column in columns if _names_pictures(column, examples)), None)


def _names_pictures(column: str, examples: Sequence[Mapping[str, Any]]) -> bool:
    values = [row.get(column) for row in examples]
    return bool(values) and all(
        isinstance(value, str)
        and (
            (is_image(value) and not value.startswith(("http:", "https:")))
            or is_picture_text(value)
        )
        for value in values
    )


def lists_addresses(columns: Sequence[str]) -> bool:
    """Whether columns are of addresses in the web, and none is of pictures."""
    lower = {column.lower().strip() for column in columns}
    return bool(lower & set(_ADDRESSES)) and not lower & set(NAMES["image"])


def _of_addresses(columns: Sequence[str], path: Path) -> str | None:
    """What to do with a table that lists pictures of the web."""
    lower = {column.lower(): column for column in columns}
    address = next((lower[name] for name in _ADDRESSES if name in lower), None)
    if address is None:
        return None
    text = next((lower[name] for name in NAMES["text"] if name in lower), "caption")
    form = {".jsonl": "jsonl", ".json": "json", ".tsv": "tsv", ".parquet": "parquet"}
    return (
        f"lists addresses of pictures in the web ({address!r}), not pictures: fetch them, for example "
        f"with img2dataset --url_list {path.name} --input_format "
        f"{form.get(path.suffix.lower(), 'csv')} --url_col {address} --caption_col {text} "
        "--output_folder pictures, and name that folder"
    )


def _texts(
    columns: Sequence[str],
    mapping: Mapping[str, str],
    lower: Mapping[str, str],
    taken: Sequence[str | None],
    examples: Sequence[Mapping[str, Any]],
) -> tuple[tuple[str, str | None], ...]:
    if "text" in mapping:
        wanted = mapping["text"]
        chosen = [wanted] if wanted in columns else wanted.split(",")
        return tuple((column, _language(column)) for column in chosen if column)
    for name in talk.NAMES:
        if name in lower and lower[name] not in taken and _is_talk(lower[name], examples):
            return ((lower[name], None),)
    for base in NAMES["text"]:
        found: list[tuple[str, str | None]] = []
        found += [(lower[base], None)] if base in lower and lower[base] not in taken else []
        for name, column in sorted(lower.items(), key=lambda item: columns.index(item[1])):
            match = _NUMBERED.match(name) or _IN_LANGUAGE.match(name)
            if match and match["base"] == base and column not in taken and name != base:
                if "code" in match.groupdict() and match["code"] not in LANGUAGES:
                    continue
                found.append((column, _language(column)))
        if found:
            return tuple(found)
    known = {alias for aliases in NAMES.values() for alias in aliases} | {"id", "image_id", "key"}
    rest = [name for name in columns if name not in taken and name.lower() not in known]
    words = [name for name in rest if examples and all(_is_text(row.get(name)) for row in examples)]
    return ((words[0], None),) if len(words) == 1 and len(rest) == 1 else ()


def _is_talk(column: str, examples: Sequence[Mapping[str, Any]]) -> bool:
    return any(talk.turns_in(row.get(column)) is not None for row in examples)


def _instructed(
    lower: Mapping[str, str],
) -> tuple[tuple[tuple[str, str | None], ...], tuple[str, ...]]:
    """Columns of answers and of what they answer, as Alpaca and ms-swift call them."""
    for answer, asked in (("output", ("instruction", "input")), ("response", ("query",))):
        if answer in lower and asked[0] in lower:
            return ((lower[answer], None),), tuple(lower[name] for name in asked if name in lower)
    return (), ()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(map(_is_text, value)))


def _language(column: str) -> str | None:
    match = _IN_LANGUAGE.match(column.lower())
    return match["code"] if match and match["code"] in LANGUAGES else None
