"""Inputs by grammar: what mutation seldom makes, through the same targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.data import any_filter, read
from tests.fuzz.kinds import Target
from tests.fuzz.seeds import PICTURE_NAME, documents
from tests.fuzz.targets import NAMES, target_named
from tests.fuzz.web import _SITE, body, connection

from plait.core.errors import UserError
from plait.serving.base.errors import RequestError

few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

_texts = st.text(max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)


def _quoted(text: str) -> str:
    return "'" + text.replace("\0", "").replace("'", "''") + "'"


_columns = st.sampled_from(["id", "text", "year", '"split"', "größe", "language"])
_values = _texts.map(_quoted) | st.integers(-999, 9999).map(str) | st.sampled_from(["true", "1e5"])
_comparisons = (
    st.tuples(_columns, st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="]), _values).map(
        " ".join
    )
    | st.tuples(_columns, st.sampled_from([" is null", " is not null"])).map("".join)
    | st.builds("{} in ({})".format, _columns, st.lists(_values, min_size=1).map(", ".join))
    | st.builds("{} not like {}".format, _columns, _texts.map(_quoted))
)
_filters = st.recursive(
    _comparisons,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
        | inner.map("not {}".format)
    ),
    max_leaves=8,
)


@few
@given(_filters)
def test_filters_of_the_grammar_are_read_and_have_an_opposite(text: str) -> None:
    any_filter(text.encode())


def _exchanged(value: Any, draw: Callable[[], Any], places: list[int]) -> Any:
    """The document with what stands at one of its places, counted in order, exchanged."""
    places[0] -= 1
    if places[0] == 0:
        return draw()
    if isinstance(value, dict):
        return {key: _exchanged(one, draw, places) for key, one in value.items()}
    if isinstance(value, list):
        return [_exchanged(one, draw, places) for one in value]
    return value


@few
@given(st.sampled_from([value for _, value in documents()]), st.integers(1, 20), _json)
def test_documents_with_a_value_of_another_kind(document: Any, place: int, other: Any) -> None:
    changed = _exchanged(document, lambda: other, [place])
    with suppress(UserError):
        read(b"3" + json.dumps(changed).encode())


@few
@given(st.dictionaries(st.sampled_from(["image", "text", "split", "id", "labels", "group"]), _json))
def test_records_of_any_values(record: dict[str, Any]) -> None:
    lines = [json.dumps(one) for one in ({"image": PICTURE_NAME, "text": "a"}, record)]
    with suppress(UserError):
        read(b"2" + "\n".join(lines).encode())


@few
@given(st.lists(st.binary(min_size=1, max_size=30), max_size=5), st.integers(0, 255), st.booleans())
def test_bodies_arrive_whole_however_they_come(
    chunks: list[bytes], size: int, in_chunks: bool
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    whole = b"".join(chunks)
    if in_chunks:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n"
        sent += b"".join(b"%x;a=b\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"
    else:
        sent = head + b"Content-Length: %d\r\n\r\n" % len(whole) + whole
    connection(bytes([size]) + sent + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert _SITE[0].bodies == [whole, b""]


@few
@given(st.integers(0, 4), _json)
def test_requests_of_any_values_are_answered(number: int, value: Any) -> None:
    names = ("input", "query", "images", "labels", "texts", "image", "question", "where", "k")
    with suppress(RequestError):
        body(b"%d" % number + json.dumps(dict.fromkeys(names, value)).encode())


def test_targets_are_what_the_driver_runs() -> None:
    """The functions above are those of the targets, not others of the same name."""
    found: list[Target] = [target_named(name) for name in NAMES]
    assert {any_filter, read, connection, body} <= {target.run for target in found}
