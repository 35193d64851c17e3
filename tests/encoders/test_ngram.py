"""The hashed bag of words and n-grams, against a bag counted in plain Python."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.encoders.registry import build_encoder
from plait.encoders.scratch.text import NgramEncoder


def encoder() -> NgramEncoder:
    built = build_encoder("scratch/ngram", modality="text", width=8, buckets=32749)
    assert isinstance(built, NgramEncoder)
    return built


ENCODER = encoder()


def features_of(text: str) -> Counter[int]:
    ids, mask = (torch.from_numpy(x) for x in ENCODER.preprocess([text]))
    found = ENCODER.features(ids, mask).flatten().tolist()
    return Counter(bucket for bucket in found if bucket < ENCODER.buckets)


def spans(text: str) -> tuple[Counter[str], Counter[str]]:
    """Words and n-grams by walking over the characters."""
    text = text.lower()
    grams: Counter[str] = Counter()
    for start in range(len(text)):
        for stop in range(start + 1, len(text) + 1):
            if len(text[start:stop].encode()) in (3, 4, 5, 6):
                grams[text[start:stop]] += 1
    words: Counter[str] = Counter()
    run = ""
    for letter in text + " ":
        if letter.isascii() and not letter.isalnum():
            if run:
                words[run] += 1
            run = ""
        else:
            run += letter
    return words, grams


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="ab c1-猫狗é", min_size=1, max_size=24))
def test_as_many_features_as_words_and_ngrams(text: str) -> None:
    import unicodedata

    text = unicodedata.normalize("NFKC", text)
    words, grams = spans(text)
    found = features_of(text)
    assert sum(found.values()) == sum(words.values()) + sum(grams.values())


@pytest.mark.parametrize(("one", "other"), [("red cat", "cat red"), ("cat red", "a cat")])
def test_a_word_has_one_bucket_wherever_it_stands(one: str, other: str) -> None:
    shared = features_of(one) & features_of(other) & features_of("cat")
    assert len(shared) >= 2  # the word and its trigram


def test_chinese_characters_are_features() -> None:
    assert features_of("猫") & features_of("小猫咪")
    assert not features_of("猫") & features_of("狗")


def test_long_texts_keep_their_hashes_exact() -> None:
    word = "pneumonoultramicroscopicsilicovolcanoconiosis"
    assert features_of(word)[_word_bucket(word)] == 1
    assert features_of("x " * 80 + word)[_word_bucket(word)] == 1


def _word_bucket(word: str) -> int:
    coefficients = ENCODER.coefficients[-1].tolist()
    total = sum(
        (byte + 1) * coefficients[k] % ENCODER.buckets for k, byte in enumerate(word.encode())
    )
    return total % ENCODER.buckets
