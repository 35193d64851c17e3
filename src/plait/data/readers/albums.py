"""Folder names that are no labels: dates, cameras, and folders that hold any pictures at all.

People sort photographs by day and by camera. Such a name says nothing of what a picture shows, so
that a tree with one of them is an album, not a set of classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_DATE = re.compile(
    r"""(19|20)\d\d                                          # 2019
        ([-_. /]?(0[1-9]|1[0-2])([-_. ]?(0[1-9]|[12]\d|3[01]))?(?!\d).*)?   # 2019-07, 20190714 Paris
        | (19|20)\d\d\s?年.*                                 # 2019年7月
        | \d{1,2}[-_.]\d{1,2}[-_.](19|20)\d\d(?!\d).*        # 14.07.2019
    """,
    re.VERBOSE | re.DOTALL,
)
_CAMERA = re.compile(
    r"""DCIM | [1-9]\d\d(?=.*[A-Z])[A-Z0-9_]{5}              # 100CANON, 101_PANA: the DCF standard
        | (IMG|DSC|DSCN|DSCF|MVI|PXL|P)[-_ ]?\d{3,}.*        # IMG_0001
    """,
    re.VERBOSE,
)
_ANY = re.compile(
    r"""(camera|cam|kamera)[-_ ]?(\d+|roll|uploads?)? | screen\s?shots? | untitled.* | new[ ]folder.*
        | neuer[ ]ordner.* | downloads? | whatsapp.* | google[ ]photos | takeout | unsorted
        | (image|img|picture|photo|pic|foto|bild|jpeg|jpegimage)(s|er|os)? | 图片 | 照片 | 相册 | 新建文件夹.*
    """,
    re.VERBOSE | re.IGNORECASE,
)


def no_labels(folders: Iterable[str]) -> list[str]:
    """Which names of folders are no labels, sorted.

    Args:
        folders: the folders of pictures, as paths below the source. What all of them begin with is
            not looked at. Numbers that are years count only where no other number is a name:
            classes may be called 0 to 2999.
    """
    paths = [folder.split("/") for folder in set(folders)]
    shared = 0
    if len(paths) > 1:
        first, last = min(paths), max(paths)
        while shared < min(len(first), len(last)) and first[shared] == last[shared]:
            shared += 1
    names = {name for path in paths for name in path[shared:]}
    numbers = {name for name in names if name.isdecimal() and len(name) < 5}
    counted = any(_DATE.fullmatch(name) is None for name in numbers - _MONTHS)
    found = {name for name in names if _is_none(name)} - (numbers if counted else set())
    return sorted(found)


_MONTHS = frozenset(f"{number:02}" for number in range(1, 32))


def _is_none(name: str) -> bool:
    return any(one.fullmatch(name) is not None for one in (_DATE, _CAMERA, _ANY))
