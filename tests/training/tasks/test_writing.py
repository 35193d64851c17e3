"""Language models learn to write about pictures, by recipe, and write the same after loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from plait import api
from plait.core.batch import ModalityInput
from plait.core.clock import Clock
from plait.core.errors import DataError, ModelError, RecipeError
from plait.core.media import FileRef
from plait.data import open_dataset
from plait.modalities.image.fast_decode import load_pixels
from plait.models.bridged.model import BridgedModel
from plait.models.store.storage import load_model
from plait.training.batches.material import material_of
from plait.training.build.build import build_model
from plait.training.recipe.recipe import check
from plait.training.run.preflight import preflight, readable
from plait.training.run.run import train
from plait.training.run.stage_data import StageData

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
DECODER = {
    "source": "scratch/decoder",
    "options": {"width": 16, "layers": 2, "heads": 2, "context": 48},
    "vocabulary": {"kind": "word", "size": 60},
}

SMALL = {"image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}}}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of one colour, with a caption, a question and its answer."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number in range(40):
        name = list(COLOURS)[number % 2]
        shade = tuple(max(0, value - number // 4 * 3) for value in COLOURS[name])
        Image.new("RGB", (16, 16), shade).save(folder / f"{number}.png")
        rows.append(
            {
                "file_name": f"{number}.png",
                "text": f"a {name} picture",
                "question": "what colour is it?",
                "answer": name,
                "split": "train" if number < 28 else "validation" if number < 34 else "test",
            }
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def recipe_of(source: Path, **changes: Any) -> Any:
    stage = {
        "name": "pictures",
        "tasks": [
            {
                "objective": "write",
                "prompt": changes.pop("prompt", "<image>"),
                "target": changes.pop("target", "{text}"),
            }
        ],
        "train": {"image.encoder": "full", "bridge": "full", "language": "full"},
        "epochs": 30,
        "batch_size": 14,
        "precision": "float32",
        "optimiser": {"lr": 0.01},
        **changes.pop("stage", {}),
    }
    return check(
        {
            "name": "tiny",
            "data": {"source": str(source)},
            "model": {
                "kind": "bridge",
                "towers": changes.pop("towers", SMALL),
                "language": changes.pop("language", DECODER),
                "bridge": changes.pop("bridge", "mlp"),
            },
            "stages": changes.pop("stages", [stage]),
            **changes,
        }
    )


@pytest.mark.parametrize("injection", ["prefix", "gated"])
def test_it_learns_to_describe_and_to_say_the_same_after_loading(
    injection: str, pairs: Path, tmp_path: Path
) -> None:
    bridge = {"kind": "mlp", "injection": injection, "heads": 2, "head_width": 8}
    result = train(recipe_of(pairs, bridge=bridge), out=tmp_path / "run")
    assert result.metrics["captions"]["bleu_1"] > 90
    control = result.metrics["controls"]["shuffled_pictures"]["bleu_1"]
    assert control < result.metrics["captions"]["bleu_1"]
    picture = pairs / "38.png"
    (told,) = api.caption(tmp_path / "run", [picture])
    assert told["caption"] == "a red picture"
    again = api.evaluate(tmp_path / "run")
    assert again["captions"] == result.metrics["captions"]
    for page in ("report.md", "report.html"):
        told = (tmp_path / "run" / page).read_text(encoding="utf-8")
        assert "a red picture" in told and "CIDEr-D" in told
    assert f"plait caption {tmp_path / 'run'} PICTURE.jpg" in told


def test_a_frozen_language_model_learns_to_answer_and_stays_as_it_is(
    pairs: Path, tmp_path: Path
) -> None:
    shared = {"batch_size": 14, "precision": "float32", "optimiser": {"lr": 0.01}}
    target = "{answer}"
    words = {
        "name": "words",
        "tasks": [{"objective": "write", "prompt": "{question}", "target": target}],
        "train": {"language": "full", "bridge": "frozen", "gates": "frozen"},
        "epochs": 20,
        **shared,
    }
    seen = {
        "name": "pictures",
        "tasks": [{"objective": "write", "prompt": "<image>{question}", "target": target}],
        "train": {"image.encoder": "full"},
        "epochs": 60,
        **shared,
    }
    bridge = {"kind": "resampler", "injection": "gated", "heads": 2, "head_width": 8}
    bridge["options"] = {"latents": 2, "layers": 1, "heads": 2, "head_width": 8}
    one = recipe_of(pairs, stages=[words], bridge=bridge, evaluation={"test": None})
    train(one, out=tmp_path / "words")
    both = recipe_of(pairs, stages=[words, seen], bridge=bridge)
    result = train(both, out=tmp_path / "both")
    before, after = (load_model(tmp_path / name) for name in ("words", "both"))
    assert isinstance(before, BridgedModel) and isinstance(after, BridgedModel)
    left = before.language.state_dict()
    assert all(
        torch.equal(value, left[name]) for name, value in after.language.state_dict().items()
    )
    assert result.metrics["vqa"]["accuracy"] == 100
    assert result.metrics["controls"]["shuffled_pictures"] < 100
    found = api.ask(tmp_path / "both", pairs / "39.png", "what colour is it?")
    assert found["answer"] == "blue"
    prompts = [after.writer.prompt("<image>what colour is it?", pictures=1)]
    asked = after.writer.padded(prompts, left=True)
    pixels = load_pixels([FileRef(pairs / "39.png")], after.tower("image").encoder.preprocess)
    media = after.see(ModalityInput.of(pixels=torch.as_tensor(pixels)))
    share = 1.0
    for token in (*after.writer.ids("blue"), after.language.end):
        hidden, _ = after.hidden(asked.ids, asked.mask, media)
        share *= float(after.language.logits(hidden[0, -1]).softmax(-1)[token].detach())
        prompts[0].append(token)
        asked = after.writer.padded(prompts, left=True)
    assert found["answers"][0]["probability"] == pytest.approx(share, abs=1e-5)
    with pytest.raises(ModelError, match="trained to answer, not to caption: give a prompt"):
        api.caption(tmp_path / "both", [pairs / "39.png"])


def test_pooled_features_of_a_frozen_encoder_are_computed_once(pairs: Path, tmp_path: Path) -> None:
    features = {"engine": "torch"}
    stage = {"train": {"language": "full"}, "epochs": 2, "features": features}
    bridge = {"kind": "linear", "reads": "pooled"}
    towers = {"image": {"encoder": "pkg/efficientnet-lite0", "options": {"size": 64}}}
    result = train(
        recipe_of(pairs, stage=stage, bridge=bridge, towers=towers), out=tmp_path / "run"
    )
    assert "image features" in result.seconds
    assert "captions" in result.metrics


def test_a_transformers_model_by_folder(pairs: Path, tmp_path: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a red picture", "a blue picture"], trainer)
    config = transformers.GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=48,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt")
    tokenizer.save(str(tmp_path / "gpt" / "tokenizer.json"))
    stage = {
        "train": {"image.encoder": "full", "language": {"mode": "lora", "rank": 4}},
        "epochs": 2,
    }
    recipe = recipe_of(pairs, language={"source": f"hf/{tmp_path / 'gpt'}"}, stage=stage)
    result = train(recipe, out=tmp_path / "run")
    assert "captions" in result.metrics
    assert (tmp_path / "run" / "language" / "tokenizer.json").is_file()
    told = api.caption(tmp_path / "run", [pairs / "1.png"], method="sample", seed=3)
    assert told == api.caption(tmp_path / "run", [pairs / "1.png"], method="sample", seed=3)


def test_mistakes_are_named(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no bridge 'mpl'; did you mean 'mlp'\?"):
        recipe_of(pairs, bridge="mpl")
    with pytest.raises(RecipeError, match="scratch/decoder needs a vocabulary"):
        recipe_of(pairs, language={"source": "scratch/decoder"})
    unknown = {"source": "hf/nobody/nothing-at-all"}
    with pytest.raises(ModelError, match="nobody/nothing-at-all"):
        train(recipe_of(pairs, language=unknown), out=tmp_path / "a")
    with pytest.raises(DataError, match="has 2 <image> and a sample has one picture"):
        train(recipe_of(pairs, prompt="<image><image>"), out=tmp_path / "b")
    with pytest.raises(DataError, match="needs the label 'colour'"):
        train(recipe_of(pairs, target="{colour}"), out=tmp_path / "c")
    small = {**DECODER, "options": {"width": 16, "layers": 1, "heads": 2, "context": 3}}
    with pytest.raises(DataError, match=r"positions .*, and the language model has 3: shorten it"):
        train(recipe_of(pairs, language=small), out=tmp_path / "d")


def test_examples_stand_before_a_row_with_their_pictures(pairs: Path, tmp_path: Path) -> None:
    task = {
        "objective": "write",
        "prompt": "<image>{question}",
        "target": "{answer}",
        "shots": 2,
    }
    bridge = {"kind": "mlp", "injection": "gated", "heads": 2, "head_width": 8}
    roomy = {**DECODER, "options": {**DECODER["options"], "context": 64}}  # type: ignore[dict-item]
    recipe = recipe_of(pairs, bridge=bridge, language=roomy, stage={"tasks": [task], "epochs": 2})
    data = StageData(recipe, open_dataset(str(pairs)), Clock(), Accelerator(cpu=True))
    model = build_model(recipe, list(data.texts()), data.known.labels)
    assert isinstance(model, BridgedModel)
    batch = data.supply(model, 0).batch(0, 0)
    text, image = batch.modalities["text"], batch.modalities["image"]
    places = (text.tensors["ids"] == model.writer.placeholder).sum(dim=1)
    shown = (image.tensors["rows"] >= 0).sum(dim=1)
    assert torch.equal(places, shown)
    assert set(shown.tolist()) == {1, 2, 3}
    red = image.tensors["pixels"].float().mean(dim=(2, 3)).argmax(dim=1) == 0
    for row in range(len(batch)):
        ids = text.tensors["ids"][row][text.tensors["labels"][row] >= 0].tolist()
        answers = [token for token in ids if token != model.language.end]
        said = [model.writer.text([token]) for token in answers]
        seen = [int(one) for one in image.tensors["rows"][row] if one >= 0]
        assert said == ["red" if red[one] else "blue" for one in seen]
        assert len(set(seen)) == len(seen)
    result = train(recipe, out=tmp_path / "run")
    assert result.metrics["counts"]["shots"] == 0
    found = api.evaluate(tmp_path / "run", shots=2)
    assert found["counts"]["shots"] == 2 and 0 <= found["vqa"]["accuracy"] <= 100
    with pytest.raises(DataError, match="50 examples need more than 50 other pictures"):
        api.evaluate(tmp_path / "run", shots=50)


def test_what_is_told_before_the_first_update(pairs: Path, tmp_path: Path) -> None:
    model = build_model(recipe_of(pairs), ["a red picture"])
    assert isinstance(model, BridgedModel)
    ids, labels = model.writer.example("<image> a", "red picture", pictures=1)
    assert readable(model.writer, ids, labels) == "[CLS] <image> x 4 a [[ red picture [SEP] ]]"
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in model.bridge.parameters():
        parameter.requires_grad_(True)
    recipe = recipe_of(pairs)
    material = material_of(open_dataset(str(pairs)).split("train"))
    found = preflight(model, recipe.stages[0], material)
    assert found.positions == (9, 9, 9) and found.picture_positions == 4 and found.cut == 0
    weights, training, activations = found.memory
    assert weights == 4 * sum(p.numel() for p in model.parameters())
    assert training == 12 * sum(p.numel() for p in model.bridge.parameters())
    assert activations == 68 * 14 * 9 * 2 * 16
    short = {**DECODER, "options": {**DECODER["options"], "context": 8}}  # type: ignore[dict-item]
    cut = preflight(
        build_model(recipe_of(pairs, language=short), ["a red picture"]),  # type: ignore[arg-type]
        recipe.stages[0],
        material,
    )
    assert cut.cut == 28
    assert "28 of 28 examples are longer than the language model's context" in cut.lines()[-1]
    chat = tmp_path / "chat"
    chat.mkdir()
    template = {"chat_template": "<|im_start|>user {{ m }}<|im_end|>"}
    (chat / "tokenizer_config.json").write_text(json.dumps(template))
    (warning,) = preflight(model, recipe.stages[0], material, f"hf/{chat}").warnings
    assert "<|im_start|>, <|im_end|>" in warning and "'<image>'" in warning
