"""Texts made of a sample's labels, such as ``"{question} {answer}"``."""

from __future__ import annotations

from plait.core.errors import DataError, RecipeError
from plait.data.sample import Sample


def worded(sample: Sample, template: str) -> str:
    """The template with the sample's labels filled in.

    Raises:
        DataError: the sample lacks a label that the template names, by its row.
        RecipeError: the template is none.
    """
    try:
        return template.format_map(sample.labels)
    except KeyError as missing:
        have = ", ".join(sample.labels) or "none"
        raise DataError(
            f"the text {template!r} needs the label {missing.args[0]!r} (has: {have})",
            path=sample.where,
        ) from None
    except (ValueError, IndexError) as fault:
        raise RecipeError(f"the text {template!r} is no template: {fault}") from None
