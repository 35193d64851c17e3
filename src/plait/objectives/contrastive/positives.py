"""Which rows of one side belong to which rows of the other.

Shape legend: B rows of left, C rows of right, G groups of rows that share an id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from plait.core.errors import UserError


@dataclass(frozen=True)
class Positives:
    """The positive pairs of a batch: row i of left and row j of right of the same group.

    Groups are numbered 0 to G - 1, and only an id that occurs on both sides has one; the other
    rows have group -1 on the left and -2 on the right, so that they equal nothing. When every row
    pairs with the row of its own number, the groups are None (the diagonal), which costs nothing.

    Attributes:
        left_group: (B,) group of each row of left, or None for the diagonal.
        right_group: (C,) group of each row of right, or None for the diagonal.
        left_count: (G,) rows of left in each group (all 1 on the diagonal).
        right_count: (G,) rows of right in each group.
    """

    left_group: Int64[Tensor, " B"] | None
    right_group: Int64[Tensor, " C"] | None
    left_count: Int64[Tensor, " G"]
    right_count: Int64[Tensor, " G"]

    @property
    def left_rows(self) -> Int64[Tensor, ""]:
        """Number of rows of left that have a positive."""
        return self.left_count.sum()

    @property
    def right_rows(self) -> Int64[Tensor, ""]:
        """Number of rows of right that have a positive."""
        return self.right_count.sum()

    def require(self) -> None:
        """Raises `UserError` if there is no positive pair at all."""
        if not len(self.left_count):
            raise UserError("no positive pair: no id of left is among the ids of right")

    def left_has(self, rows: int) -> Bool[Tensor, " B"]:
        """(B,) whether each of the ``rows`` rows of left has a positive."""
        return _has(self.left_group, rows, self.left_count)

    def right_has(self, rows: int) -> Bool[Tensor, " C"]:
        """(C,) whether each of the ``rows`` rows of right has a positive."""
        return _has(self.right_group, rows, self.right_count)

    def of_left_rows(self, rows: slice) -> Positives:
        """The same for a part of the rows of left; the counts stay those of the whole batch."""
        assert self.left_group is not None, "the diagonal has no parts"
        return replace(self, left_group=self.left_group[rows])

    @classmethod
    def of_diagonal(cls, rows: int, device: torch.device) -> Positives:
        """Row i of left pairs with row i of right."""
        one_each = torch.ones(rows, dtype=torch.int64, device=device)
        return cls(None, None, one_each, one_each)

    @classmethod
    def of_ids(cls, left_ids: Int64[Tensor, " B"], right_ids: Int64[Tensor, " C"]) -> Positives:
        """Pairs rows with equal ids."""
        _, group = torch.cat([left_ids, right_ids]).unique(return_inverse=True)
        left_group, right_group = group[: len(left_ids)], group[len(left_ids) :]
        left_count = torch.bincount(left_group, minlength=len(group))
        right_count = torch.bincount(right_group, minlength=len(group))
        shared = (left_count > 0) & (right_count > 0)
        number = shared.cumsum(0) - 1
        return cls(
            torch.where(shared[left_group], number[left_group], -1),
            torch.where(shared[right_group], number[right_group], -2),
            left_count[shared],
            right_count[shared],
        )


def _has(group: Tensor | None, rows: int, count: Tensor) -> Tensor:
    if group is None:
        return torch.ones(rows, dtype=torch.bool, device=count.device)
    return group >= 0


def find_positives(
    left: Tensor, right: Tensor, left_ids: Tensor | None, right_ids: Tensor | None
) -> Positives:
    """Pairs the rows by ids; ids of one side alone count for both, none mean the diagonal.

    Raises:
        UserError: shapes that don't fit one another.
    """
    check_shapes(left, right, left_ids, right_ids)
    check_rows(len(left), len(right))
    left_ids = right_ids if left_ids is None else left_ids
    right_ids = left_ids if right_ids is None else right_ids
    if left_ids is None or right_ids is None:
        return Positives.of_diagonal(len(left), left.device)
    return Positives.of_ids(left_ids, right_ids)


def check_rows(left: int, right: int) -> None:
    """Raises `UserError` for an empty batch."""
    if not left or not right:
        raise UserError(f"an empty batch: {left} rows of left, {right} of right")


def check_shapes(
    left: Tensor, right: Tensor, left_ids: Tensor | None, right_ids: Tensor | None
) -> None:
    """Raises `UserError` when features and ids of a batch don't fit one another."""
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise UserError(
            f"left and right must be matrices with as many columns: "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    for side, rows, ids in (("left", left, left_ids), ("right", right, right_ids)):
        if ids is not None and ids.shape != (len(rows),):
            raise UserError(
                f"{side}_ids must be one id a row: {len(rows)} rows, ids {tuple(ids.shape)}"
            )
    if len(left) != len(right) and (left_ids is None or right_ids is None):
        raise UserError(
            f"{len(left)} rows of left and {len(right)} of right need left_ids and right_ids "
            "to say which belong together"
        )
