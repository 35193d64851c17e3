"""Texts made of a sample's labels, such as ``"{question} {answer}"``."""

from __future__ import annotations

from collections.abc import Mapping

from plait.core.errors import DataError, RecipeError
from plait.data.base.sample import Sample


def text_of(sample: Sample, template: str | None) -> str:
    """A sample's first text, or the text that a template makes of its labels.

    Raises:
        DataError, RecipeError: see `worded`.
    """
    return sample.texts[0] if template is None else worded(sample, template)


def worded(sample: Sample, template: str) -> str:
    """The template with the sample's labels filled in.

    Raises:
        DataError: the sample lacks a label that the template names, by its row.
        RecipeError: the template is none.
    """
    return filled(template, sample.labels, sample.where)


def filled(template: str, labels: Mapping[str, object], where: str | None = None) -> str:
    """The template with labels filled in; ``where`` they come from is told in errors.

    Raises:
        DataError: a label that the template names is not there.
        RecipeError: the template is none.
    """
    try:
        return template.format_map(labels)
    except KeyError as missing:
        have = ", ".join(labels) or "none"
        raise DataError(
            f"the text {template!r} needs the label {missing.args[0]!r} (has: {have})", path=where
        ) from None
    except (ValueError, IndexError) as fault:
        raise RecipeError(f"the text {template!r} is no template: {fault}") from None
