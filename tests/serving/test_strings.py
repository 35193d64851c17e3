"""Strings that are pictures are read or refused, never embedded as words; what clients really send."""

from __future__ import annotations

import base64
import textwrap
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.made import DIM, encoded, image_row, noisy, text_row
from tests.serving.test_endpoints import data_url, embed, refused

from plait.core.base64 import from_base64
from plait.data.base.inline import data_url as head_of
from plait.data.base.inline import kind_within

ARRAY = noisy(11)
PNG = encoded(ARRAY) + b"\0" * (-(len(encoded(ARRAY)) + 1) % 3)  # its base64 ends in padding
BODY = base64.b64encode(PNG).decode()
URL_BODY = base64.urlsafe_b64encode(PNG).decode()
WRAPPED = "\r\n".join(textwrap.wrap(BODY, 76))
OCTETS = "data:application/octet-stream;base64,"


def test_the_picture_has_every_peculiarity() -> None:
    assert BODY.endswith("=")
    assert set("+/") & set(BODY)
    assert BODY != URL_BODY


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{WRAPPED}",
        f"data:image/png;base64,{BODY.rstrip('=')}",
        f"data:image/png;base64,{URL_BODY}",
        f"data:image/png;base64,{URL_BODY.rstrip('=')}",
        f"DATA:IMAGE/PNG;BASE64,{BODY}",
        f"data:image/jpg;base64,{BODY}",
        f"data:image/*;base64,{BODY}",
        f"data:image/png;charset=utf-8;base64,{BODY}",
        f"data:image/png;name=a.png;charset=utf-8; base64,{BODY}",
        f"\n data:image/png;base64, {BODY}\n",
        "data:image/png;base64," + BODY.replace("+", "%2B").replace("=", "%3D"),
    ],
)
def test_data_urls_as_browsers_take_them(client: TestClient, text: str) -> None:
    (row,) = embed(client, input=text)
    np.testing.assert_allclose(row, image_row(ARRAY), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [BODY, WRAPPED, URL_BODY, BODY.rstrip("="), OCTETS + BODY, f"data:;base64,{BODY}"],
)
def test_where_a_picture_is_expected_base64_is_enough(client: TestClient, text: str) -> None:
    part = {"type": "image_url", "image_url": {"url": text}}
    for value in ({"input": text, "modality": "image"}, {"input": part}):
        (row,) = embed(client, **value)
        np.testing.assert_allclose(row, image_row(ARRAY), atol=1e-5)
    reply = client.post("/v1/similarity", json={"images": [text], "texts": ["red"]})
    expected = image_row(ARRAY) @ text_row("red")
    assert reply.json()["data"][0][0] == pytest.approx(expected, abs=1e-5)


PICTURES_AS_WORDS = [
    BODY,
    WRAPPED,
    URL_BODY,
    f"  {BODY}",
    f"'{BODY}'",
    repr(BODY.encode()),
    f"base64,{BODY}",
    f"image/png;base64,{BODY}",
    PNG.hex(),
    OCTETS + BODY,
    f"data:;base64,{BODY}",
    f"data:application/pdf;base64,{BODY}",
    "data:text/plain,words",
    *(
        base64.b64encode(encoded(ARRAY, kind)).decode()
        for kind in ("JPEG", "GIF", "BMP", "TIFF", "WEBP")
    ),
    base64.b64encode(b"\0\0\0\x20ftypavif" + b"\0" * 90).decode(),
    base64.b64encode(b"\0\0\0\x20ftypheic" + b"\0" * 90).decode(),
    base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'></svg>").decode(),
]


@pytest.mark.parametrize("text", PICTURES_AS_WORDS)
def test_pictures_are_not_words(client: TestClient, text: str) -> None:
    png = data_url(ARRAY)
    for path, value, param in (
        ("/v1/embeddings", {"input": ["red", text]}, "input[1]"),
        ("/v1/similarity", {"images": [png], "texts": [text]}, "texts[0]"),
        ("/v1/classify", {"images": [png], "labels": ["red", text]}, "labels[1]"),
        ("/v1/ask", {"image": png, "question": text}, "question"),
    ):
        problem = refused(client, path, value)
        assert problem["param"] == param
        assert problem["code"] == "picture_as_text"
        assert "data:image/png;base64,..." in problem["message"]
        assert len(problem["message"]) < 400
    form = client.post("/v1/embeddings", data={"input": text}, files={"no": b""})
    assert form.status_code == 400
    # Who says that it is text gets it as text.
    part = {"type": "text", "text": text}
    assert len(embed(client, input=[part])) == len(embed(client, input=text, modality="text")) == 1


def test_a_picture_in_place_of_words(client: TestClient) -> None:
    value = {"images": [data_url(ARRAY)], "texts": [data_url(ARRAY)]}
    problem = refused(client, "/v1/similarity", value)
    assert (problem["param"], problem["code"]) == ("texts[0]", "picture_as_text")


@pytest.mark.parametrize(
    "words",
    [
        "data: 5, 6 and 7",
        "Data: image/png; base64, and other words of the web",
        "data:",
        "data of the picture, in base64,",
        "base64",
        "/9j/",
        "BM is a format of pictures, and so is GIF89a",
        "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC",
        "iVBORw0KGgo is how a PNG begins in base64",
        "a/b+c",
        "ACGTACGTACGTACGTACGTACGTACGTACGTACGTACGT",
        "89504e47",
        "https://example.org/a.png",
        "貓在桌子上",
    ],
)
def test_words_stay_words(client: TestClient, words: str) -> None:
    said, unsaid = embed(client, input=words, modality="text"), embed(client, input=words)
    np.testing.assert_array_equal(unsaid, said)
    assert kind_within(words) is None


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    kind_within(text)
    head_of(text)


