"""A tokenizer that needs no vocabulary: UTF-8 bytes, so that any language goes in.

Ids: 0 padding, 1 start, 2 end, 3 unknown (never used), 4 + b for byte b.
"""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from plait.modalities.text.tokenize import TextPreprocess

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
FIRST_BYTE = len(SPECIAL)
VOCABULARY = FIRST_BYTE + 256


def byte_letters() -> list[str]:
    """The letter that byte-level tokenizers write for each byte (Radford et al. 2019).

    Printable Latin-1 stands for itself; the others get the letters from U+0100 on, in order.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    other = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(other)) for byte in range(256)]


def byte_preprocess(max_length: int, *, boundaries: bool = True) -> TextPreprocess:
    """Texts in Unicode's compatibility form, lower case, as bytes.

    Args:
        max_length: most bytes, with start and end.
        boundaries: put start and end around each text.
    """
    vocabulary = {token: index for index, token in enumerate(SPECIAL)}
    vocabulary |= {letter: FIRST_BYTE + byte for byte, letter in enumerate(byte_letters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    if boundaries:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return TextPreprocess(tokenizer, max_length, pad_id=0)
