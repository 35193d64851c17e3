"""Texts to ids, against the published tokenizers where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from plait.core.errors import DataError, ModelError, RecipeError
from plait.modalities.text import tokenize
from plait.modalities.text.glosses import Glossary
from plait.modalities.text.tokenize import TextPreprocess
from plait.modalities.text.tokenizer_files import (
    bert_tokenizer,
    clip_tokenizer,
    open_clip_tokenizer,
)
from plait.modalities.text.tokenizer_training import KINDS, train_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s", "sits", "猫", "cafe", "."]
TEXTS = [
    "A photo of a cat's  dog, isn't it? 123 4th",
    "你好 世界 emoji 😀",
    "",
    "Ünïcode “quotes” ‘over’ it",
    "a " * 100,
    "tab\tnew\nline   !?!?",
    "MIXED Case, e.g. THIS.",
]


def words_only(*words: str) -> Tokenizer:
    """Splits at spaces, adds no special tokens, knows ``words`` from id 1 on."""
    vocabulary = {"[UNK]": 0} | {word: index for index, word in enumerate(words, 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def test_ids_mask_and_padding_by_hand() -> None:
    text = TextPreprocess(bert_tokenizer(WORDS), 8)
    ids, mask = text(["A cats sits.", "猫"])
    assert ids.tolist() == [[2, 5, 6, 7, 8, 11, 3], [2, 9, 3, 0, 0, 0, 0]]
    assert mask.tolist() == [[True] * 7, [True] * 3 + [False] * 4]
    assert text.lengths(["A cats sits.", "猫", ""]).tolist() == [7, 3, 2]
    assert text.vocabulary == 12


def test_truncation_keeps_the_final_special_token() -> None:
    text = TextPreprocess(bert_tokenizer(WORDS), 4)
    ids, mask = text(["a cat sits a cat", "cat"])
    assert ids.tolist() == [[2, 5, 6, 3], [2, 6, 3, 0]]
    assert text.lengths(["a cat sits a cat"]).tolist() == [7]
    assert mask.sum() == 7


def test_padding_to_the_full_length() -> None:
    ids, mask = TextPreprocess(bert_tokenizer(WORDS), 6, pad_id=4, padding="full")(["a"])
    assert ids.tolist() == [[2, 5, 3, 4, 4, 4]] and mask.sum() == 3


def test_a_text_without_tokens_keeps_one_real_position() -> None:
    text = TextPreprocess(words_only("a"), 5, pad_id=0)
    ids, mask = text(["", "a a"])
    assert ids.tolist() == [[0, 0], [1, 1]] and mask.tolist() == [[True, False], [True, True]]
    ids, mask = text([])
    assert ids.shape == (0, 1) and mask.shape == (0, 1)


def test_settings_of_the_given_tokenizer_do_not_leak() -> None:
    tokenizer = bert_tokenizer(WORDS)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50, pad_id=9)
    text = TextPreprocess(tokenizer, 6)
    assert text.pad_id == 9  # what it pads with is taken over, how far it pads is not
    ids, _ = text(["a cat sits ."])
    assert ids.tolist() == [[2, 5, 6, 8, 11, 3]]
    assert tokenizer.truncation["max_length"] == 3


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5), st.integers(3, 9))
def test_rows_do_not_depend_on_the_batch(texts: list[str], longest: int) -> None:
    text = TextPreprocess(bert_tokenizer(WORDS), longest)
    ids, mask = text(texts)
    assert ids.shape == mask.shape and ids.shape[1] <= longest
    assert (ids[~mask] == text.pad_id).all()
    lengths = np.minimum(text.lengths(texts), longest)
    assert mask.sum(1).tolist() == lengths.tolist()
    for row, single in enumerate(texts):
        alone, _ = text([single])
        assert ids[row, mask[row]].tolist() == alone[0].tolist()


def test_save_and_load(tmp_path: Path) -> None:
    text = TextPreprocess(bert_tokenizer(WORDS), 5, pad_id=4, padding="full")
    text.save(tmp_path)
    again = TextPreprocess.load(tmp_path)
    assert again.fingerprint == text.fingerprint and again.settings == text.settings
    np.testing.assert_array_equal(again(TEXTS)[0], text(TEXTS)[0])
    again.save(tmp_path)
    assert TextPreprocess.load(tmp_path).fingerprint == text.fingerprint


def test_fingerprints_tell_settings_apart() -> None:
    tokenizer = bert_tokenizer(WORDS)
    kinds = [
        TextPreprocess(tokenizer, 5),
        TextPreprocess(tokenizer, 6),
        TextPreprocess(tokenizer, 5, pad_id=4),
        TextPreprocess(tokenizer, 5, padding="full"),
        TextPreprocess(bert_tokenizer(WORDS, lowercase=False), 5),
        TextPreprocess(bert_tokenizer([*WORDS, "dog"]), 5),
    ]
    assert len({kind.fingerprint for kind in kinds}) == len(kinds)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"text_preprocess\.json is missing"):
        TextPreprocess.load(tmp_path)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        TextPreprocess.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="not a readable tokenizer"):
        TextPreprocess.load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="adds 2 special tokens"):
        TextPreprocess(bert_tokenizer(WORDS), 2)


def test_bert_from_its_vocabulary_as_transformers(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "model_max_length": 9, "pad_token": "[PAD]"})
    )
    theirs = BertTokenizerFast.from_pretrained(str(tmp_path))
    ours = TextPreprocess.load_tokenizer(tmp_path)
    assert ours.max_length == 9 and ours.pad_id == 0
    texts = [*TEXTS, "A Café of CATS 猫猫."]
    expected = theirs(texts, padding=True, truncation=True, max_length=9, return_tensors="np")
    ids, mask = ours(texts)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def test_a_folder_that_transformers_wrote(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    theirs = BertTokenizerFast.from_pretrained(str(tmp_path))
    theirs.save_pretrained(str(tmp_path / "saved"))
    ours = TextPreprocess.load_tokenizer(tmp_path / "saved", max_length=7)
    expected = theirs(TEXTS, padding=True, truncation=True, max_length=7, return_tensors="np")
    np.testing.assert_array_equal(ours(TEXTS)[0], expected["input_ids"])


def test_clip_from_vocabulary_and_merges_as_transformers(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    full = json.loads(open_clip_tokenizer().to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(full["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in full["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges + "\n", encoding="utf-8")
    theirs = CLIPTokenizer.from_pretrained(str(tmp_path))
    ours = TextPreprocess.load_tokenizer(tmp_path, max_length=77)
    expected = theirs(TEXTS, padding=True, truncation=True, max_length=77, return_tensors="np")
    np.testing.assert_array_equal(
        ours(TEXTS)[0][ours(TEXTS)[1]], expected["input_ids"][expected["attention_mask"] == 1]
    )


def test_the_vocabulary_of_open_clip() -> None:
    import open_clip

    ours = TextPreprocess(open_clip_tokenizer(), 77, pad_id=0, padding="full")
    assert ours.vocabulary == 49_408
    np.testing.assert_array_equal(ours(TEXTS)[0], open_clip.tokenize(TEXTS).numpy())


def test_foreign_vocabularies_are_refused() -> None:
    with pytest.raises(ModelError, match=r"lacks \[CLS\]"):
        bert_tokenizer(["[UNK]", "a"])
    with pytest.raises(ModelError, match="not a CLIP vocabulary"):
        clip_tokenizer({"a": 0}, [])


OWN = ["A red cat!", "a blue dog", "红色的猫", "the cat's dog", "the the the"]


def tokens(kind: str, text: str, vocabulary: int = 60) -> list[str]:
    return train_tokenizer(OWN, kind=kind, vocabulary=vocabulary).encode(text).tokens  # type: ignore[arg-type]


def test_whole_words_of_own_texts() -> None:
    assert tokens("word", "A CAT, 猫 zebra") == [
        "[CLS]",
        "a",
        "cat",
        "[UNK]",
        "猫",
        "[UNK]",
        "[SEP]",
    ]
    # By count, then by code point: the (4), a, cat, dog (2 each).
    tokenizer = train_tokenizer(OWN, kind="word", vocabulary=9)
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert tokenizer.get_vocab() == {**special, "the": 5, "a": 6, "cat": 7, "dog": 8}


def test_characters_of_own_texts() -> None:
    assert tokens("character", "Cat 猫z") == [
        "[CLS]", "c", "a", "t", " ", "猫", "[UNK]", "[SEP]"
    ]  # fmt: skip


def test_pieces_of_own_texts_spell_new_words() -> None:
    found = tokens("bpe", "Header 猫")
    assert "[UNK]" not in found
    assert "".join(found[1:-1]).replace("▁", " ").split() == ["header", "猫"]
    assert "▁the" in tokens("bpe", "the")


@pytest.mark.parametrize("kind", KINDS)
def test_training_does_not_depend_on_order_or_process(kind: str) -> None:
    code = (
        "from plait.modalities.text.tokenizer_training import train_tokenizer;"
        f"print(train_tokenizer({OWN[::-1]!r}, kind={kind!r}, vocabulary=50).to_str())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8"
    )
    here = train_tokenizer(OWN, kind=kind, vocabulary=50)  # type: ignore[arg-type]
    assert here.to_str() == other.stdout.strip()
    assert here.get_vocab_size() <= 50 and here.token_to_id("[PAD]") == 0


def test_training_refuses_the_impossible() -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", "  "])
    with pytest.raises(RecipeError, match="no room"):
        train_tokenizer(OWN, vocabulary=4)


def every_kind() -> dict[str, Tokenizer]:
    """A tokenizer of each kind that splits words in its own way."""
    unigram = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("▁", -2.0), *((sign, -3.0) for sign in "abct'!"),
                        ("▁cat", -3.0), ("tt", -2.5)], unk_id=0)
    )  # fmt: skip
    unigram.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    found = {kind: train_tokenizer(OWN, kind=kind, vocabulary=60) for kind in KINDS}
    byte = Tokenizer(models.BPE())
    byte.pre_tokenizer = pre_tokenizers.ByteLevel()
    byte.train_from_iterator(
        OWN,
        trainers.BpeTrainer(
            vocab_size=300,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return {
        **found,
        "bert": bert_tokenizer(WORDS),
        "clip": open_clip_tokenizer(),
        "unigram": unigram,
        "bytes": byte,
    }


EVERY_KIND = every_kind()
# What texts are made of that tokenizers might join over a cut: accents, jamo, joined emoji, special
# tokens in parts, curly quotes, long words and blanks.
BITS = [
    "a", "cat", "tt", "dog ", " ", "  ", "\n", "'", "'re", "!", "...", "1", "23", "e\u0301", "\u0316\u0301",
    "\u1100\u1161", "\uac00\u11a8", "👩\u200d👩", "猫", "狗和", "\0", "[SEP]", "[SE", "P]", "<|endoftext|>", "<|end",
    "’", "ﬁ", "İ", "Σ", "я", "\u00a0", "▁",
]  # fmt: skip


@cache
def preprocessing(kind: str, glossed: bool) -> tuple[TextPreprocess, Tokenizer]:
    """(what is tested, the same tokenizer for whole texts)."""
    glossary = (
        Glossary({"猫": "cat", "狗": "dog dog", "猫狗": "the", "和": ""}) if glossed else None
    )
    whole = Tokenizer.from_str(EVERY_KIND[kind].to_str())
    whole.no_padding()
    whole.enable_truncation(6)
    return TextPreprocess(EVERY_KIND[kind], 6, pad_id=0, glossary=glossary), whole


@pytest.mark.parametrize("kind", EVERY_KIND)
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from(BITS), max_size=40).map("".join), min_size=1, max_size=3),
    st.booleans(),
)
def test_a_beginning_gives_what_the_whole_text_gives(
    kind: str, texts: list[str], glossed: bool
) -> None:
    text, whole = preprocessing(kind, glossed)
    assert text._is_local
    rewritten = [text.glossary(one) if text.glossary else one for one in texts]
    expected = [one.ids for one in whole.encode_batch(rewritten)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenize, "_CHARACTERS", 1)  # far too few: it must be seen
        ids, mask = text(texts)
    found = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
    assert found == [row or [0] for row in expected]


def test_of_a_long_text_little_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TextPreprocess(bert_tokenizer(WORDS), 8, glossary=Glossary({"猫": "a cat"}))
    read: list[int] = []
    settles = text._settles

    def seen(beginning: str) -> bool:
        read.append(len(beginning))
        assert settles(beginning)
        return True

    monkeypatch.setattr(text, "_settles", seen)
    ids, _ = text(["猫" * 20_000, "a cat sits. " * 2000])
    assert ids.tolist() == [[2, 5, 6, 5, 6, 5, 6, 3], [2, 5, 6, 8, 11, 5, 6, 3]]
    assert len(read) == 2 and max(read) < 100


def test_a_tokenizer_of_unknown_parts_reads_whole_texts() -> None:
    whole = Tokenizer(models.BPE(vocab={"a": 0, "▁": 1}, merges=[]))
    whole.normalizer = normalizers.Replace(" ", "▁")  # no splitter: one word, however long
    assert not TextPreprocess(whole, 5, pad_id=0)._is_local
    whole.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?<=x)a"), "isolated")
    assert not TextPreprocess(whole, 5, pad_id=0)._is_local
