"""The choice of int8 graphs, with quantisers whose harm is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from plait.compression.quantiser import Made, Quantiser, drift, harms, in_groups, parted
from plait.compression.search import Int8Search

HARM = {"image": [0.1, 0.4, 0.0], "text": [0.2, 0.05]}


class Turned:
    """Gives unit rows turned by as many radians as its int8 groups do harm."""

    engine, precision = "made up", "int8"

    def __init__(self, angle: float) -> None:
        self.angle = angle

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        angles = tensors["x"] + self.angle
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@dataclass
class MadeUp:
    """A quantiser of groups with the harm of `HARM`."""

    name: str
    folder: Path
    format: str = "onnx"
    asked: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def groups(self) -> Sequence[Sequence[str]]:
        return [[f"{self.name}{number}"] for number in range(len(HARM[self.name]))]

    def make(self, floating: Sequence[int], stem: str) -> Made:
        self.asked.append(tuple(floating))
        angle = sum(h for number, h in enumerate(HARM[self.name]) if number not in floating)
        file = self.folder / f"{stem}.txt"
        file.write_text(f"{angle}" + "x" * len(floating))
        return Made(file)

    def reference(self, threads: int | None = None) -> Turned:
        return Turned(0.0)

    def open(self, made: Made, threads: int | None = None) -> Turned:
        return Turned(float(made.file.read_text().strip("x")))


PROBES = [{"x": np.array([0.0, 1.0, 2.0])}]


def searching(tmp_path: Path, tolerance: float) -> Int8Search:
    """Recall is 100 less 100 times the radians of both towers."""

    def recall(sessions: Mapping[str, Turned]) -> float:
        angle = sum(float(np.arccos(sessions[n].run(PROBES[0])[0, 0])) for n in HARM)
        return 100 - 100 * angle

    return Int8Search(
        {name: MadeUp(name, tmp_path) for name in HARM},
        {name: Turned(0.0) for name in HARM},
        dict.fromkeys(HARM, PROBES),
        recall,
        100.0,
        tolerance,
    )


def test_groups_go_back_to_float_by_their_harm(tmp_path: Path) -> None:
    """All int8 loses 75 points; without image 1 35; without text 0 too 15; the rest is 0."""
    search = searching(tmp_path, tolerance=20.0)
    found = search.run()
    assert found is not None
    assert {name: list(places) for name, places in found.floating.items()} == {
        "image": [1],
        "text": [0],
    }
    assert [round(one.lost) for one in search.tried] == [75, 35, 15]
    np.testing.assert_allclose(search.harm["image"], 1 - np.cos(HARM["image"]), atol=1e-6)


def test_the_first_candidate_is_enough_and_no_harm_is_measured(tmp_path: Path) -> None:
    search = searching(tmp_path, tolerance=80.0)
    found = search.run()
    assert found is not None
    assert found.lost == pytest.approx(75, abs=1e-2)
    assert search.harm == {}
    assert [quantiser.asked for quantiser in search.quantisers.values()] == [[()], [()]]


def test_a_tower_that_stays_as_it_was_is_not_made_again(tmp_path: Path) -> None:
    search = searching(tmp_path, tolerance=40.0)
    search.run()
    text = search.quantisers["text"]
    assert text.asked.count(()) == 1  # all int8; the second candidate changed pictures alone


def test_the_ladder_ends_with_all_in_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = searching(tmp_path, tolerance=0.0).run()
    assert found is not None
    assert sum(len(places) for places in found.floating.values()) == 4  # one does no harm
    assert searching(tmp_path, tolerance=-1.0).run() is None


def test_operations_in_groups_of_equally_many_layers() -> None:
    """Each group begins with a layer; what comes before the first belongs to the first."""
    operations = [(name, name.isupper()) for name in "aBcDEfGhI"]
    assert in_groups(operations, 2) == [list("aBcD"), list("EfGhI")]
    assert in_groups(operations, 9) == [list("aBc"), ["D"], list("Ef"), list("Gh"), ["I"]]
    assert in_groups([("a", False)], 3) == []


def test_what_comes_after_the_last_layer_is_never_int8() -> None:
    groups, tail = parted([(name, name.isupper()) for name in "AbCde"])
    assert groups == [list("Ab"), ["C"]]
    assert tail == ["d", "e"]
    assert parted([("a", False)]) == ([], ["a"])


def test_harm_leaves_no_files_behind(tmp_path: Path) -> None:
    quantiser = MadeUp("image", tmp_path)
    assert isinstance(quantiser, Quantiser)
    found = harms(quantiser, Turned(0.0), PROBES)
    np.testing.assert_allclose(found, 1 - np.cos(HARM["image"]), atol=1e-6)
    assert quantiser.asked == [(1, 2), (0, 2), (0, 1)]
    assert not list(tmp_path.iterdir())


class ByBatch(Turned):
    """Turns rows by a tenth of the rows of their batch, as dynamic scales might."""

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        return Turned(0.1 * len(tensors["x"])).run(tensors)


def test_drift_is_the_change_of_a_cosine_by_company() -> None:
    """Two rows at 0 and 1 radians; alone turned by 0.1, together by 0.2.

    Of the rows at angles a + 0.1 (alone), the cosine of row i, taken at a_i + 0.2, to row j alone
    changes from cos(a_i - a_j) to cos(a_i - a_j + 0.1); over both rows and sides the most is
    |cos(1.1) - cos(1)| = 0.0867... or |cos(0.9) - cos(1)| = 0.0813...
    """
    inputs = [{"x": np.array([0.0, 1.0])}]
    assert drift(Turned(0.3), inputs) == 0
    assert drift(ByBatch(0.0), inputs) == pytest.approx(np.cos(1) - np.cos(1.1), abs=1e-6)


def test_a_row_alone_has_no_padding() -> None:
    seen = []

    class Looking(Turned):
        def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
            seen.append(tensors["ids"].shape)
            return Turned(0.0).run({"x": np.zeros(len(tensors["ids"]))})

    mask = np.array([[True, True, False], [True, True, True]])
    drift(Looking(0.0), [{"ids": np.ones((2, 3), np.int64), "mask": mask}])
    assert seen == [(1, 2), (1, 3), (2, 3)]
