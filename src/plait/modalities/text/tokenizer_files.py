"""Tokenizers from the files that published text models carry.

`tokenizer.json` where there is one; else BERT's ``vocab.txt``, CLIP's ``vocab.json`` with
``merges.txt``, or the merges that the open_clip package ships.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from plait.core.errors import MissingExtra, ModelError
from plait.core.files import read_json, read_regular, regular

# Words, single digits and runs of other signs (Radford et al. 2021, the published CLIP tokenizer).
CLIP_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_OPENAI_MERGES = (
    48_894  # of the longer list in the file: 49,152 less 256 bytes and 2 special tokens
)
# What transformers writes as model_max_length for "no limit".
_NO_LIMIT = 1_000_000


def read_tokenizer(path: Path) -> Tokenizer:
    """A ``tokenizer.json``. Raises ModelError when it is missing or broken."""
    if not path.is_file():
        raise ModelError(f"{path} is missing: a folder with a text encoder needs its tokenizer")
    try:
        regular(path, 128 << 20)
        return Tokenizer.from_file(str(path))
    except BaseException as error:  # the library raises bare Exception, and panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ModelError(f"{path} is not a readable tokenizer: {error}") from error


def read_tokenizer_folder(folder: Path) -> tuple[Tokenizer, int | None, int | None]:
    """(tokenizer, its id for padding if stated, its longest text if stated) of a model folder.

    Raises:
        ModelError: no tokenizer that can be read without running code.
    """
    config = _optional_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        tokenizer = read_tokenizer(folder / "tokenizer.json")
    elif (folder / "vocab.txt").is_file():
        words = _text(folder / "vocab.txt").splitlines()
        tokenizer = bert_tokenizer(words, lowercase=bool(config.get("do_lower_case", True)))
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        merges = _merges(_text(folder / "merges.txt"))
        try:
            tokenizer = clip_tokenizer(read_json(folder / "vocab.json"), merges)
        except (ValueError, TypeError, AttributeError) as error:  # no words, or no numbers
            raise ModelError(f"{folder / 'vocab.json'} is no vocabulary: {error}") from error
    else:
        raise ModelError(
            f"{folder} holds no tokenizer: tokenizer.json, vocab.txt, or vocab.json with merges.txt"
        )
    special = _optional_json(folder / "special_tokens_map.json") | config
    token = special.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    pad_id = tokenizer.token_to_id(token) if isinstance(token, str) else None
    limit = config.get("model_max_length")
    known = isinstance(limit, int | float) and 0 < limit < _NO_LIMIT
    return tokenizer, pad_id, int(limit) if known else None  # type: ignore[arg-type]


def _text(path: Path) -> str:
    try:
        return read_regular(path, most_bytes=128 << 20).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is no UTF-8 text: {error}") from error


def bert_tokenizer(words: Sequence[str], *, lowercase: bool = True) -> Tokenizer:
    """WordPiece as BERT was trained with: ``[CLS] text [SEP]``; line n of the list is id n."""
    vocabulary = {word: index for index, word in enumerate(words)}
    for token in ("[UNK]", "[CLS]", "[SEP]"):
        if token not in vocabulary:
            raise ModelError(f"vocab.txt lacks {token}: it is not a BERT vocabulary")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(
        [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in vocabulary]
    )
    surround(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def clip_tokenizer(
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    start: str = "<|startoftext|>",
    end: str = "<|endoftext|>",
) -> Tokenizer:
    """Lower-cased byte-level BPE as CLIP was trained with, between ``start`` and ``end``."""
    for token in (start, end):
        if token not in vocabulary:
            raise ModelError(f"vocab.json lacks {token}: it is not a CLIP vocabulary")
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(merges), end_of_word_suffix="</w>", unk_token=end)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([start, end])
    surround(tokenizer, start, end)
    return tokenizer


def open_clip_tokenizer() -> Tokenizer:
    """CLIP's tokenizer from the vocabulary file inside the ``open_clip_torch`` package.

    Ids equal OpenAI's. Like open_clip it straightens curly quotes; open_clip also repairs broken
    encodings and HTML entities, and texts that need that differ.

    Raises:
        MissingExtra: the package is not installed.
    """
    from importlib.util import find_spec

    found = find_spec("open_clip")
    if found is None or found.origin is None:
        raise MissingExtra("open_clip_torch", "test", "the vocabulary of open_clip")
    path = Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = _merges(gzip.decompress(path.read_bytes()).decode())[:_OPENAI_MERGES]
    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = clip_tokenizer({word: index for index, word in enumerate(words)}, merges)
    straight = [normalizers.Replace(Regex("[‘’]"), "'"), normalizers.Replace(Regex("[“”]"), '"')]
    tokenizer.normalizer = normalizers.Sequence([*straight, tokenizer.normalizer])
    return tokenizer


def byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level BPE, in CLIP's order of ids.

    Printable bytes stand for themselves; the others take the letters from U+0100 on
    (Radford et al. 2019, GPT-2).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = len(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(others)]


def surround(tokenizer: Tokenizer, start: str, end: str) -> None:
    """Puts a special token before and after each text; both must be in the vocabulary."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )


def _merges(text: str) -> list[tuple[str, str]]:
    """The pairs of a merges file, whose first line states its version."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return [(pair[0], pair[1]) for pair in lines if len(pair) == 2]


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