@given(st.binary(max_size=100), st.data())
def test_base64_in_every_dress_gives_the_bytes(data: bytes, draw: st.DataObject) -> None:
    encode = draw.draw(st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
    text = encode(data).decode()
    if draw.draw(st.booleans()):
        text = text.rstrip("=")
    width = draw.draw(st.integers(1, 80))
    text = draw.draw(st.sampled_from(["\n", "\r\n", " ", "\t"])).join(
        text[i : i + width] for i in range(0, len(text), width)
    )
    assert from_base64(text) == data


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "AA=A", "A===", "AAA*", "AA+_", "AAé=", "====", "=A"]
)
def test_damaged_base64(text: str) -> None:
    with pytest.raises(ValueError):
        from_base64(text)


def test_forms_that_hold_no_picture(client: TestClient) -> None:
    for text, word in (
        ("data:image/png,%89PNG", "base64"),
        ("data:image/png;base64", "base64"),
        ("data:image/png;base64,iVBORw0KG", "damaged"),
        ("data:image/png;base64,AAAA", "known kind"),
        ("data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=", "known kind"),
    ):
        assert word in refused(client, "/v1/embeddings", {"input": text})["message"]
    remote = {"input": "https://example.org/a.png", "modality": "image"}
    assert "URLs are off" in refused(client, "/v1/embeddings", remote)["message"]


@pytest.mark.parametrize(
    "ids", [[1, 2, 3], [[1, 2, 3]], [[1, 2], [3]], [[]], [[1] * 9000, [2] * 12_000]]
)
def test_token_ids_are_refused_with_what_to_set(client: TestClient, ids: Any) -> None:
    value = {"input": ids, "model": "tiny", "encoding_format": "base64"}
    message = refused(client, "/v1/embeddings", value)["message"]
    assert "check_embedding_ctx_length=False" in message


# As openai 3.57, langchain-openai 1.7 and llama-index-embeddings-openai 0.7 sent them, and the
# fields that clients of other servers (TEI, Jina, Cohere, Voyage, vLLM) send along.
@pytest.mark.parametrize(
    "value",
    [
        {"input": ["red"], "model": "tiny", "encoding_format": "base64"},
        {"input": "red", "model": "tiny", "user": "me", "encoding_format": "float"},
        {"input": ["red"], "model": "tiny", "dimensions": DIM, "encoding_format": "base64"},
        {"input": ["red"], "model": None, "encoding_format": None, "dimensions": None},
        {"input": "red", "modality": None, "user": None, "truncate": None, "normalized": None},
        {"input": "red", "truncate": True, "normalize": True},
        {"input": "red", "truncate": "END", "input_type": "search_document"},
        {
            "input": "red",
            "task": "retrieval.passage",
            "normalized": True,
            "embedding_type": "float",
        },
        {"input": "red", "truncation": True, "output_dtype": "float", "output_dimension": DIM},
        {"input": "red", "priority": 0, "late_chunking": False},
        {"input": [{"type": "text", "text": "red"}]},
    ],
)
def test_what_clients_send(client: TestClient, value: dict[str, Any]) -> None:
    reply = client.post("/v1/embeddings", json=value)
    assert reply.status_code == 200, reply.text
    row = reply.json()["data"][0]["embedding"]
    if value.get("encoding_format") == "base64":
        row = np.frombuffer(base64.b64decode(row), "<f4")
    np.testing.assert_allclose(np.asarray(row), text_row("red"), atol=1e-5)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("normalized", False),
        ("truncate", "START"),
        ("embedding_type", "binary"),
        ("output_dtype", "int8"),
        ("output_dimension", 3),
        ("late_chunking", True),
        ("inputtype", "query"),
        ("trunctate", None),
    ],
)
def test_what_would_change_the_answer_is_refused(
    client: TestClient, field: str, given: Any
) -> None:
    assert refused(client, "/v1/embeddings", {"input": "red", field: given})["param"] == field


def test_null_is_the_default_everywhere(client: TestClient) -> None:
    png = data_url(ARRAY)
    for path, value, optional in (
        ("/v1/classify", {"images": [png], "labels": ["red", "blue"]}, ["templates", "model"]),
        ("/v1/similarity", {"images": [png], "texts": ["red"]}, ["model", "user"]),
        ("/v1/ask", {"image": png, "question": "what colour"}, ["answers", "model", "user"]),
    ):
        plain = client.post(path, json=value)
        nulls = client.post(path, json={**value, **dict.fromkeys(optional)})
        assert plain.status_code == nulls.status_code == 200, nulls.text
        assert nulls.json() == plain.json()
    assert refused(client, "/v1/embeddings", {"input": None})["param"] == "input"


def test_a_part_whose_url_is_a_string(client: TestClient) -> None:
    (row,) = embed(client, input={"type": "image_url", "image_url": data_url(ARRAY)})
    np.testing.assert_allclose(row, image_row(ARRAY), atol=1e-5)
