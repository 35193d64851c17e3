"""Boxes of tokens: grids worked out by hand, and whether a token lies where its box says."""

from __future__ import annotations

import pytest
import torch

from plait.core.batch import ModalityInput
from plait.encoders.base.regions import boxes_for, find_grid, grid_boxes, patch_of
from plait.encoders.clip.vision import ClipVision, VisionConfig
from plait.encoders.compose.joined import JoinedEncoder
from plait.encoders.image.timm_image import TimmEncoder, create
from plait.encoders.image.torchvision_image import TorchvisionEncoder, _trunk
from plait.encoders.registry import build_encoder
from plait.encoders.scratch.image import CnnEncoder
from plait.modalities.image.preprocess import ImagePreprocess

TALL = (64, 32)  # height, width


def test_cells_row_by_row_after_the_whole_picture() -> None:
    expected = [
        [0, 0, 1, 1],
        [0, 0, 1 / 3, 1 / 2],
        [1 / 3, 0, 2 / 3, 1 / 2],
        [2 / 3, 0, 1, 1 / 2],
        [0, 1 / 2, 1 / 3, 1],
        [1 / 3, 1 / 2, 2 / 3, 1],
        [2 / 3, 1 / 2, 1, 1],
    ]
    assert torch.equal(grid_boxes(2, 3, prefix=1), torch.tensor(expected))
    double = torch.zeros(2, 7, 4, dtype=torch.float64)
    assert torch.equal(boxes_for(double, 2, 3)[1], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("count", "picture", "patch", "grid"),
    [
        (197, (224, 224), (16, 16), (14, 14)),  # ViT with a class token
        (201, (224, 224), (16, 16), (14, 14)),  # and four registers
        (9, (64, 32), (16, 16), (4, 2)),
        (49, (224, 224), (4, 4), (7, 7)),  # Swin merges patches
        (8, (100, 60), None, (4, 2)),  # stride 32, rounded up
        (50, (224, 224), None, None),
        (7, (224, 224), (16, 16), None),
    ],
)
def test_grids_are_found_or_not_claimed(count, picture, patch, grid) -> None:
    assert find_grid(count, picture, patch) == grid


def test_patches_as_libraries_write_them() -> None:
    assert patch_of(16) == patch_of((16, 16)) == patch_of([16, 16]) == (16, 16)
    assert patch_of(None) is None and patch_of((2, 16, 16)) is None


def _tall(name: str):
    preprocess = ImagePreprocess(size=TALL, resize="squash")
    if name == "cnn":
        return CnnEncoder([8, 16], preprocess)
    if name == "vit":
        return ClipVision(VisionConfig(TALL, 8, 16, 1, 2, 16), preprocess)
    if name == "timm grid":
        return TimmEncoder(create("test_resnet", pretrained=False), "test_resnet", preprocess)
    model = create("test_vit.r160_in1k", pretrained=False, size=TALL)
    return TimmEncoder(model, "test_vit.r160_in1k", preprocess)


@pytest.mark.parametrize("name", ["cnn", "vit", "timm grid", "timm vit"])
def test_a_token_lies_where_its_box_says(name: str) -> None:
    torch.manual_seed(0)
    encoder = _tall(name).eval()
    dark = torch.full((1, 3, *TALL), 100, dtype=torch.uint8)
    for top, left in ((0, 0), (0, 24), (40, 0), (56, 24)):
        lit = dark.clone()
        lit[..., top : top + 8, left : left + 8] = torch.randint(0, 256, (3, 8, 8)).byte()
        with torch.no_grad():
            before, after = (encoder(ModalityInput.of(pixels=x)) for x in (dark, lit))
        assert before.boxes is not None
        change = (after.tokens - before.tokens).norm(dim=-1)[0]
        whole = before.boxes[0].eq(torch.tensor([0.0, 0, 1, 1])).all(dim=1)
        x1, y1, x2, y2 = before.boxes[0, change.masked_fill(whole, -1).argmax()].tolist()
        assert x1 < (left + 8) / TALL[1] and left / TALL[1] < x2
        assert y1 < (top + 8) / TALL[0] and top / TALL[0] < y2


def test_torchvision_transformers_and_grids() -> None:
    from torchvision.models import VisionTransformer

    small = VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16
    )
    vit = TorchvisionEncoder(
        _trunk(small, "vit"), "vit", ImagePreprocess(size=32, resize="squash"), pool="cls"
    )
    resnet = build_encoder("torchvision/resnet18", modality="image", pretrained=False, size=64)
    for encoder, side, grid in ((vit, 32, grid_boxes(4, 4, 1)), (resnet, 64, grid_boxes(2, 2))):
        boxes = encoder(ModalityInput.of(pixels=torch.zeros(2, 3, side, side))).boxes
        assert boxes is not None and torch.equal(boxes[1], grid)


def test_joined_encoders_of_unlike_grids_claim_no_places() -> None:
    square, wide = (CnnEncoder([8, 16], ImagePreprocess(size=32)) for _ in range(2))
    pixels = torch.zeros(1, 3, 32, 32)
    assert JoinedEncoder([square, wide])(ModalityInput.of(pixels=pixels)).boxes is not None
    wide.stages[1].down = torch.nn.Conv2d(8, 16, 1, stride=(4, 1))  # 2 x 8 cells, not 4 x 4
    assert JoinedEncoder([square, wide])(ModalityInput.of(pixels=pixels)).boxes is None
