"""A model that draws, as a tool: the pictures of `api.draw`, large enough to be looked at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plait.agents.capabilities import CAPABILITIES
from plait.agents.pictures import Doorkeeper
from plait.agents.schemas import DrawOut
from plait.agents.served import BadArguments, ServedTool, served_tool
from plait.core.errors import DataError
from plait.modalities.text.tokenize import TextPreprocess
from plait.modalities.text.tokenizer_training import train_tokenizer
from plait.models.drawing.drawing import DrawingModel
from plait.models.drawing.dvae import DiscreteVAE
from plait.models.drawing.transformer import DrawingTransformer
from plait.retrieval.sheet.drawn import draw_pictures


@pytest.fixture(scope="module")
def model() -> DrawingModel:
    torch.manual_seed(0)
    words = TextPreprocess(train_tokenizer(["a red one", "a blue one"], kind="word"), 6)
    dvae = DiscreteVAE(image_size=16, codes=8, layers=2, width=8, blocks=1, code_width=8)
    sizes = {"width": 16, "layers": 2, "heads": 2, "kernel": 3}
    return DrawingModel(
        dvae, DrawingTransformer(words.vocabulary, 6, 8, dvae.grid, **sizes), words
    ).eval()


@pytest.fixture
def tool(model: DrawingModel) -> ServedTool:
    (one,) = (one for one in CAPABILITIES if one.can(model))
    assert one.name == "draw"
    return served_tool(one, {"one": model})


def test_pictures_come_back(model: DrawingModel, tool: ServedTool, tmp_path: Path) -> None:
    answer = tool.call({"text": "a red one", "n": 2, "seed": 5}, Doorkeeper.of([tmp_path]))
    assert isinstance(answer.result, DrawOut)
    assert [(one.number, one.picture) for one in answer.result.pictures] == [(1, 0), (2, 1)]
    alone = draw_pictures(model, "a red one", 2, seed=5)
    for shown, drawn in zip(answer.pictures, alone, strict=True):
        assert shown.mime == "image/png" and "a red one" in shown.caption
        picture = Image.open(io.BytesIO(shown.data))
        assert picture.size == (256, 256)
        small = np.asarray(picture.resize((16, 16), Image.Resampling.BOX), dtype=np.float64)
        assert np.abs(small - drawn.pixels).mean() < 12


def test_what_it_refuses(tool: ServedTool, tmp_path: Path) -> None:
    keeper = Doorkeeper.of([tmp_path])
    with pytest.raises(BadArguments, match="n: Input should be greater than or equal to 1"):
        tool.call({"text": "red", "n": 0}, keeper)
    with pytest.raises(DataError, match="no such file under the allowed folders"):
        tool.call({"text": "red", "prime": "/etc/hostname"}, keeper)
