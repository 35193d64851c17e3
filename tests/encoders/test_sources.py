"""Source strings: what opens, and what is said when nothing does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.core.batch import ModalityInput
from plait.core.errors import ModelError
from plait.encoders.base.base import Example
from plait.encoders.registry import build_encoder, encoder_from_spec
from plait.modalities.image.preprocess import ImagePreprocess


@pytest.mark.parametrize(
    ("source", "modality", "message"),
    [
        ("resnet18", "image", "must be FAMILY/NAME"),
        ("tim/resnet18", "image", "did you mean 'timm'"),
        ("timm/resnet81", "image", "timm has no model 'resnet81'; did you mean"),
        ("timm/resnet18", "text", "encodes image, not 'text'"),
        ("torchvision/resnet81", "image", "did you mean 'resnet"),
        ("scratch/cn", "image", "have: vit-tiny, cnn"),
        ("hf/./nowhere", "text", "no folder './nowhere'"),
        ("hf/some-owner/some-model", "text", "neither a local folder"),
    ],
)
def test_what_does_not_exist_is_said(source: str, modality: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        build_encoder(source, modality=modality)
    assert message in str(caught.value)


def test_timm_weights_out_of_reach_are_said() -> None:
    with pytest.raises(ModelError, match="cannot be fetched from their hub"):
        build_encoder("timm/test_vit", modality="image")


def test_a_folder_without_safetensors_is_refused(
    local_models: Callable[[str], Example], tmp_path: Path
) -> None:
    folder = Path(local_models("hf/bert").source.removeprefix("hf/"))
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"holds no \.safetensors file"):
        build_encoder(f"hf/{tmp_path}", modality="text")


def test_remote_code_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="never runs code that comes with weights"):
        build_encoder(f"hf/{tmp_path}", modality="text")


def test_missing_weights_are_counted_and_named(
    local_models: Callable[[str], Example], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(local_models("hf/bert").source.removeprefix("hf/"))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing .*encoder\.layer\.1\.output"):
        build_encoder(f"hf/{tmp_path}", modality="text")


def test_bert_cls_pooling_is_the_first_hidden_state(
    local_models: Callable[[str], Example],
) -> None:
    """As the tutorial model reads BERT; against transformers itself."""
    from transformers import BertModel

    source = local_models("hf/bert").source
    encoder = build_encoder(source, modality="text", pool="cls")
    theirs = BertModel.from_pretrained(source.removeprefix("hf/")).eval()
    ids, mask = (torch.from_numpy(x) for x in encoder.preprocess(["a cat", "dogs run"]))  # type: ignore[operator]
    with torch.no_grad():
        hidden = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        pooled = encoder(ModalityInput.of(mask=mask, ids=ids)).pooled
    torch.testing.assert_close(pooled, hidden[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({"pooling_mode_cls_token": True}, ("cls", False)),
        ({"pooling_mode": "mean"}, ("mean", True)),
    ],
)
def test_sentence_folders_say_how_they_pool(
    local_models: Callable[[str], Example],
    tmp_path: Path,
    modules: dict[str, object],
    expected: tuple[str, bool],
) -> None:
    folder = Path(local_models("hf/bert").source.removeprefix("hf/"))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kinds = ["Transformer", "Pooling"] + (["Normalize"] if expected[1] else [])
    listing = [{"type": f"a.b.{kind}", "path": f"1_{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(listing))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modules))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    encoder = build_encoder(str(tmp_path), modality="text")
    assert (encoder.spec()["pool"], encoder.spec()["normalise"]) == expected
    assert encoder.preprocess.max_length == 7  # type: ignore[union-attr]


def test_torchvision_and_timm_resnet_agree() -> None:
    """Two implementations with the same weights."""
    ours = build_encoder("torchvision/resnet18", modality="image", pretrained=False, size=32)
    theirs = build_encoder("timm/resnet18", modality="image", pretrained=False, size=32)
    state = {key.replace("model.", "trunk."): v for key, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    a, b = (encoder(ModalityInput.of(pixels=pixels)) for encoder in (ours, theirs))
    torch.testing.assert_close(a.pooled, b.pooled)
    torch.testing.assert_close(a.tokens, b.tokens)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "vit_b_32"])
def test_torchvision_pools_what_its_classifier_sees(name: str) -> None:
    from torchvision import models

    model = models.get_model(name).eval()
    seen: list[torch.Tensor] = []
    layers = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    layers[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    size = {} if name.startswith("vit") else {"size": 64}
    encoder = build_encoder(f"torchvision/{name}", modality="image", pretrained=False, **size)
    state = {key: value for key, value in model.state_dict().items()}
    own = {key: key.removeprefix("trunk.") for key in encoder.state_dict()}
    encoder.load_state_dict({key: state[theirs] for key, theirs in own.items()})
    pixels = torch.randint(0, 256, (1, 3, *encoder.preprocess.size_2d), dtype=torch.uint8)  # type: ignore[union-attr]
    with torch.no_grad():
        model(encoder.normalise(pixels))  # type: ignore[operator]
        pooled = encoder(ModalityInput.of(pixels=pixels)).pooled
    torch.testing.assert_close(pooled, seen[0])


def test_levels_are_the_means_of_the_stages() -> None:
    encoder = build_encoder(
        "timm/test_resnet", modality="image", pretrained=False, size=64, layers=[1, 2]
    )
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    out = encoder(ModalityInput.of(pixels=pixels))
    model = encoder.model  # type: ignore[attr-defined]
    stages = model.forward_intermediates(encoder.normalise(pixels), indices=[1, 2])[1]  # type: ignore[operator]
    expected = torch.cat([stage.mean(dim=(2, 3)) for stage in stages], dim=1)
    torch.testing.assert_close(out.pooled[:, : expected.shape[1]], expected)
    assert encoder.width == expected.shape[1] + encoder.token_width


def test_a_spec_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no encoder family 'quantum'"):
        encoder_from_spec({"family": "quantum"}, tmp_path)
    with pytest.raises(ModelError, match="cannot be read by this version"):
        encoder_from_spec({"family": "timm"}, tmp_path)


def test_resize_shows_the_whole_picture() -> None:
    options = {"size": 64, "resize": "squash"}
    encoder = build_encoder("timm/resnet18", modality="image", pretrained=False, **options)
    assert isinstance(encoder.preprocess, ImagePreprocess)
    picture = np.zeros((40, 80, 3), dtype=np.uint8)
    picture[:, :8] = 255  # a margin that the usual centre crop cuts off
    assert encoder.preprocess(picture)[:, :, :3].min() > 200
    with pytest.raises(ModelError, match="resize is 'shortest', 'squash' or 'pad', not 'crop'"):
        build_encoder("timm/resnet18", modality="image", pretrained=False, resize="crop")
