"""Answers, captions and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plait.api.sources import Source, aligned_model, load
from plait.core.errors import DataError

if TYPE_CHECKING:
    from plait.core.media import MediaRef
    from plait.models.store.kinds import Model


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
    from plait.core.media import FileRef, MediaRef
    from plait.data.base.wording import filled
    from plait.models.bridged.model import BridgedModel
    from plait.models.bridged.write import written_answer
    from plait.models.fusion.asking import answer_logits
    from plait.models.store.kinds import fused

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
    from plait.core.media import FileRef
    from plait.models.bridged.generate import Writing
    from plait.models.bridged.write import prompt_for, write
    from plait.models.store.kinds import bridged

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
    from plait.models.store.kinds import drawing
    from plait.retrieval.sheet.drawn import SHEET, check_free, draw_pictures, write_drawn

    path = Path(out)
    check_free(path)
    drawn = draw_pictures(
        drawing(load(run), "a picture of a text"),
        text,
        n,
        candidates=candidates,
        judge=None if rerank is None else aligned_model(rerank, "ordering pictures"),
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
