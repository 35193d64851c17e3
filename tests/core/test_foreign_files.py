"""Files that strangers name: regular ones of a stated size, below stated folders, and no others."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from plait.core.errors import DataError
from plait.core.files import is_below, read_regular, regular


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert read_regular(tmp_path / "a") == b"x" * 100_000
    (tmp_path / "empty").write_bytes(b"")
    assert read_regular(tmp_path / "empty") == b""
    (tmp_path / "link").symlink_to("a")
    assert len(read_regular(tmp_path / "link")) == 100_000


def test_what_is_no_regular_file_is_named_and_never_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # names of sockets have at most 107 bytes
        listener.bind("socket")
        started = time.perf_counter()
        for name, kind in (
            (tmp_path / "pipe", "a named pipe"),
            (tmp_path / "link", "a named pipe"),
            (tmp_path / "socket", "a socket"),
            (tmp_path, "a folder"),
            ("/dev/zero", "a device"),
            ("/proc/self/environ", "of the system's own"),
            ("/proc/self/mem", "of the system's own"),
            (tmp_path / "none", "No such file"),
            ("a\0b", "null byte"),
        ):
            with pytest.raises(DataError, match=kind):
                read_regular(name)
            with pytest.raises(DataError, match=kind):
                regular(name)
        assert time.perf_counter() - started < 2


def test_a_size_is_checked_before_reading(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="1,099,511,627,776 bytes"):
        read_regular(tmp_path / "sparse")
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", most_bytes=5) == b"12345"
    with pytest.raises(DataError, match="more than the 4 "):
        read_regular(tmp_path / "a", most_bytes=4)


def test_below_follows_links_and_dots(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "inner"  # the beginning of the name is the same
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a").touch()
    (inside / "out").symlink_to(outside / "a")
    (inside / "folder").symlink_to(outside)
    (inside / "home").symlink_to(inside / "a")
    (tmp_path / "alias").symlink_to(inside)
    for name in ("in", "in/a", "in/none", "in/../in/a", "in/home", "alias/a"):
        assert is_below(tmp_path / name, [inside]), name
    for name in ("inner/a", "in/../inner/a", "in/out", "in/folder/a", "."):
        assert not is_below(tmp_path / name, [inside]), name
    assert is_below(tmp_path / "in/out", [inside, outside])
    assert is_below(tmp_path / "in/a", [tmp_path / "alias"])
    assert is_below("/etc/passwd", ["/"])
    assert not is_below("/etc/passwd", [])
