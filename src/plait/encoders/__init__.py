"""Inputs of one modality to `Encoded`: one file per kind of encoder, found by source string."""
