"""Whose pictures an index may show: those below folders that somebody stated.

Rows name pictures by path, and whoever makes an index can name any file of the machine that opens
it. So a manifest states the folders (roots) of the data, sealed with a key that this user keeps
beside the caches: in an index of their own they hold, in one from elsewhere they do not, and whoever
opens it states others.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from plait.core.errors import DataError
from plait.core.files import cache_home, is_below, read_regular

log = logging.getLogger(__name__)

KEY = "index.key"
_KEY_BYTES = 32
_MOST = 16  # roots of one index; pictures in more folders have their common one


def roots_of(data: Path | None, pictures: Iterable[str | None]) -> list[str]:
    """The folders of pictures that are being indexed.

    Args:
        data: the folder or file that was opened, if there is one.
        pictures: paths; relative ones lie in the index.
    """
    found: set[str] = set()
    if data is not None and data.exists():
        real = data.resolve()
        found.add(str(real if real.is_dir() else real.parent))
    own = tuple(found)
    folders = {os.path.dirname(path) for path in pictures if path and os.path.isabs(path)}  # noqa: PTH117, PTH120  many
    others = sorted(folder for folder in folders if not is_below(folder, own))
    found.update(others if len(others) <= _MOST else [os.path.commonpath(others)])
    return sorted(found)


def below_roots(path: str, roots: Iterable[str | Path]) -> Path | None:
    """The path as seen from the outermost of the roots that hold it; None where none does."""
    real = os.path.realpath(path)
    holding = [os.path.realpath(root) for root in roots if is_below(real, (root,))]
    return Path(os.path.relpath(real, min(holding, key=len))) if holding else None


def seal(model: str, roots: Sequence[str]) -> str:
    """What proves that this user stated the roots; empty where no key can be kept."""
    key = _key(make=True)
    return "" if key is None else _sealed(key, model, roots)


def is_own(model: str, roots: Sequence[str], given: str) -> bool:
    """Whether the seal is of this user's key."""
    key = _key(make=False)
    return key is not None and hmac.compare_digest(
        _sealed(key, model, roots).encode(), given.encode("utf-8", "replace")
    )


def _sealed(key: bytes, model: str, roots: Sequence[str]) -> str:
    return hmac.new(key, json.dumps([model, *roots]).encode(), hashlib.sha256).hexdigest()


def _key(*, make: bool) -> bytes | None:
    path = cache_home() / KEY
    try:
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{KEY}.{secrets.token_hex(8)}")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with open(handle, "wb") as file:  # noqa: PTH123  a descriptor
                    file.write(secrets.token_bytes(_KEY_BYTES))
                # A link, unlike a replacement, never takes the place of another process's key.
                os.link(temporary, path)
            finally:
                temporary.unlink()
        key = read_regular(path, most_bytes=_KEY_BYTES)
    except FileExistsError:
        return _key(make=False)
    except (OSError, DataError) as error:
        if make:
            log.warning("the folders of this index cannot be sealed: %s", error)
        return None
    return key if len(key) == _KEY_BYTES else None
