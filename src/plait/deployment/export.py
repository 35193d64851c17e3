"""A run as a bundle: graphs, preprocessing, model card, parity report, manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from plait.core.files import new_folder, write_json, write_text
from plait.core.version import __version__
from plait.deployment.card import Origin, model_card
from plait.deployment.graphs import Exportable, export_graph, exportables
from plait.deployment.parity import Extent, check_parity, parity_report, write_parity
from plait.deployment.probe import Probe
from plait.deployment.tensorrt import write_tensorrt
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.alignment.alignment import AlignmentModel
from plait.models.fusion.model import FusionModel
from plait.models.store.files import weights_fingerprint
from plait.models.store.kinds import Model
from plait.retrieval.index.manifest import model_fingerprint
from plait.runtime.bundle import IMAGE_PREPROCESS
from plait.runtime.choose import READS, engines
from plait.runtime.manifest import Manifest, TowerEntry, graph_of, write_manifest
from plait.runtime.requirements import write_requirements

Tell = Callable[[str], None]


def export_bundle(
    model: Model,
    out: str | Path,
    *,
    name: str,
    origin: Origin | None = None,
    parity: Extent = "quick",
    tell: Tell = lambda line: None,
) -> Manifest:
    """Writes a bundle.

    Args:
        model: an alignment model, or a fusion model that answers; it is copied.
        out: the folder to write; it must not exist, or be empty.
        name: of the model, for its card.
        origin: where the model comes from, for its card.
        parity: how much is compared with torch (see `plait.deployment.parity.grid`).
        tell: is told what is being done.

    Returns:
        What was written.

    Raises:
        UserError: ``out`` holds something.
        ModelError: a model that cannot be exported.
        MissingExtra: onnx or onnxscript is not installed, or no engine.
        PlaitError: a graph does not give what the model gives in torch; nothing is written.
    """
    towers = exportables(model)
    engines()  # a bundle is compared before it is written: fail before the work
    with new_folder(out) as folder:
        image, text = preprocessing(model)
        probe = Probe(image, text)
        entries = {}
        for modality, exportable in towers.items():
            tell(f"exporting the {modality} tower")
            entries[modality] = _graph(exportable, folder, modality, probe.longest)
        if image is not None:
            write_json(folder / IMAGE_PREPROCESS, image.to_json())
        if text is not None:
            text.save(folder)
        manifest = manifest_of(model, name, entries)
        write_requirements(folder, list(READS))
        card = model_card(manifest, origin or Origin(), encoders_of(model))
        write_text(folder / "README.md", card)
        write_tensorrt(folder, manifest, probe.longest)
        write_manifest(folder, manifest)
        tell("comparing the graphs with the model")
        report = parity_report(folder, towers, probe, extent=parity)
        check_parity(report)
        return write_parity(folder, report)


def manifest_of(model: Model, name: str, towers: dict[str, TowerEntry]) -> Manifest:
    """The manifest of a model's bundle, without the hashes of its files."""
    if isinstance(model, AlignmentModel):
        return Manifest(
            kind="alignment",
            name=name,
            plait=__version__,
            towers=towers,
            model=model_fingerprint(model),
            dim=model.dim,
            scale=float(model.scale.detach()),
            bias=None if model.bias is None else float(model.bias.detach()),
        )
    assert isinstance(model, FusionModel)
    about = model.about("answer")
    return Manifest(
        kind="fusion",
        name=name,
        plait=__version__,
        towers=towers,
        model=weights_fingerprint(model),
        labels=model.labels("answer"),
        question=about.get("text"),
        independent=about.get("loss") == "bce",
    )


def _graph(exportable: Exportable, folder: Path, modality: str, longest: int) -> TowerEntry:
    file = f"{modality}.onnx"
    beside = export_graph(exportable, folder / file, longest=longest)
    graph = graph_of(folder, file, format="onnx", precision="float32", parts=beside)
    return TowerEntry(exportable.inputs, exportable.output, (graph,))


def preprocessing(model: Model) -> tuple[ImagePreprocess | None, TextPreprocess | None]:
    """How a model sees and reads; None where it does not."""
    image: ImagePreprocess | None = None
    text: TextPreprocess | None = None
    for name in model.modalities:
        preprocess = model.tower(name).encoder.preprocess
        if isinstance(preprocess, ImagePreprocess):
            image = preprocess
        elif isinstance(preprocess, TextPreprocess):
            text = preprocess
    return image, text


def encoders_of(model: Model) -> dict[str, str]:
    """By modality what encodes it, in a few words."""
    found = {}
    for name in model.modalities:
        encoder = model.tower(name).encoder
        spec = encoder.spec()
        called = spec.get("name") or spec.get("config", {}).get("model_type") or spec.get("kind")
        count = sum(weight.numel() for weight in encoder.parameters())
        found[name] = f"{spec['family']} {called or ''}".strip() + f", {count:,} weights"
    return found
