"""A published CLIP or SigLIP trained on: it starts as it is, ends better, and mixes with its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tests.models.store.test_published import write_clip, write_open_clip
from torch import Tensor

from plait.compression.students import student_recipe
from plait.core.errors import Interrupted, ModelError, RecipeError
from plait.encoders.registry import build_encoder
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.files import weights_fingerprint
from plait.models.store.published import load_published
from plait.models.store.storage import load_model
from plait.nn.adapt import block_names, set_trainable
from plait.training.build import build
from plait.training.build.init_from import start_from
from plait.training.build.start import start_of
from plait.training.recipe.recipe import check, load_recipe, read_run_recipe
from plait.training.recipe.schema import Recipe
from plait.training.run.finetuning import mix, wise_ft
from plait.training.run.run import train

CLASSES = {
    "red": (220, 30, 30),
    "green": (30, 180, 30),
    "blue": (30, 30, 220),
    "grey": (90, 90, 90),
}
FEW = ("stages.0.epochs=8", "stages.0.batch_size=16", "stages.0.chunk=16", "stages.0.augment=null")
FAST = ("stages.0.optimiser.lr=1e-2", "stages.0.precision=float32")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of pictures of the size that the tiny checkpoints read: nothing is resized."""
    folder = tmp_path_factory.mktemp("classes")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 4), ("test", 6)):
        for name, colour in CLASSES.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                noise = random.integers(-25, 26, (16, 16, 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def published(folder: Path, form: str) -> Any:
    """Writes a tiny checkpoint that tells inputs apart, and gives what its own library makes of it."""
    folder.mkdir()
    if form == "open_clip":
        theirs = write_open_clip(folder, "open_clip_model.safetensors")
    else:
        theirs = write_clip(folder, form)
    with torch.no_grad():  # random small weights embed everything alike: nearly ties
        for name, value in theirs.named_parameters():
            if "token_embedding" in name or "patch_embedding" in name or "conv1" in name:
                value *= 30
            if form == "siglip" and "text_model" in name and "proj.weight" in name:
                value *= 6
            if name in ("logit_scale", "logit_bias") and form == "siglip":
                value.fill_(2.3 if name == "logit_scale" else -6.0)
    if form == "open_clip":
        state = {name: value.contiguous() for name, value in theirs.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
    else:
        theirs.save_pretrained(folder)
    return theirs


def zero_shot_of_its_own_library(theirs: Any, form: str, ours: AlignmentModel, test: Path) -> float:
    """Top-1 in percent by transformers' or open_clip's towers; only the token ids are plait's."""
    names = sorted(CLASSES)
    files = [(path, names.index(path.parent.name)) for path in sorted(test.rglob("*.png"))]
    raw = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        )
    )
    pixels = (torch.from_numpy(raw).permute(0, 3, 1, 2) / 255 - mean) / std
    ids, mask = (torch.from_numpy(x) for x in ours.tower("text").encoder.preprocess(names))  # type: ignore[operator]
    with torch.no_grad():
        if form == "open_clip":
            full = torch.zeros(len(names), 24, dtype=torch.int64)
            full[:, : ids.shape[1]] = ids
            image, text = theirs.encode_image(pixels), theirs.encode_text(full)
        else:
            extra = {} if form == "siglip" else {"attention_mask": mask.long()}
            out = theirs(input_ids=ids, pixel_values=pixels, **extra)
            image, text = out.image_embeds, out.text_embeds
        unit = torch.nn.functional.normalize
        chosen = (unit(image, dim=-1) @ unit(text, dim=-1).T).argmax(dim=1)
    truth = torch.tensor([label for _, label in files])
    return 100 * float((chosen == truth).double().mean())


@pytest.mark.parametrize("form", ["legacy", "siglip", "open_clip"])
def test_starts_at_the_published_figures_and_ends_above(
    form: str, classes: Path, tmp_path: Path
) -> None:
    theirs = published(tmp_path / "model", form)
    ours = load_published(tmp_path / "model")
    # The pairwise sigmoid takes pictures of the same class for wrong ones: it needs longer.
    more = ["stages.0.epochs=24"] if form == "siglip" else []
    recipe = recipe_of(tmp_path / "model", classes, *more, "evaluation.patience=null")
    result = train(recipe, out=tmp_path / "run").to_json()
    own = zero_shot_of_its_own_library(theirs, form, ours, classes / "test")
    assert result["before"]["zero_shot"]["top1"] == own < 60
    assert result["zero_shot"]["top1"] > own + 10
    assert result["mean_recall"] > result["before"]["mean_recall"]
    path = result["wise_ft"]["path"]
    assert [row["alpha"] for row in path] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    best = max(row["value"] for row in path)
    assert result["wise_ft"]["alpha"] == max(r["alpha"] for r in path if r["value"] == best)
    for name in ("report.md", "report.html"):
        told = (tmp_path / "run" / name).read_text()
        assert "WiSE-FT" in told and f"{own:.1f}" in told and "(kept)" in told
    saved = load_model(tmp_path / "run")
    assert isinstance(saved, AlignmentModel)
    assert {n: v.shape for n, v in saved.state_dict().items()} == {
        n: v.shape for n, v in ours.state_dict().items()
    }


def recipe_of(folder: Path, classes: Path, *overrides: str) -> Recipe:
    return load_recipe(
        "finetune-clip", [*FEW, *FAST, *overrides], data=str(classes), model=str(folder)
    )


def test_the_start_is_the_published_model_to_the_bit(classes: Path, tmp_path: Path) -> None:
    """Projections and temperature included, adapters in place."""
    published(tmp_path / "model", "siglip")
    recipe = recipe_of(tmp_path / "model", classes)
    model = build.build_model(recipe)
    assert isinstance(model, AlignmentModel)
    ours = load_published(tmp_path / "model")
    assert weights_fingerprint(model) == weights_fingerprint(ours)
    build.prepare_stage(model, recipe, 0)
    assert model.embed(texts=["red"])["text"].tolist() == ours.embed(texts=["red"])["text"].tolist()
    training = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {"log_scale", "bias", "towers.text.projection.linear.weight"} <= training
    inside = {name for name in training if ".encoder." in name}
    assert inside
    assert all("lora_" in name for name in inside)


@pytest.mark.parametrize(("form", "objective"), [("legacy", "info_nce"), ("siglip", "sigmoid")])
def test_the_loss_is_the_published_model_s_own(
    form: str, objective: str, classes: Path, tmp_path: Path
) -> None:
    published(tmp_path / "model", form)
    recipe = recipe_of(tmp_path / "model", classes)
    model = build.build_model(recipe)
    assert isinstance(model, AlignmentModel)
    task = build.contrastive_task(model, recipe.stages[0])
    assert [contrast.objective for contrast in task.contrasts] == [objective]


def test_the_sigmoid_without_a_bias_is_refused(classes: Path, tmp_path: Path) -> None:
    published(tmp_path / "model", "legacy")
    recipe = recipe_of(tmp_path / "model", classes, "stages.0.tasks.0.objective=sigmoid")
    with pytest.raises(RecipeError, match="the published model has none"):
        train(recipe, out=tmp_path / "run")


def test_last_blocks_alone_change(classes: Path, tmp_path: Path) -> None:
    published(tmp_path / "model", "legacy")
    last = "{mode: last, blocks: 1}"
    overrides = [f"stages.0.train.{name}.encoder={last}" for name in ("image", "text")]
    recipe = recipe_of(
        tmp_path / "model", classes, *overrides, "model.wise_ft=null", "evaluation.best=false"
    )
    train(recipe, out=tmp_path / "run")
    before = load_published(tmp_path / "model").state_dict()
    after = load_model(tmp_path / "run").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    inside = {name.removeprefix("towers.") for name in changed if ".encoder." in name}
    assert inside
    for tower in ("image", "text"):
        own = {name for name in inside if name.startswith(tower)}
        parts = {name.removeprefix(f"{tower}.encoder.").split(".")[0] for name in own}
        assert parts == {"blocks", "post_norm"}
        assert not any(".blocks.0." in name for name in own)


@pytest.mark.parametrize(
    ("source", "modality", "options", "names"),
    [
        ("scratch/transformer", "text", {"width": 8, "layers": 3, "heads": 2}, ["blocks.0", "blocks.2"]),
        ("timm/resnet18", "image", {}, ["model.layer1.0", "model.layer4.1"]),
    ],
)  # fmt: skip
def test_blocks_are_found(
    source: str, modality: str, options: dict[str, Any], names: list[str]
) -> None:
    encoder = build_encoder(source, modality=modality, pretrained=False, **options)
    found = block_names(encoder)
    assert [found[0], found[-1]] == names
    set_trainable(encoder, "last", blocks=1)
    training = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert all(name.startswith(names[1]) or "norm" in name for name in training)
    with pytest.raises(ModelError, match=f"has {len(found)} repeated blocks, and the last 99"):
        set_trainable(encoder, "last", blocks=99)


def test_wise_ft_mixes_by_hand(classes: Path, tmp_path: Path) -> None:
    """Expected weights from the formula; alphas by figures of the validation split alone."""
    published(tmp_path / "model", "legacy")
    start = load_published(tmp_path / "model")
    tuned = load_published(tmp_path / "model")
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in tuned.parameters():
            value += 0.02 * torch.randn(value.shape, generator=random)
    old, new = start.state_dict(), {n: v.clone() for n, v in tuned.state_dict().items()}

    def mixed(alpha: float) -> dict[str, Tensor]:
        return {n: ((1 - alpha) * old[n].double() + alpha * new[n].double()).float() for n in new}

    for alpha in (0.0, 0.3, 1.0):
        tuned.load_state_dict(new)
        mix(tuned, old, alpha)
        wanted = mixed(alpha)
        for name, value in tuned.state_dict().items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-6)
            if alpha in (0.0, 1.0):
                assert torch.equal(value, wanted[name])
    tuned.load_state_dict(new)
    recipe = recipe_of(tmp_path / "model", classes, "model.wise_ft=[0.0, 0.5, 1.0]")
    from plait.data import open_dataset
    from plait.evaluation import evaluate_alignment

    dataset = open_dataset(classes)
    found = wise_ft(tuned, recipe, dataset.split("validation"))
    assert found["samples"] == 16
    for row in found["path"]:
        probe = load_published(tmp_path / "model")
        probe.load_state_dict(mixed(row["alpha"]))
        own = evaluate_alignment(probe, dataset.split("validation"), bootstrap=0)
        assert row["value"] == pytest.approx(own["mean_recall"])
        assert row["zero_shot"] == pytest.approx(own["zero_shot"]["top1"])
    kept = mixed(found["alpha"])
    assert all(torch.allclose(v, kept[n], atol=1e-7) for n, v in tuned.state_dict().items())


