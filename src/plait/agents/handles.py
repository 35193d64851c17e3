"""Names for pictures, so that a language model can hand on what it could never spell out.

The task's pictures are ``image:1`` and so on, and so are those that tools return. Where an argument
of a tool is such a name, the picture itself goes to the server, as a data URL.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from plait.agents.pictures import MAX_BYTES, Picture, as_data_url
from plait.core.errors import DataError, UserError
from plait.core.foreign import one_line
from plait.modalities.image.decode import open_image

_HANDLE = re.compile(r"image:\d+")


class Album:
    """Pictures by name, in the order they came."""

    def __init__(self) -> None:
        self._pictures: dict[str, Picture] = {}

    def add(self, picture: Picture) -> str:
        """Keeps a picture; returns its name."""
        name = f"image:{len(self._pictures) + 1}"
        self._pictures[name] = picture
        return name

    def add_file(self, path: Path) -> str:
        """Keeps the picture in a file; returns its name.

        Raises:
            DataError: missing, too large, or no picture.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"the picture cannot be read: {error.strerror}", path=path) from error
        if len(data) > MAX_BYTES:
            raise DataError(
                f"the picture has {len(data) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g}",
                path=path,
            )
        with open_image(data, name=str(path)) as image:
            mime = Image.MIME.get(image.format or "", "application/octet-stream")
            caption = f"{one_line(path.name, 100)}, {image.width} x {image.height}"
        return self.add(Picture(data, mime, caption))

    def __getitem__(self, name: str) -> Picture:
        return self._pictures[name]

    def __len__(self) -> int:
        return len(self._pictures)

    def put_in(self, arguments: Any) -> Any:
        """The arguments with every name of a picture replaced by the picture.

        Raises:
            UserError: a name that there is not.
        """
        if isinstance(arguments, dict):
            return {key: self.put_in(value) for key, value in arguments.items()}
        if isinstance(arguments, list):
            return [self.put_in(value) for value in arguments]
        if not isinstance(arguments, str) or not _HANDLE.fullmatch(arguments):
            return arguments
        if arguments not in self._pictures:
            known = ", ".join(self._pictures) or "none"
            raise UserError(f"there is no picture {arguments!r} (there are: {known})")
        picture = self._pictures[arguments]
        return as_data_url(picture.data, picture.mime)
