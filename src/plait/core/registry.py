"""Things by name: those of plait and those that other packages bring, loaded when first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from plait.core.errors import ModelError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """What recipes and sources call by a name.

    Names are listed without loading anything. A package adds to them by an entry point, in its
    pyproject.toml ``[project.entry-points."plait.fusions"]`` with ``mine = "my_package.fusion:Mine"``;
    no fork and no import in advance is needed. Nobody's name is replaced in silence.

    Args:
        what: one of them in messages, such as ``fusion``.
        group: of the entry points, such as ``plait.fusions``.
        table: name to ``module:attribute``, plait's own.
    """

    def __init__(self, what: str, group: str, table: Mapping[str, str]) -> None:
        self.what, self.group = what, group
        self._own = dict(table)
        self._loaded: dict[str, T] = {}

    @cached_property
    def _brought(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def register(self, name: str, thing: T) -> None:
        """Adds one by hand, for this process.

        Raises:
            ModelError: the name is taken.
        """
        if name in self:
            raise ModelError(f"there is a {self.what} {name!r} already, of {self.package(name)}")
        self._loaded[name] = thing

    def package(self, name: str) -> str:
        """Which package brought it: ``plait``, another one's name, or ``this program``.

        Raises:
            KeyError: there is none of that name.
        """
        if name in self._own:
            return "plait"
        if name in self._brought:
            return _package(self._brought[name][0])
        if name in self._loaded:
            return "this program"
        raise KeyError(name)

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T:
        brought = self._brought.get(name, [])
        if len(brought) + (name in self._own) > 1:
            owners = ["plait"] * (name in self._own) + [_package(point) for point in brought]
            raise ModelError(
                f"{self.what} {name!r} is brought by {' and '.join(owners)}: uninstall one of them, "
                "or give it another name in its entry points"
            )
        if name in self._own:
            module, _, attribute = self._own[name].partition(":")
            return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
        if not brought:
            raise KeyError(name)
        try:
            return brought[0].load()  # type: ignore[no-any-return]
        except Exception as error:  # whatever a stranger's module may raise while it is imported
            raise ModelError(
                f"{self.what} {name!r} of the package {_package(brought[0])} does not load: "
                f"{type(error).__name__}: {error}"
            ) from error

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._loaded or name in self._brought

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *sorted(self._brought), *self._loaded]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
