"""Published checkpoints from folders on disk, in every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from plait.core.batch import ModalityInput
from plait.core.errors import ModelError
from plait.encoders.registry import build_encoder
from plait.encoders.scratch.byte_tokenizer import byte_preprocess
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.files import weights_fingerprint
from plait.models.store.published import load_published
from plait.models.store.storage import load_model, save_model

SMALL = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
}
PROCESSOR = {
    "size": {"shortest_edge": 16},
    "crop_size": {"height": 16, "width": 16},
    "do_center_crop": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "CLIPImageProcessor",
}
TEXTS = ["a cat on a mat", "Dog!", "猫"]


def write_clip(folder: Path, kind: str = "clip") -> Any:
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    torch.manual_seed(0)
    text = SMALL | {"vocab_size": 260, "max_position_embeddings": 24}
    text |= {"eos_token_id": 2 if kind == "legacy" else 259, "bos_token_id": 1, "pad_token_id": 0}
    vision = SMALL | {"image_size": 16, "patch_size": 8}
    if kind == "siglip":
        text["projection_size"] = 16
        model: Any = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        model.logit_scale.data.fill_(4.8)  # above ln 100, as published SigLIP models have
    else:
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    model.eval().save_pretrained(folder)
    byte_preprocess(24).tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model


def slow_rows(model: AlignmentModel, pictures: list[np.ndarray]) -> np.ndarray:
    """Embeddings of pixels from Pillow, which `embed` may differ from by one grey level."""
    preprocess = model.tower("image").encoder.preprocess
    pixels = np.stack([preprocess(picture) for picture in pictures])  # type: ignore[arg-type]
    with torch.no_grad():
        inputs = ModalityInput.of(pixels=torch.from_numpy(pixels))
        return model.encode_one("image", inputs).numpy()


@pytest.mark.parametrize("kind", ["clip", "legacy", "siglip"])
def test_transformers_folder_from_pictures_and_words(
    kind: str, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    """The whole way, preprocessing included, against transformers with its own processor."""
    from PIL import Image
    from transformers import CLIPImageProcessorPil

    theirs = write_clip(tmp_path, kind)
    model = load_published(tmp_path)
    rows = model.embed(pictures, TEXTS)
    processor = CLIPImageProcessorPil.from_pretrained(tmp_path)
    images = [Image.fromarray(picture) for picture in pictures]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    ids, mask = (torch.from_numpy(x) for x in model.tower("text").encoder.preprocess(TEXTS))  # type: ignore[operator]
    extra = {} if kind == "siglip" else {"attention_mask": mask.long()}
    with torch.no_grad():
        out = theirs(input_ids=ids, pixel_values=pixels, **extra)
    assert np.abs(slow_rows(model, pictures) - out.image_embeds.numpy()).max() < 1e-5
    assert np.abs(rows["image"] - out.image_embeds.numpy()).max() < 0.02  # a grey level at most
    assert np.abs(rows["text"] - out.text_embeds.numpy()).max() < 1e-5
    logits = model.scale.item() * slow_rows(model, pictures) @ rows["text"].T
    if model.bias is not None:
        logits = logits + model.bias.item()
    np.testing.assert_allclose(logits, out.logits_per_image.numpy(), rtol=1e-4, atol=1e-3)


def test_shards_and_saving_again(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    (tmp_path / "a").mkdir()
    theirs = write_clip(tmp_path / "a")
    whole = load_published(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path / "a", max_shard_size="20KB")
    assert len(list((tmp_path / "a").glob("model-*.safetensors"))) > 1
    model = load_published(tmp_path / "a")
    assert weights_fingerprint(model) == weights_fingerprint(whole)
    save_model(model, tmp_path / "b")
    again = load_model(tmp_path / "b")
    assert np.array_equal(again.embed(pictures)["image"], model.embed(pictures)["image"])


def test_one_tower_as_an_encoder(tmp_path: Path) -> None:
    write_clip(tmp_path)
    model = load_published(tmp_path)
    for modality in ("image", "text"):
        encoder = build_encoder(f"clip/{tmp_path}", modality=modality)
        assert weights_fingerprint(encoder) == weights_fingerprint(model.tower(modality).encoder)


def write_open_clip(folder: Path, weights_name: str) -> Any:
    from open_clip.model import CLIP

    torch.manual_seed(0)
    config = {
        "embed_dim": 10,
        "vision_cfg": {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8,
                       "image_size": 16},
        "text_cfg": {"layers": 1, "width": 12, "heads": 2, "vocab_size": 260,
                     "context_length": 24},
    }  # fmt: skip
    model = CLIP(**config).eval()  # type: ignore[arg-type]
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if weights_name.endswith(".safetensors"):
        save_file(state, folder / weights_name)
    else:
        wrapped = {f"module.{name}": value for name, value in state.items()}
        torch.save({"epoch": 3, "state_dict": wrapped}, folder / weights_name)
    preprocess = {"size": [16, 16], "mode": "RGB", "interpolation": "bicubic",
                  "resize_mode": "shortest"}  # fmt: skip
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    byte_preprocess(24).tokenizer.save(str(folder / "tokenizer.json"))
    return model


@pytest.mark.parametrize(
    "weights_name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
)
def test_open_clip_folder(weights_name: str, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    theirs = write_open_clip(tmp_path, weights_name)
    model = load_published(tmp_path)
    transform = image_transform_v2(PreprocessCfg(size=16), is_train=False)
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
    ids, _ = model.tower("text").encoder.preprocess(TEXTS)  # type: ignore[operator]
    full = torch.zeros(len(TEXTS), 24, dtype=torch.int64)
    full[:, : ids.shape[1]] = torch.from_numpy(ids)
    with torch.no_grad():
        image = theirs.encode_image(pixels, normalize=True).numpy()
        text = theirs.encode_text(full, normalize=True).numpy()
    rows = model.embed(pictures, TEXTS)
    assert np.abs(slow_rows(model, pictures) - image).max() < 1e-5
    assert np.abs(rows["image"] - image).max() < 0.02
    assert np.abs(rows["text"] - text).max() < 1e-5


def test_missing_and_left_over_weights_are_named(tmp_path: Path) -> None:
    write_clip(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    removed = weights.pop("text_model.encoder.layers.1.self_attn.k_proj.weight")
    save_file(weights, path)
    with pytest.raises(ModelError) as caught:
        load_published(tmp_path)
    assert "towers.text.encoder.blocks.1.attention.qkv.weight" in str(caught.value)
    assert "text_model.encoder.layers.1.self_attn.q_proj.weight" in str(caught.value)
    weights["text_model.encoder.layers.1.self_attn.k_proj.weight"] = removed
    weights["vision_model.extra.weight"] = torch.zeros(2)
    save_file(weights, path)
    with pytest.raises(ModelError, match=r"1 weights are left over .*vision_model\.extra\.weight"):
        load_published(tmp_path)


def test_unfit_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_published(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="type 'bert'; CLIP and SigLIP are readable"):
        load_published(tmp_path)
    write_clip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        load_published(tmp_path)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    write_open_clip(tmp_path, "open_clip_pytorch_model.bin")
    torch.save({"state_dict": Path("x")}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="doesn't unpickle code"):
        load_published(tmp_path)


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("vision_cfg", "timm_model_name", "resnet50"),
        ("vision_cfg", "layers", [1, 1, 1, 1]),
        ("vision_cfg", "pool_type", "none"),
        ("text_cfg", "hf_model_name", "roberta-base"),
        ("text_cfg", "norm_kwargs", {"elementwise_affine": False}),
    ],
)
def test_unsupported_variants_are_named(
    part: str, setting: str, value: object, tmp_path: Path
) -> None:
    write_open_clip(tmp_path, "open_clip_model.safetensors")
    path = tmp_path / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"][part][setting] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="not supported"):
        load_published(tmp_path)


def test_siglip_texts_are_cleaned_as_in_training(tmp_path: Path) -> None:
    """Expected texts by hand, after big_vision's canonicalize_text."""
    write_clip(tmp_path, "siglip")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    preprocess = load_published(tmp_path).tower("text").encoder.preprocess
    dirty = ["A  Photo: of (one) cat's\tTOY [sic] \\ ^_^", "plain"]
    clean = ["a photo of one cats toy sic", "plain"]
    raw = byte_preprocess(24)
    ids, _ = preprocess(dirty)  # type: ignore[operator]
    expected, _ = raw(clean)
    assert ids.shape[1] == 24  # always padded to the full context
    assert np.array_equal(ids[:, : expected.shape[1]], expected)
