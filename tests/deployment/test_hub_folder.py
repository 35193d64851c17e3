"""Folders that transformers and open_clip load, and their way to a model hub (a local double)."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.deployment.made import alignment_model
from tests.models.store.test_published import TEXTS, write_clip, write_open_clip

from plait import api
from plait.core.errors import ModelError, PlaitError, UserError
from plait.deployment.hub_folder import form_of, pair_of, write_hub_folder
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.files import weights_fingerprint
from plait.models.store.published import load_published
from plait.nn.adapt import set_trainable


def tuned(source: Path) -> AlignmentModel:
    """The published model with adapters that say something."""
    model = load_published(source)
    torch.manual_seed(0)
    for name in model.modalities:
        encoder = model.tower(name).encoder
        set_trainable(encoder, "lora")
        for part, value in encoder.named_parameters():
            if "lora_B" in part:
                torch.nn.init.normal_(value, std=0.1)
    with torch.no_grad():
        model.log_scale.fill_(3.0)
    return model.eval()


def inputs(model: AlignmentModel) -> tuple[Any, Any, Any]:
    """Normalised pixels, ids and mask."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 16, 16, generator=generator)
    ids, mask = (torch.from_numpy(x) for x in model.tower("text").encoder.preprocess(TEXTS))  # type: ignore[operator]
    return pixels, ids, mask


def rows(model: AlignmentModel, pixels: Any, ids: Any, mask: Any) -> tuple[Any, Any]:
    """Unit rows of plait from normalised pixels."""
    unit = torch.nn.functional.normalize
    vision, text = model.tower("image"), model.tower("text")
    with torch.no_grad():
        pooled = vision.encoder.pooled(vision.encoder.encode(pixels))  # type: ignore[operator]
        words = text.encoder.pooled(text.encoder.encode(ids), ids)  # type: ignore[operator]
        return unit(vision.projection(pooled), dim=-1), unit(text.projection(words), dim=-1)


