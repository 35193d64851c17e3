"""HEIC pictures, as telephones store them: through libheif, by one of the packages that bring it.

libheif turns a picture as the file's own boxes say (``irot``, ``imir``; ISO/IEC 23008-12), and the
packages then set the orientation in its EXIF data to 1: it is a copy of what was done, and doing it
again would turn the picture twice.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Final

from PIL import Image

from plait.core.errors import DataError, install_command
from plait.data.forms import heif_package

FORMAT: Final = "HEIF"
"""The name by which Pillow knows the form, once a package has told it."""


@cache
def prepare() -> None:
    """Makes Pillow open HEIC.

    Raises:
        DataError: no package that reads it is installed, or it can't be loaded.
    """
    name = heif_package()
    if name is None:
        raise DataError(
            f"is a HEIC picture: {install_command('heif')} reads it, or convert it to JPEG"
        )
    if FORMAT in Image.OPEN:  # whoever uses plait has set it up, perhaps with settings
        return
    try:
        importlib.import_module(name).register_heif_opener()
    except ImportError as error:
        raise DataError(
            f"is a HEIC picture, and {name} can't be loaded ({error}): install it anew, or convert "
            "the picture to JPEG"
        ) from error
