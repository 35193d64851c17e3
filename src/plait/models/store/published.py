"""Published CLIP and SigLIP checkpoints as alignment models."""

from __future__ import annotations

from pathlib import Path

from plait.core.modality import IMAGE, TEXT
from plait.encoders.clip import clip
from plait.encoders.clip.checkpoint import Checkpoint, read_checkpoint
from plait.encoders.hf import weights as hf_weights
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection
from plait.models.store.files import CONFIG_FILE, fill


def is_published(path: str | Path) -> bool:
    """Whether a folder holds a checkpoint in transformers' or open_clip's format, not a plait run."""
    folder = Path(path)
    published = ("config.json", "open_clip_config.json")
    return not (folder / CONFIG_FILE).exists() and any((folder / f).exists() for f in published)


def load_published(path: str | Path) -> AlignmentModel:
    """CLIP or SigLIP in transformers' format, or CLIP in open_clip's, in evaluation mode.

    Args:
        path: the folder, or OWNER/NAME on the model hub.

    Raises:
        ModelError: an unknown format, an unsupported variant, or weights that are missing or left
            over, the first of them named.
    """
    checkpoint = read_checkpoint(hf_weights.resolve(str(path)))
    model = alignment_of(checkpoint)
    fill(model, checkpoint.weights, checkpoint.where)
    return model.eval()


def alignment_of(checkpoint: Checkpoint) -> AlignmentModel:
    """The architecture of a checkpoint, with random weights."""
    shape = checkpoint.architecture
    towers = {}
    for modality, projection in (
        (IMAGE, shape.image_projection),
        (TEXT, shape.text_projection),
    ):
        encoder = clip.tower_of(checkpoint, modality)
        options = {key: value for key, value in projection.items() if key != "kind"}
        head = build_projection(projection["kind"], encoder.width, shape.dim, **options)
        towers[modality] = Tower(encoder, head)
    return AlignmentModel(
        towers, max_scale=shape.max_scale, bias_init=0.0 if shape.has_bias else None
    )
