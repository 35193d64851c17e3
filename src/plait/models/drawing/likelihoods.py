"""How a decoder's output is read as pixels, and what an error costs.

Shape legend: B pictures, H, W pixels; outputs have `Likelihood.outputs` channels.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from plait.core.errors import ModelError, did_you_mean

LAPLACE_EDGE = 0.1
"""Pixels are squeezed into 0.1 .. 0.9, where their logit is tame (Ramesh et al. 2021, A.3)."""


@runtime_checkable
class Likelihood(Protocol):
    """One way to compare pictures.

    Attributes:
        outputs: how many channels the decoder gives.
    """

    outputs: int

    def prepare(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W), uint8 or float in 0..1, to what the encoder reads and errors compare."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean cost of a value of ``target``, a prepared picture."""

    def pixels(self, output: Tensor) -> Tensor:
        """(B, outputs, H, W) to (B, 3, H, W) in 0..1."""


def unit(pixels: Tensor) -> Tensor:
    """Pixels in 0..1; uint8 are divided by 255 (in float32)."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def to_bytes(pixels: Float[Tensor, "*rest"]) -> UInt8[Tensor, "*rest"]:
    """0..1 rounded to 0..255; what lies outside is clipped."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


class Difference:
    """Mean squared or smooth absolute difference of pixels in -1..1."""

    outputs = 3

    def __init__(self, smooth: bool) -> None:
        self.smooth = smooth

    def prepare(self, pixels: Tensor) -> Tensor:
        """0..1 to -1..1."""
        return unit(pixels) * 2 - 1

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over all values."""
        return F.smooth_l1_loss(output, target) if self.smooth else F.mse_loss(output, target)

    def pixels(self, output: Tensor) -> Tensor:
        """-1..1 to 0..1, clipped."""
        return ((output + 1) / 2).clamp(0, 1)


class LogitLaplace:
    """Minus the log of the logit-Laplace density (Ramesh et al. 2021, equation 2).

    ``f(x) = exp(-|logit(x) - mu| / b) / (2 b x (1 - x))``: unlike a Gaussian it has no weight
    outside the range of pixels. The decoder gives mu, then ln b, for each channel.
    """

    outputs = 6

    def prepare(self, pixels: Tensor) -> Tensor:
        """0..1 to 0.1..0.9."""
        return (1 - 2 * LAPLACE_EDGE) * unit(pixels) + LAPLACE_EDGE

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over all values; it may be negative, as densities may be above 1."""
        mean, log_scale = output.chunk(2, dim=1)
        distance = (torch.logit(target) - mean).abs() * torch.exp(-log_scale)
        return (distance + log_scale + torch.log(2 * target * (1 - target))).mean()

    def pixels(self, output: Tensor) -> Tensor:
        """The sigmoid of mu, mapped back from 0.1..0.9 and clipped."""
        squeezed = output.chunk(2, dim=1)[0].sigmoid()
        return ((squeezed - LAPLACE_EDGE) / (1 - 2 * LAPLACE_EDGE)).clamp(0, 1)


LIKELIHOODS: dict[str, Likelihood] = {
    "mse": Difference(smooth=False),
    "smooth_l1": Difference(smooth=True),
    "logit_laplace": LogitLaplace(),
}


def likelihood(name: str) -> Likelihood:
    """A likelihood by name. Raises ModelError for an unknown one."""
    if name not in LIKELIHOODS:
        raise ModelError(
            f"no reconstruction error named {name!r}{did_you_mean(name, LIKELIHOODS)}"
            f" (errors: {', '.join(LIKELIHOODS)})"
        )
    return LIKELIHOODS[name]