def test_a_stopped_run_goes_on_to_the_bit(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures before are those of the start although the run went on in the middle."""
    published(tmp_path / "model", "legacy")
    recipe = recipe_of(tmp_path / "model", classes, "checkpoints.steps=1")
    whole = train(recipe, out=tmp_path / "whole").to_json()
    from plait.training.loop.loop import StageLoop

    run = StageLoop._save_if_due

    def stopping(loop: StageLoop) -> None:
        loop.stop_asked = lambda: loop.position.run_step == 3
        run(loop)

    monkeypatch.setattr(StageLoop, "_save_if_due", stopping)
    with pytest.raises(Interrupted):
        train(recipe, out=tmp_path / "parts")
    monkeypatch.undo()
    parts = train(recipe, out=tmp_path / "parts", resume=True).to_json()
    assert parts["before"] == whole["before"]
    assert parts["wise_ft"] == whole["wise_ft"]
    both = [weights_fingerprint(load_model(tmp_path / name)) for name in ("whole", "parts")]
    assert both[0] == both[1]


def test_a_run_can_be_fine_tuned_again(classes: Path, tmp_path: Path) -> None:
    published(tmp_path / "model", "legacy")
    train(recipe_of(tmp_path / "model", classes, "stages.0.epochs=1"), out=tmp_path / "run")
    recipe = recipe_of(tmp_path / "run", classes)
    assert weights_fingerprint(start_of(recipe)) == weights_fingerprint(
        load_model(tmp_path / "run")
    )
    own = read_run_recipe(tmp_path / "run")
    assert own.model.published == str(tmp_path / "model")
    told = student_recipe("text=scratch/transformer", own, tmp_path / "run", None, [])
    student = build.build_model(told, ["red", "green"])
    assert told.model.init_from is not None
    account = start_from(student, **told.model.init_from.model_dump())
    assert {name for name in account.loaded if "image" in name} == {
        name for name in student.state_dict() if "image" in name
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.dim=64", "model.dim: is the published model's own"),
        ("model.temperature.init=0.1", "model.temperature: is the published model's own"),
        ("model.bias=-10.0", "model.bias: is the published model's own"),
        ("model.init_from=runs/a", "model.init_from: is the published model's own"),
        ("model.towers.image.encoder=pkg/minilm-l6", "both towers are 'published', or none"),
        ("model.towers.image.projection.kind=mlp", "no options or projection to set"),
        ("evaluation.metric=loss", "share of right answers"),
        ("model.wise_ft=[1.5]", "less than or equal to 1"),
        ("stages.0.train.image.projection.mode=last", "last blocks are of encoders"),
        ("stages.0.train.image.encoder.blocks=2", "blocks belongs to mode: last"),
    ],
)
def test_what_contradicts_the_published_model_is_named(setting: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("finetune-clip", [setting], model="somewhere")
    assert words in str(caught.value)


def test_a_model_for_a_recipe_that_takes_none_and_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="take the recipe finetune-clip"):
        load_recipe("clip", model="somewhere")
    with pytest.raises(RecipeError, match=r"set model\.published, or leave it out"):
        load_recipe("clip", ["model.wise_ft=[0.5]"])
    with pytest.raises(RecipeError, match=r"set model\.published, or take info_nce"):
        load_recipe("clip", ["stages.0.tasks.0.objective=published"])
    with pytest.raises(RecipeError, match="give --model OWNER/NAME or --model FOLDER"):
        train(load_recipe("finetune-clip", data="x"), out=tmp_path / "run")
    short = yaml.safe_load("{name: a, model: {published: x}, stages: [{epochs: 1}]}")
    assert set(check(short).model.towers) == {"image", "text"}


def test_init_from_a_published_folder_says_what_to_do(tmp_path: Path) -> None:
    published(tmp_path / "model", "legacy")
    with pytest.raises(ModelError, match=r"a published checkpoint: name it as model\.published"):
        start_from(load_published(tmp_path / "model"), tmp_path / "model")
