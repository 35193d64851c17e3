"""BLIP-2 by recipe: a Q-Former learns with texts, then brings pictures to a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from plait import api
from plait.bridges.qformer import QFormerBridge
from plait.core.batch import Batch, Encoded, ModalityInput
from plait.core.errors import RecipeError
from plait.data import open_dataset
from plait.models.bridged.model import BridgedModel
from plait.models.store.storage import load_model
from plait.objectives.matching.matching import hard_pairing
from plait.training.batches.material import material_of
from plait.training.build.build import build_model, prepare_stage
from plait.training.recipe.recipe import check
from plait.training.run.preflight import preflight
from plait.training.run.run import train
from plait.training.tasks.qformer_task import QFormerTask, recall_at_1

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
SHARED = {"batch_size": 12, "precision": "float32", "optimiser": {"lr": 0.003}}
FIRST = {
    "name": "first",
    "tasks": [{"objective": "qformer", "target": "see: {text}"}],
    "train": {"image.encoder": "full"},
    "epochs": 15,
    **SHARED,
}
SECOND = {
    "name": "second",
    "tasks": [{"objective": "write", "prompt": "<image>", "target": "{text}"}],
    "train": {"language": "full"},
    "epochs": 25,
    **SHARED,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 pictures of one colour."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number in range(36):
        name = list(COLOURS)[number % 3]
        shade = tuple(max(0, value - number // 3 * 2) for value in COLOURS[name])
        Image.new("RGB", (16, 16), shade).save(folder / f"{number}.png")
        rows.append(
            {
                "file_name": f"{number}.png",
                "text": f"it is {name}",
                "group": name,
                "split": "train" if number < 24 else "validation" if number < 30 else "test",
            }
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_what_is_told_before_the_first_stage(pairs: Path) -> None:
    recipe = recipe_of(pairs)
    model = build_model(recipe, ["see: it is red"])
    assert isinstance(model, BridgedModel) and isinstance(model.bridge, QFormerBridge)
    material = material_of(open_dataset(str(pairs)).split("train"))
    found = preflight(model, recipe.stages[0], material)
    queries = model.bridge.count(model.picture_tokens)
    words = len(model.writer.ids("see: it is red")) + 2  # a start and an end
    assert found.positions == (queries + words,) * 3 and found.picture_positions == queries
    assert found.cut == 0 and found.shown == "[[ [CLS] see : it is red [SEP] ]]"
    told = found.lines()
    assert "activations of the Q-Former" in told[2]
    model.bridge.max_length = words - 1
    cut = preflight(model, recipe.stages[0], material)
    assert cut.cut == 24
    assert "24 of 24 examples are longer than the Q-Former's context" in cut.lines()[-1]


def recipe_of(source: Path | str, *stages: dict[str, Any], **changes: Any) -> Any:
    options = {"queries": 2, "inner": 32, "layers": 2, "heads": 2, "dropout": 0.0, "embeddings": 8}
    bridge = {"kind": "qformer", "options": options, **changes.pop("bridge", {})}
    return check(
        {
            "name": "tiny",
            "data": {"source": str(source)},
            "model": {
                "kind": "bridge",
                "towers": {
                    "image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}}
                },
                "language": {
                    "source": "scratch/decoder",
                    "options": {"width": 16, "layers": 2, "heads": 2, "context": 24},
                    "vocabulary": {"kind": "word", "size": 60},
                },
                "bridge": bridge,
                **changes,
            },
            "stages": list(stages or (FIRST, SECOND)),
        }
    )


def test_both_stages_by_recipe(pairs: Path, tmp_path: Path) -> None:
    result = train(recipe_of(pairs), out=tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    first = [line for line in lines if line["stage"] == "first"]
    updates = [line for line in first if line["kind"] == "update"]
    for line in updates:
        assert set(line["parts"]) == {"itc", "itm", "itg"}
        assert line["loss"] == pytest.approx(sum(line["parts"].values()), rel=1e-5)
    measured = [line for line in first if line["kind"] == "validation"]
    assert measured[-1]["itg"] < 0.7 * measured[0]["itg"]
    assert {"itc", "itm", "itg", "recall@1"} <= measured[-1].keys()
    assert result.metrics["captions"]["bleu_1"] > 60  # "it is" in any case
    model = load_model(tmp_path / "run")
    assert isinstance(model, BridgedModel) and isinstance(model.bridge, QFormerBridge)
    assert model.bridge.vocabulary == model.language.vocabulary + 1
    assert model.bridge.max_length == 24 and model.bridge.spec()["embeddings"] == 8
    (told,) = api.caption(tmp_path / "run", [pairs / "35.png"])
    assert told["caption"].startswith("it is")


def test_the_losses_are_those_of_the_parts() -> None:
    """Contrast and writing by hand; matching of pairs that the same chance draws."""
    recipe = recipe_of("nowhere", FIRST)
    model = build_model(recipe, ["a red picture", "a blue sea"])
    assert isinstance(model, BridgedModel) and isinstance(model.bridge, QFormerBridge)
    bridge, heads = model.bridge, model.bridge.text_heads
    assert heads is not None and bridge.words is not None
    ids = torch.tensor([[3, 6, 7, 4], [3, 8, 4, 0], [3, 9, 4, 0]])
    mask = ids > 0
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    image = ModalityInput.of(pixels=pixels)
    batch = Batch(
        list("abc"), torch.arange(3), {"image": image, "text": ModalityInput.of(mask=mask, ids=ids)}
    )
    torch.manual_seed(5)
    found = QFormerTask(model).loss(batch)
    seen = model.tower("image").encoder(image)
    pictures = heads.image_embeddings(bridge.look(seen))
    cosines = (pictures @ heads.text_embedding(bridge.read(ids, mask)).T).amax(dim=1)
    scores = cosines / heads.temperature
    target = 0.9 * torch.eye(3) + 0.1 / 3
    contrast = -(target * (scores.log_softmax(1) + scores.T.log_softmax(1))).sum() / 6
    torch.testing.assert_close(found.parts["itc"], contrast.detach())
    _, words = bridge.read_and_look(seen, ids, mask, causal=True)
    told = heads.word_logits(words, bridge.words.weight).log_softmax(-1)
    spread = [
        0.9 * told[row, place, ids[row, place + 1]] + 0.1 * told[row, place].mean()
        for row in range(3)
        for place in range(int(mask[row].sum()) - 1)
    ]
    torch.testing.assert_close(found.parts["itg"], -torch.stack(spread).mean().detach())
    torch.manual_seed(5)
    pairs = hard_pairing(scores, batch.groups, generator=torch.default_generator)
    assert len(pairs) == 9
    logits = []
    for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        one = Encoded(seen.tokens[[left]], seen.mask[[left]], seen.pooled[[left]])
        queries, _ = bridge.read_and_look(one, ids[[right]], mask[[right]], causal=False)
        logits.append(heads.match_logits(queries)[0].mean(dim=0).log_softmax(-1))
    match = torch.stack([row[int(same)] for row, same in zip(logits, pairs.matched, strict=True)])
    torch.testing.assert_close(found.parts["itm"], -match.mean().detach())
    total = sum(found.parts.values())
    assert float(found.total.detach()) == pytest.approx(float(total), rel=1e-6)


def test_the_second_stage_leaves_words_and_heads_as_they_are() -> None:
    recipe = recipe_of("nowhere")
    model = build_model(recipe, ["it is red", "a red picture"])
    assert isinstance(model, BridgedModel) and isinstance(model.bridge, QFormerBridge)
    trained = []
    for number in (0, 1):
        prepare_stage(model, recipe, number)
        trained.append({n for n, p in model.bridge.named_parameters() if p.requires_grad})
    assert trained[0] == {name for name, _ in model.bridge.named_parameters()}
    assert trained[1] == {name for name, _ in model.bridge.without_text().named_parameters()}
    inputs = ModalityInput.of(pixels=torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8))
    kept, _ = model.bridge.without_text()(model.tower("image").encoder(inputs))
    tokens, _ = model.bridge(model.tower("image").encoder(inputs))
    assert torch.equal(kept, tokens)


def test_word_0_of_the_tokenizer_is_a_word_here() -> None:
    """A tokenizer of transformers may have a word where a Q-Former has padding."""
    recipe = recipe_of("nowhere", FIRST)
    model = build_model(recipe, ["a red picture", "a blue picture"])
    assert isinstance(model, BridgedModel) and isinstance(model.bridge, QFormerBridge)
    task = QFormerTask(model)
    ids = torch.tensor([[1, 5, 6], [1, 7, 0]])
    text = ModalityInput.of(mask=ids > 0, ids=ids)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    batch = Batch(
        ["a", "b"], torch.arange(2), {"image": ModalityInput.of(pixels=pixels), "text": text}
    )
    task.loss(batch).total.backward()  # type: ignore[no-untyped-call]
    assert model.bridge.words is not None and model.bridge.words.weight.grad is not None
    grads = model.bridge.words.weight.grad.abs().sum(dim=1)
    assert grads[1] > 0
    assert all(parameter.grad is None for parameter in model.language.parameters())


def test_recall_counts_every_row_of_the_group() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.3, 0.8], [0.0, 0.1, 0.7]])
    # Pictures find texts 1, 2, 2, texts find pictures 1, 0, 1; rows 0 and 1 show the same thing.
    groups = torch.tensor([0, 0, 1])
    assert recall_at_1(similarity, groups[:, None] == groups) == pytest.approx(100 * 4 / 6)


def test_mistakes_are_named() -> None:
    with pytest.raises(RecipeError, match=r"trains a Q-Former, and model\.bridge\.kind is 'mlp'"):
        recipe_of("nowhere", bridge={"kind": "mlp", "options": {}})
    with pytest.raises(RecipeError, match="follows from the language model's tokenizer"):
        recipe_of("nowhere", bridge={"options": {"vocabulary": 30}})
    with pytest.raises(RecipeError, match=r"no bridge 'qformr'; did you mean 'qformer'\?"):
        recipe_of("nowhere", sizes={"qformr": {"queries": 4}})
    for part, mode in (("bridge", "frozen"), ("language", "full")):
        with pytest.raises(RecipeError, match=rf"train\.{part}: the .*objective qformer"):
            recipe_of("nowhere", {**FIRST, "train": {"image.encoder": "full", part: mode}})
    shots = {**FIRST, "tasks": [{"objective": "qformer", "shots": 2}]}
    with pytest.raises(RecipeError, match="belongs to write, not qformer"):
        recipe_of("nowhere", shots)
