"""The runs and indexes that a server serves, loaded once, and the tools that follow from them."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, create_model

from plait import api
from plait.agents.capabilities import CAPABILITIES, Answer, Capability
from plait.agents.pictures import Doorkeeper
from plait.agents.schemas import Arguments
from plait.core.errors import UserError
from plait.models.alignment.alignment import AlignmentModel
from plait.retrieval import open_index


class BadArguments(UserError):
    """A call whose arguments do not fit the schema of the tool."""


@dataclass(frozen=True)
class ServedTool:
    """A capability with the models or indexes that have it.

    Attributes:
        capability: the row of the table.
        subjects: by name; with several, the arguments say which.
        arguments: the capability's, and that choice.
    """

    capability: Capability
    subjects: Mapping[str, Any]
    arguments: type[Arguments]

    def call(self, given: Mapping[str, Any], doorkeeper: Doorkeeper) -> Answer:
        """Checks the arguments and does the work.

        Raises:
            UserError: arguments that do not fit, or a picture that cannot be used.
        """
        try:
            arguments = self.arguments.model_validate(dict(given))
        except ValidationError as error:
            raise BadArguments(_in_words(error)) from error
        names = list(self.subjects)
        name = getattr(arguments, self.capability.chooses) if len(names) > 1 else names[0]
        with tempfile.TemporaryDirectory(prefix="plait-") as scratch:
            folder = Path(scratch)
            return self.capability.do(
                self.subjects[name], arguments, lambda value: doorkeeper.admit(value, folder)
            )


def _in_words(error: ValidationError) -> str:
    parts = []
    for one in error.errors(include_url=False, include_input=False):
        place = ".".join(map(str, one["loc"])) or "arguments"
        parts.append(f"{place}: {one['msg']}")
    return "; ".join(parts)


def served_tool(capability: Capability, subjects: Mapping[str, Any]) -> ServedTool:
    """The tool of a capability, with a choice among the names when there are several."""
    arguments = capability.arguments
    if len(subjects) > 1:
        names = tuple(subjects)
        choice: dict[str, Any] = {capability.chooses: (Literal[names], ...)}
        arguments = create_model(f"{arguments.__name__}Of", __base__=arguments, **choice)
    return ServedTool(capability, subjects, arguments)


@dataclass
class Served:
    """Tools by name; one call computes at a time, however many wait.

    Attributes:
        tools: by name.
        doorkeeper: of the pictures that come in.
    """

    tools: Mapping[str, ServedTool]
    doorkeeper: Doorkeeper
    _computing: threading.Lock = field(default_factory=threading.Lock)

    def call(self, name: str, given: Mapping[str, Any]) -> Answer:
        """Calls a tool.

        Raises:
            UserError: see `ServedTool.call`.
        """
        with self._computing:
            return self.tools[name].call(given, self.doorkeeper)


def serve(
    runs: Sequence[Path], indexes: Sequence[Path] = (), *, roots: Sequence[Path] = (Path(),)
) -> Served:
    """Loads runs and indexes and finds out what they can do.

    Args:
        runs: run folders.
        indexes: made by `plait index`; each brings its model along.
        roots: folders whose pictures the tools may read.

    Raises:
        UserError: nothing to serve, a folder that holds no run or index, or a run that no tool fits.
    """
    if not runs and not indexes:
        raise UserError("nothing to serve: give at least one run folder, or --index INDEX")
    doorkeeper = Doorkeeper.of(roots)
    models = {path.resolve(): api.load(path) for path in runs}
    subjects: dict[str, Any] = {}
    for path, model in models.items():
        if not any(one.can(model) for one in CAPABILITIES):
            raise UserError(f"{path}: no tool can be made of this run's {type(model).__name__}")
        subjects[_free_name(path.name, subjects)] = model
    for path in indexes:
        subjects[_free_name(path.resolve().name, subjects)] = _opened(path, models)
    tools = {}
    for capability in CAPABILITIES:
        able = {name: one for name, one in subjects.items() if capability.can(one)}
        if able:
            tools[capability.name] = served_tool(capability, able)
    return Served(tools, doorkeeper)


def _opened(path: Path, models: Mapping[Path, Any]) -> Any:
    """An index with its model in memory: that of a served run where it is the same."""
    index = open_index(path)
    model = models.get(index.run_folder().resolve())
    if isinstance(model, AlignmentModel):
        return open_index(path, model=model)
    assert index.model is not None  # loads it now, so that a missing run shows before serving
    return index


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
