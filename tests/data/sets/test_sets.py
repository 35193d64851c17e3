"""The sets that come from a hub: their loading code, with the hub played by local tables."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from tests.data import planted

from plait.core.errors import DataError
from plait.data.open.catalog import CATALOG
from plait.data.open.open import open_dataset
from plait.data.sets import coco_karpathy, conceptual_captions
from plait.data.sets.download import fetch, fetch_all


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if name.startswith("dead"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if name.startswith("page") else "image/jpeg")
        self.end_headers()
        self.wfile.write(b"" if name.startswith("empty") else planted.jpeg(int(name[-5])))

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def hub(monkeypatch: pytest.MonkeyPatch, **parts: list[dict[str, Any]]) -> None:
    def load(name: str, config: str | None, streaming: bool) -> datasets.DatasetDict:
        assert not streaming
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(rows) for split, rows in parts.items()}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.mark.parametrize("name", ["flickr8k", "coco-karpathy", "conceptual-captions"])
def test_without_a_hub_one_sentence(name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(name)
    message = str(caught.value)
    assert message.startswith(f"{name} comes from the Hugging Face hub")
    assert "cannot be reached" in message
    assert "\n" not in message


def test_every_entry_says_what_it_is() -> None:
    assert {"openmoji", "flickr8k", "coco-karpathy", "conceptual-captions"} <= CATALOG.keys()
    for name, entry in CATALOG.items():
        assert entry.name == name
        assert all([entry.title, entry.licence, entry.size, entry.source, entry.version])
        assert entry.load.startswith("plait.data.sets.")


def test_flickr8k(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {
            "image": {"bytes": planted.jpeg(number), "path": f"{number}.jpg"},
            **{f"caption_{k}": f"{number} {k}" for k in range(5)},
        }
        for number in range(3)
    ]
    hub(monkeypatch, train=rows[:1], validation=rows[1:2], test=rows[2:])
    dataset = open_dataset("flickr8k")
    assert dataset.split_counts == {"train": 1, "validation": 1, "test": 1}
    assert dataset[2].texts == tuple(f"2 {k}" for k in range(5))


def coco(site: str, number: int, folder: str = "val2014") -> dict[str, Any]:
    name = f"COCO_{folder}_{number:012d}.jpg"
    return {
        "filepath": folder,
        "filename": name,
        "url": f"{site}/{folder}/{name}",
        "sentences": [f"caption {k}" for k in range(5)],
        "cocoid": number,
        "imgid": number,
    }


def test_coco_karpathy(monkeypatch: pytest.MonkeyPatch, site: str, tmp_path: Path) -> None:
    hub(
        monkeypatch,
        train=[coco(site, 1, "train2014"), coco(site, 2, "train2014")],
        restval=[coco(site, 3)],
        validation=[coco(site, 4)],
        test=[coco(site, 5)],
    )
    dataset = open_dataset("coco-karpathy")
    assert dataset.split_counts == {"train": 3, "validation": 1, "test": 1}
    assert dataset.ids[0] == "COCO_train2014_000000000001"
    assert dataset[0].image is not None
    assert dataset[0].image.read() == planted.jpeg(1)
    assert len(coco_karpathy.load(limit=1)) == 3
    stored = tmp_path / "cache" / "sets" / "coco-karpathy"
    assert len(coco_karpathy.load(split="val", images=stored)) == 1
    with pytest.raises(DataError, match="1 of 1 pictures are missing"):
        coco_karpathy.load(split="test", images=tmp_path)


def test_conceptual_captions(monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    links = ["1.jpg", "dead2.jpg", "3.jpg", "page4.jpg", "empty5.jpg"]
    rows = [{"image_url": f"{site}/{link}", "caption": f"a {link}"} for link in links]
    rows.append({"image_url": f"{site}/6.jpg", "caption": " "})
    hub(monkeypatch, train=rows, validation=[{"image_url": f"{site}/7.jpg", "caption": "b"}])
    dataset = conceptual_captions.load()
    assert [sample.texts for sample in dataset] == [("a 1.jpg",), ("a 3.jpg",), ("b",)]
    problems = [bad.problem.split("jpg ")[-1] for bad in dataset.skipped]
    assert problems == [
        "the server answers 404 Not Found",
        "is no picture but text/html",
        "is empty",
        "the text is empty: fill it in or remove the row",
    ]
    assert dataset.splits[2] == "validation"
    assert len(conceptual_captions.load(limit=1)) == 2


def test_fetch_refuses_other_schemes(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    assert fetch(f"file://{secret}", tmp_path / "out") == "is no http or https link"
    assert not (tmp_path / "out").exists()


def test_without_network_little_is_tried(tmp_path: Path, site: str) -> None:
    jobs = [("http://127.0.0.1:1/x.jpg", tmp_path / str(number)) for number in range(1000)]
    with pytest.raises(DataError, match="none of 16 pictures could be fetched"):
        fetch_all(jobs, "Fetching")
