from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import ModelError, RecipeError
from plait.data import open_dataset
from plait.modalities.image.augment import build_augment
from plait.modalities.image.fast_decode import load_pixels
from plait.models.store.storage import load_model, save_model
from plait.objectives import feature_mse
from plait.training.batches.material import material_of
from plait.training.batches.rows import Rows
from plait.training.build import build
from plait.training.recipe.recipe import load_recipe
from plait.training.recipe.schema import Recipe
from plait.training.run.run import read_result, train
from plait.training.run.run_folder import RunFolder
from plait.training.tasks.distilling import TeacherRows, teacher_rows

Tiny = Callable[..., Recipe]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def teacher(tiny: Tiny, tmp_path: Path) -> Path:
    """An untrained model, a little wider than the student, with a scale of its own."""
    recipe = tiny("model.towers.image.options.widths=[6,12]", "seed=9", "model.temperature.init=1")
    texts = ["red", "green"]
    save_model(build.build_model(recipe, texts), tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_student_comes_nearer_to_its_teacher(
    tiny: Tiny, teacher: Path, tmp_path: Path, cache: Path, colours: Path
) -> None:
    recipe = tiny(
        f"stages.0.tasks=[{{objective: distil, teacher: {teacher}}}]",
        "stages.0.epochs=12",
        "stages.0.optimiser.lr=3e-3",
        "evaluation.best=false",
    )
    train(recipe, out=tmp_path / "student")
    wanted = load_model(teacher).embed([colours / "1.png"], ["red number 0"])
    before = build.build_model(recipe, []).eval().embed([colours / "1.png"], ["red number 0"])
    after = load_model(tmp_path / "student").embed([colours / "1.png"], ["red number 0"])
    for name in ("image", "text"):
        far, near = (float(((x[name] - wanted[name]) ** 2).sum()) for x in (before, after))
        assert near < 0.6 * far, (name, far, near)
    records = list(RunFolder(tmp_path / "student").records())
    parts = {key for record in records for key in record}
    assert any("distil" in str(record) for record in records), parts
    assert "teacher" in read_result(tmp_path / "student")["seconds"]
    assert any((cache / "features").iterdir())  # the teacher's outputs are kept


def test_the_loss_of_a_batch_adds_the_teacher_to_the_contrast(tiny: Tiny, teacher: Path) -> None:
    both = (
        f"stages.0.tasks=[{{objective: info_nce}}, "
        f"{{objective: distil, teacher: {teacher}, affinity: 0, weight: 0.5}}]"
    )
    recipe = tiny(both)
    model = build.build_model(recipe, []).eval()
    stage = recipe.stages[0]
    torch.manual_seed(0)
    ids = torch.randint(5, 40, (6, 7))
    taught = {f"teacher_{name}": torch.randn(6, 8) for name in ("image", "text")}
    batch = Batch(
        [""] * 6,
        torch.arange(6),
        {
            "image": ModalityInput.of(
                pixels=torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
            ),
            "text": ModalityInput.of(ids=ids, mask=torch.ones(6, 7, dtype=torch.bool)),
        },
        targets={**taught, "teacher_scale": torch.full((6,), 2.0)},
    )
    found = build.build_task(model, stage).loss(batch)
    plain = build.contrastive_task(model, stage).loss(batch)
    rows = model.encode(batch)
    distances = [feature_mse(rows[n], taught[f"teacher_{n}"]) for n in ("image", "text")]
    expected = plain.total + 0.5 * (distances[0] + distances[1]) / 2
    torch.testing.assert_close(found.total, expected)
    assert set(found.parts) == {"info_nce image-text", "distil mse"}


def test_a_teacher_sees_the_versions_that_its_student_sees(
    tiny: Tiny, teacher: Path, cache: Path
) -> None:
    steps = [{"kind": "colour", "brightness": 0.8}]
    recipe = tiny("stages.0.features.slots=2", f"stages.0.features.augment={steps}")
    material = material_of(open_dataset(str(recipe.data.source)).split("train"))
    model, settings = load_model(teacher), recipe.stages[0].features
    with torch.no_grad():
        model.log_scale.fill_(np.log(3.0))
    found = teacher_rows(model, material, settings, recipe.seed, versions=True)
    assert found.image.shape == (len(material), 2, 8)
    assert found.scale == pytest.approx(3.0)
    plain = teacher_rows(model, material, settings, recipe.seed, versions=False)
    torch.testing.assert_close(found.image[:, :1], plain.image)
    preprocess = model.tower("image").encoder.preprocess
    pixels = load_pixels(material.pictures, preprocess)
    augment = build_augment({"image": steps})["image"]
    changed = torch.as_tensor(augment(pixels, material.ids, seed=recipe.seed, slot=1))
    with torch.no_grad():
        expected = model.encode_one("image", ModalityInput.of(pixels=changed))
    torch.testing.assert_close(found.image[:, 1], expected, atol=1e-4, rtol=0)
    assert (found.image[:, 0] - found.image[:, 1]).abs().max() > 0.01


def test_a_teacher_s_rows_are_looked_up_by_sample_and_by_text() -> None:
    image, text = torch.arange(12.0).view(3, 2, 2), torch.arange(10.0).view(5, 2)
    rows = Rows(np.array([2, 0]), np.array([4, 1]), np.array([0, 1]), 0)
    found = TeacherRows(image, text, 3.0)(rows)
    assert found["teacher_image"].tolist() == [[8, 9], [2, 3]]
    assert found["teacher_text"].tolist() == [[8, 9], [2, 3]]
    assert found["teacher_scale"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[{objective: distil}]", "distil needs a teacher"),
        ("[{objective: distil, teacher: x, mse: 0, affinity: 0}]", "nothing of the teacher"),
        ("[{objective: info_nce, teacher: x}]", "belongs to distil, not info_nce"),
        (
            "[{objective: distil, teacher: x}, {objective: distil, teacher: y}]",
            "one teacher a stage",
        ),
    ],
)
def test_faults_of_a_recipe(tiny: Tiny, tasks: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny(f"stages.0.tasks={tasks}")


def test_mixed_rows_have_no_teacher(tiny: Tiny) -> None:
    with pytest.raises(RecipeError, match="leave it out with distil"):
        load_recipe(
            "align",
            [
                "stages.0.tasks=[{objective: distil, teacher: x}]",
                "stages.0.features.mixup=0.2",
            ],
        )


def test_a_teacher_that_does_not_fit(
    tiny: Tiny, teacher: Path, tmp_path: Path, cache: Path
) -> None:
    task = f"stages.0.tasks=[{{objective: distil, teacher: {teacher}}}]"
    with pytest.raises(
        RecipeError, match=r"rows of 8 features and the student of 4: set model.dim"
    ):
        train(tiny(task, "model.dim=4"), out=tmp_path / "narrow")
    with pytest.raises(ModelError, match=r"nowhere is no plait model"):
        task = f"stages.0.tasks=[{{objective: distil, teacher: {tmp_path / 'nowhere'}}}]"
        train(tiny(task), out=tmp_path / "none")


def test_affinities_need_no_space_of_one_length(
    tiny: Tiny, teacher: Path, tmp_path: Path, cache: Path
) -> None:
    task = f"stages.0.tasks=[{{objective: distil, teacher: {teacher}, mse: 0}}]"
    found = train(tiny(task, "model.dim=4", "stages.0.epochs=1"), out=tmp_path / "narrow")
    assert load_model(found.run).dim == 4


def test_affinities_of_the_teacher_have_its_own_scale(tiny: Tiny, teacher: Path) -> None:
    """KL of softmaxes, written out with numpy; the student's scale is another than the teacher's."""
    recipe = tiny(
        f"stages.0.tasks=[{{objective: distil, teacher: {teacher}, mse: 0, affinity: 1}}]",
        "model.temperature.init=0.2",
    )
    model = build.build_model(recipe, []).eval()
    random = np.random.default_rng(1)

    def unit(columns: int) -> np.ndarray:
        rows = random.normal(size=(5, columns))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    own = {"image": unit(8), "text": unit(8)}
    taught = {"image": unit(6), "text": unit(6)}
    batch = Batch(
        [""] * 5,
        torch.arange(5),
        {name: ModalityInput.of(features=torch.zeros(5, 1)) for name in own},
        targets={
            **{f"teacher_{name}": torch.from_numpy(rows) for name, rows in taught.items()},
            "teacher_scale": torch.full((5,), 2.0),
        },
    )
    task = build.build_task(model, recipe.stages[0])
    found = task.loss_of_embeddings({n: torch.from_numpy(r) for n, r in own.items()}, batch)
    scale = float(model.scale.detach())
    assert scale != pytest.approx(2.0)

    def shares(logits: np.ndarray) -> np.ndarray:
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    divergences = []
    for one, other in (("image", "text"), ("text", "image")):
        wanted = shares(2.0 * taught[one] @ taught[other].T)
        mine = shares(scale * own[one] @ own[other].T)
        divergences.append((wanted * np.log(wanted / mine)).sum(axis=1).mean())
    assert found.total.item() == pytest.approx(np.mean(divergences), rel=1e-6)
