"""The loss of a language model's head, exact, without the logits of all tokens at a time.

A head over V words gives T x V logits, several times the memory of everything else in a small
model. Here logits exist for some rows (tokens) at a time, with the whole vocabulary: their softmax
is then final at once, so one pass gives value and gradients, with the three products that the
plain form has too and nothing computed twice. See docs/objectives.md.

Shape legend: T tokens, N of them with a label, n those of one chunk, V words, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from plait.core.errors import UserError
from plait.objectives.base.once import once
from plait.objectives.base.precision import wide
from plait.objectives.base.tiles import blocks

Reduction = Literal["mean", "sum", "none"]

_NUMBERS = 2**25  # logits at a time when the caller doesn't say: 128 MiB in float32


def linear_cross_entropy(
    hidden: Float[Tensor, "T D"],
    weight: Float[Tensor, "V D"],
    labels: Int64[Tensor, " T"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    chunk: int | None = None,
) -> Float[Tensor, "*T"]:
    """``cross_entropy(hidden @ weight.T + bias, labels)`` in memory that does not grow with T x V.

    Gradients are those of the plain form to rounding. Rows without a label are not looked at:
    whatever they hold, their gradient is zero. Second derivatives: `linear_cross_entropy_plain`.

    Under autocast the products are computed in its type, and softmax, value and sums of gradients
    in float32; so they are for half-precision inputs.

    Args:
        hidden: (T, D) what the model says about each token.
        weight: (V, D) of the head; one that needs no gradient costs none.
        labels: (T,) the right words, 0 to V - 1, or ``ignore_index``.
        bias: (V,) of the head.
        ignore_index: label of rows that don't count.
        label_smoothing: the share of each label that is spread evenly over all words.
        reduction: "mean" over rows with a label, "sum" of them, or "none": the loss of each row,
            0 for those without a label. With "none" the logits are computed again in backward.
        chunk: rows whose logits exist at a time.

    Returns:
        float32 or float64; 0 when no row has a label.

    Raises:
        UserError: a label outside the vocabulary, or an option outside its range.
    """
    if reduction not in get_args(Reduction):
        raise UserError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise UserError(f"label_smoothing {label_smoothing:g} is not in 0..1")
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk {chunk} is not at least 1")
    rows = (labels != ignore_index).nonzero()[:, 0]
    targets = labels[rows]
    _check_labels(targets, len(weight), ignore_index)
    head = _Head(
        rows,
        targets,
        label_smoothing,
        reduction,
        min(chunk or max(64, _NUMBERS // len(weight) // 64 * 64), max(1, len(rows))),
        _product_type(hidden, weight),
    )
    return _LinearCrossEntropy.apply(hidden, weight, bias, head, torch.is_grad_enabled())


def linear_cross_entropy_plain(
    hidden: Float[Tensor, "T D"],
    weight: Float[Tensor, "V D"],
    labels: Int64[Tensor, " T"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*T"]:
    """`linear_cross_entropy` by way of all T x V logits: slow, and able of second derivatives."""
    logits = wide(F.linear(hidden, weight, bias))
    if reduction == "mean" and not (labels != ignore_index).any():
        return (hidden[:0].sum() + weight[:0].sum()).to(logits.dtype)
    return F.cross_entropy(
        logits,
        labels,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


@dataclass(frozen=True)
class _Head:
    """What to compute, besides the tensors that gradients are asked for.

    Attributes:
        rows: (N,) those with a label.
        targets: (N,) their labels.
        smoothing: share of a label spread over all words.
        reduction: of the losses of the rows.
        chunk: rows at a time.
        product_type: the type that matrix products are computed in.
    """

    rows: Int64[Tensor, " N"]
    targets: Int64[Tensor, " N"]
    smoothing: float
    reduction: str
    chunk: int
    product_type: torch.dtype

    @property
    def sum_type(self) -> torch.dtype:
        """The type of softmax, value and sums of gradients."""
        return torch.float64 if self.product_type == torch.float64 else torch.float32


@dataclass(frozen=True)
class _Found:
    """Losses of the N rows, and the gradients of their (weighted) sum that were asked for."""

    losses: Float[Tensor, " N"]
    of_hidden: Float[Tensor, "T D"] | None
    of_weight: Float[Tensor, "V D"] | None
    of_bias: Float[Tensor, " V"] | None


class _LinearCrossEntropy(torch.autograd.Function):
    """``apply(hidden, weight, bias, head, grad)``; ``grad``: gradients are recorded at all."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "T D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        head: _Head,
        grad: bool,
    ) -> Float[Tensor, "*T"]:
        """The loss; the gradients of the sum over rows too, if any will be asked for."""
        at_once = grad and head.reduction != "none"
        needed = tuple(at_once and need for need in ctx.needs_input_grad[:3])
        found = _sweep(hidden, weight, bias, head, None, needed)
        kept = (found.of_hidden, found.of_weight, found.of_bias)
        ctx.save_for_backward(hidden, weight, bias, *kept)
        ctx.head = head
        if head.reduction == "none":
            every = found.losses.new_zeros(len(hidden))
            return every.index_copy_(0, head.rows, found.losses)
        ctx.factor = 1 / max(1, len(head.rows)) if head.reduction == "mean" else 1.0
        return found.losses.sum() * ctx.factor

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        """The gradients kept since forward times the outer one; computed now for "none"."""
        hidden, weight, bias, *kept = ctx.saved_tensors
        with torch.no_grad():
            if ctx.head.reduction == "none":
                row_weight = outer[0][ctx.head.rows].to(ctx.head.sum_type)
                needed = ctx.needs_input_grad[:3]
                found = _sweep(hidden, weight, bias, ctx.head, row_weight, needed)
                parts = [found.of_hidden, found.of_weight, found.of_bias]
            else:
                factor = outer[0].to(ctx.head.sum_type) * ctx.factor
                parts = [None if part is None else part * factor for part in kept]
        given = (hidden, weight, bias)
        sources = [each for each in (*given, outer[0]) if each is not None]
        gradients = [
            once("linear_cross_entropy", None if part is None else part.to(like.dtype), *sources)
            for part, like in zip(parts, (hidden, weight, hidden if bias is None else bias))
        ]
        return (*gradients, None, None)


