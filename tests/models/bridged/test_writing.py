"""Writing with a cache is writing without; batches, padding and beams change no text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from plait.bridges.registry import build_bridge
from plait.core.batch import Batch, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.encoders.registry import build_encoder
from plait.language.base import LanguageModel
from plait.language.decoder import Decoder
from plait.language.hf import HfLanguageModel
from plait.modalities.text.tokenize import TextPreprocess
from plait.modalities.text.tokenizer_training import train_tokenizer
from plait.models.bridged.generate import Writing, generate, narrowed
from plait.models.bridged.model import LABELS, BridgedModel, Media
from plait.models.bridged.sequences import Writer

TEXTS = ["what color is the shape ?", "is there a red circle ?", "red", "blue", "yes no maybe"]


def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, kind="word", vocabulary=60)


def language(kind: str) -> LanguageModel:
    torch.manual_seed(1)
    read = TextPreprocess(tokenizer(), 64)
    if kind == "scratch":
        model = Decoder(read, width=16, layers=3, heads=2, context=64)
        for parameter in model.parameters():  # sharper choices than at the start of training
            parameter.data += 0.3 * torch.randn_like(parameter)
        return model.eval()
    import transformers

    size: dict[str, Any] = {"vocab_size": read.vocabulary, "bos_token_id": 2, "eos_token_id": 3}
    config = {
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=16, n_layer=3, n_head=2, n_positions=64, **size
        ),
        "llama": lambda: transformers.LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            initializer_range=0.5,
            **size,
        ),
        "qwen2": lambda: transformers.Qwen2Config(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            initializer_range=0.5,
            **size,
        ),
    }[kind]()
    model = transformers.AutoModelForCausalLM.from_config(config)
    return HfLanguageModel(model, read, start=2, end=3).eval()


def seeing(kind: str, injection: str, bridge: str = "mlp") -> BridgedModel:
    torch.manual_seed(0)
    encoder = build_encoder("scratch/cnn", modality="image", size=16, widths=[4, 8])
    tokens = encoder(ModalityInput.of(pixels=torch.zeros(1, 3, 16, 16, dtype=torch.uint8))).tokens
    lm = language(kind)
    model = BridgedModel(
        encoder,
        build_bridge(bridge, encoder.token_width, lm.width),
        lm,
        injection=injection,  # type: ignore[arg-type]
        picture_tokens=tokens.shape[1],
        heads=2,
        head_width=8,
    ).double()
    for gate in () if model.gates is None else model.gates.blocks:
        gate.gate.data += 0.7
        gate.gate_feed_forward.data -= 0.4
    return model.eval()


def asked(model: BridgedModel, prompts: list[str], *, extra: int = 0) -> tuple[Any, Media]:
    writer = model.writer
    rows = [writer.prompt(text, pictures=text.count("<image>")) for text in prompts]
    sequences = writer.padded(
        [*rows, [5] * (max(map(len, rows)) + extra)] if extra else rows, left=True
    )
    sequences = type(sequences)(
        *(getattr(sequences, name)[: len(rows)] for name in ("ids", "mask", "labels"))
    )
    many = max(text.count("<image>") for text in prompts)
    pixels = torch.randint(
        0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    shown = torch.tensor(
        [
            [(row + k) % 3 if k < text.count("<image>") else -1 for k in range(many)]
            for row, text in enumerate(prompts)
        ]
    )
    present = torch.ones(len(prompts), dtype=torch.bool)
    return sequences, model.see(ModalityInput({"pixels": pixels, "rows": shown}, present))


PROMPTS = [
    "<image> what color is the shape ?",
    "<image> red <image> is there a red circle ?",
    "is <image> blue",
]
LANGUAGES = ["scratch", "gpt2", "llama", "qwen2"]
WAYS = [
    Writing(longest=8),
    Writing("beam", longest=6, beams=3),
    Writing("sample", longest=8, temperature=0.8, top_k=20, top_p=0.9, seed=4),
]


@pytest.mark.parametrize("kind", LANGUAGES)
@pytest.mark.parametrize("injection", ["prefix", "gated"])
@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.method)
def test_cache_batch_and_padding_change_no_token(kind: str, injection: str, how: Writing) -> None:
    model = seeing(kind, injection)
    with torch.no_grad():
        sequences, media = asked(model, PROMPTS)
        together = generate(model, sequences, media, how)
        assert generate(model, sequences, media, how, cache=False) == together
        padded, media = asked(model, PROMPTS, extra=5)
        assert padded.ids.shape[1] == sequences.ids.shape[1] + 5
        assert generate(model, padded, media, how) == together
        if how.method != "sample":  # there a row draws by its place
            for number, prompt in enumerate(PROMPTS):
                alone, _ = asked(model, [prompt])
                row = media.select(torch.tensor([number]))
                count = prompt.count("<image>")
                row = Media(row.tokens[:, :count], row.mask[:, :count])
                assert generate(model, alone, row, how) == [together[number]]
    assert len({tuple(text) for text in together}) > 1


@pytest.mark.parametrize("kind", LANGUAGES)
def test_gates_are_closed_at_first(kind: str) -> None:
    model = seeing(kind, "gated")
    for gate in () if model.gates is None else model.gates.blocks:
        gate.gate.data.zero_()
        gate.gate_feed_forward.data.zero_()
    sequences, media = asked(model, PROMPTS)
    x = model.embed(sequences.ids)
    alone = model.language(x, sequences.mask)
    seeing_it, _ = model.hidden(sequences.ids, sequences.mask, media)
    assert torch.equal(alone, seeing_it)


@pytest.mark.parametrize("injection", ["prefix", "gated"])
def test_a_picture_is_seen_and_padding_is_not(injection: str) -> None:
    model = seeing("scratch", injection)
    sequences, media = asked(model, PROMPTS)
    hidden, mask = model.hidden(sequences.ids, sequences.mask, media)
    other = Media(media.tokens.flip(-1), media.mask)
    changed, _ = model.hidden(sequences.ids, sequences.mask, other)
    assert not torch.allclose(hidden[0, -1], changed[0, -1])
    odd = sequences.ids.masked_fill(~mask, 7)
    again, _ = model.hidden(odd, sequences.mask, media)
    assert torch.equal(again[mask], hidden[mask])


def renamed(layers: torch.nn.Module, name: str) -> Callable[..., Any]:
    """Their ``forward`` with the cache under the name of another release of transformers."""
    forward = layers.forward
    taken = "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
    seen: dict[str, Callable[..., Any]] = {
        "cache": lambda cache, **rest: forward(**{taken: cache}, **rest),
        "past_key_values": lambda past_key_values, **rest: forward(
            **{taken: past_key_values}, **rest
        ),
        "state": lambda state, **rest: forward(**{taken: state}, **rest),
    }
    return seen[name]


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_both_names_of_the_cache_write_the_same(name: str) -> None:
    model = seeing("llama", "prefix")
    lm = model.language
    assert isinstance(lm, HfLanguageModel)
    how = Writing("greedy", longest=6)
    sequences, media = asked(model, PROMPTS)
    wanted = generate(model, sequences, media, how)
    lm.model.base_model.forward = renamed(lm.model.base_model, name)
    model.language = again = HfLanguageModel(lm.model, lm.preprocess, start=2, end=3).eval()
    assert generate(model, sequences, media, how) == wanted
    cache = again.new_cache()
    with torch.no_grad():
        again(again.embed(torch.full_like(sequences.ids, 5)), sequences.mask, cache)
    assert cache.inner.get_seq_length() == sequences.ids.shape[1]


def test_a_model_without_keys_and_values_is_refused() -> None:
    lm = language("llama")
    assert isinstance(lm, HfLanguageModel)
    lm.model.base_model.forward = renamed(lm.model.base_model, "state")
    with pytest.raises(ModelError, match="llama keeps no keys and values"):
        HfLanguageModel(lm.model, lm.preprocess, start=2, end=3)


def test_beams_find_what_transformers_finds() -> None:
    lm = language("gpt2")
    assert isinstance(lm, HfLanguageModel)
    lm = lm.double()
    for parameter in lm.parameters():
        parameter.data += 0.2 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64
        )
    encoder = build_encoder("scratch/cnn", modality="image", size=16, widths=[4, 8])
    model = (
        BridgedModel(encoder, build_bridge("linear", encoder.token_width, 16), lm).double().eval()
    )
    writer = model.writer
    sequences = writer.padded([writer.prompt(text, pictures=0) for text in TEXTS[:2]], left=True)
    for beams, penalty in ((2, 1.0), (3, 0.0), (4, 2.0)):
        how = Writing("beam", longest=7, beams=beams, length_penalty=penalty)
        ours = generate(model, sequences, None, how)
        theirs = lm.model.generate(
            input_ids=sequences.ids,
            attention_mask=sequences.mask.long(),
            num_beams=beams,
            length_penalty=penalty,
            max_new_tokens=7,
            do_sample=False,
            early_stopping=False,
            pad_token_id=0,
            eos_token_id=3,
        )[:, sequences.ids.shape[1] :]
        for mine, row in zip(ours, theirs.tolist(), strict=True):
            assert mine == row[: len(mine)] and not any(row[len(mine) :])


def test_narrowing() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert narrowed(logits, 2, None).isfinite().tolist() == [[True, True, False, False]]
    assert narrowed(logits, None, 0.8).isfinite().tolist() == [[True, True, False, False]]
    assert narrowed(logits, None, 0.81).isfinite().tolist() == [[True, True, True, False]]
    assert narrowed(logits, 9, 1.0).equal(logits)


@pytest.mark.parametrize("injection", ["prefix", "gated"])
def test_loss_is_that_of_the_answer_alone(injection: str) -> None:
    model = seeing("scratch", injection)
    writer = model.writer
    examples = [
        writer.example("<image> what color ?", "red", pictures=1),
        writer.example("<image> is", "blue circle", pictures=1),
    ]
    sequences = writer.padded([ids for ids, _ in examples], [labels for _, labels in examples])
    text = ModalityInput.of(mask=sequences.mask, ids=sequences.ids, **{LABELS: sequences.labels})
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    image = ModalityInput.of(pixels=pixels)
    batch = Batch(["a", "b"], torch.arange(2), {"image": image, "text": text})
    total, count = model.loss(batch)
    assert count == 2 + 3  # the words and the ends
    hidden, _ = model.hidden(sequences.ids, sequences.mask, model.see(image))
    by_hand = 0.0
    for row, (ids, labels) in enumerate(examples):
        scores = model.language.logits(hidden[row]).log_softmax(dim=-1)
        scores = scores.detach()
        by_hand -= sum(float(scores[k - 1, ids[k]]) for k in range(len(ids)) if labels[k] >= 0)
    assert float(total.detach()) == pytest.approx(by_hand, rel=1e-9)


def test_prompts_and_pictures_must_agree() -> None:
    writer = Writer(language("scratch"), 4, limit=12)
    with pytest.raises(DataError, match=r"row 3: the prompt 'red' has 0 <image> and there are 1"):
        writer.prompt("red", pictures=1, where="row 3")
    with pytest.raises(
        DataError, match=r"takes 14 positions with 4 for each picture, and .* has 12"
    ):
        writer.prompt("<image>" * 3, pictures=3)
    ids, labels = writer.example("<image> red", "blue " * 20, pictures=1)
    assert len(ids) == len(labels) == 12 and labels[:6] == [-100] * 6
    assert writer.text(writer.ids("what color is the shape ?")) == "what color is the shape ?"
