"""What every encoder is: inputs of one modality in, `Encoded` out.

Shape legend: B samples, N positions, D features, H and W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import ModelError, did_you_mean
from plait.modalities.image.levels import Levels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.regions import RegionPreprocess
from plait.modalities.text.tokenize import TextPreprocess

Preprocess = ImagePreprocess | TextPreprocess | RegionPreprocess


class Encoder(nn.Module, ABC):
    """One modality's encoder.

    Attributes:
        modality: which inputs it takes, see `plait.core.modality`.
        width: features of the pooled output.
        token_width: features of one token; differs from ``width`` where pooling concatenates.
        preprocess: how raw inputs become this encoder's tensors.
    """

    modality: str
    width: int
    token_width: int
    preprocess: Preprocess

    @abstractmethod
    def forward(self, inputs: ModalityInput) -> Encoded:
        """Encodes one modality of a batch."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON that rebuilds the architecture offline; its key ``family`` names the rebuilder."""

    def take_levels(self, levels: Levels) -> None:
        """Pictures of more than 8 bits a value are decoded so from now on."""
        if isinstance(self.preprocess, ImagePreprocess):
            self.preprocess = replace(self.preprocess, levels=levels)

    def save_files(self, folder: Path) -> None:
        """Writes what ``spec`` cannot hold (a tokenizer) into ``folder``."""
        if isinstance(self.preprocess, TextPreprocess):
            folder.mkdir(parents=True, exist_ok=True)
            self.preprocess.save(folder)

    def train(self, mode: bool = True) -> Encoder:
        """Training mode, except for what is frozen.

        Without a trainable parameter the whole encoder stays in evaluation mode, so that dropout
        is off and the output can be cached. A batch normalisation whose own parameters are frozen
        keeps its stored statistics.
        """
        super().train(mode and any(p.requires_grad for p in self.parameters()))
        if self.training:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(
                    p.requires_grad for p in module.parameters(recurse=False)
                ):
                    module.eval()
        return self


class PixelNorm(nn.Module):
    """Pixels to the numbers an image backbone was trained on: ``(x - mean) / std`` per channel.

    uint8 pixels are 0 to 255; floating-point pixels are taken to be 0 to 1 already. ``mean`` and
    ``std`` are in the 0-to-1 scale. The output has the dtype of the buffers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # float64 constants, cast on use: `.double()` must not inherit float32 rounding.
        self._mean, self._std = tuple(mean), tuple(std)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PixelNorm:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, values in (("mean", self._mean), ("std", self._std)):
            buffer: Tensor = getattr(self, name)
            if buffer.dtype == torch.float64:
                exact = torch.tensor(values, dtype=torch.float64, device=buffer.device)
                setattr(self, name, exact.view(-1, 1, 1))
        return self

    def forward(self, pixels: Tensor) -> Float[Tensor, "B C H W"]:
        """(B, C, H, W) uint8 or float to float."""
        if pixels.dtype == torch.uint8:
            return (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        return (pixels.to(self.mean.dtype) - self.mean) / self.std


def token_mask(ids: Int64[Tensor, "B N"], mask: Tensor | None) -> Bool[Tensor, "B N"]:
    """The mask to attend with: all True when None; an empty row gets its first position.

    A row without any real token (an absent modality) would be NaN after softmax, in the gradients
    of other rows too.
    """
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    empty = ~mask.any(dim=1)
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return mask | (first & empty[:, None])


@dataclass(frozen=True)
class Example:
    """One source that the shared sweep test builds without pretrained weights."""

    source: str
    modality: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A kind of encoder that a source string can name.

    Attributes:
        prefix: the part of the source before the first slash.
        build: (rest of the source, modality, pretrained, options) to an encoder.
        rebuild: (spec, folder with tokenizer files) to the same architecture, without weights.
        help: one line for lists of sources.
        examples: what the shared sweep test builds.
    """

    prefix: str
    build: Callable[[str, str, bool, dict[str, Any]], Encoder]
    rebuild: Callable[[dict[str, Any], Path], Encoder]
    help: str
    examples: tuple[Example, ...] = ()


def check_modality(source: str, modality: str, allowed: tuple[str, ...]) -> None:
    """Raises ModelError when a source cannot encode a modality."""
    if modality not in allowed:
        raise ModelError(f"encoder {source!r} encodes {' or '.join(allowed)}, not {modality!r}")


def check_options(source: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises ModelError for an option that an encoder doesn't have."""
    for name in options:
        if name not in known:
            raise ModelError(
                f"encoder {source!r} has no option {name!r}{did_you_mean(name, known)}"
                f" (options: {', '.join(known) or 'none'})"
            )
