"""From embeddings and logits to labels and answers, in numpy.

Shape legend: n pictures, C classes, T templates, E features, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.core.errors import ModelError
from plait.runtime.manifest import Manifest


def prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every label in every template, label after label.

    Raises:
        ModelError: no label, no template, or a template without ``{}``.
    """
    if not labels or not templates:
        raise ModelError("classification needs at least one label and one template")
    for template in templates:
        if "{}" not in template:
            raise ModelError(f"template {template!r} has no {{}} for the label")
    return [template.replace("{}", label) for label in labels for template in templates]


def class_rows(rows: np.ndarray, labels: int) -> np.ndarray:
    """(C, E) float32: the renormalised mean of each label's (C * T, E) prompts.

    Radford et al. 2021, section 3.1.4.
    """
    means = rows.reshape(labels, -1, rows.shape[1]).mean(axis=1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)


def shares(logits: np.ndarray) -> np.ndarray:
    """Softmax of each row, float32."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True), dtype=np.float32)


def answers_of(logits: np.ndarray, manifest: Manifest, count: int) -> list[dict[str, Any]]:
    """The likeliest answers of one question's (A,) logits, the likeliest first."""
    if manifest.independent:
        found = 1 / (1 + np.exp(-logits.astype(np.float64)))
    else:
        found = shares(logits[None])[0]
    best = np.argsort(-found, kind="stable")[:count]
    return [{"answer": manifest.labels[i], "probability": round(float(found[i]), 6)} for i in best]
