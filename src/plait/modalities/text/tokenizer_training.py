"""Small tokenizers trained on the user's own texts, for encoders built from scratch.

The same texts in any order give the same tokenizer, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from plait.core.errors import DataError, RecipeError, did_you_mean
from plait.modalities.text.tokenizer_files import surround

Kind = Literal["word", "character", "bpe"]
KINDS: tuple[Kind, ...] = ("word", "character", "bpe")
PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Kind = "bpe",
    vocabulary: int = 8000,
    lowercase: bool = True,
) -> Tokenizer:
    """A tokenizer of at most ``vocabulary`` ids for these texts: ``[CLS] text [SEP]``.

    Args:
        texts: what to learn from: the training split alone, or the figures deceive.
        kind: ``"word"`` splits at spaces and punctuation and knows whole words; ``"character"``
            knows single characters; ``"bpe"`` knows frequent pieces and can spell new words from
            them. All take each Chinese character for a word.
        vocabulary: the most ids, the five special ones included; the rarest are left out.
        lowercase: and strip accents.

    Raises:
        RecipeError: an unknown kind, or no room for a vocabulary.
        DataError: no text.
    """
    if kind not in KINDS:
        raise RecipeError(
            f"tokenizer kind {kind!r} is not one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}"
        )
    if vocabulary <= len(SPECIAL):
        raise RecipeError(f"a vocabulary of {vocabulary} leaves no room beside special tokens")
    # Trainers break ties by first appearance, so the order must not depend on the source.
    ordered = sorted(text for text in texts if text.strip())
    if not ordered:
        raise DataError("there is no text to train a tokenizer on")
    if kind in ("word", "character"):
        tokenizer = _whole(ordered, kind, vocabulary, lowercase)
    else:
        tokenizer = _pieces(ordered, vocabulary, lowercase)
    surround(tokenizer, START, END)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    return tokenizer


def _prepare(tokenizer: Tokenizer, lowercase: bool) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _whole(texts: list[str], kind: str, vocabulary: int, lowercase: bool) -> Tokenizer:
    """Whole words or single characters: counted here, as no trainer of the library does it."""
    tokenizer = Tokenizer(models.WordLevel({}, unk_token=UNKNOWN))
    _prepare(tokenizer, lowercase)
    if kind == "character":  # and no spaces around Chinese characters: they are apart anyway
        tokenizer.normalizer = normalizers.BertNormalizer(
            lowercase=lowercase, handle_chinese_chars=False
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    counts: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    words = [*SPECIAL, *(word for word in ranked if word not in SPECIAL)][:vocabulary]
    tokenizer.model = models.WordLevel(
        {word: index for index, word in enumerate(words)}, unk_token=UNKNOWN
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _pieces(texts: list[str], vocabulary: int, lowercase: bool) -> Tokenizer:
    """Byte-pair encoding in which a sign stands before each word.

    WordPiece, and a suffix for the ends of words, would number their letters by the order of a
    hash table, which changes from run to run.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    _prepare(tokenizer, lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
