"""Tiny random models on disk in transformers' and open_clip's formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Example
from plait.encoders.scratch.byte_tokenizer import byte_preprocess

torch.set_num_threads(1)  # tiny tensors; more threads only wait for one another

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
    "resample": 3,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}


def write_tokenizer(folder: Path) -> None:
    byte_preprocess(32).tokenizer.save(str(folder / "tokenizer.json"))


def write_bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=260, max_position_embeddings=40, **SMALL)).save_pretrained(
        folder
    )
    write_tokenizer(folder)
    return folder


def write_vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(image_size=16, patch_size=8, **SMALL)).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "resample": 2}))
    return folder


def write_resnet(folder: Path) -> Path:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 32}, "crop_pct": 0.875, "do_center_crop": True})
    )
    return folder


def write_clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    text: dict[str, Any] = SMALL | {"vocab_size": 260, "max_position_embeddings": 48}
    text |= {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(
        text_config=text,
        vision_config=SMALL | {"image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture(scope="session")
def local_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Example]:
    """Writes each model once; gives the source string that opens it."""
    writers = {
        "hf/bert": (write_bert, TEXT, "hf"),
        "hf/vit": (write_vit, IMAGE, "hf"),
        "hf/resnet": (write_resnet, IMAGE, "hf"),
        "clip/image": (write_clip, IMAGE, "clip"),
        "clip/text": (write_clip, TEXT, "clip"),
    }
    done: dict[str, Path] = {}

    def example(name: str) -> Example:
        writer, modality, family = writers[name]
        if writer.__name__ not in done:
            folder = tmp_path_factory.mktemp(writer.__name__)
            done[writer.__name__] = writer(folder)
        return Example(f"{family}/{done[writer.__name__]}", modality)

    return example
