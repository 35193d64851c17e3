"""What frozen towers make of pictures and texts: through the fastest engine, once, and kept.

Shape legend: n pictures or texts, D features of a tower's pooled output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from plait.core.errors import DataError, ModelError
from plait.core.media import MediaRef
from plait.encoders.base.base import Encoder
from plait.engines.base import Engine
from plait.engines.cache import KEY_BYTES, FeatureCache
from plait.engines.runner import Batches, Inputs, TowerRunner
from plait.modalities.image.fast_decode import OnError, PixelStore, pixel_batches
from plait.modalities.image.pixel_cache import file_identity
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.runtime.choose import cores

Augment = Callable[[Tensor, Sequence[int]], Tensor]
"""(pixels uint8 (B, 3, H, W), positions of the pictures) to pixels of the same shape and type."""

IMAGE_BATCH = 32
TEXT_BATCH = 64


def image_features(
    encoder: Encoder,
    refs: Sequence[MediaRef],
    *,
    engine: str | Engine = "auto",
    precision: str = "auto",
    batch_size: int = IMAGE_BATCH,
    cache: FeatureCache | bool = True,
    slot: str = "",
    augment: Augment | None = None,
    threads: int | None = None,
    pixels: PixelStore | None = None,
    on_error: OnError | None = None,
    title: str = "Encoding pictures",
    runner: TowerRunner | None = None,
) -> Float[np.ndarray, "n D"]:
    """The pooled output of an image tower for each picture; decoding overlaps with inference.

    Args:
        encoder: run in evaluation mode whatever its mode.
        refs: the pictures.
        engine: ``auto``, ``torch``, ``openvino``, or an open engine of this encoder.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        batch_size: pictures that the engine takes at a time.
        cache: where rows are kept; True for plait's cache folder, False for nowhere.
        slot: names the augmentation, with everything it depends on (its seed, its number).
        augment: changes the pixels; needs a ``slot`` when rows are kept.
        threads: that decode; by default one a core.
        pixels: where decoded pictures are kept, looked up first.
        on_error: told of pictures that cannot be used, by position; their rows are zero. Without
            it the error is raised.
        title: of the progress bar.
        runner: that an earlier call for this encoder used; it has ``engine``, ``precision``, ``cache``
            and ``slot``.

    Raises:
        DataError: a picture that cannot be used.
        MissingExtra, ModelError, UserError: see `plait.engines.base.open_engine`.
    """
    preprocess = encoder.preprocess
    if not isinstance(preprocess, ImagePreprocess):
        raise ModelError(f"an encoder of {encoder.modality} has no image features")
    if augment is not None and cache and not slot:
        raise ValueError("augmented features are kept under a slot: give its name")
    failures: dict[int, DataError] = {}
    keys = [_picture_key(ref, position, failures) for position, ref in enumerate(refs)]
    if failures and on_error is None:
        raise next(iter(failures.values()))

    def failed(position: int, error: DataError) -> None:
        if on_error is None:
            raise error
        failures[position] = error

    def batches(positions: Sequence[int]) -> Iterator[tuple[list[int], Inputs]]:
        usable = [position for position in positions if position not in failures]
        found = pixel_batches(
            (refs[position] for position in usable),
            preprocess,
            batch_size=batch_size,
            threads=threads or cores(),
            store=pixels,
            on_error=lambda place, error: failed(usable[place], error),
        )
        for places, block in found:
            here = [usable[place] for place in places]
            if augment is not None:
                block = augment(torch.from_numpy(block), here).numpy()
            yield here, {"pixels": block}

    if runner is None:
        runner = TowerRunner(encoder, engine, precision, cache=cache_of(cache), slot=slot)
    rows = runner.rows(keys, batches, title)
    for position in sorted(failures):
        assert on_error is not None
        on_error(position, failures[position])
    return rows


def text_features(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    engine: str | Engine = "auto",
    precision: str = "auto",
    batch_size: int = TEXT_BATCH,
    cache: FeatureCache | bool = True,
    title: str = "Encoding texts",
    runner: TowerRunner | None = None,
) -> Float[np.ndarray, "n D"]:
    """The pooled output of a text tower for each text; equal texts are encoded once.

    Texts of like length share a batch, so that little is padded. See `image_features`.
    """
    preprocess = encoder.preprocess
    if not isinstance(preprocess, TextPreprocess):
        raise ModelError(f"an encoder of {encoder.modality} has no text features")
    if runner is None:
        runner = TowerRunner(encoder, engine, precision, cache=cache_of(cache))
    batches = text_batches(texts, preprocess, batch_size)
    return runner.rows([_text_key(text) for text in texts], batches, title)


def text_batches(texts: Sequence[str], preprocess: TextPreprocess, batch_size: int) -> Batches:
    """Batches of token ids and masks, the longest texts first."""

    def batches(positions: Sequence[int]) -> Iterator[tuple[list[int], Inputs]]:
        lengths = preprocess.lengths([texts[position] for position in positions])
        order = [positions[place] for place in np.argsort(-lengths, kind="stable")]
        for start in range(0, len(order), batch_size):
            here = order[start : start + batch_size]
            ids, mask = preprocess([texts[position] for position in here])
            yield here, {"ids": ids, "mask": mask}

    return batches


def _picture_key(ref: MediaRef, position: int, failures: dict[int, DataError]) -> bytes:
    try:
        return file_identity(ref)
    except DataError as error:
        failures[position] = error
        return b"\0" * KEY_BYTES  # no row is ever stored under it


def _text_key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def cache_of(cache: FeatureCache | bool) -> FeatureCache | None:
    """The cache itself: True is plait's own, False none."""
    if isinstance(cache, FeatureCache):
        return cache
    return FeatureCache() if cache else None
