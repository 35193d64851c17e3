"""Texts and pictures of a request, however they came: strings, data URLs, parts, uploads."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from plait.core.errors import shown
from plait.core.modality import IMAGE, TEXT
from plait.data.structure import kind_of
from plait.runtime.ranking import prompts
from plait.serving.errors import RequestError
from plait.serving.settings import Limits

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)

FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"


@dataclass(frozen=True, slots=True)
class Input:
    """One text or picture.

    Attributes:
        modality: ``text`` or ``image``.
        value: the text, or the bytes of the picture's file; a URL while ``remote``.
        place: of the request's field, for messages.
        remote: whether the picture is still to be fetched.
    """

    modality: str
    value: str | bytes
    place: str
    remote: bool = False


def text_input(text: str, place: str, limits: Limits) -> Input:
    """A text.

    Raises:
        RequestError: 400 for one that is empty or too long.
    """
    if not text.strip():
        raise RequestError(400, f"{place} is empty", param=place, code="empty_input")
    if len(text) > limits.characters:
        raise RequestError(
            400,
            f"{place} has {len(text):,} characters, and the limit is {limits.characters:,}",
            param=place,
            code="text_too_long",
        )
    return Input(TEXT, text, place)


def prompt_inputs(labels: Sequence[str], templates: Sequence[str], limits: Limits) -> list[Input]:
    """Every label in every template, label after label.

    Raises:
        RequestError: 400 for an empty label, a template without ``{}``, or too much of something,
            found before any prompt is made: a template may hold a label many times.
    """
    if len(labels) * len(templates) > limits.labels:
        raise RequestError(400, f"labels times templates are above {limits.labels}", param="labels")
    for place, label in enumerate(labels):
        text_input(label, f"labels[{place}]", limits)
    longest = max(map(len, labels), default=0)
    for place, template in enumerate(templates):
        name = f"templates[{place}]"
        text_input(template, name, limits)
        if "{}" not in template:
            message = f"{name} has no {{}} for the label"
            raise RequestError(400, message, param=name, code="invalid_request")
        characters = len(template) + template.count("{}") * longest
        if characters > limits.characters:
            raise RequestError(
                400,
                f"{name} with a label has up to {characters:,} characters, and the limit is "
                f"{limits.characters:,}",
                param=name,
                code="text_too_long",
            )
    found = prompts(labels, templates)
    return [Input(TEXT, text, f"labels[{n // len(templates)}]") for n, text in enumerate(found)]


def image_input(url: str, place: str, limits: Limits) -> Input:
    """A picture named by a data URL, or by a URL that is fetched later.

    Raises:
        RequestError: 400 for anything else, or when there is no picture in it.
    """
    if url[:5].lower() == "data:":
        return picture(_inline(url, place, limits), place, limits)
    if url[:8].lower().startswith(("http://", "https://")):
        if len(url) > 2048:
            raise RequestError(400, f"{place}: the URL is too long", param=place, code="bad_url")
        return Input(IMAGE, url, place, remote=True)
    raise RequestError(
        400,
        f"{place} is no picture: give a data URL (data:image/png;base64,...)",
        param=place,
        code="invalid_image",
    )


def picture(data: bytes, place: str, limits: Limits) -> Input:
    """The bytes of a picture's file, its kind known by its first bytes.

    Raises:
        RequestError: 400 when it is too large, empty, or of another kind.
    """
    if len(data) > limits.picture_bytes:
        raise RequestError(
            400,
            f"{place} has {len(data):,} bytes, and the limit is {limits.picture_bytes:,}",
            param=place,
            code="image_too_large",
        )
    if kind_of(data) is None:
        reason = "is empty" if not data else f"is not a picture of a known kind ({FORMATS})"
        raise RequestError(400, f"{place} {reason}", param=place, code="invalid_image")
    return Input(IMAGE, data, place)


def is_data_url(text: str) -> bool:
    """Whether a string is a picture rather than words."""
    return text[:11].lower() == "data:image/" and ";base64," in text[:200].lower()


def _inline(url: str, place: str, limits: Limits) -> bytes:
    head = _DATA_URL.match(url[:300])
    if head is None or not head[2].lower().endswith(";base64"):
        raise RequestError(
            400,
            f"{place} is no data URL of a picture: data:image/png;base64,...",
            param=place,
            code="invalid_image",
        )
    if not head[1].lower().startswith("image/"):
        raise RequestError(
            400,
            f"{place} has the type {shown(head[1])}, not image/...",
            param=place,
            code="invalid_image",
        )
    if (len(url) - head.end()) * 3 // 4 > limits.picture_bytes + 3:  # before it is decoded
        raise RequestError(
            400,
            f"{place} is larger than the limit of {limits.picture_bytes:,} bytes",
            param=place,
            code="image_too_large",
        )
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            400, f"{place}: the base64 is damaged: {error}", param=place, code="invalid_image"
        ) from error
