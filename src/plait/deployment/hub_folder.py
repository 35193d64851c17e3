"""A model as the folder that transformers or open_clip load, and on the model hub.

The towers must be of the CLIP family, as those of `finetune-clip` are; the weights are copied, so
that the other library gives the same embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from plait.core.errors import ModelError, PlaitError, UserError, shown
from plait.core.files import new_folder, replacing, write_json, write_text
from plait.core.modality import IMAGE, TEXT
from plait.core.version import __version__
from plait.deployment.card import Origin, data_lines, quality_lines
from plait.encoders.clip import keys as clip_keys
from plait.encoders.clip import writing as clip_writing
from plait.encoders.clip.text import ClipText
from plait.encoders.clip.vision import ClipVision
from plait.encoders.clip.writing import Pair
from plait.evaluation.report.finetuning import lines as finetuning_lines
from plait.models.alignment.alignment import AlignmentModel
from plait.models.base.projection import LinearProjection
from plait.models.store.kinds import Model, aligned
from plait.nn.adapt import merged_state_dict
from plait.training.recipe.recipe import RUN_RECIPE, read_run_recipe

Target = Literal["hf-folder", "open-clip"]
TARGETS = get_args(Target)
OPEN_CLIP = "open_clip"
FORMS = {
    "clip": "transformers' CLIPModel",
    "siglip": "transformers' SiglipModel",
    OPEN_CLIP: "open_clip",
}


def write_hub_folder(
    model: Model,
    out: str | Path,
    *,
    name: str,
    target: Target = "hf-folder",
    origin: Origin | None = None,
    base: str | None = None,
) -> dict[str, Any]:
    """Writes weights, configuration, preprocessing, tokenizer and model card.

    Args:
        model: an alignment model whose towers are of the CLIP family; adapters are merged.
        out: the folder to write; it must not exist, or be empty.
        name: of the model, for its card; OWNER/NAME where it will be pushed.
        target: ``hf-folder``: transformers' format where it can hold the model, else open_clip's;
            ``open-clip``: open_clip's.
        origin: where the model comes from, for its card.
        base: the published model that was fine-tuned, OWNER/NAME.

    Returns:
        ``out``, ``form`` (``clip``, ``siglip`` or ``open_clip``), ``loads``, ``bytes``, ``notes``.

    Raises:
        ModelError: towers or projections that the libraries have no place for, each named.
        UserError: ``out`` holds something.
    """
    aligner = aligned(model, "a folder for transformers or open_clip")
    pair = pair_of(aligner)
    form = form_of(pair, target)
    notes = []
    if aligner.hubs is not None:
        notes.append(
            "The model's correction for hubs is left out: the folder's scores are plain cosines."
        )
    state = {k: v for k, v in merged_state_dict(aligner).items() if not k.startswith("hubs.")}
    with new_folder(out) as folder:
        if form == OPEN_CLIP:
            write_json(folder / "open_clip_config.json", clip_writing.open_clip_config(pair, name))
            _write_weights(clip_keys.to_open_clip(state), folder / "open_clip_model.safetensors")
        else:
            siglip = form == "siglip"
            write_json(folder / "config.json", clip_writing.transformers_config(pair, siglip))
            processor = clip_writing.processor_config(pair, siglip)
            write_json(folder / "preprocessor_config.json", processor)
            weights = clip_keys.to_transformers(state, siglip=siglip)
            _write_weights(weights, folder / "model.safetensors")
        with replacing(folder / "tokenizer.json") as temporary:
            pair.text_preprocess.tokenizer.save(str(temporary))
        write_json(folder / "tokenizer_config.json", clip_writing.tokenizer_config(pair))
        card = hub_card(name, form, origin or Origin(), base, notes)
        write_text(folder / "README.md", card)
    size = sum(path.stat().st_size for path in Path(out).iterdir())
    loads = FORMS[form]
    return {"out": str(out), "form": form, "loads": loads, "bytes": size, "notes": notes}


def checked_target(name: str) -> Target:
    """The target of that name. Raises UserError for another."""
    for target in TARGETS:
        if name == target:
            return target  # type: ignore[no-any-return]
    if name == "bundle":
        raise UserError("--push uploads what transformers or open_clip load: add --to hf-folder")
    raise UserError(f"--to is bundle, {' or '.join(TARGETS)}, not {shown(name)}")


def base_of(run: str | Path) -> str | None:
    """The published model that a run trained on, if it is named as on the model hub."""
    if not (Path(run) / RUN_RECIPE).is_file():
        return None
    published = read_run_recipe(Path(run)).model.published
    if published is None or Path(published).exists():
        return None
    return published if re.fullmatch(r"[\w.-]+/[\w.-]+", published) else None


def pair_of(model: AlignmentModel) -> Pair:
    """Both towers of a model, if they are of the CLIP family.

    Raises:
        ModelError: they are not; each that isn't is named.
    """
    foreign = [
        f"the {name} tower is a {type(model.tower(name).encoder).__name__}"
        for name, kind in ((IMAGE, ClipVision), (TEXT, ClipText))
        if name in model.modalities and type(model.tower(name).encoder) is not kind
    ]
    foreign += [
        f"there is no {name} tower" for name in (IMAGE, TEXT) if name not in model.modalities
    ]
    if foreign:
        raise ModelError(
            "transformers and open_clip load models whose towers are CLIP's or SigLIP's own, and "
            f"here {' and '.join(foreign)}: export a bundle (leave --to out), or fine-tune a "
            "published model (plait train finetune-clip)"
        )
    vision, text = model.tower(IMAGE), model.tower(TEXT)
    assert isinstance(vision.encoder, ClipVision)
    assert isinstance(text.encoder, ClipText)
    kinds = []
    for tower in (vision, text):
        projection = tower.projection
        linear = projection if isinstance(projection, LinearProjection) else None
        plain = linear is None or linear.heads == 1
        biased = linear is not None and linear.linear.bias is not None
        kinds.append((projection.kind if plain else f"{projection.kind} of several heads", biased))
    biased = model.bias is not None
    return Pair(vision.encoder, text.encoder, model.dim, kinds[0], kinds[1], biased)


def form_of(pair: Pair, target: Target) -> str:
    """``clip``, ``siglip`` or ``open_clip``: what can hold a model.

    Raises:
        ModelError: none can; the reasons of each are told.
    """
    reasons = {
        "clip": clip_writing.not_clip(pair),
        "siglip": clip_writing.not_siglip(pair),
        OPEN_CLIP: clip_writing.not_open_clip(pair),
    }
    tried = [OPEN_CLIP] if target == "open-clip" else list(reasons)
    fitting = [form for form in tried if not reasons[form]]
    if fitting:
        return fitting[0]
    told = "; ".join(f"{FORMS[form]}: {', '.join(reasons[form])}" for form in tried)
    raise ModelError(f"no format holds this model. {told}. Export a bundle (leave --to out)")


def _write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    own = {
        name: value.detach().to(torch.float32).contiguous().clone()
        for name, value in weights.items()
    }
    with replacing(path) as temporary:
        save_file(own, temporary, metadata={"format": "pt"})


def hub_card(
    name: str, form: str, origin: Origin, base: str | None, notes: list[str] | None = None
) -> str:
    """README.md of a folder: metadata of the hub, use, data, figures, and what is left to state."""
    plain = origin.report.get("retrieval_plain")
    report = {**origin.report, **({"retrieval": plain} if plain else {})}
    library = "open_clip" if form == OPEN_CLIP else "transformers"
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: zero-shot-image-classification",
        "license: unknown  # state it: it follows from those of the base model and of the data",
        *([f"base_model: {base}"] if base else []),
        f"tags: [{form}, plait]",
        "---",
        "",
        f"# {name}",
        "",
        f"Pictures and texts in one space. Trained by plait {__version__}"
        f"{f' from {base}' if base else ''}.",
        "",
        "## Use",
        "",
        "```python",
        *_usage(name, form),
        "```",
        "",
        *data_lines(origin.data),
        *quality_lines(report),
        *finetuning_lines(report),
        *[line for note in notes or () for line in ("", note)],
        "",
        "## Licence",
        "",
        "TO STATE before this is published: the licence of the weights (it follows from that of the "
        "model that was fine-tuned and of the data), and who may use it for what.",
        "",
        "## Limits",
        "",
        "The model knows what its data and the model it started from showed it, with their biases.",
        "",
    ]
    return "\n".join(lines)


def _usage(name: str, form: str) -> list[str]:
    if form == OPEN_CLIP:
        return [
            "import open_clip",
            "",
            f'source = "hf-hub:{name}"  # or "local-dir:FOLDER"',
            "model, preprocess = open_clip.create_model_from_pretrained(source)",
            "tokenizer = open_clip.get_tokenizer(source)",
        ]
    kind = "CLIPModel" if form == "clip" else "SiglipModel"
    return [
        f"from transformers import AutoImageProcessor, AutoTokenizer, {kind}",
        "",
        f'source = "{name}"  # or this folder',
        f"model = {kind}.from_pretrained(source)",
        "processor = AutoImageProcessor.from_pretrained(source)",
        "tokenizer = AutoTokenizer.from_pretrained(source)",
    ]


def push_folder(folder: str | Path, repository: str, *, public: bool = False) -> str:
    """Uploads a folder to a repository of the model hub, which is made where there is none.

    Args:
        folder: as `write_hub_folder` wrote it.
        repository: OWNER/NAME.
        public: whether a new repository is seen by all; an existing one stays as it is.

    Returns:
        The address of the repository.

    Raises:
        UserError: not OWNER/NAME.
        PlaitError: the hub refuses, or cannot be reached.
    """
    check_repository(repository)
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        made = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message="Upload by plait"
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as problem:
        told = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise PlaitError(
            f"{folder} is written, but the hub did not take it as {repository}: {told} (log in with "
            "`hf auth login`, and give --push again with another --out)"
        ) from problem
    return str(made)


def check_repository(repository: str) -> None:
    """Raises UserError for what is not OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as problem:
        raise UserError(f"--push takes OWNER/NAME, not {repository[:100]!r}") from problem
    if repository.count("/") != 1:
        raise UserError(f"--push takes OWNER/NAME, not {repository[:100]!r}")
