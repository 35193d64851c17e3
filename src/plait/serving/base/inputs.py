"""Texts and pictures of a request, however they came: strings, data URLs, parts, uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plait.core.base64 import from_base64
from plait.core.errors import shown
from plait.core.modality import IMAGE, TEXT
from plait.data.base.inline import OCTETS, DataUrl, data_url, kind_within
from plait.modalities.image.structure import kind_of
from plait.runtime.ranking import prompts
from plait.serving.base.errors import RequestError
from plait.serving.base.settings import Limits

FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
FORM = "data:image/png;base64,..."  # of a picture in a string


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


def text_input(text: str, place: str, limits: Limits, *, as_it_is: bool = False) -> Input:
    """A text.

    Args:
        text: words.
        place: of the field.
        limits: of their length.
        as_it_is: the client said that it is text; otherwise a picture in base64 is none.

    Raises:
        RequestError: 400 for one that is empty or too long, or a picture.
    """
    if not text.strip():
        raise RequestError(400, f"{place} is empty", param=place, code="empty_input")
    if not as_it_is:
        _refuse_pictures(text, place)
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


def string_input(text: str, place: str, limits: Limits) -> Input:
    """A string of which nobody said what it is: a data URL of a picture is one, the rest is text.

    Raises:
        RequestError: 400 for an unfit picture or text, and for a picture in another form.
    """
    url = data_url(text)
    if url is not None and url.is_image:
        return image_input(text, place, limits)
    return text_input(text, place, limits)


def image_input(text: str, place: str, limits: Limits) -> Input:
    """A picture: a data URL, base64 without one, or a URL that is fetched later.

    Raises:
        RequestError: 400 for anything else, or when there is no picture in it.
    """
    url = data_url(text)
    if url is not None:
        return picture(_inline(url, text, place), place, limits)
    address = text.strip()
    if address[:8].lower().startswith(("http://", "https://")):
        if len(address) > 2048:
            raise RequestError(400, f"{place}: the URL is too long", param=place, code="bad_url")
        return Input(IMAGE, address, place, remote=True)
    if kind_within(text) is not None:
        return picture(_decoded(text, place), place, limits)
    raise _no_picture(f"{place} is no picture", place)


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


def _inline(url: DataUrl, text: str, place: str) -> bytes:
    if url.start is None or not url.is_base64:
        raise _no_picture(f"{place} is no data URL in base64", place)
    if not url.is_image and url.mime not in OCTETS:
        raise _no_picture(f"{place} has the type {shown(url.mime)}, not image/...", place)
    return _decoded(text[url.start :], place, url=True)


def _decoded(text: str, place: str, *, url: bool = False) -> bytes:
    try:
        return from_base64(text, url=url)
    except ValueError as error:
        raise RequestError(
            400, f"{place}: the base64 is damaged: {error}", param=place, code="invalid_image"
        ) from error


def _no_picture(problem: str, place: str) -> RequestError:
    return RequestError(400, f"{problem}: give {FORM}", param=place, code="invalid_image")


def _refuse_pictures(text: str, place: str) -> None:
    """Raises RequestError: 400 for a picture, or another data URL, where words are expected."""
    url, kind = data_url(text), kind_within(text)
    if url is not None and url.start is not None and url.is_base64:
        kind = kind_within(text[url.start : url.start + 300]) or kind
    if url is None and kind is None:
        return
    what = f"a {kind} file" if kind is not None else "no text"
    if url is not None:
        what += f" in a data URL of the type {shown(url.mime, 60)}"
    raise RequestError(
        400,
        f"{place} is {what}, and is not embedded as words: a picture is {FORM}, in a place for "
        "pictures",
        param=place,
        code="picture_as_text",
    )
