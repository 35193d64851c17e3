"""The Python API: each function is one duty of the command line.

import plait

result = plait.train("align", data="pairs/", out="runs/mine")
model = plait.load("runs/mine")
model.similarity(images=["a.jpg"], texts=["a red apple"])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plait.core.errors import DataError, UserError

if TYPE_CHECKING:
    from plait.data import PairDataset
    from plait.data.audit import AuditReport
    from plait.data.sample import MediaRef
    from plait.models.alignment import AlignmentModel
    from plait.models.kinds import Model

Source = str | Path


def tune_process() -> None:
    """Applies the allocator settings that only a command may choose (see `plait doctor`)."""
    from plait.core.allocator import ensure_tuned

    ensure_tuned()


def load(
    path: Source | Model,
    *,
    device_map: str | Mapping[str, int | str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    offload: Source | None = None,
) -> Model:
    """A trained model (`AlignmentModel` or `FusionModel`) from a run folder, or from a published CLIP or SigLIP checkpoint's folder.

    A model that is loaded already comes back as it is: `classify` and `ask` take one too.

    Args:
        path: the folder.
        device_map: for a model larger than one device (see `plait.models.dispatch.dispatched`):
            ``auto``, or a device by part (``{"towers.image": 0, "towers.text": "cpu"}``).
        max_memory: by device, at most so much.
        offload: a folder for weights that fit nowhere else.

    Raises:
        UserError: a device map that leaves parts out, or weights that fit nowhere.
        ModelError: the folder holds neither, or a weight is missing, left over or of another shape.
    """
    from plait.models.loading import open_model

    model = open_model(Path(path)) if isinstance(path, str | Path) else path
    if device_map is None:
        return model
    from plait.models.dispatch import dispatched

    return dispatched(model, device_map, max_memory=max_memory, offload=offload)


def _aligned(path: Source | Model, duty: str) -> AlignmentModel:
    """A model that embeds.

    Raises:
        ModelError: the run holds another kind.
    """
    from plait.models.kinds import aligned

    return aligned(load(path), duty)


def train(
    recipe: Source,
    *,
    data: Source | None = None,
    out: Source | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
) -> dict[str, Any] | None:
    """Trains a recipe (a file, or a built-in name) and evaluates the result on the test split.

    Args:
        recipe: a YAML file or a name of `plait recipes`.
        data: replaces the data of the recipe: a path of pairs or a catalogue name.
        out: the run folder; ``runs/NAME-TIME`` when None.
        overrides: ``"stages.0.epochs=20"`` and the like.
        resume: go on with the run in ``out``.

    Returns:
        ``run``, ``split``, ``retrieval``, ``seconds`` by step, ``skipped`` rows, ``health`` lines;
        None in a helper process of a distributed run.
    """
    from plait.training.recipe import load_recipe
    from plait.training.run import train as run_training

    if resume and out is None:
        raise UserError("--resume needs --out RUN: which run shall go on?")
    loaded = load_recipe(str(recipe), overrides, data=None if data is None else str(data))
    folder = Path(out) if out is not None else _new_run_folder(loaded.name)
    result = run_training(loaded, out=folder, resume=resume)
    return result.to_json() if result.is_main else None


def compare(
    recipe: Source,
    over: str,
    *,
    data: Source | None = None,
    out: Source | None = None,
    overrides: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Trains a recipe once for each value of a key and compares the runs.

    Args:
        recipe: a YAML file or a name of `plait recipes`.
        over: ``"model.fusion=concat,late,gated"``.
        data: replaces the data of the recipe.
        out: folder of the runs and of the table; finished runs in it are reused.
        overrides: for all runs.
        tell: is told which run begins.

    Returns:
        ``out``, and ``rows``: ``value``, ``measure``, ``quality`` with ``low`` and ``high``,
        ``parameters``, ``seconds``, ``step_ms``, ``latency_ms``, ``run``; None in a helper
        process of a distributed run.
    """
    from dataclasses import asdict

    from plait.training.compare import compare as run_comparison

    name = Path(recipe).stem
    folder = Path(out) if out is not None else _new_run_folder(f"compare-{name}")
    rows = run_comparison(
        recipe,
        over,
        out=folder,
        data=None if data is None else str(data),
        overrides=overrides,
        tell=tell,
    )
    if not rows:
        return None
    return {"out": str(folder), "rows": [asdict(row) for row in rows]}


