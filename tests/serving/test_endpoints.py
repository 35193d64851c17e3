"""What the endpoints answer, against the same sums in numpy; and how they refuse."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import load, save
from tests.serving.made import (
    ANSWERS,
    DIM,
    WORDS,
    answer_shares,
    encoded,
    image_row,
    noisy,
    plain,
    text_row,
)


def data_url(array: np.ndarray, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(encoded(array)).decode()}"


def embed(client: TestClient, **value: Any) -> list[np.ndarray]:
    reply = client.post("/v1/embeddings", json=value)
    assert reply.status_code == 200, reply.text
    return [np.array(entry["embedding"]) for entry in reply.json()["data"]]


def refused(client: TestClient, path: str, value: Any, status: int = 400) -> dict[str, Any]:
    reply = client.post(path, json=value)
    assert reply.status_code == status, reply.text
    problem = reply.json()["error"]
    assert set(problem) == {"message", "type", "param", "code"}
    assert problem["message"]
    return problem


def test_texts_and_pictures_in_one_request_in_their_order(client: TestClient) -> None:
    array = noisy(1)
    rows = embed(client, input=["red", data_url(array), "a green picture of the red"])
    for row, expected in zip(
        rows,
        [text_row("red"), image_row(array), text_row("a green picture of the red")],
        strict=True,
    ):
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_the_answer_has_the_shape_of_openais(client: TestClient) -> None:
    reply = client.post("/v1/embeddings", json={"input": "a red picture", "model": "tiny"}).json()
    assert reply["object"] == "list"
    assert reply["model"] == "tiny"
    assert reply["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    (entry,) = reply["data"]
    assert (entry["object"], entry["index"], len(entry["embedding"])) == ("embedding", 0, DIM)


def test_base64_is_little_endian_float32(client: TestClient) -> None:
    value = {"input": ["red", "blue"], "encoding_format": "base64"}
    data = client.post("/v1/embeddings", json=value).json()["data"]
    for entry, text in zip(data, ["red", "blue"], strict=True):
        row = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
        np.testing.assert_allclose(row, text_row(text), atol=1e-5)


def test_parts_name_what_they_are(client: TestClient) -> None:
    array = noisy(2)
    parts = [
        {"type": "text", "text": data_url(array)},
        {"type": "image_url", "image_url": {"url": data_url(array)}},
    ]
    rows = embed(client, input=parts)
    assert not np.allclose(rows[0], rows[1], atol=0.01)
    np.testing.assert_allclose(rows[1], image_row(array), atol=1e-5)


def test_uploads(client: TestClient) -> None:
    array = noisy(3)
    files = [
        ("input", ("a.png", encoded(array), "image/png")),
        ("input", ("b.bmp", encoded(plain(9, 9, 200), "BMP"), "application/octet-stream")),
    ]
    data = {"model": "tiny", "input": "red"}
    reply = client.post("/v1/embeddings", files=files, data=data)
    assert reply.status_code == 200, reply.text
    rows = [np.array(entry["embedding"]) for entry in reply.json()["data"]]
    expected = [text_row("red"), image_row(array), image_row(plain(9, 9, 200))]
    for row in expected:  # in the order of the form's parts, which is the client library's choice
        assert min(float(np.abs(row - found).max()) for found in rows) < 1e-5


def test_classify(client: TestClient) -> None:
    arrays, labels = [noisy(4), noisy(5)], ["red", "blue", "green"]
    templates = ["a {} picture", "the {}"]
    value = {"images": [data_url(a) for a in arrays], "labels": labels, "templates": templates}
    reply = client.post("/v1/classify", json=value)
    assert reply.status_code == 200, reply.text
    for array, entry in zip(arrays, reply.json()["data"], strict=True):
        means = [
            np.mean([text_row(t.replace("{}", label)) for t in templates], axis=0)
            for label in labels
        ]
        logits = np.array([10 * image_row(array) @ mean / np.linalg.norm(mean) for mean in means])
        shares = np.exp(logits) / np.exp(logits).sum()
        found = {one["label"]: one["probability"] for one in entry["labels"]}
        for label, share in zip(labels, shares, strict=True):
            assert found[label] == pytest.approx(share, abs=1e-4)
        order = [one["probability"] for one in entry["labels"]]
        assert order == sorted(order, reverse=True)


def test_similarity(client: TestClient) -> None:
    arrays, texts = [noisy(6), noisy(7)], ["red", "a blue picture", "green"]
    value = {"images": [data_url(a) for a in arrays], "texts": texts}
    reply = client.post("/v1/similarity", json=value)
    expected = [[image_row(a) @ text_row(t) for t in texts] for a in arrays]
    np.testing.assert_allclose(reply.json()["data"], expected, atol=1e-5)


def test_ask(client: TestClient) -> None:
    array, question = noisy(8), "what colour"
    value = {"image": data_url(array), "question": question, "answers": 3}
    reply = client.post("/v1/ask", json=value)
    assert reply.status_code == 200, reply.text
    shares = answer_shares(array, question)
    found = {one["answer"]: one["probability"] for one in reply.json()["answers"]}
    assert set(found) == set(ANSWERS)
    for answer, share in shares.items():
        assert found[answer] == pytest.approx(share, abs=1e-4)
    assert reply.json()["answer"] == max(shares, key=shares.__getitem__)
    assert reply.json()["model"] == "teller"


def test_a_text_is_the_same_alone_and_among_longer_ones(client: TestClient) -> None:
    (alone,) = embed(client, input="red")
    longer = " ".join(["green"] * 30)
    among = embed(client, input=[longer, "red", longer, "the blue"])
    np.testing.assert_allclose(among[1], alone, atol=1e-6)


def test_models(client: TestClient) -> None:
    tiny, teller = client.get("/v1/models").json()["data"]
    assert (tiny["id"], tiny["kind"], tiny["dimensions"]) == ("tiny", "alignment", DIM)
    assert (teller["id"], teller["kind"], teller["dimensions"]) == ("teller", "fusion", None)


@pytest.mark.parametrize(
    ("path", "value", "param"),
    [
        ("/v1/embeddings", {"input": ["red", ""]}, "input[1]"),
        ("/v1/embeddings", {"input": ["red", 3]}, "input[1]"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": ["a"] * 65}, "input"),
        ("/v1/embeddings", {"input": "a" * 2001}, "input"),
        ("/v1/embeddings", {"input": "a", "dimensions": 3}, "dimensions"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int4"}, "encoding_format"),
        ("/v1/embeddings", {"input": "a", "model": "teller"}, "model"),
        ("/v1/embeddings", {"input": ["words"], "modality": "image"}, "input[0]"),
        ("/v1/embeddings", {"input": ["http://a.org/b.png"], "modality": "image"}, "input[0]"),
        ("/v1/embeddings", {"input": [data_url(noisy(0))] * 9}, "input"),
        ("/v1/classify", {"images": [data_url(noisy(0))], "labels": ["red"]}, "labels"),
        ("/v1/classify", {"images": ["red"], "labels": ["red", "blue"]}, "images[0]"),
        ("/v1/similarity", {"images": [], "texts": ["red"]}, "images"),
        ("/v1/ask", {"image": data_url(noisy(0)), "question": " "}, "question"),
        ("/v1/ask", {"image": data_url(noisy(0)), "question": "a", "model": "tiny"}, "model"),
    ],
)
def test_the_field_at_fault_is_named(
    client: TestClient, path: str, value: dict[str, Any], param: str
) -> None:
    problem = refused(client, path, value)
    assert problem["param"] == param
    assert problem["type"] == "invalid_request_error"


def test_templates_without_a_place_for_the_label(client: TestClient) -> None:
    value = {"images": [data_url(noisy(0))], "labels": ["red", "blue"], "templates": ["a picture"]}
    assert refused(client, "/v1/classify", value)["param"] == "templates[0]"


def test_a_picture_that_is_one_of_several_is_named(client: TestClient) -> None:
    broken = f"data:image/png;base64,{base64.b64encode(encoded(noisy(0))[:60]).decode()}"
    value = {"input": ["red", data_url(noisy(0)), broken]}
    problem = refused(client, "/v1/embeddings", value)
    assert problem["param"] == "input[2]"
    assert "damaged" in problem["message"] or "cannot be read" in problem["message"]


def test_unknown_models_and_paths(client: TestClient) -> None:
    problem = refused(client, "/v1/embeddings", {"input": "a", "model": "gpt"}, 404)
    assert (problem["code"], problem["param"]) == ("model_not_found", "model")
    assert refused(client, "/v1/nothing", {}, 404)["code"] == "no_such_endpoint"
    assert client.get("/v1/embeddings").status_code == 405
    assert refused(client, "/v1/search", {"query": "a"}, 404)["code"] == "no_index"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"input": NaN}',
        b'{"input": Infinity}',
        b'{"input": "\xff"}',
        b'{"input": "\\ud800"}',
        b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_bad_json(client: TestClient, body: bytes) -> None:
    reply = client.post(
        "/v1/embeddings", content=body, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["message"]


def test_another_type_of_body(client: TestClient) -> None:
    reply = client.post("/v1/embeddings", content=b"{}", headers={"Content-Type": "text/plain"})
    assert reply.status_code == 415
    reply = client.post("/v1/embeddings", content=b"x" * (1 << 20) + b"x")
    assert reply.status_code == 413


def test_deadlines(client: TestClient) -> None:
    for value in ("soon", "-1", "nan", "0"):
        reply = client.post("/v1/embeddings", json={"input": "a"}, headers={"X-Deadline": value})
        assert reply.status_code == 400
    reply = client.post("/v1/embeddings", json={"input": "a"}, headers={"X-Deadline": "0.0000001"})
    assert reply.status_code == 504
    assert reply.json()["error"]["type"] == "timeout_error"


def test_the_request_id_comes_back(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == (
        "abc-1"
    )
    own = client.get("/healthz", headers={"X-Request-Id": "a b\tc" * 50}).headers["x-request-id"]
    assert len(own) == 32


def test_readiness_and_metrics(client: TestClient) -> None:
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert set(ready.json()["lanes"]) == {"tiny/image", "tiny/text", "teller/ask"}
    embed(client, input=["red", "blue"])
    text = client.get("/metrics").text
    assert 'plait_requests_total{path="/v1/embeddings",status="200"}' in text
    assert 'plait_inputs_total{lane="tiny/text"}' in text
    assert "plait_ready 1.0" in text
    assert "plait_pending_inputs 0.0" in text
    assert "plait_held_bytes 0.0" in text


def test_hosts_that_it_does_not_go_by(client: TestClient) -> None:
    reply = client.get("/v1/models", headers={"Host": "evil.example"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "unknown_host")


def test_tensors_that_another_server_prepared(client: TestClient) -> None:
    tokens = [WORDS.index(word) for word in ("red", "picture")]
    ids = np.array([[*tokens, 1, 1], [2, 3, 2, 4]])
    mask = np.array([[True, True, False, False], [True] * 4])
    rows = tower(client, "text", {"ids": ids, "mask": mask})
    np.testing.assert_allclose(rows, [text_row("red picture"), text_row("a red a blue")], atol=1e-5)
    array = noisy(5)
    rows = tower(client, "image", {"pixels": np.ascontiguousarray(array.transpose(2, 0, 1))[None]})
    np.testing.assert_allclose(rows, [image_row(array)], atol=1e-5)


def tower(client: TestClient, modality: str, tensors: dict[str, np.ndarray]) -> np.ndarray:
    reply = client.post(
        f"/v1/towers/{modality}",
        content=save(tensors),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert reply.status_code == 200, reply.text
    return load(reply.content)["embeddings"]


IDS, MASK = np.zeros((1, 3), np.int64), np.ones((1, 3), np.bool_)


@pytest.mark.parametrize(
    ("modality", "tensors"),
    [
        ("text", {"ids": IDS}),
        ("text", {"ids": IDS, "mask": MASK, "more": MASK}),
        ("text", {"ids": IDS.astype(np.int32), "mask": MASK}),
        ("text", {"ids": IDS, "mask": MASK[:, :2]}),
        ("text", {"ids": IDS + 10_000, "mask": MASK}),
        ("text", {"ids": IDS - 1, "mask": MASK}),
        ("text", {"ids": IDS, "mask": np.array([[False, True, True]])}),
        ("text", {"ids": np.zeros((1, 99), np.int64), "mask": np.ones((1, 99), np.bool_)}),
        ("image", {"pixels": np.zeros((1, 3, 9, 8), np.uint8)}),
        ("image", {"pixels": np.zeros((1, 3, 8, 8), np.float32)}),
        ("image", {}),
        ("image", {"pixels": np.zeros((0, 3, 8, 8), np.uint8)}),
        ("image", b"no tensors at all"),
    ],
)
def test_tensors_that_no_tower_takes(client: TestClient, modality: str, tensors: Any) -> None:
    reply = client.post(
        f"/v1/towers/{modality}",
        content=tensors if isinstance(tensors, bytes) else save(tensors),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["message"]


def test_pictures_that_are_a_line(client: TestClient) -> None:
    line = io.BytesIO()
    Image.new("RGB", (400_000, 1)).save(line, "PNG")
    assert len(line.getvalue()) < 20_000
    url = "data:image/png;base64," + base64.b64encode(line.getvalue()).decode()
    error = refused(client, "/v1/embeddings", {"input": url})
    assert "too long and thin" in error["message"]


def test_templates_that_hold_a_label_many_times(client: TestClient) -> None:
    value = {"images": [data_url(noisy(1))], "labels": ["a" * 1900, "b"], "templates": ["{}" * 900]}
    error = refused(client, "/v1/classify", value)
    assert "templates[0] with a label has up to 1,711,800 characters" in error["message"]


def test_a_tower_of_another_model(client: TestClient) -> None:
    body = save({"pixels": np.zeros((1, 3, 4, 4), np.uint8)})
    headers = {"Content-Type": "application/octet-stream", "X-Plait-Model": "f" * 16}
    reply = client.post("/v1/towers/image", content=body, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "other_model"
