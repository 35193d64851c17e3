"""The convolutional halves of a discrete VAE: pixels to code logits, code vectors to pixels.

Two designs. ``paper``: residual bottleneck blocks at every resolution, from the full one down,
with max pooling and nearest-neighbour enlargement (Ramesh et al. 2021, Appendix A). ``strided``:
convolutions of stride 2, their transposes, and residual blocks on the grid of codes only: cheaper.

Shape legend: B pictures, C channels, H, W pixels, K codes, V features of a code, h, w the grid.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from plait.core.errors import ModelError, did_you_mean


class PaperBlock(nn.Module):
    """``skip(x) + gain * convolutions(relu(x))``, with a bottleneck of a quarter of the width.

    The gain is 1 / (number of blocks)^2, so that a deep net starts near its skip path.

    Args:
        before, width: channels in and out.
        kernels: sides of the four kernels; three 3s and a 1 in either order.
        gain: factor of the residual path.
    """

    def __init__(self, before: int, width: int, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        hidden = width // 4
        sizes = (before, hidden, hidden, hidden, width)
        self.gain = gain
        self.skip = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, side, padding=side // 2)
            for a, b, side in zip(sizes, sizes[1:], kernels, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, width, H, W)."""
        y = x
        for convolution in self.convolutions:
            y = convolution(y.relu())
        out: Tensor = self.skip(x) + self.gain * y
        return out


def paper_encoder(codes: int, code_width: int, layers: int, width: int, blocks: int) -> nn.Module:
    """(B, 3, H, W) to (B, K, h, w). Groups of width 1, 2, 4 ... times ``width``, pooled between."""
    gain = 1 / ((layers + 1) * blocks) ** 2
    parts: list[nn.Module] = [nn.Conv2d(3, width, 7, padding=3)]
    before = width
    for group in range(layers + 1):
        for _ in range(blocks):
            parts.append(PaperBlock(before, width << group, (3, 3, 3, 1), gain))
            before = width << group
        if group < layers:
            parts.append(nn.MaxPool2d(2))
    net = nn.Sequential(*parts, nn.ReLU(), nn.Conv2d(before, codes, 1))
    return _scaled(net)


def paper_decoder(code_width: int, outputs: int, layers: int, width: int, blocks: int) -> nn.Module:
    """(B, V, h, w) to (B, outputs, H, W), the encoder's mirror."""
    gain = 1 / ((layers + 1) * blocks) ** 2
    parts: list[nn.Module] = []
    before = code_width
    for group in reversed(range(layers + 1)):
        for _ in range(blocks):
            parts.append(PaperBlock(before, width << group, (1, 3, 3, 3), gain))
            before = width << group
        if group:
            parts.append(nn.Upsample(scale_factor=2, mode="nearest"))
    net = nn.Sequential(*parts, nn.ReLU(), nn.Conv2d(before, outputs, 1))
    return _scaled(net)


def _scaled(net: nn.Module) -> nn.Module:
    """Weights drawn with variance 1 / inputs and no bias at the start, as the paper's code does."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan_in**-0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return net


class GridBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 beside a skip path, all of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        out: Tensor = x + self.net(x)
        return out


def strided_encoder(codes: int, code_width: int, layers: int, width: int, blocks: int) -> nn.Module:
    """(B, 3, H, W) to (B, K, h, w): ``layers`` convolutions 4x4 of stride 2, then blocks."""
    parts: list[nn.Module] = []
    for layer in range(layers):
        parts += [nn.Conv2d(width if layer else 3, width, 4, stride=2, padding=1), nn.ReLU()]
    parts += [GridBlock(width) for _ in range(blocks)]
    return nn.Sequential(*parts, nn.Conv2d(width, codes, 1))


def strided_decoder(
    code_width: int, outputs: int, layers: int, width: int, blocks: int
) -> nn.Module:
    """(B, V, h, w) to (B, outputs, H, W): blocks, then transposed convolutions of stride 2."""
    parts: list[nn.Module] = [nn.Conv2d(code_width, width, 1)] if blocks else []
    parts += [GridBlock(width) for _ in range(blocks)]
    before = width if blocks else code_width
    for _ in range(layers):
        parts += [nn.ConvTranspose2d(before, width, 4, stride=2, padding=1), nn.ReLU()]
        before = width
    return nn.Sequential(*parts, nn.Conv2d(width, outputs, 1))


Half = Callable[[int, int, int, int, int], nn.Module]
NETS: dict[str, tuple[Half, Half]] = {
    "paper": (paper_encoder, paper_decoder),
    "strided": (strided_encoder, strided_decoder),
}


def halves(name: str) -> tuple[Half, Half]:
    """Encoder and decoder builders of a design. Raises ModelError for an unknown name."""
    if name not in NETS:
        raise ModelError(
            f"no net of a discrete VAE named {name!r}{did_you_mean(name, NETS)}"
            f" (nets: {', '.join(NETS)})"
        )
    return NETS[name]
