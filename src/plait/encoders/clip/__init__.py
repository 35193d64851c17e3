"""The towers of published CLIP and SigLIP models."""