def _new_run_folder(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def evaluate(
    run: Source,
    *,
    data: Source | None = None,
    split: str = "test",
    on_bad_row: str = "fail",
    shots: int = 0,
) -> dict[str, Any]:
    """Metrics of a run on a split of ``data`` (default: the data it was trained on), in percent.

    ``shots`` examples of the training split stand before each prompt of a language model.
    """
    from plait.evaluation import evaluate_alignment
    from plait.evaluation.evaluate_bridged import evaluate_bridged
    from plait.evaluation.evaluate_drawing import evaluate_drawing
    from plait.evaluation.evaluate_fusion import evaluate_fusion
    from plait.models.bridged.model import BridgedModel
    from plait.models.drawing.drawing import DrawingModel
    from plait.models.fusion_model import FusionModel
    from plait.training.checked import usable

    columns = None
    if data is None:
        data, columns = _data_of(run)
    dataset = _open_split(data, split, on_bad_row, columns)
    model = load(run)
    if isinstance(model, BridgedModel):
        support = _open_split(data, "train", on_bad_row, columns) if shots else None
        judged = usable(dataset) if on_bad_row == "skip" else dataset
        metrics = evaluate_bridged(model, judged, shots=shots, support=support)
    elif shots:
        raise UserError("examples before a prompt (--shots) are for language models that see")
    elif isinstance(model, FusionModel):
        metrics = evaluate_fusion(model, usable(dataset) if on_bad_row == "skip" else dataset)
    elif isinstance(model, DrawingModel):
        metrics = evaluate_drawing(model, usable(dataset) if on_bad_row == "skip" else dataset)
    else:
        metrics = evaluate_alignment(model, dataset, on_bad_row=_checked(on_bad_row))
    return {"run": str(run), "split": split, **metrics}


def _data_of(run: Source) -> tuple[str, Mapping[str, str] | None]:
    """The source that a run was trained on, with the user's names of columns."""
    from plait.training.recipe import read_run_recipe

    data = read_run_recipe(Path(run)).data
    if data.source is None:
        raise UserError(f"the recipe of {run} names no data: give --data PATH")
    return data.source, data.columns


def _open_split(
    source: Source, split: str, on_bad_row: str, columns: Mapping[str, str] | None = None
) -> PairDataset:
    from plait.data import open_dataset

    dataset = open_dataset(source, columns=columns, on_bad_row=_checked(on_bad_row))
    part = dataset.split(split)
    if not len(part):
        raise DataError(f"no samples in the split {split!r}", path=str(source))
    return part


def _checked(on_bad_row: str) -> Literal["fail", "skip"]:
    if on_bad_row == "fail":
        return "fail"
    if on_bad_row == "skip":
        return "skip"
    raise UserError(f"--on-bad-row is 'fail' or 'skip', not {on_bad_row!r}")


def embed(
    run: Source, data: Source, out: Source, *, split: str = "all", on_bad_row: str = "fail"
) -> dict[str, Any]:
    """Writes unit vectors of ``data`` to ``out`` (.npz or .parquet); refuses to overwrite."""
    from plait.engines.features import embed_dataset
    from plait.retrieval.vectors import check_target, write_vectors

    dataset = _open_split(data, split, on_bad_row)
    check_target(Path(out))
    embeddings = embed_dataset(_aligned(run, "embedding"), dataset, on_bad_row=_checked(on_bad_row))
    return write_vectors(embeddings, Path(out))


def index(
    run: Source,
    data: Source | None,
    out: Source,
    *,
    add: bool = False,
    delete: Sequence[str] = (),
    split: str = "all",
    on_bad_row: str = "fail",
) -> dict[str, Any]:
    """Makes an index of the pictures in ``data``, adds to one, or deletes rows by id."""
    from plait.retrieval import build_index, open_index

    out = Path(out)
    if data is None and not delete:
        raise UserError("nothing to do: give data to index, or --delete ID")
    deleted = open_index(out).delete(list(delete)) if delete else 0
    added, skipped = 0, 0
    if data is not None:
        dataset = _open_split(data, split, on_bad_row)
        model = _aligned(run, "an index")
        done = build_index(model, dataset, out, run=Path(run), add=add, on_bad_row=on_bad_row)
        added, skipped = done.rows, len(done.skipped) + len(dataset.skipped)
    return {
        "out": str(out),
        "rows": len(open_index(out)),
        "added": added,
        "deleted": deleted,
        "skipped": skipped,
    }


def search(
    index: Source,
    query: str | None = None,
    *,
    image: Source | None = None,
    k: int = 10,
    where: str | None = None,
    run: Source | None = None,
    sheet: Source | None = None,
    rerank: Source | None = None,
) -> list[dict[str, Any]]:
    """The ``k`` nearest rows of an index to words or to a picture: ``{id, score, path, text}``.

    With ``rerank``, the run of a fusion model trained to match, the nearest rows (at least 50) are
    ordered by its log odds (``match``) plus the logit scale times the cosine.
    """
    from plait.models.kinds import fused
    from plait.retrieval import contact_sheet, open_index
    from plait.retrieval.rerank import CANDIDATES
    from plait.retrieval.rerank import rerank as in_better_order

    if (query is None) == (image is None):
        raise UserError("give words to look for, or --image FILE, one of the two")
    opened = open_index(index, model=None if run is None else _aligned(run, "search"))
    wanted = query if query is not None else Path(str(image))
    hits = opened.search(wanted, k=k if rerank is None else max(k, CANDIDATES), where=where)
    if rerank is not None:
        judge = fused(load(rerank), "reranking")
        scale = float(opened.model.scale.detach())
        hits = in_better_order(judge, wanted, hits, scale=scale)[:k]
    if sheet is not None:
        contact_sheet([(wanted, hits)], Path(sheet))
    return hits


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


def classify(
    run: Source | Model,
    images: Sequence[Source],
    labels: Sequence[str],
    templates: Sequence[str] = ("{}",),
) -> list[dict[str, Any]]:
    """For each image the labels with probabilities, best first."""
    if len(labels) < 2:
        raise UserError("give at least two labels with a comma between them")
    for template in templates:
        if "{}" not in template:
            raise UserError(f"the template {template!r} has no {{}} for the label")
    probabilities = _aligned(run, "classifying by labels").classify(
        [Path(p) for p in images], labels, templates
    )
    found = []
    for path, row in zip(images, probabilities, strict=True):
        order = row.argsort()[::-1]
        ranked = [{"label": labels[i], "probability": float(row[i])} for i in order]
        found.append({"path": str(path), "labels": ranked})
    return found


def ask(
    run: Source | Model, image: Source | MediaRef, question: str, *, answers: int = 5
) -> dict[str, Any]:
    """Answers a question about a picture.

    Args:
        run: a run that was trained to answer (``plait train easy-vqa``), or its loaded model.
        image: a file, or a media reference.
        question: in words.
        answers: how many of the likeliest to list; a language model writes one.

    Returns:
        ``answer`` and ``answers``, each with its ``probability``, the likeliest first.

    Raises:
        ModelError: the run holds a model that answers nothing.
        DataError: a picture that cannot be used, or an empty question.
    """
    from plait.data.sample import FileRef, MediaRef
    from plait.data.wording import filled
    from plait.models.asking import answer_logits
    from plait.models.bridged.model import BridgedModel
    from plait.models.bridged.write import written_answer
    from plait.models.kinds import fused

    if not question.strip():
        raise DataError("the question is empty")
    loaded = load(run)
    shown = image if isinstance(image, MediaRef) else FileRef(Path(image))
    if isinstance(loaded, BridgedModel):
        written, share = written_answer(loaded, shown, question)
        ranked = [{"answer": written, "probability": round(share, 6)}]
        return {"image": str(image), "question": question, "answer": written, "answers": ranked}
    model = fused(loaded, "a question")
    labels = model.labels("answer")
    template = model.about("answer").get("text")
    asked = question if template is None else filled(template, {"question": question})
    (logits,) = answer_logits(model, [shown], [asked])
    independent = model.about("answer").get("loss") == "bce"  # each answer by itself
    shares = logits[0].sigmoid() if independent else logits[0].softmax(dim=0)
    best = shares.argsort(descending=True)[:answers].tolist()
    ranked = [{"answer": labels[i], "probability": round(float(shares[i]), 6)} for i in best]
    return {
        "image": str(image),
        "question": question,
        "answer": ranked[0]["answer"],
        "answers": ranked,
    }


def caption(
    run: Source | Model,
    images: Sequence[Source],
    *,
    prompt: str | None = None,
    method: Literal["greedy", "beam", "sample"] = "beam",
    longest: int = 32,
    beams: int = 4,
    length_penalty: float = 1.0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Describes pictures in words.

    Args:
        run: a language model that was trained to describe pictures, or its loaded model.
        images: files.
        prompt: in place of the one that it was trained with; ``<image>`` stands for the picture.
        method: ``greedy``, ``beam`` or ``sample``; what follows is explained at
            `plait.models.bridged.generate.Writing`.
        longest: the most new tokens.
        beams: of ``beam``.
        length_penalty: of ``beam``.
        temperature: of ``sample``.
        top_k: of ``sample``.
        top_p: of ``sample``.
        seed: of ``sample``.

    Returns:
        ``image`` and ``caption`` of each.

    Raises:
        ModelError: the run holds a model that writes nothing.
        DataError: a picture that cannot be used, or a prompt without ``<image>``.
    """
    from plait.data.sample import FileRef
    from plait.models.bridged.generate import Writing
    from plait.models.bridged.write import prompt_for, write
    from plait.models.kinds import bridged

    model = bridged(load(run), "a caption")
    asked = prompt_for(model, "caption", {}) if prompt is None else prompt
    how = Writing(
        method=method,
        longest=longest,
        beams=beams,
        length_penalty=length_penalty,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    pictures = [[FileRef(Path(image))] for image in images]
    texts = [text for batch in write(model, pictures, [asked] * len(images), how) for text in batch]
    return [
        {"image": str(image), "caption": text} for image, text in zip(images, texts, strict=True)
    ]


def draw(
    run: Source | Model,
    text: str,
    n: int = 8,
    *,
    out: Source,
    temperature: float = 1.0,
    top_k: int | None = None,
    guidance: float = 1.0,
    prime: Source | None = None,
    prime_rows: int | None = None,
    rerank: Source | Model | None = None,
    candidates: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Draws pictures of a text into files.

    Args:
        run: a run that was trained to draw (``plait train draw``), or its loaded model.
        text: what to draw.
        n: how many.
        out: a contact sheet (``.png``), or a folder for one and every picture.
        temperature: 0 for the likeliest codes, 1 for the model's own probabilities.
        top_k: only so many codes are eligible for a cell.
        guidance: above 1 follows the text more closely.
        prime: a picture whose upper part is kept.
        prime_rows: so many rows of its codes; default half.
        rerank: an alignment run, or its model, that orders the pictures.
        candidates: so many are drawn, of which it keeps ``n``; default ``n``.
        seed: of the pictures.

    Returns:
        ``text``, ``sheet`` (its path) and ``pictures``: ``number`` (in the order of drawing),
        ``score`` (cosine; None without ``rerank``) and ``path`` (None without a folder).

    Raises:
        UserError: an empty text, no picture wanted, candidates that cannot be, or ``out`` exists.
        ModelError: a run of another kind, or a setting out of range.
        DataError: a picture that cannot be used.
    """
    from plait.models.kinds import drawing
    from plait.retrieval.drawn import SHEET, check_free, draw_pictures, write_drawn

    path = Path(out)
    check_free(path)
    drawn = draw_pictures(
        drawing(load(run), "a picture of a text"),
        text,
        n,
        candidates=candidates,
        judge=None if rerank is None else _aligned(rerank, "ordering pictures"),
        temperature=temperature,
        top_k=top_k,
        guidance=guidance,
        prime=None if prime is None else Path(prime),
        prime_rows=prime_rows,
        seed=seed,
    )
    pictures = write_drawn(drawn, text, path)
    sheet = path / SHEET if path.is_dir() else path
    return {"text": text, "sheet": str(sheet), "pictures": pictures}


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
    from plait.compression.settings import Settings, check_free
    from plait.deployment.card import origin_of
    from plait.deployment.export import export_bundle
    from plait.training.recipe import RUN_RECIPE, read_run_recipe

    settings = Settings(
        int8=int8,
        students=tuple(students),
        prune=tuple(prune),
        max_recall_drop=max_recall_drop,
        samples=samples,
        heal_steps=heal_steps,
        overrides=tuple(overrides),
        threads=threads,
        seed=seed,
    )
    settings.check()
    check_free(Path(out))
    folder = Path(run)
    model = _aligned(folder, "compression")

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


def get_dataset(name: str, out: Source | None = None) -> dict[str, Any]:
    """Fetches or makes a catalogue data set; with ``out`` also writes it as an image folder."""
    from plait.data import open_dataset

    dataset = open_dataset(name)
    if out is not None:
        convert(name, out, "imagefolder")
    return {"name": name, "samples": len(dataset), "texts": dataset.texts, "out": out and str(out)}


def convert(
    source: Source,
    out: Source,
    to: str,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_row: str = "fail",
) -> dict[str, Any]:
    """Writes pairs in another format; refuses to overwrite."""
    from plait.data.convert import convert as convert_data

    done = convert_data(source, out, to, columns=columns, on_bad_row=_checked(on_bad_row))
    return done.to_json()


def audit(
    path: Source, *, model: Source | None = None, columns: Mapping[str, str] | None = None
) -> AuditReport:
    """Findings about pairs, row by row; a model adds over-long texts and likely mismatches."""
    from plait.data.audit import audit as audit_data

    if model is None:
        return audit_data(path, columns=columns)
    from plait.data import open_dataset
    from plait.data.tokenize import TextPreprocess
    from plait.engines.features import embed_dataset

    loaded = _aligned(model, "the audit's search for mismatches")
    dataset = open_dataset(path, columns=columns, on_bad_row="skip")
    embeddings = embed_dataset(loaded, dataset, on_bad_row="skip")
    preprocess = loaded.tower("text").encoder.preprocess
    lengths = preprocess if isinstance(preprocess, TextPreprocess) else None
    return audit_data(path, columns=columns, text_preprocess=lengths, embeddings=embeddings)


def doctor() -> list[dict[str, Any]]:
    """What works on this machine: ``name``, ``ok`` (None: a note), ``detail``."""
    from plait.doctor import examine

    return examine()


def demo(out: Source = "runs/demo", *, seed: int = 0, again: bool = False) -> dict[str, Any]:
    """The main job on emoji pictures; a finished demo in ``out`` is reused unless ``again``."""
    from plait.demo import run_demo

    return run_demo(Path(out), seed=seed, again=again)


__all__: Sequence[str] = [
    "ask",
    "audit",
    "classify",
    "compare",
    "compress",
    "convert",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "get_dataset",
    "index",
    "load",
    "search",
    "train",
]
