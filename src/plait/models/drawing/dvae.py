"""The discrete VAE: a picture becomes a small grid of codes, and codes a picture.

Source: Ramesh et al. 2021 (Zero-Shot Text-to-Image Generation), section 2.1 and Appendix A.

Shape legend: B pictures, H, W pixels, K codes, V features of a code, h, w the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from plait.core.errors import ModelError
from plait.models.drawing.codebook import divergence_from_uniform, gumbel_softmax, imbalance
from plait.models.drawing.likelihoods import likelihood, to_bytes
from plait.models.drawing.nets import halves


@dataclass(frozen=True)
class Reconstruction:
    """What a step of training gives.

    Attributes:
        loss: ``error + kl_weight * divergence + balance_weight * imbalance``.
        error: the reconstruction error, the mean over values.
        divergence: KL of the codes' distribution to the uniform one in nats, mean per picture.
        imbalance: KL of the batch's mean distribution to the uniform one, in nats.
        output: what the decoder gave, for `Likelihood.pixels`.
        logits: of the codes.
    """

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]
    divergence: Float[Tensor, ""]
    imbalance: Float[Tensor, ""]
    output: Float[Tensor, "B outputs H W"]
    logits: Float[Tensor, "B K h w"]


class DiscreteVAE(nn.Module):
    """Encoder, codebook, decoder.

    Args:
        image_size: pixels of a side.
        codes: the size of the codebook.
        layers: how often the grid is halved; its side is ``image_size / 2 ** layers``.
        width: channels; ``paper`` doubles them with each halving, ``strided`` keeps them.
        blocks: residual blocks, per resolution (``paper``) or on the grid of codes (``strided``).
        code_width: features of a code's vector.
        net: the design of both halves, see `plait.models.drawing.nets`.
        error: ``mse``, ``smooth_l1`` or ``logit_laplace``, see `plait.models.drawing.likelihoods`.

    Raises:
        ModelError: an unknown name or sizes that don't fit.
    """

    def __init__(
        self,
        image_size: int = 64,
        codes: int = 512,
        layers: int = 3,
        width: int = 64,
        blocks: int = 2,
        code_width: int = 128,
        net: str = "strided",
        error: str = "mse",
    ) -> None:
        super().__init__()
        if layers < 1 or image_size % 2**layers:
            raise ModelError(
                f"pictures of {image_size} pixels can't be halved {layers} times: set an "
                f"image_size that is a multiple of {2 ** max(layers, 1)}, or other layers"
            )
        if net == "paper" and (width % 4 or blocks < 1):
            raise ModelError(
                f"the paper's net needs a width that is a multiple of 4 and at least one block, "
                f"not width {width} and {blocks} blocks"
            )
        if codes < 2:
            raise ModelError(f"a codebook needs at least 2 codes, not {codes}")
        self.image_size, self.code_count, self.layers = image_size, codes, layers
        self._spec = {
            "image_size": image_size,
            "codes": codes,
            "layers": layers,
            "width": width,
            "blocks": blocks,
            "code_width": code_width,
            "net": net,
            "error": error,
        }
        self.likelihood = likelihood(error)
        encoder, decoder = halves(net)
        self.encoder = encoder(codes, code_width, layers, width, blocks)
        self.codebook = nn.Parameter(torch.randn(codes, code_width))
        self.decoder = decoder(code_width, self.likelihood.outputs, layers, width, blocks)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): rows and columns of codes."""
        side = self.image_size // 2**self.layers
        return side, side

    def spec(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""
        return dict(self._spec)

    def logits(self, pixels: Tensor) -> Float[Tensor, "B K h w"]:
        """Of the codes, for pictures (B, 3, H, W): uint8, or float in 0..1.

        Raises:
            ModelError: pictures of another size.
        """
        return self._encoded(self.likelihood.prepare(self._checked(pixels)))

    def forward(
        self,
        pixels: Tensor,
        temperature: float,
        kl_weight: float = 0.0,
        hard: bool = False,
        generator: torch.Generator | None = None,
        balance_weight: float = 0.0,
    ) -> Reconstruction:
        """One step of training.

        Args:
            pixels: (B, 3, H, W) uint8, or float in 0..1.
            temperature: of the relaxed choice; see `plait.models.drawing.codebook.annealed`.
            kl_weight: of the divergence per picture. The paper's beta, which stands before sums
                over a picture, is ``kl_weight * 3 H W``: its 6.6 is 5.4e-4 at 64 pixels.
            hard: straight-through instead of relaxed choice.
            generator: of the noise; None: the global one.
            balance_weight: of the imbalance. The paper has no such term; it keeps codes in use
                where pictures are few or alike.

        Raises:
            ModelError: pictures of another size, or a temperature that is not above 0.
        """
        if not temperature > 0:
            raise ModelError(f"the temperature must be above 0, not {temperature}")
        target = self.likelihood.prepare(self._checked(pixels))
        logits = self._encoded(target)
        choice = gumbel_softmax(logits, temperature, hard, generator)
        output = self.decoder(torch.einsum("bkhw,kv->bvhw", choice, self.codebook))
        error = self.likelihood.loss(output, target)
        divergence, unequal = divergence_from_uniform(logits), imbalance(logits)
        loss = error + kl_weight * divergence + balance_weight * unequal
        return Reconstruction(loss, error, divergence, unequal, output, logits)

    @torch.no_grad()
    def codes(self, pixels: Tensor) -> Int64[Tensor, "B h w"]:
        """The most probable code of each cell."""
        return self.logits(pixels).argmax(dim=1)

    def render(self, codes: Int64[Tensor, "B h w"]) -> Float[Tensor, "B 3 H W"]:
        """Codes to pixels in 0..1, with gradients."""
        return self.likelihood.pixels(self.decoder(self.codebook[codes].permute(0, 3, 1, 2)))

    @torch.no_grad()
    def decode(self, codes: Int64[Tensor, "B h w"]) -> UInt8[Tensor, "B 3 H W"]:
        """Codes to a picture."""
        return to_bytes(self.render(codes))

    def _encoded(self, prepared: Tensor) -> Tensor:
        out: Tensor = self.encoder(prepared.to(self.codebook.dtype))
        return out

    def _checked(self, pixels: Tensor) -> Tensor:
        wanted = (3, self.image_size, self.image_size)
        if tuple(pixels.shape[1:]) != wanted:
            raise ModelError(
                f"this discrete VAE reads pictures of shape {wanted}, not {tuple(pixels.shape[1:])}"
            )
        return pixels
