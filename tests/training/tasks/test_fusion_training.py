"""Fusion models learn to answer, in one stage or several, with one task or many."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from plait.core.batch import Batch
from plait.core.clock import Clock
from plait.core.errors import DataError, ModelError, RecipeError
from plait.data import PairDataset, open_dataset
from plait.evaluation.evaluate.answers import evaluate_answers
from plait.models.fusion.joints import JOINTS
from plait.models.fusion.model import FusionModel
from plait.models.store.storage import load_model
from plait.objectives.matching.matching import random_pairing
from plait.training.batches.material import material_of, sources_of
from plait.training.batches.rows import RowPlan
from plait.training.build.build import build_model
from plait.training.recipe.recipe import check
from plait.training.run.run import RunResult, train
from plait.training.run.run_folder import RunFolder
from plait.training.run.stage_data import StageData
from plait.training.tasks.fusion_tasks import paired

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SMALL = {"layers": 1, "heads": 2, "hidden": 16}
SIZES: dict[str, dict[str, Any]] = {
    "visual_bert": SMALL,
    "uniter": SMALL,
    "uniter_two_stream": {"heads": 2, "hidden": 16, "layers": 2},
    "vilbert": {
        **SMALL,
        "image": {"width": 8, "layers": 1, "heads": 2, "hidden": 16},
        "joint": {"width": 8, "heads": 2},
    },
    "lxmert": {
        "heads": 2,
        "hidden": 16,
        "text_layers": 1,
        "image_layers": 1,
        "cross_layers": 1,
    },
}


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of one colour, each with two questions, as VQA v2's files."""
    folder = tmp_path_factory.mktemp("questions")
    asked: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    for number in range(48):
        name = list(COLOURS)[number % 2]
        shade = tuple(max(0, value - number // 4 * 3) for value in COLOURS[name])
        Image.new("RGB", (16, 16), shade).save(folder / f"picture_{number:012d}.png")
        for text, answer in (
            ("what colour is it?", name),
            ("is it red?", "yes" if name == "red" else "no"),
        ):
            key = {"question_id": len(asked), "image_id": number}
            asked.append({**key, "question": text})
            answered.append(
                {**key, "answers": [{"answer": answer}] * 10, "multiple_choice_answer": answer}
            )
    (folder / "v2_questions.json").write_text(json.dumps({"questions": asked}))
    (folder / "v2_annotations.json").write_text(json.dumps({"annotations": answered}))
    return folder


def recipe_of(source: Path | str, **changes: Any) -> Any:
    """A recipe that trains in a second; ``stage`` changes its one stage, ``model`` the model."""
    stage = {
        "name": "answers",
        "tasks": [{"objective": "answer"}],
        "train": {"image.encoder": "full", "text.encoder": "full"},
        "epochs": 12,
        "batch_size": 32,
        "precision": "float32",
        "optimiser": {"lr": 0.01},
        **changes.pop("stage", {}),
    }
    model = {
        "kind": "fusion",
        "dim": 8,
        "fusion": "concat",
        "towers": {
            "image": {"encoder": "scratch/cnn", "options": {"size": 16, "widths": [4, 8]}},
            "text": {
                "encoder": "scratch/transformer",
                "options": {"width": 8, "layers": 1, "heads": 2, "max_length": 16},
                "vocabulary": {"kind": "word", "size": 100},
            },
        },
        **changes.pop("model", {}),
    }
    return check(
        {
            "name": "tiny",
            "data": {"source": str(source), "texts": "first", **changes.pop("data_more", {})},
            "model": model,
            "stages": changes.pop("stages", [stage]),
            **changes,
        }
    )


def run(recipe: Any, out: Path) -> RunResult:
    return train(recipe, out=out)


def test_it_learns_saves_and_answers_the_same_after_loading(
    questions: Path, tmp_path: Path
) -> None:
    result = run(recipe_of(questions), tmp_path / "run")
    assert result.metrics["vqa"]["accuracy"] > 90
    assert result.metrics["controls"]["shuffled_pictures"] < result.metrics["vqa"]["accuracy"]
    model = load_model(tmp_path / "run")
    assert isinstance(model, FusionModel)
    assert set(model.labels("answer")) == {"red", "blue", "yes", "no"}
    test = open_dataset(str(questions)).split("test")
    again = evaluate_answers(model, test, controls=False)
    assert again["vqa"] == result.metrics["vqa"]


@pytest.mark.parametrize("kind", JOINTS)
def test_every_way_of_joining_trains_one_update(kind: str, questions: Path, tmp_path: Path) -> None:
    fusion = {"kind": kind, "options": SIZES.get(kind, {})}
    stage = {"epochs": None, "steps": 1, "together": True}
    model: dict[str, Any] = {"fusion": fusion}
    recipe = recipe_of(questions, stage=stage, model=model, evaluation={"test": None})
    run(recipe, tmp_path / "run")
    before = load_model(tmp_path / "run").state_dict()
    assert all(torch.isfinite(value).all() for value in before.values())


def test_sharing_a_picture_among_its_questions_changes_no_answer(questions: Path) -> None:
    recipe = recipe_of(questions, stage={"together": True, "batch_size": 96})
    material = material_of(open_dataset(str(questions)))
    model = build_model(recipe, material.texts, {"answer": ["yes", "no"]})
    assert isinstance(model, FusionModel)
    rows = RowPlan(
        material.counts, texts="first", batch_size=96, seed=0, together=material.picture_numbers
    ).batch(0, 0)
    pictures = material.picture_numbers[rows.sample]
    assert (pictures[::2] == pictures[1::2]).all()  # the two questions of each come together
    model.eval()
    logits = []
    for share in (False, True):
        sources = sources_of(material, model, {}, share=share)
        parts = {name: source(rows) for name, source in sources.items()}
        assert len(parts["image"].tensors["pixels"]) == (48 if share else 96)
        logits.append(model.answer(Batch([""] * 96, torch.arange(96), parts)))
    assert torch.allclose(logits[0], logits[1], atol=1e-6)


@pytest.mark.parametrize(
    ("balance", "sampling"),
    [
        ("fixed", "together"),
        ("uncertainty", "together"),
        ("gradients", "together"),
        ("fixed", "round_robin"),
        ("uncertainty", "temperature"),
    ],
)
def test_several_tasks_in_one_stage(
    balance: str, sampling: str, questions: Path, tmp_path: Path
) -> None:
    tasks = [
        {"objective": "answer"},
        {"objective": "wra"},
        {"objective": "mlm"},
    ]
    recipe = recipe_of(
        questions,
        model={"fusion": {"kind": "shared_attention", "options": {"layers": 1, "heads": 2}}},
        stage={
            "tasks": tasks,
            "epochs": 2,
            "balance": balance,
            "sampling": sampling,
            "text": "{question} {answer}",
        },
        evaluation={"test": None},
    )
    result = run(recipe, tmp_path / "run")
    updates = [r for r in RunFolder(result.run).records() if r["kind"] == "update"]
    named = [{"answer", "wra", "mlm"} & set(record["parts"]) for record in updates]
    if sampling == "together":
        assert all(len(names) == 3 for names in named)
        assert "agreement/answer-wra" in updates[0]["parts"]
        assert -1 <= updates[0]["parts"]["agreement/answer-wra"] <= 1
    else:
        assert all(len(names) == 1 for names in named)
    if sampling == "round_robin":
        assert named[:3] == [{"answer"}, {"wra"}, {"mlm"}]
    checks = [r for r in RunFolder(result.run).records() if r["kind"] == "validation"]
    assert {"vqa", "match", "loss"} <= set(checks[-1])


def test_pretraining_then_answers(questions: Path, tmp_path: Path) -> None:
    shared = {"train": {"image.encoder": "full", "text.encoder": "full"}, "precision": "float32"}
    stages = [
        {
            "name": "pretraining",
            "tasks": [{"objective": "mlm"}, {"objective": "match"}],
            "text": "{question} {answer}",
            "epochs": 1,
            "batch_size": 32,
            **shared,
        },
        {
            "name": "answers",
            "tasks": [{"objective": "answer", "loss": "bce"}],
            "epochs": 1,
            "batch_size": 32,
            **shared,
        },
    ]
    fusion: dict[str, Any] = {"kind": "uniter", "options": SIZES["uniter"]}
    result = run(recipe_of(questions, stages=stages, model={"fusion": fusion}), tmp_path / "run")
    assert 0 <= result.metrics["vqa"]["accuracy"] <= 100


def test_a_run_starts_from_another_with_an_account(questions: Path, tmp_path: Path) -> None:
    joint = {"fusion": {"kind": "shared_attention", "options": {"layers": 1, "heads": 2}}}
    stage = {
        "tasks": [{"objective": "mlm"}, {"objective": "match"}],
        "text": "{question} {answer}",
        "epochs": 1,
    }
    quiet = {"evaluation": {"test": None}}
    first = recipe_of(questions, model=joint, stage=stage, **quiet)
    run(first, tmp_path / "pre")
    model = {**joint, "init_from": str(tmp_path / "pre")}
    one_step = {"epochs": None, "steps": 1, "optimiser": {"lr": 1e-12}}
    with pytest.raises(ModelError, match=r"left over \(the first is 'heads.match.*leave=\["):
        run(recipe_of(questions, model=model, stage=one_step, **quiet), tmp_path / "a")
    model["init_from"] = {"run": str(tmp_path / "pre"), "leave": ["heads.match", "heads.mlm"]}
    result = run(recipe_of(questions, model=model, stage=one_step, **quiet), tmp_path / "b")
    (note,) = [note for note in result.notes if note.startswith("Started from")]
    assert "(heads.answer) new" in note and "(heads.match, heads.mlm) left over" in note
    before, after = (load_model(tmp_path / name).state_dict() for name in ("pre", "b"))
    shared = [name for name in before if not name.startswith("heads")]
    assert shared
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in shared)


def test_a_head_of_other_answers_is_not_taken_over(questions: Path, tmp_path: Path) -> None:
    quick = {"stage": {"epochs": 1}, "evaluation": {"test": None}}
    run(recipe_of(questions, **quick), tmp_path / "pre")
    config = json.loads((tmp_path / "pre" / "model.json").read_text())
    labels = config["heads"]["answer"]["labels"]
    config["heads"]["answer"]["labels"] = labels[::-1]
    (tmp_path / "pre" / "model.json").write_text(json.dumps(config))
    model = {"init_from": str(tmp_path / "pre")}
    with pytest.raises(ModelError, match=r"'answer' of .* stands for other labels"):
        run(recipe_of(questions, model=model, **quick), tmp_path / "a")
    model = {"init_from": {"run": str(tmp_path / "pre"), "leave": ["heads.answer"]}}
    result = run(recipe_of(questions, model=model, **quick), tmp_path / "b")
    assert "(heads.answer) new" in result.notes[0]


def test_unanswered_questions_are_counted_and_cost_nothing(questions: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "some"
    shutil.copytree(questions, folder)
    file = folder / "v2_annotations.json"
    annotations = json.loads(file.read_text())["annotations"]
    file.write_text(json.dumps({"annotations": annotations[::2]}))  # colours alone are answered
    result = run(recipe_of(folder, stage={"epochs": 1}), tmp_path / "run")
    test = len(open_dataset(str(folder)).split("test"))
    counts = result.metrics["counts"]
    assert counts["questions"] + counts["not_judged"] == test and counts["not_judged"] > 0
    assert any("training questions have no answer" in note for note in result.notes)
    assert not any("to choose from" in note for note in result.notes)


def test_a_control_without_pictures_learns_the_questions_alone(
    questions: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(questions, data_more={"without": ["image"]})
    result = run(recipe, tmp_path / "run")
    blind = result.metrics["controls"]["question_only"]
    assert 25 <= blind <= 75  # each question has two answers, equally frequent
    records = list(RunFolder(result.run).records())
    assert all(r["vqa"]["accuracy"] <= 75 for r in records if r["kind"] == "validation")
    with pytest.raises(RecipeError, match="no tower 'picture'"):
        recipe_of(questions, data_more={"without": ["picture"]})
    with pytest.raises(RecipeError, match="can do without some"):
        recipe_of(questions, data_more={"without": ["image", "text"]})


def test_mistakes_are_named(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no fusion 'conct'; did you mean 'concat'"):
        recipe_of(questions, model={"fusion": "conct"})
    with pytest.raises(RecipeError, match="'info_nce' is no objective of a model of kind fusion"):
        recipe_of(questions, stage={"tasks": [{"objective": "info_nce"}]})
    with pytest.raises(DataError, match="needs the label 'caption'"):
        run(recipe_of(questions, stage={"text": "{caption}"}), tmp_path / "a")
    with pytest.raises(RecipeError, match="mlm reads the tokens of text after fusion, and concat"):
        run(recipe_of(questions, stage={"tasks": [{"objective": "mlm"}]}), tmp_path / "d")
    with pytest.raises(RecipeError, match="'answer' is there twice"):
        recipe_of(questions, stage={"tasks": [{"objective": "answer"}, {"objective": "answer"}]})
    with pytest.raises(RecipeError, match="set sampling to together"):
        two = [{"objective": "answer"}, {"objective": "match"}]
        sampled = {"tasks": two, "sampling": "round_robin", "balance": "gradients"}
        recipe_of(questions, stage=sampled)
    with pytest.raises(RecipeError, match="shared_attention reads tokens, and pooled features"):
        frozen = {"train": {"image.encoder": "frozen"}, "features": {"cache": True}}
        pretrained = {
            "image": {"encoder": "pkg/efficientnet-lite0"},
            "text": {"encoder": "pkg/minilm-l6"},
        }
        recipe_of(
            questions, stage=frozen, model={"fusion": "shared_attention", "towers": pretrained}
        )
    with pytest.raises(RecipeError, match="mrfr hides regions from a system"):
        run(recipe_of(questions, stage={"tasks": [{"objective": "mrfr"}]}), tmp_path / "b")
    with pytest.raises(DataError, match="at least two classes"):
        run(recipe_of(questions, stage={"tasks": [{"objective": "classify"}]}), tmp_path / "c")


def test_a_stopped_run_goes_on_bitwise(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Balances, samplers and masks follow from the position, or are in the checkpoint."""
    from plait.core.errors import Interrupted
    from plait.training.loop.loop import StageLoop

    recipe = recipe_of(
        questions,
        model={"fusion": {"kind": "shared_attention", "options": {"layers": 1, "heads": 2}}},
        stage={
            "tasks": [{"objective": "answer"}, {"objective": "mlm"}, {"objective": "match"}],
            "epochs": 3,
            "balance": "gradients",
        },
        evaluation={"test": None},
        checkpoints={"steps": 1},
    )
    run(recipe, tmp_path / "whole")
    saved: list[int] = []
    original: Callable[..., None] = StageLoop._save_if_due

    def stop_once(self: StageLoop) -> None:
        original(self)
        saved.append(self.position.run_step)
        if len(saved) == 3:
            raise Interrupted("here")

    monkeypatch.setattr(StageLoop, "_save_if_due", stop_once)
    with pytest.raises(Interrupted):
        run(recipe, tmp_path / "broken")
    train(recipe, out=tmp_path / "broken", resume=True)
    one, other = (load_model(tmp_path / name).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_answers_are_learnt_from_the_training_split_alone(questions: Path) -> None:
    whole = open_dataset(str(questions))
    samples = [
        sample if split == "train" else replace(sample, labels={"answers": [f"only in {split}"]})
        for sample, split in zip(whole.samples, whole.splits, strict=True)
    ]
    data = PairDataset(samples, whole.format, whole.root, assigned=whole.splits)
    found = StageData(recipe_of(questions), data, Clock(), Accelerator(cpu=True)).known
    assert set(found.labels["answer"]) == {"red", "blue", "yes", "no"}


@pytest.mark.parametrize("sampling", ["together", "round_robin"])
def test_a_task_reads_a_text_of_its_own(sampling: str, questions: Path, tmp_path: Path) -> None:
    tasks = [{"objective": "answer"}, {"objective": "match", "text": "{question} {answer}"}]
    stage = {"tasks": tasks, "epochs": 1, "sampling": sampling, "together": True}
    recipe = recipe_of(questions, stage=stage)
    data = StageData(recipe, open_dataset(str(questions)), Clock(), Accelerator(cpu=True))
    model = build_model(recipe, list(data.texts()), data.known.labels)
    supply = data.supply(model, 0)
    read = model.tower("text").encoder.preprocess
    for number in range(2):
        batch = supply.batch(0, number)
        rows = supply.plan.batch(0, number)
        samples = [data.training.samples[place] for place in rows.sample]
        asked, _ = read([sample.texts[0] for sample in samples])
        said, _ = read([f"{s.texts[0]} {s.labels['answer']}" for s in samples])
        assert batch.of("answer").modalities["text"].tensors["ids"].tolist() == asked.tolist()
        if sampling == "together" or number == 1:
            assert batch.of("match").modalities["text"].tensors["ids"].tolist() == said.tolist()
        else:
            assert not batch.texts  # what this update does not read is not made
    result = run(recipe, tmp_path / "run")
    trained = load_model(tmp_path / "run")
    assert isinstance(trained, FusionModel)
    assert trained.about("match")["text"] == "{question} {answer}"
    assert "text" not in trained.about("answer")
    assert {"vqa", "match"} <= set(result.metrics)


def test_pictures_encoded_once_for_several_tasks_change_nothing(questions: Path) -> None:
    recipe = recipe_of(
        questions, stage={"tasks": [{"objective": "answer"}, {"objective": "match"}]}
    )
    material = material_of(open_dataset(str(questions)))
    model = build_model(recipe, material.texts, {"answer": ["yes", "no"]})
    assert isinstance(model, FusionModel)
    model.eval()
    rows = RowPlan(material.counts, texts="first", batch_size=24, seed=0).batch(0, 0)
    parts = {
        name: source(rows) for name, source in sources_of(material, model, {}, share=True).items()
    }
    groups = torch.from_numpy(material.groups[rows.sample])
    batch = Batch([""] * 24, groups, parts)
    once = model.encoded_once(batch, "image")
    assert "pixels" not in once.modalities["image"].tensors
    assert torch.equal(model.answer(batch), model.answer(once))
    pairing = random_pairing(groups, generator=torch.Generator().manual_seed(0))
    before, after = (model.fuse(paired(one, pairing)).pooled for one in (batch, once))
    assert torch.equal(before, after)
    lacking = replace(parts["image"], present=torch.arange(24) > 3)
    some = replace(batch, modalities={**parts, "image": lacking})
    assert model.encoded_once(some, "image") is some  # an absent row's picture is not looked at
