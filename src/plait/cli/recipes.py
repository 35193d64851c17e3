"""``plait recipes``: the built-in recipes with what they show, cost and give."""

from __future__ import annotations

from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, table


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this recipe, to copy and edit it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the built-in recipes, or print one."""
    from plait.training.recipe.recipe import list_recipes, recipe_text

    if name is not None:
        text = recipe_text(name)
        emit({"name": name, "text": text}, as_json, lambda: typer.echo(text, nl=False))
        return
    found = list_recipes()
    header = ["recipe", "shows", "cost", "expected result"]
    rows = [[entry[key] for key in ("name", "shows", "cost", "result")] for entry in found]
    emit(found, as_json, lambda: table("", header, rows))
