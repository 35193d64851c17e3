"""Inputs, weights and measures that the comparisons of vision-language systems share."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Encoded
from plait.models.systems.base import System
from plait.models.systems.heads import published_head
from plait.models.systems.keys import HEADS, read_into, system_sources
from plait.models.systems.registry import build_system


@contextmanager
def in_float64() -> Iterator[None]:
    """Tensors made inside are float64: transformers collects some losses in the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Inputs:
    """Random words, regions and masks; every row has at least three words and one region."""

    ids: Tensor
    text: Tensor
    features: Tensor
    boxes: Tensor
    seen: Tensor
    hidden: Tensor
    generator: torch.Generator

    def regions(self, features: Tensor) -> Encoded:
        return Encoded(features, self.seen, features.mean(dim=1), self.boxes)

    def choice(self, count: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(count, shape, generator=self.generator)

    def masked_labels(self, vocabulary: int) -> Tensor:
        """Labels at some real words, -100 elsewhere; at least one a row."""
        labels = self.choice(vocabulary, tuple(self.ids.shape))
        asked = torch.rand(self.ids.shape, generator=self.generator) < 0.4
        asked[:, 1] = True
        return labels.masked_fill(~(asked & self.text), -100)


def random_inputs(seed: int, vocabulary: int, region_width: int) -> Inputs:
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    rows, words, regions = draw.randint(2, 4), draw.randint(4, 7), draw.randint(2, 6)
    lengths = torch.tensor([draw.randint(3, words) for _ in range(rows)])
    text = torch.arange(words)[None] < lengths[:, None]
    seen = torch.rand(rows, regions, generator=generator) < 0.7
    seen[:, draw.randrange(regions)] = True
    ids = torch.randint(2, vocabulary, (rows, words), generator=generator).masked_fill(~text, 0)
    corners = torch.rand(rows, regions, 2, 2, generator=generator, dtype=torch.float64)
    boxes = corners.sort(dim=2).values.flatten(2)
    features = torch.randn(
        rows, regions, region_width, generator=generator, dtype=torch.float64
    ).masked_fill(~seen[..., None], 0.0)
    hidden = (torch.rand(rows, regions, generator=generator) < 0.4) & seen
    return Inputs(
        ids, text, features, boxes.masked_fill(~seen[..., None], 0.0), seen, hidden, generator
    )


def randomise(model: nn.Module, seed: int) -> None:
    """Every parameter random, so that biases, norms and padding rows are tested too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim <= 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(noise * 1.5 * parameter.shape[-1] ** -0.5)


def gap(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> float:
    """The largest difference where ``mask`` is True; infinite when it is no number."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    if mask is not None:
        ours, theirs = ours[mask], theirs[mask]
    found = float((ours - theirs).detach().abs().max())
    return found if found == found else float("inf")


@dataclass
class Side:
    """Plait's system and heads with a reference's weights."""

    system: System
    heads: dict[str, nn.Module]
    reference: nn.Module
    prefix: str

    def gradients(self) -> float:
        """Largest difference of parameter gradients, and of those that nothing was made of."""
        theirs = {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in self.reference.named_parameters()
        }
        worst = 0.0
        modules = [(self.system, system_sources(self.system, self.prefix))]
        modules += [(head, HEADS[self.system.kind][name]) for name, head in self.heads.items()]
        for module, sources in modules:
            for name, parameter in module.named_parameters():
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                worst = max(worst, gap(own, sources[name].read(theirs)))
        return worst


def side_of(
    kind: str,
    reference: nn.Module,
    prefix: str,
    heads: Mapping[str, Mapping[str, int]],
    options: dict[str, Any],
) -> Side:
    """Plait's twin of a reference; ``heads`` by name with their sizes."""
    system = build_system(kind, **options).double().eval()
    weights = {name: value.detach() for name, value in reference.state_dict().items()}
    assert not read_into(system, system_sources(system, prefix), weights)
    made = {}
    for name, sizes in heads.items():
        made[name] = published_head(name, system, **sizes).double().eval()
        assert not read_into(made[name], HEADS[kind][name], weights)
    return Side(system, made, reference, prefix)


def recorded(layers: nn.ModuleList) -> list[Any]:
    """A list that fills with what the layers give when they run."""
    found: list[Any] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, given, out: found.append(out))
    return found


def sizes_of(draw: random.Random) -> dict[str, int]:
    heads = draw.choice([1, 2, 3])
    return {"heads": heads, "width": heads * draw.choice([2, 4, 6]), "hidden": draw.randint(5, 20)}


def finish(
    found: dict[str, float],
    side: Side,
    loss: Tensor,
    their_loss: Tensor,
    features: Tensor,
    their_features: Tensor,
) -> None:
    """Adds loss and gradients to the differences found."""
    loss.backward()
    their_loss.backward()
    found["loss"] = gap(loss, their_loss)
    found["gradients"] = side.gradients()
    assert features.grad is not None and their_features.grad is not None
    found["gradients of regions"] = gap(features.grad, their_features.grad)
