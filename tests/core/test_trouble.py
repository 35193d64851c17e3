"""Whatever library tells of it, and however: one sentence, and the right exit code."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from plait.core.errors import DataError, PlaitError
from plait.core.files import new_folder, replacing, write_text
from plait.core.trouble import explained


def told(error: BaseException) -> tuple[int, str]:
    found = explained(error)
    assert found is not None, repr(error)
    assert "\n" not in str(found)
    return found.exit_code, str(found)


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        ("ENOSPC", 1, "no space is left"),
        ("EDQUOT", 1, "quota"),
        ("EFBIG", 1, "larger than"),
        ("EIO", 1, "does not work"),
        ("EROFS", 2, "read-only"),
        ("EACCES", 2, "permissions"),
        ("ENOENT", 2, "no longer"),
        ("EMFILE", 1, "ulimit -n"),
        ("ENOMEM", 1, "memory"),
        ("ECONNRESET", 1, "connection"),
    ],
)
def test_numbers_of_the_system(number: str, code: int, words: str) -> None:
    value = getattr(errno, number)
    found, message = told(OSError(value, os.strerror(value), "pairs/a.png"))
    assert found == code
    assert words in message
    assert message.startswith("pairs/a.png: ") == (number not in ("ENOMEM", "ECONNRESET"))
    # Rust's libraries (safetensors, Lance, tokenizers) quote the number alone
    assert told(RuntimeError(f"Io error: (os error {value})"))[0] == code


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you",
            "mem",
        ),
        ("CUDA out of memory. Tried to allocate 20.00 MiB", "graphics memory"),
        ("DataLoader worker (pid 12) is killed by signal: Killed.", "helper process"),
        ("can't start new thread", "process or thread"),
        ("std::bad_alloc", "memory"),
        ("HTTPSConnectionPool: Max retries exceeded with url", "connection"),
    ],
)
def test_words_of_libraries(text: str, words: str) -> None:
    code, message = told(RuntimeError(text))
    assert code == 1
    assert words in message


def test_memory_that_libraries_really_lack() -> None:
    for take in (lambda: np.empty(1 << 60, np.uint8), lambda: torch.empty(1 << 60).fill_(0)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            take()
        assert "memory does not suffice" in told(caught.value)[1]


def test_faults_of_plait_stay_faults() -> None:
    for error in (KeyError("no space left on device"), ValueError("Permission denied"), OSError()):
        assert explained(error) is None
    assert explained(DataError("a sentence already")) is not None
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "looked for")
    fault = TypeError("a fault while handling it")
    fault.__context__ = missing
    assert explained(fault) is None
    fault.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(explained(fault), PlaitError)  # torch's writer stumbles over a full disk


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3)}, target)
    before = target.read_bytes()
    with pytest.raises(RuntimeError) as caught, replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert told(caught.value)[1].startswith(f"{target}: no space is left")
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_gives_way_only_to_a_whole_one(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with new_folder(out) as folder:
        write_text(folder / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), new_folder(out, overwrite=True) as folder:
        write_text(folder / "a.txt", "half")
        raise KeyboardInterrupt
    assert (out / "a.txt").read_text() == "old"
    with new_folder(out, overwrite=True) as folder:
        write_text(folder / "b.txt", "new")
    assert [path.name for path in out.iterdir()] == ["b.txt"]
    assert list(tmp_path.iterdir()) == [out]


def test_the_old_folder_comes_back_where_the_exchange_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "bundle", Path.rename
    out.mkdir()
    (out / "a.txt").write_text("old")

    def failing(path: Path, target: Path) -> Path:
        if (path / "b.txt").exists():
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input"), new_folder(out, overwrite=True) as folder:
        (folder / "b.txt").write_text("new")
    assert [path.name for path in out.iterdir()] == ["a.txt"]
    assert list(tmp_path.iterdir()) == [out]
