"""Whether a model can read a query: by the scripts it was trained on and its vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from plait.core.errors import ModelError
from plait.modalities.text.glosses import Glossary
from plait.modalities.text.scripts import query_note, script_counts, script_of, unknown_share
from plait.modalities.text.tokenize import SETTINGS_FILE, TextPreprocess


def words(*known: str) -> Tokenizer:
    """One token a word, the rest unknown."""
    vocabulary = {name: number for number, name in enumerate(["[PAD]", "[UNK]", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def english(size: int = 0, **options: object) -> TextPreprocess:
    """Knows a few words, and so many made ones, all Latin."""
    made = [f"word{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}{n // 676 * 'x'}" for n in range(size)]
    return TextPreprocess(words("a", "red", "apple", *made), 16, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("letter", "script"),
    [("a", "Latin"), ("红", "Han"), ("り", "Kana"), ("リ", "Kana"), ("한", "Hangul"), ("я", "Cyrillic"),
     ("α", "Greek"), ("ع", "Arabic"), ("3", None), ("!", None), ("🍎", None)],
)  # fmt: skip
def test_script_of_a_letter(letter: str, script: str | None) -> None:
    assert script_of(letter) == script


def test_counts_are_of_letters() -> None:
    assert script_counts(["A red 苹果 3!", "ＡＢ"]) == {"Latin": 6, "Han": 2}
    assert script_counts(["123 🍎"]) == {}


def test_a_script_that_training_never_had_is_noted() -> None:
    model = english(3000)
    model.note_scripts(["a red apple"] * 50)
    assert query_note(model, "a red apple") is None
    told = query_note(model, "红苹果")
    assert told is not None and "Han script" in told and "glosses=cc-cedict" in told
    told = query_note(model, "a red яблоко")
    assert told is not None and "Cyrillic" in told and "glosses" not in told
    model.note_scripts(["яблоко"])  # two in a hundred letters
    assert query_note(model, "a red яблоко apple") is None


def test_hardly_any_letters_are_not_a_script_that_was_read() -> None:
    model = english(3000)
    model.note_scripts(["a red apple"] * 200 + ["果"])  # one in 1,800
    told = query_note(model, "红苹果")
    assert told is not None and "Han script" in told


def test_unknown_words_are_noted_in_any_script() -> None:
    model = english()
    model.note_scripts(["a red apple"])
    assert query_note(model, "a red zebra apple") is None
    told = query_note(model, "zebra crossing")
    assert told is not None and told.startswith("100% of the query is unknown")
    assert query_note(model, "🍎") is not None
    assert unknown_share(model, "red zebra") == 0.5
    assert unknown_share(model, "") == 1.0


def test_a_model_that_says_nothing_is_judged_by_its_vocabulary() -> None:
    small, large = english(), english(3000)
    assert small.scripts is None and query_note(small, "a red apple") is None
    assert query_note(small, "红") is not None  # unknown
    assert query_note(large, "a red apple") is None
    told = query_note(large, "红苹果")
    assert told is not None and "Han" in told


def test_a_vocabulary_of_a_script_reads_it_whatever_the_pairs_were() -> None:
    many = [chr(0x4E00 + n) for n in range(1500)]
    model = TextPreprocess(words("red", *many), 16)
    model.note_scripts(["red"] * 50)
    assert query_note(model, many[7]) is None


def test_a_dictionary_makes_chinese_readable_and_keeps_its_silence_noted() -> None:
    model = english(3000, glossary=Glossary({"红": "red", "苹果": "apple"}))
    model.note_scripts(["a red apple", "红苹果"])
    assert model.scripts == {"Latin": 17}
    assert query_note(model, "红苹果") is None
    told = query_note(model, "龘龘")  # in no dictionary: nothing is left
    assert told is not None and "unknown" in told and "--set" not in told


def test_scripts_are_kept_with_the_tokenizer_and_change_no_fingerprint(tmp_path: Path) -> None:
    model = english()
    before = model.fingerprint
    model.save(tmp_path)
    assert TextPreprocess.load(tmp_path).scripts is None
    model.note_scripts(["a red 苹果"])
    model.save(tmp_path)
    again = TextPreprocess.load(tmp_path)
    assert again.scripts == {"Latin": 4, "Han": 2} and again.fingerprint == before
    settings = tmp_path / SETTINGS_FILE
    settings.write_text(settings.read_text().replace('"Han": 2', '"Han": "many"'))
    with pytest.raises(ModelError, match="scripts are"):
        TextPreprocess.load(tmp_path)
