"""Folders that take their place whole, their locks, and real paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plait.core.errors import UserError
from plait.core.files import RealPaths, unfinished_folder
from plait.core.lock import FolderLock


def test_real_paths_are_those_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "inner" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "one").symlink_to("inner/file")
    real = RealPaths()
    for name in ("link/inner/file", "link/one", "real/../link/inner/file", "link/inner", "none/x",
                 "link/inner/..", "real/inner/", "link/inner/new"):  # fmt: skip
        for path in (tmp_path / name, f"{tmp_path}/{name}", os.path.relpath(tmp_path / name)):
            assert real(path) == os.path.realpath(path)


def test_an_exchange_in_which_a_process_was_killed(tmp_path: Path) -> None:
    out, new = tmp_path / "out", tmp_path / ".out.unfinished"
    old = tmp_path / ".out.unfinished.old"
    for there in (False, True):  # killed between the two renames, or before the old one was deleted
        old.mkdir()
        (old / "row").write_text("old")
        if there:
            (out / "row").write_text("new")
        with pytest.raises(RuntimeError), unfinished_folder(out):
            raise RuntimeError
        assert (out / "row").read_text() == ("new" if there else "old")
        assert not old.exists() and not new.exists()
    with unfinished_folder(out) as folder:
        (folder / "row").write_text("newest")
    assert (out / "row").read_text() == "newest" and [path.name for path in tmp_path.iterdir()] == [
        "out"
    ]


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path, monkeypatch) -> None:
    """As when the one who held it removes the file between another one's opening and locking."""
    fcntl = pytest.importorskip("fcntl", reason="no such locks on this system")
    first, late = FolderLock(tmp_path), FolderLock(tmp_path)
    flock = fcntl.flock

    def removed(handle: int, how: int) -> None:
        flock(handle, how)
        monkeypatch.setattr(fcntl, "flock", flock)
        first.path.unlink()

    monkeypatch.setattr(fcntl, "flock", removed)
    late.acquire()
    with pytest.raises(UserError, match="another process"):
        first.acquire()
    late.release()