@pytest.mark.parametrize("kind", ["clip", "legacy", "siglip"])
def test_transformers_loads_it_and_gives_the_same(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, SiglipModel

    write_clip(tmp_path / "start", kind)
    model = tuned(tmp_path / "start")
    found = write_hub_folder(model, tmp_path / "out", name="mine")
    assert found["form"] == ("siglip" if kind == "siglip" else "clip")
    classes = {"siglip": SiglipModel}.get(kind, CLIPModel)
    theirs, report = classes.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    pixels, ids, mask = inputs(model)
    extra = {} if kind == "siglip" else {"attention_mask": mask.long()}
    with torch.no_grad():
        out = theirs.eval()(input_ids=ids, pixel_values=pixels, **extra)
    image, text = rows(model, pixels, ids, mask)
    assert (image - out.image_embeds).abs().max() < 1e-5
    assert (text - out.text_embeds).abs().max() < 1e-5
    assert theirs.logit_scale.item() == pytest.approx(3.0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    length = {"padding": "max_length" if kind == "siglip" else True, "max_length": 24}
    words = tokenizer(TEXTS, return_tensors="np", truncation=True, **length)["input_ids"]
    assert np.array_equal(words, ids.numpy())
    processor = CLIPImageProcessorPil.from_pretrained(tmp_path / "out")
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    theirs_pixels = processor(images=[picture], return_tensors="np")["pixel_values"][0]
    preprocess = model.tower("image").encoder.preprocess
    ours = preprocess(picture).astype(np.float64) / 255  # type: ignore[operator]
    mean, std = (np.array(v)[:, None, None] for v in (preprocess.mean, preprocess.std))  # type: ignore[union-attr]
    assert np.abs(theirs_pixels - (ours - mean) / std).max() < 1e-4
    again = load_published(tmp_path / "out")
    assert torch.allclose(rows(again, pixels, ids, mask)[0], image, atol=1e-6)


@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_open_clip_loads_it_and_gives_the_same(pool: str, tmp_path: Path) -> None:
    import open_clip

    (tmp_path / "start").mkdir()
    write_open_clip(tmp_path / "start", "open_clip_model.safetensors")
    path = tmp_path / "start" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["pool_type"] = pool
    path.write_text(json.dumps(config))
    model = tuned(tmp_path / "start")
    target = "hf-folder" if pool == "avg" else "open-clip"
    found = write_hub_folder(model, tmp_path / "out", name="mine", target=target)  # type: ignore[arg-type]
    assert found["form"] == "open_clip"
    theirs, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'out'}")
    pixels, ids, mask = inputs(model)
    full = torch.zeros(len(TEXTS), 24, dtype=torch.int64)
    full[:, : ids.shape[1]] = ids
    with torch.no_grad():
        image = theirs.eval().encode_image(pixels, normalize=True)
        text = theirs.encode_text(full, normalize=True)
    ours = rows(model, pixels, full, mask)
    assert (ours[0] - image).abs().max() < 1e-5
    assert (ours[1] - text).abs().max() < 1e-5
    assert theirs.logit_scale.item() == pytest.approx(3.0)
    words = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(TEXTS)
    assert torch.equal(words, full)


def test_untouched_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    write_clip(tmp_path / "start", "siglip")
    model = load_published(tmp_path / "start")
    write_hub_folder(model, tmp_path / "out", name="mine")
    assert weights_fingerprint(load_published(tmp_path / "out")) == weights_fingerprint(model)


def test_foreign_towers_and_settings_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the image tower is a \w+ and the text tower is a \w+"):
        write_hub_folder(alignment_model(), tmp_path / "out", name="mine")
    assert not (tmp_path / "out").exists()
    write_clip(tmp_path / "start", "siglip")
    pair = pair_of(load_published(tmp_path / "start"))
    with pytest.raises(ModelError, match=r"open_clip: its image tower pools by 'attention'"):
        form_of(pair, "open-clip")
    with pytest.raises(ModelError, match=r"SiglipModel: it has no logit bias"):
        form_of(replace(pair, biased=False), "hf-folder")
    for change in ({"biased": True}, {"text_projection": ("linear", True)}):
        write_clip(tmp_path / "clip", "clip")
        other = replace(pair_of(load_published(tmp_path / "clip")), **change)
        assert form_of(other, "hf-folder") == "open_clip"


class Hub(ThreadingHTTPServer):
    """As much of a model hub as an upload of small files asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.refuses = False
        self.tokens: set[str | None] = set()


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub = self.server
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.refuses:
            return self._answer({"error": "no right to write"}, 403)
        if self.path == "/api/repos/create":
            asked = json.loads(raw)
            name = f"{asked['organization']}/{asked['name']}"
            hub.repositories[name] = asked
            return self._answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            names = [entry["path"] for entry in json.loads(raw)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            return self._answer({"files": [{"path": name, **regular} for name in names]})
        assert self.path == "/api/models/me/mine/commit/main", self.path
        for line in raw.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        oid = "0" * 40
        return self._answer(
            {"commitUrl": f"http://{self.headers['Host']}/me/mine/commit/{oid}", "commitOid": oid}
        )

    def do_GET(self) -> None:
        self._answer({"siblings": [], "id": "me/mine"})

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_HOME"):
        monkeypatch.setattr(constants, name, address, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_double")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_is_pushed_is_what_was_written(hub: Hub, tmp_path: Path) -> None:
    write_clip(tmp_path / "start")
    told: list[str] = []
    found = api.export_hub(tmp_path / "start", tmp_path / "out", push="me/mine", tell=told.append)
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files == written
    assert set(written) >= {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert hub.repositories["me/mine"]["visibility"] == "private"
    assert found["url"].endswith("/me/mine")
    assert hub.tokens == {"Bearer hf_double"}
    card = hub.files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "transformers"
    assert head["license"] == "unknown"
    assert 'source = "me/mine"' in card
    assert "TO STATE" in card
    api.export_hub(tmp_path / "start", tmp_path / "again", push="me/mine", public=True)
    assert hub.repositories["me/mine"]["visibility"] == "public"


def test_a_hub_that_refuses_leaves_the_folder_and_says_so(hub: Hub, tmp_path: Path) -> None:
    write_clip(tmp_path / "start")
    hub.refuses = True
    with pytest.raises(
        PlaitError, match=r"is written, but the hub did not take it as me/mine: .*403"
    ):
        api.export_hub(tmp_path / "start", tmp_path / "out", push="me/mine")
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"push": "mine"}, "OWNER/NAME"),
        ({"push": "a/b/c"}, "OWNER/NAME"),
        ({"push": "me/mi ne"}, "OWNER/NAME"),
        ({"push": "me/mine", "to": "bundle"}, "add --to hf-folder"),
        ({"to": "onnx"}, "--to is bundle, hf-folder or open-clip"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        api.export_hub(tmp_path / "nothing", tmp_path / "out", **options)  # type: ignore[arg-type]