def _sweep(
    hidden: Float[Tensor, "T D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    head: _Head,
    row_weight: Float[Tensor, " N"] | None,
    needed: tuple[bool, ...],
) -> _Found:
    """One pass over chunks of rows.

    Args:
        hidden: all rows.
        weight: of the head.
        bias: of the head.
        head: the rest.
        row_weight: factor of each row's loss in the sum whose gradients are wanted; None: 1.
        needed: whether the gradients of hidden, weight and bias are wanted.
    """
    wide_type, narrow = head.sum_type, head.product_type
    losses = hidden.new_empty(len(head.rows), dtype=wide_type)
    of_hidden = torch.zeros_like(hidden, dtype=wide_type) if needed[0] else None
    of_weight = torch.zeros_like(weight, dtype=wide_type) if needed[1] else None
    of_bias = hidden.new_zeros(len(weight), dtype=wide_type) if needed[2] else None
    buffer = hidden.new_empty(head.chunk, len(weight), dtype=wide_type)
    with torch.autocast(hidden.device.type, enabled=False):
        matrix = weight.to(narrow)
        for part in blocks(len(head.rows), head.chunk):
            rows, targets = head.rows[part], head.targets[part]
            some = hidden[rows].to(narrow)
            logits = _logits(some, matrix, bias, buffer[: len(rows)])
            factor = None if row_weight is None else row_weight[part]
            losses[part] = _turn_into_slopes(logits, targets, head.smoothing, factor, any(needed))
            if of_bias is not None:
                of_bias += logits.sum(0)
            slopes = logits.to(narrow)  # the buffer itself, unless products are narrow
            if of_hidden is not None:
                of_hidden[rows] = (slopes @ matrix).to(wide_type)
            if of_weight is not None and narrow == wide_type:
                of_weight.addmm_(slopes.T, some)
            elif of_weight is not None:
                of_weight += slopes.T @ some
    return _Found(losses, of_hidden, of_weight, of_bias)


def _logits(
    some: Float[Tensor, "n D"],
    matrix: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    out: Float[Tensor, "n V"],
) -> Float[Tensor, "n V"]:
    if some.dtype == out.dtype:
        torch.mm(some, matrix.T, out=out)
    else:
        out.copy_(some @ matrix.T)
    return out if bias is None else out.add_(bias)


def _turn_into_slopes(
    logits: Float[Tensor, "n V"],
    targets: Int64[Tensor, " n"],
    smoothing: float,
    factor: Float[Tensor, " n"] | None,
    slopes: bool,
) -> Float[Tensor, " n"]:
    """The losses of a chunk; its logits become the losses' gradients in place if asked for.

    With y the label and e the smoothing, a row's loss is lse(z) - (1 - e) z_y - e mean(z), and its
    gradient softmax(z) - (1 - e) onehot(y) - e / V.
    """
    right = logits.gather(1, targets[:, None])
    spread = smoothing * logits.mean(1, keepdim=True) if smoothing else 0.0
    top = logits.amax(1, keepdim=True)
    total = logits.sub_(top).exp_().sum(1, keepdim=True)
    losses = total.log() + top - (1 - smoothing) * right - spread
    if slopes:
        weight = torch.ones_like(total) if factor is None else factor[:, None]
        logits.mul_(weight / total)
        logits.scatter_add_(1, targets[:, None], (smoothing - 1) * weight)
        if smoothing:
            logits.sub_(weight * (smoothing / logits.shape[1]))
    return losses[:, 0]


def _product_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Autocast's type where it is on, as for any matrix product; the wider of the two if not."""
    kind = hidden.device.type
    widest = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(kind) and widest != torch.float64:
        return torch.get_autocast_dtype(kind)
    return widest


def _check_labels(targets: Int64[Tensor, " N"], words: int, ignore_index: int) -> None:
    wrong = targets[(targets < 0) | (targets >= words)]
    if len(wrong):
        raise UserError(
            f"label {int(wrong[0])} is not in a vocabulary of {words} words (0 to {words - 1}); "
            f"rows that don't count have the label {ignore_index}"
        )
