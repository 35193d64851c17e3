"""Correction for hubs: rows of a gallery that are near to every query give way.

Source: Chowdhury et al. 2024, "Nearest Neighbor Normalization Improves Multimodal Retrieval"
(EMNLP). Queries of training tell which rows are hubs, so nothing is learnt and no query of a test
is looked at.

Shape legend: n gallery rows, m training queries (a bank), E features of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from plait.core.errors import ModelError

MAX_BANK = 2048
"""The most rows of a bank: some 8 MB at 1,024 features, kept with the model."""
ROWS_AT_ONCE = 1024


def hub_bias(
    rows: Float[np.ndarray, "n E"],
    bank: Float[np.ndarray, "m E"],
    *,
    neighbours: int = 64,
    strength: float = 0.75,
) -> Float64[np.ndarray, " n"]:
    """What to take from the score of each gallery row, for queries such as those of the bank.

    b(r) = strength * mean of the ``neighbours`` largest cosines of r to the bank, the paper's
    alpha and k. In float64: equal rows must tie after it as they do before.

    Args:
        rows: unit rows of the gallery.
        bank: unit rows of training queries.
        neighbours: how many; all of a smaller bank.
        strength: 0 corrects nothing.
    """
    count = min(neighbours, len(bank))
    queries = bank.astype(np.float64).T
    found = np.empty(len(rows))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        cosines = rows[part].astype(np.float64) @ queries
        nearest = np.partition(cosines, len(bank) - count, axis=1)[:, len(bank) - count :]
        found[part] = strength * nearest.mean(axis=1)
    return found


class HubCorrection(nn.Module):
    """Banks of training embeddings, by the modality of the queries that they stand for.

    Args:
        banks: unit rows by modality, at most `MAX_BANK` of each.
        neighbours: see `hub_bias`.
        strength: above 0 and at most 1, so that a correction is no larger than a cosine.

    Raises:
        ModelError: a value out of its range.
    """

    def __init__(
        self, banks: Mapping[str, Tensor], *, neighbours: int = 64, strength: float = 0.75
    ) -> None:
        super().__init__()
        if neighbours < 1 or not 0 < strength <= 1:
            raise ModelError(
                f"a correction for hubs needs neighbours from 1 on and a strength above 0 and at "
                f"most 1, not {neighbours} and {strength:g}"
            )
        for name, bank in banks.items():
            if bank.ndim != 2 or not 1 <= len(bank) <= MAX_BANK:
                raise ModelError(
                    f"the bank of {name} has the shape {tuple(bank.shape)}; it holds 1 to "
                    f"{MAX_BANK} rows"
                )
            self.register_buffer(f"bank_{name}", bank.detach().to(torch.float32).clone())
        self.names = tuple(banks)
        self.neighbours, self.strength = neighbours, strength

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> HubCorrection:
        """What `spec` describes, with empty banks to be filled from weights."""
        banks = {name: torch.zeros(*shape) for name, shape in spec["banks"].items()}
        return cls(banks, neighbours=spec["neighbours"], strength=spec["strength"])

    def spec(self) -> dict[str, Any]:
        """Settings and sizes as JSON."""
        return {
            "neighbours": self.neighbours,
            "strength": self.strength,
            "banks": {name: list(self.bank(name).shape) for name in self.names},
        }

    def bank(self, modality: str) -> Float[Tensor, "m E"]:
        """Unit rows of a modality's training queries.

        Raises:
            ModelError: there are none.
        """
        if modality not in self.names:
            raise ModelError(
                f"the correction for hubs knows queries of {' and '.join(self.names)}, "
                f"not of {modality!r}"
            )
        found: Tensor = self.get_buffer(f"bank_{modality}")
        return found

    def bias(
        self, gallery_modality: str, rows: Float[np.ndarray, "n E"], query_modality: str
    ) -> Float64[np.ndarray, " n"]:
        """What to take from the cosine of a query to each gallery row; 0 within one modality.

        Args:
            gallery_modality: of the rows.
            rows: unit rows.
            query_modality: of the query.

        Raises:
            ModelError: no bank of the query's modality.
        """
        if gallery_modality == query_modality:
            return np.zeros(len(rows))
        bank = self.bank(query_modality).float().cpu().numpy()
        return hub_bias(rows, bank, neighbours=self.neighbours, strength=self.strength)
