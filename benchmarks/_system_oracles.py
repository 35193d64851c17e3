"""Random small vision-language systems next to independent implementations, in float64.

Each case draws a configuration, weights, inputs and masks from a seed, and gives the largest
difference by what was compared: hidden states and logits at real positions, losses, and the
gradients of the loss for every parameter (carried over by the tables that read checkpoints) and for
the regions' features. Plait's side of a loss is `plait.objectives`; the other side is transformers' own
loss, or, for UNITER and ViLBERT, one that is written out for the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks._system_transformers import lxmert_case, visual_bert_case
from benchmarks._system_written import two_berts_case, uniter_case, vilbert_case

SEEDS = range(20)

CASES: dict[str, Callable[[int], dict[str, float]]] = {
    "visual_bert": visual_bert_case,
    "lxmert": lxmert_case,
    "uniter": uniter_case,
    "vilbert": vilbert_case,
    "two_berts": two_berts_case,
}

COMPARED = ["hidden states", "logits of every head", "losses", "gradients of every parameter"]
WRITTEN = "**written here** from the paper, embeddings, heads and losses"
NO_KEYS = "a row without any region attends to nothing; BERT's layers mix its padding evenly"
PADDING = "outputs at padding are zero"
SWAPPED = "column 1 of the match head means yes, in the published weights column 0"


def rows(version: Callable[[str], str]) -> Iterable[dict[str, Any]]:
    """Rows of the parity table; ``version`` gives ``X of transformers 5.0`` for X."""

    def row(system: str, reference: str, case: str, *divergences: str) -> dict[str, Any]:
        return {
            "system": system,
            "reference": reference,
            "compared": [*COMPARED, "gradients of the regions"],
            "configurations": len(SEEDS),
            "max_difference": max(max(CASES[case](seed).values()) for seed in SEEDS),
            "divergences": list(divergences),
        }

    yield row(
        "VisualBERT",
        version("VisualBertForPreTraining and VisualBertForQuestionAnswering"),
        "visual_bert",
        SWAPPED,
        "one visual position instead of a table of which the reference reads row 0 alone",
        PADDING,
    )
    yield row(
        "LXMERT",
        version("LxmertForPreTraining"),
        "lxmert",
        "labels to ignore are -100 as in the reference, in the original -1",
        NO_KEYS,
        PADDING,
    )
    yield row(
        "UNITER",
        f"{WRITTEN}; its layers are {version('BertLayer')}",
        "uniter",
        "attention to padding is exactly 0; the original adds -10000 to its scores",
        PADDING,
    )
    yield row(
        "ViLBERT without co-attention",
        f"{WRITTEN}; its two stacks are {version('BertLayer')}",
        "two_berts",
        PADDING,
    )
    yield row(
        "ViLBERT",
        f"{WRITTEN}, co-attention in einsums; its other layers are {version('BertLayer')}",
        "vilbert",
        SWAPPED,
        "the region for the whole picture is made by the model; the original's data holds it",
        NO_KEYS,
        "matrices that the original never uses (q_dense) are not there",
        PADDING,
    )
