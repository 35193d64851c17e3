"""Exported graphs: dynamic where they must be, refused where they became constants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.deployment.made import ANSWERS, TEXTS, alignment_model, fusion_model, picture
from torch import Tensor, nn

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.deployment.export import export_bundle
from plait.deployment.graphs import Exportable, assert_dynamic, export_graph, exportables
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion.joints import JOINTS
from plait.runtime import open_bundle
from plait.runtime.manifest import Manifest, Port, graph_of
from plait.runtime.ranking import answers_of
from plait.runtime.sessions import OnnxSession, OpenVinoSession

PORTS = {"pixels": Port("uint8", ("batch", 3, 4, 4))}


class Flat(nn.Module):
    """Pixels as rows; ``rows`` fixes how many."""

    def __init__(self, rows: int | None = None, outputs: int = 2) -> None:
        super().__init__()
        self.linear, self.rows = nn.Linear(48, outputs), rows

    def forward(self, pixels: Tensor) -> Tensor:
        rows = pixels.shape[0] if self.rows is None else self.rows
        out: Tensor = self.linear(pixels.float().reshape(rows, 48))
        return out


class Positional(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *tensors: Tensor) -> Tensor:
        out: Tensor = self.inner(*tensors)
        return out


def test_sizes_of_a_graph_stay_names(tmp_path: Path) -> None:
    exportable = Exportable(Positional(Flat()).eval(), PORTS, "embeddings")
    assert export_graph(exportable, tmp_path / "a.onnx") == []
    graph = onnx.load(str(tmp_path / "a.onnx")).graph
    (dim, *fixed) = graph.input[0].type.tensor_type.shape.dim
    assert dim.dim_param
    assert [one.dim_value for one in fixed] == [3, 4, 4]
    pixels = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)
    found = OnnxSession(tmp_path / "a.onnx", threads=1).run({"pixels": pixels})
    np.testing.assert_allclose(found, exportable({"pixels": pixels}), rtol=1e-5, atol=1e-4)
    for where in ("input", "output"):
        model = onnx.load(str(tmp_path / "a.onnx"))
        getattr(model.graph, where)[0].type.tensor_type.shape.dim[0].dim_value = 3
        onnx.save(model, str(tmp_path / "b.onnx"))
        with pytest.raises(ModelError, match=r"batch.* became the constant 3"):
            assert_dynamic(tmp_path / "b.onnx", exportable)


def test_large_weights_lie_beside_their_graph(tmp_path: Path) -> None:
    exportable = Exportable(Positional(Flat(outputs=9000)).eval(), PORTS, "embeddings")
    beside = export_graph(exportable, tmp_path / "a.onnx")
    assert beside == ["a.onnx.data"]
    graph = graph_of(tmp_path, "a.onnx", format="onnx", precision="float32", parts=beside)
    assert graph.bytes > 9000 * 48 * 4 > 10 * (tmp_path / "a.onnx").stat().st_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
    for session in (OnnxSession(tmp_path / "a.onnx"), OpenVinoSession(tmp_path / "a.onnx")):
        found = session.run({"pixels": pixels})
        np.testing.assert_allclose(found, exportable({"pixels": pixels}), rtol=1e-4, atol=1e-3)


def test_a_size_that_became_a_constant_is_refused(tmp_path: Path) -> None:
    exportable = Exportable(Positional(Flat(rows=3)).eval(), PORTS, "embeddings")
    with pytest.raises(ModelError, match=r"ONNX cannot express|became the constant 3"):
        export_graph(exportable, tmp_path / "a.onnx")


def test_an_operation_without_equivalent_is_named(tmp_path: Path) -> None:
    class Unknown(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.linalg.eigvals(pixels.float()[:, 0]).real

    module = Positional(Unknown())
    module.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ModelError, match=r"ONNX cannot express this model: .*eig"):
        export_graph(Exportable(module.eval(), PORTS, "embeddings"), tmp_path / "a.onnx")


def test_the_model_itself_is_left_alone() -> None:
    model = alignment_model().train().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = exportables(model)
    assert not any(part.training for part in found["image"].module.modules())
    assert model.training
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def fused(model: Any, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """The model's own way, with all its branches for what is absent."""
    rows = len(tensors["ids"])
    parts = {
        "image": ModalityInput.of(pixels=torch.from_numpy(tensors["pixels"])),
        "text": ModalityInput.of(
            mask=torch.from_numpy(tensors["mask"]), ids=torch.from_numpy(tensors["ids"])
        ),
    }
    with torch.inference_mode():
        return model.answer(Batch([""] * rows, torch.arange(rows), parts)).numpy()


@pytest.mark.parametrize("kind", JOINTS)
def test_the_graph_of_a_fusion_model_is_the_model(kind: str) -> None:
    model = fusion_model(kind)
    found = exportables(model)
    assert list(found) == ["answer"]
    preprocess = model.tower("text").encoder.preprocess
    ids, mask = preprocess(TEXTS)
    pixels = np.stack([model.tower("image").encoder.preprocess(picture(n)) for n in range(5)])
    tensors = {"pixels": pixels, "ids": ids, "mask": mask}
    np.testing.assert_allclose(found["answer"](tensors), fused(model, tensors), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", JOINTS)
def test_the_file_of_a_fusion_model_is_the_model(kind: str, tmp_path: Path) -> None:
    # The export compares every batch and length, in every engine, and fails beyond 1e-4.
    export_bundle(fusion_model(kind), tmp_path / "bundle", name=kind, parity="full")
    report = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    exact = [row for row in report["rows"] if row["precision"] == "float32"]
    assert {row["engine"] for row in exact} == {"openvino", "onnxruntime"}
    assert all(row["points"] == 6 * 11 and row["passed"] for row in exact)


def test_a_bundle_answers_as_its_model(tmp_path: Path) -> None:
    model = fusion_model(loss="bce", text="question: {question}")
    export_bundle(model, tmp_path / "bundle", name="answers")
    bundle = open_bundle(tmp_path / "bundle", precision="float32", threads=1)
    assert bundle.modalities == ("answer",)
    found = bundle.ask(picture(2), "is it blue?", answers=3)
    texts = bundle.prepare_texts(["question: is it blue?"])
    logits = fused(model, {**bundle.prepare_images([picture(2)]), **texts})[0]
    expected = sorted(zip(1 / (1 + np.exp(-logits)), ANSWERS, strict=True), reverse=True)
    assert [one["answer"] for one in found] == [answer for _, answer in expected]
    for one, (share, _) in zip(found, expected, strict=True):
        assert one["probability"] == pytest.approx(share, abs=2e-5)
    with pytest.raises(ModelError, match="answers questions, and has no embeddings"):
        bundle.embed(texts=["a"])
    with pytest.raises(DataError, match="the question is empty"):
        bundle.ask(picture(2), " ")


def test_answers_of_one_question_share_their_probability() -> None:
    manifest = Manifest("fusion", "x", "0", {}, labels=("a", "b", "c"))
    found = answers_of(np.log(np.array([1, 7, 2], np.float32)), manifest, 2)
    assert [one["answer"] for one in found] == ["b", "c"]
    assert [one["probability"] for one in found] == pytest.approx([0.7, 0.2], abs=1e-6)


def test_models_that_cannot_be_exported_say_why() -> None:
    with pytest.raises(ModelError, match="a control that takes no image"):
        control = fusion_model()
        control.without = ("image",)
        exportables(control)
    with pytest.raises(ModelError, match="writes or draws"):
        exportables(DrawingModel.__new__(DrawingModel))
