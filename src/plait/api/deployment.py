"""Smaller models, bundles, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.api.sources import Roots, Source, aligned_model, data_overrides, load
from plait.core.notebook import reported

if TYPE_CHECKING:
    from plait.models.alignment.alignment import AlignmentModel


@reported
def compress(
    run: Source,
    *,
    out: Source,
    int8: str = "auto",
    students: Sequence[str] = (),
    prune: Sequence[float] = (),
    max_recall_drop: float = 1.0,
    data: Source | None = None,
    samples: int = 200,
    heal_steps: int = 200,
    overrides: Sequence[str] = (),
    threads: int | None = None,
    seed: int = 0,
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Makes the smallest artefact of a run whose recall@1 is within tolerance.

    Args:
        run: a run of an alignment model, or a published checkpoint.
        out: a bundle when the result is int8, else a run folder.
        int8: ``auto``, ``nncf`` (OpenVINO), ``onnx`` (ONNX Runtime) or ``none``.
        students: encoders that take the place of a tower's, or recipes; each is taught by the run.
        prune: shares of the multiply-adds that pruned candidates lose.
        max_recall_drop: points of recall@1 that may be lost on the validation split.
        data: pairs in place of those that the run was trained on.
        samples: of the training split to calibrate int8 with.
        heal_steps: updates of a pruned model under the run as its teacher.
        overrides: ``"stages.0.epochs=20"`` of the recipes that train students and pruned models.
        threads: of inference; default one a core.
        seed: of draws and intervals.
        root: a folder, or several, below which the files that rows of ``data`` name may lie besides
            its own folder.
        allow_outside: they may lie anywhere.
        encoding: of text files that are not UTF-8, such as ``gbk``.
        tell: is told what is being done.

    Returns:
        ``out``, ``before`` and ``after`` (``bytes``, ``multiply_adds``, ``recall``, ``retrieval``,
        ``latency_ms``, ``rows_per_second``, ``peak_mib``, ``load_seconds``), ``ratios``, ``lost``,
        ``drift``, ``tried``: as in ``compression.json``.

    Raises:
        UserError: settings that cannot be, or ``out`` holds something.
        ModelError: no candidate is within tolerance.
    """
    from plait.compression.compress import compress as run_compression
    from plait.compression.settings import Settings
    from plait.core.files import check_free
    from plait.deployment.card import origin_of
    from plait.deployment.export import export_bundle
    from plait.training.recipe.recipe import RUN_RECIPE, read_run_recipe

    stated = data_overrides(root, allow_outside, encoding)
    settings = Settings(
        int8=int8,
        students=tuple(students),
        prune=tuple(prune),
        max_recall_drop=max_recall_drop,
        samples=samples,
        heal_steps=heal_steps,
        overrides=(*overrides, *(stated if students or prune else ())),
        threads=threads,
        seed=seed,
        root=tuple(map(str, [root] if isinstance(root, str | Path) else root or ())),
        allow_outside=allow_outside,
        encoding=encoding,
    )
    settings.check()
    check_free(Path(out))
    folder = Path(run)
    model = aligned_model(folder, "compression")

    def write(candidate: AlignmentModel, target: Path) -> None:
        export_bundle(candidate, target, name=folder.name, origin=origin_of(folder))

    return run_compression(
        folder,
        model,
        Path(out),
        settings,
        recipe=read_run_recipe(folder) if (folder / RUN_RECIPE).is_file() else None,
        data=None if data is None else str(data),
        export=write,
        tell=tell,
    )


@reported
def export(
    run: Source,
    out: Source,
    *,
    name: str | None = None,
    parity: str = "quick",
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes a run as a bundle: graphs that `plait.runtime.open_bundle` runs without torch.

    Args:
        run: of an alignment model, or of a fusion model that answers questions.
        out: the folder to write; refused when it holds something.
        name: of the model, for its card.
        parity: ``quick`` or ``full``: how much is compared with torch.
        tell: is told what is being done.

    Returns:
        ``out``, ``kind``, ``bytes``, ``files`` with their hashes, and ``parity``: by tower, engine
        and precision the largest difference to torch (see `plait.deployment.parity.Row`).
    """
    from plait.core.files import read_json
    from plait.deployment.card import origin_of
    from plait.deployment.export import export_bundle
    from plait.deployment.parity import PARITY_JSON, checked_extent

    extent = checked_extent(parity)
    manifest = export_bundle(
        load(run),
        out,
        name=name or Path(run).resolve().name,
        origin=origin_of(run),
        parity=extent,
        tell=tell,
    )
    return {
        "out": str(out),
        "kind": manifest.kind,
        "bytes": sum((Path(out) / file).stat().st_size for file in manifest.files),
        "files": dict(manifest.files),
        "parity": read_json(Path(out) / PARITY_JSON)["rows"],
    }


@reported
def export_hub(
    run: Source,
    out: Source,
    *,
    to: str = "hf-folder",
    name: str | None = None,
    push: str | None = None,
    public: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes a model as a folder that transformers or open_clip load, and uploads it if asked.

    Args:
        run: whose towers are CLIP's or SigLIP's own, such as a run of ``finetune-clip``.
        out: the folder to write; refused when it holds something.
        to: ``hf-folder`` or ``open-clip``.
        name: of the model, for its card.
        push: OWNER/NAME of the model hub, where the folder is uploaded.
        public: whether a repository that is made for it is seen by all.
        tell: is told what is left out.

    Returns:
        ``out``, ``form`` (``clip``, ``siglip``, ``open_clip``), ``loads`` (what loads it), ``bytes``,
        ``notes``, and ``url`` when pushed.

    Raises:
        UserError: an unknown ``to``, or ``out`` holds something.
        ModelError: the libraries have no place for the model's towers.
        PlaitError: the hub did not take the folder.
    """
    from plait.deployment.card import origin_of
    from plait.deployment.hub_folder import (
        base_of,
        check_repository,
        checked_target,
        push_folder,
        write_hub_folder,
    )

    target = checked_target(to)
    if push is not None:
        check_repository(push)
    result = write_hub_folder(
        load(run),
        out,
        name=name or push or Path(run).resolve().name,
        target=target,
        origin=origin_of(run),
        base=base_of(run),
    )
    for note in result["notes"]:
        tell(note)
    if push is not None:
        tell(f"uploading to {push}")
        result["url"] = push_folder(out, push, public=public)
    return result


def bench(
    path: Source,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    batches: Sequence[int] = (1, 8, 32),
    tokens: int = 16,
    seconds: float = 1.0,
    tell: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Latency, throughput, start and memory of a bundle, or of a run in torch.

    Args:
        path: a bundle, measured in every engine and precision that is here, or a run.
        engine: only this one.
        precision: only this one.
        threads: inference threads; by default one a core.
        batches: rows at once.
        tokens: of each text.
        seconds: for each point, and at least seven rounds.
        tell: is told what is measured.

    Returns:
        For each engine and precision what `plait.runtime.measure.measure` gives.
    """
    from plait.deployment.bench import bench as measure

    return measure(
        path,
        engine=engine,
        precision=precision,
        threads=threads,
        batches=batches,
        tokens=tokens,
        seconds=seconds,
        tell=tell,
    )
