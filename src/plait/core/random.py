"""Random numbers as a function of what they are for, not of what was drawn before.

So a sample's augmentation does not depend on who shares its batch, and position k of an epoch
can be computed without the positions before it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float64


def uniform(count: int, *purpose: int | str) -> Float64[np.ndarray, " count"]:
    """``count`` numbers in [0, 1) for a purpose, e.g. ``(seed, "flip", sample id, epoch)``.

    Philox 4x64 (Salmon et al. 2011) keyed by a hash of the purpose. The raw 64 bits are scaled
    here, since numpy's own distributions may change between versions.
    """
    text = "\0".join(f"{type(part).__name__}:{part}" for part in purpose)
    key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
    generator = np.random.Philox(key=np.frombuffer(key, np.uint64))
    return (generator.random_raw(count) >> np.uint64(11)) * 2.0**-53


def permutation(count: int, *purpose: int | str) -> np.ndarray:
    """The numbers 0 to ``count - 1`` in an order that belongs to the purpose."""
    return np.argsort(uniform(count, *purpose), kind="stable")
