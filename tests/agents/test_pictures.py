"""Which pictures a tool may see."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from plait.agents.handles import Album
from plait.agents.pictures import Doorkeeper, as_data_url, thumbnail
from plait.core.errors import DataError, UserError


def png(size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """allowed/a.png, secret.png beside it, and a link out of the folder."""
    root = tmp_path / "allowed"
    root.mkdir()
    (root / "a.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    (root / "way-out.png").symlink_to(tmp_path / "secret.png")
    (root / "words.png").write_text("no picture")
    return root


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_files_under_the_root(place: Path, scratch: Path) -> None:
    keeper = Doorkeeper.of([place])
    for value in ("a.png", str(place / "a.png"), (place / "a.png").as_uri()):
        assert keeper.admit(value, scratch) == (place / "a.png").resolve()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("../secret.png", "under the allowed folders"),
        ("way-out.png", "under the allowed folders"),
        ("/etc/passwd", "under the allowed folders"),
        ("missing.png", "missing.png: no such file"),
        (".", "no such file"),
        ("words.png", "words.png"),
        ("http://127.0.0.1/a.png", "nothing is fetched"),
        ("data:text/html;base64,AAAA", "file path or base64"),
        ("a\0.png", "neither"),
        ("", "neither"),
        ("data:image/png;base64,@@@@", "damaged"),
        ("data:image/png;base64,AAAA", "inline picture"),
    ],
)
def test_refused(place: Path, scratch: Path, value: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Doorkeeper.of([place]).admit(value, scratch)
    assert list(scratch.iterdir()) == []


def test_inline(place: Path, scratch: Path) -> None:
    keeper = Doorkeeper.of([place])
    data = png((40, 30))
    plain = base64.b64encode(data).decode()
    assert len(plain) > 100
    paths = [keeper.admit(value, scratch) for value in (as_data_url(data, "image/png"), plain)]
    assert len(set(paths)) == 2
    assert all(path.read_bytes() == data for path in paths)


def test_limits(place: Path, scratch: Path) -> None:
    few_bytes = Doorkeeper((place.resolve(),), max_bytes=20)
    few_pixels = Doorkeeper((place.resolve(),), max_pixels=8 * 6 - 1)
    for value in ("a.png", as_data_url(png(), "image/png")):
        with pytest.raises(DataError, match="more than"):
            few_bytes.admit(value, scratch)
        with pytest.raises(DataError, match="pixels"):
            few_pixels.admit(value, scratch)
        Doorkeeper((place.resolve(),), max_pixels=8 * 6).admit(value, scratch)


def test_root_must_be_a_folder(place: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        Doorkeeper.of([place / "a.png"])


def test_thumbnail(place: Path) -> None:
    (place / "big.png").write_bytes(png((900, 300)))
    small = thumbnail(place / "big.png", "green")
    assert Image.open(io.BytesIO(small.data)).size == (256, 85)
    with pytest.raises(DataError, match="cannot be read"):
        thumbnail(place / "gone.png", "gone")


def test_names_of_pictures_become_pictures(place: Path) -> None:
    album = Album()
    assert album.add_file(place / "a.png") == "image:1"
    url = as_data_url(png(), "image/png")
    given = {"images": ["image:1", "b.png"], "text": "image:1 is green", "k": 2}
    assert album.put_in(given) == {"images": [url, "b.png"], "text": "image:1 is green", "k": 2}
    with pytest.raises(UserError, match=r"no picture 'image:7' \(there are: image:1\)"):
        album.put_in({"image": "image:7"})
    with pytest.raises(DataError, match="cannot be read"):
        album.add_file(place / "gone.png")
