"""Shared fixtures. Shapes and types in annotations are checked while the tests run."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests never reach for a hub

from jaxtyping import install_import_hook

install_import_hook("plait", "beartype.beartype")
