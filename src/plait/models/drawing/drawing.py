"""A discrete VAE and a transformer together: texts in, pictures out.

Shape legend: B texts, n pictures of each, H, W pixels, h, w the grid of codes, N = h w, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor, nn

from plait.core.batch import Batch
from plait.core.errors import ModelError
from plait.core.modality import IMAGE, TEXT
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.base.summary import short_repr
from plait.models.drawing.dvae import DiscreteVAE
from plait.models.drawing.sampling import sample_codes, uniforms_for
from plait.models.drawing.transformer import IMAGE_WEIGHT, DrawingLoss, DrawingTransformer


def without_text(
    mask: Bool[Tensor, "B n"], drop: float, generator: torch.Generator | None
) -> Bool[Tensor, "B n"]:
    """The mask with whole texts made padding, each with probability ``drop``."""
    gone = torch.rand(len(mask), generator=generator) < drop
    return mask & ~gone.to(mask.device)[:, None]


def disturbed(
    codes: Int64[Tensor, "B N"], share: float, generator: torch.Generator | None = None
) -> Int64[Tensor, "B N"]:
    """The codes, each with probability ``share`` that of another picture of the batch there.

    What a transformer reads in training is always right, and what it reads of its own drawing is
    not. A few wrong codes teach it to go on all the same, and to heed the text, which a small
    data set's pictures otherwise make superfluous after their first codes.
    """
    other = codes[torch.randperm(len(codes), generator=generator).to(codes.device)]
    wrong = torch.rand(codes.shape, generator=generator) < share
    return torch.where(wrong.to(codes.device), other, codes)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout inside, as before after it."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


class DrawingModel(nn.Module):
    """DALL-E (Ramesh et al. 2021).

    Args:
        dvae: trained before; its weights stay as they are.
        transformer: trained here.
        preprocess: from texts to token ids.

    Raises:
        ModelError: parts that don't fit each other.
    """

    __repr__ = short_repr

    def __init__(
        self, dvae: DiscreteVAE, transformer: DrawingTransformer, preprocess: TextPreprocess
    ) -> None:
        super().__init__()
        for what, ours, theirs in (
            ("the grid of codes", dvae.grid, transformer.grid),
            ("the number of codes", dvae.code_count, transformer.code_count),
        ):
            if ours != theirs:
                raise ModelError(f"{what} is {ours} in the VAE and {theirs} in the transformer")
        if preprocess.vocabulary > transformer.vocabulary:
            raise ModelError(
                f"the tokenizer has {preprocess.vocabulary} ids and the transformer "
                f"{transformer.vocabulary}"
            )
        if preprocess.max_length > transformer.text_length:
            raise ModelError(
                f"texts may have {preprocess.max_length} tokens and the transformer reads "
                f"{transformer.text_length}: set a max_length of the texts up to that"
            )
        self.dvae = dvae.requires_grad_(False)
        self.transformer, self.preprocess = transformer, preprocess

    @property
    def modalities(self) -> tuple[str, ...]:
        """It has no encoders that could be exchanged."""
        return ()

    def tower(self, modality: str) -> NoReturn:
        """Raises ModelError: it has none."""
        raise ModelError(f"a drawing model has no encoder of {modality!r}")

    def clamp_scale(self) -> None:
        """It has no temperature to learn."""

    @property
    def pixels(self) -> ImagePreprocess:
        """From any picture to the VAE's: the whole of it, white beside what isn't square."""
        return ImagePreprocess(size=self.dvae.image_size, resize="pad")

    def training_loss(
        self,
        batch: Batch,
        drop_text: float = 0.0,
        image_weight: float = IMAGE_WEIGHT,
        generator: torch.Generator | None = None,
    ) -> DrawingLoss:
        """Of texts and pictures; see `loss` for codes that are known already.

        Args:
            batch: with ``ids`` of texts and ``pixels`` of pictures at the VAE's size.
            drop_text: the probability of drawing without a text, which guidance needs.
            image_weight: of the pictures' loss beside the texts' 1.
            generator: of what is dropped; None: the global one.
        """
        text = batch.modalities[TEXT]
        ids = text.tensors["ids"]
        mask = torch.ones_like(ids, dtype=torch.bool) if text.mask is None else text.mask
        codes = self.dvae.codes(batch.modalities[IMAGE].tensors["pixels"])
        return self.loss(ids, mask, codes, drop_text, image_weight, generator)

    def loss(
        self,
        ids: Int64[Tensor, "B n"],
        mask: Bool[Tensor, "B n"],
        codes: Int64[Tensor, "B h w"],
        drop_text: float = 0.0,
        image_weight: float = IMAGE_WEIGHT,
        generator: torch.Generator | None = None,
        disturb: float = 0.0,
    ) -> DrawingLoss:
        """Of texts and codes; ``disturb`` is the share of `disturbed` codes.

        The other arguments are those of `training_loss`.
        """
        if drop_text > 0:
            mask = without_text(mask, drop_text, generator)
        text, codes = self.transformer.padded(ids, mask), codes.flatten(1)
        given = disturbed(codes, disturb, generator) if disturb > 0 else None
        return self.transformer.loss(text, codes, image_weight, given)

    @torch.no_grad()
    def draw(
        self,
        texts: Sequence[str],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        guidance: float = 1.0,
        prime: UInt8[Tensor, "3 H W"] | None = None,
        prime_rows: int | None = None,
        generator: torch.Generator | None = None,
        cache: bool = True,
        batch_size: int = 64,
    ) -> UInt8[Tensor, "B n 3 H W"]:
        """Pictures of texts.

        The same generator gives the same pictures whatever ``cache`` and ``batch_size`` are, and
        texts drawn one after the other get the pictures they get together.

        Args:
            texts: one or more.
            n: pictures of each.
            temperature: 0 for the most probable codes, 1 for the model's own probabilities.
            top_k: only so many codes are eligible for a cell.
            guidance: see `plait.models.drawing.sampling.sample_codes`.
            prime: a picture whose upper rows are kept.
            prime_rows: how many rows of codes those are; default half.
            generator: of the choice of codes, on the CPU; None: the global one.
            cache: keep keys and values; only the time depends on it.
            batch_size: how many pictures are drawn at once.

        Raises:
            ModelError: a setting out of range.
        """
        if n < 1 or batch_size < 1:
            raise ModelError(f"n and batch_size must be at least 1, not {n} and {batch_size}")
        device = self.transformer.start.device
        ids, mask = (torch.from_numpy(array).to(device) for array in self.preprocess(list(texts)))
        text = self.transformer.padded(ids, mask).repeat_interleave(n, dim=0)
        uniforms = uniforms_for(len(text), self.transformer.cells, generator).to(device)
        given = self._given(prime, prime_rows)
        side = self.dvae.image_size
        drawn = torch.empty(len(text), 3, side, side, dtype=torch.uint8, device=device)
        with _evaluating(self.transformer):
            for start in range(0, len(text), batch_size):
                these = slice(start, start + batch_size)
                codes = sample_codes(
                    self.transformer,
                    text[these],
                    uniforms[these],
                    temperature=temperature,
                    top_k=top_k,
                    guidance=guidance,
                    prime=None if given is None else given.expand(len(text[these]), -1),
                    cache=cache,
                )
                drawn[these] = self.dvae.decode(codes.view(-1, *self.transformer.grid))
        return drawn.view(len(texts), n, 3, side, side)

    def _given(self, prime: Tensor | None, rows: int | None) -> Tensor | None:
        """(1, P) codes of the rows to keep."""
        if prime is None:
            if rows is not None:
                raise ModelError("prime_rows needs prime, the picture whose rows are kept")
            return None
        height = self.transformer.grid[0]
        rows = height // 2 if rows is None else rows
        if not 0 <= rows < height:
            raise ModelError(f"prime_rows must be in 0 .. {height - 1}, not {rows}")
        return self.dvae.codes(prime[None].to(self.transformer.start.device))[:, :rows].flatten(1)
