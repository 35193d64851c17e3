"""Do drawn emoji show what was asked for? An alignment model names them among 50 prompts.

    python benchmarks/draw.py --runs runs/drawn        # trains what is missing there, then measures

Trains the recipe ``draw`` on the training emoji of `openmoji`, and as a judge the recipe ``demo`` on
the same emoji without 50 of them, which it has never seen in picture or words. The judge learns
emoji as small and as blurred as drawn ones: of each the picture at the size of drawing, and what the
discrete VAE makes of it. Each drawn picture is compared with the names of all 50. Two sets of prompts: those 50 held from the judge, whose names the
drawing model was trained with, and 50 test emoji that neither has seen. Writes
benchmarks/results/draw.json and .md, and docs/images/draw.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from _measure import machine, set_threads, write_results
from plait.core.files import read_json
from plait.core.random import permutation
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.open.open import open_dataset
from plait.evaluation.evaluate.drawing import evaluate_drawing
from plait.modalities.image.fast_decode import load_pixels
from plait.models.alignment.alignment import AlignmentModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.store.storage import load_model
from plait.retrieval.sheet.sheet import contact_sheet
from plait.training.recipe.recipe import load_recipe
from plait.training.run.run import train

PROMPTS = 50
BAR = 5.0  # times chance
SHOWN = {"seen": 8, "unseen": 4}  # rows of the contact sheet, the first of each set
SHEET = Path(__file__).parents[1] / "docs" / "images" / "draw.png"
JUDGE_DATA = "judge-pairs"


def name_of(sample: Sample) -> str:
    """The English name, without the aliases."""
    return sample.texts[sample.languages.index("en")]


def prompts_of(dataset: PairDataset, split: str, seed: int) -> list[Sample]:
    """`PROMPTS` emoji of a split with different English names."""
    known: dict[str, Sample] = {}
    for sample in dataset.split(split):
        if sample.image is not None and "en" in sample.languages:
            known.setdefault(name_of(sample), sample)
    samples = list(known.values())
    return [samples[i] for i in permutation(len(samples), seed, "prompts", split)[:PROMPTS]]


def write_pairs(
    dataset: PairDataset, held: Sequence[Sample], folder: Path, model: DrawingModel
) -> None:
    """Emoji as an image folder, small and rebuilt; those held and their groups are test emoji."""
    away = {sample.group for sample in held}
    folder.mkdir(parents=True)
    rows = []
    for sample, split in zip(dataset, dataset.splits, strict=True):
        if sample.image is None:
            continue
        names = [t for t, code in zip(sample.texts, sample.languages, strict=True) if code == "en"]
        kept = "test" if sample.group in away else split
        small = pixels_of([sample], model)[0]
        rebuilt = model.dvae.decode(model.dvae.codes(small))
        for what, picture in (("small", small), ("rebuilt", rebuilt)):
            file = f"{sample.id}-{what}.png"
            Image.fromarray(picture[0].permute(1, 2, 0).numpy()).save(folder / file)
            group = sample.group_key
            rows.append({"file_name": file, "text": names, "split": kept, "group": group})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows if row["text"]]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(runs: Path, dataset: PairDataset, held: Sequence[Sample], overrides: list[str]) -> None:
    """Trains what is not there yet; a stopped run goes on."""
    if not (runs / "draw" / "report.json").is_file():
        recipe = load_recipe("draw", overrides)
        train(recipe, out=runs / "draw", resume=(runs / "draw").is_dir())
    if not (runs / "judge" / "report.json").is_file():
        data = runs / JUDGE_DATA
        if not (data / "metadata.jsonl").is_file():
            drawn = load_model(runs / "draw")
            assert isinstance(drawn, DrawingModel)
            with torch.inference_mode():
                write_pairs(dataset, held, data, drawn)
        recipe = load_recipe("demo", ["data.languages=null"], data=str(data))
        train(recipe, out=runs / "judge", resume=(runs / "judge").is_dir())


def ranks(judge: AlignmentModel, pictures: Tensor, names: Sequence[str]) -> np.ndarray:
    """(P, n): how many wrong names are at least as near as the right one; pictures (P, n, 3, H, W)."""
    arrays = list(pictures.flatten(0, 1).permute(0, 2, 3, 1).contiguous().numpy())
    cosines = judge.similarity(arrays, list(names))
    owner = np.arange(len(names)).repeat(pictures.shape[1])
    right = cosines[np.arange(len(owner)), owner][:, None]
    return ((cosines >= right).sum(axis=1) - 1).reshape(len(names), -1)


def recall(found: np.ndarray, k: int, seed: int = 0) -> dict[str, float]:
    """Percent of pictures named among the first k, with a 95% interval over prompts."""
    by_prompt = 100 * (found < k).mean(axis=1)
    draws = np.random.default_rng(seed).integers(len(found), size=(2000, len(found)))
    low, high = np.percentile(by_prompt[draws].mean(axis=1), [2.5, 97.5])
    return {"value": float(by_prompt.mean()), "low": float(low), "high": float(high)}


def pixels_of(samples: Sequence[Sample], model: DrawingModel) -> Tensor:
    """(P, 1, 3, H, W) of the emoji themselves."""
    refs = [sample.image for sample in samples if sample.image is not None]
    return torch.from_numpy(load_pixels(refs, model.pixels))[:, None]


def one_set(
    model: DrawingModel, judge: AlignmentModel, samples: Sequence[Sample], given: argparse.Namespace
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """What was drawn (P, n, 3, H, W), and ranks of it, of the controls and of the ceilings."""
    names = [name_of(sample) for sample in samples]
    drawn = model.draw(
        names,
        given.pictures,
        temperature=given.temperature,
        top_k=given.top_k,
        guidance=given.guidance,
        generator=torch.Generator().manual_seed(given.seed),
    )
    real = pixels_of(samples, model)
    rebuilt = model.dvae.decode(model.dvae.codes(real[:, 0]))[:, None]
    return drawn, {
        "drawn": ranks(judge, drawn, names),
        "drawn for another prompt": ranks(judge, drawn.roll(1, dims=0), names),
        "real, through codes": ranks(judge, rebuilt, names),
        f"real, {model.dvae.image_size} pixels": ranks(judge, real, names),
    }


def draw_sheet(
    shown: Sequence[tuple[str, Sequence[str], Tensor, np.ndarray]], pictures: int
) -> None:
    """The first prompts of each set, `pictures` of each; named rightly: framed in green."""
    answers, right = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for title, names, drawn, found in shown:
            for row, name in enumerate(names[: SHOWN[title]]):
                hits = []
                for column in range(min(pictures, 6)):
                    path = Path(scratch) / f"{title}-{row}-{column}.png"
                    Image.fromarray(drawn[row, column].permute(1, 2, 0).numpy()).save(path)
                    place = f"named {found[row, column] + 1} of {PROMPTS}"
                    hits.append({"id": path.name, "path": str(path), "score": None, "text": place})
                answers.append((name if title == "seen" else f"{name} (never seen)", hits))
                right.append({h["id"] for h, rank in zip(hits, found[row]) if rank == 0})
        contact_sheet(answers, SHEET, right=right, title="Drawn from names")


def main(given: argparse.Namespace) -> int:
    set_threads(2)
    dataset = open_dataset("openmoji")
    sets = {"seen": prompts_of(dataset, "train", 0), "unseen": prompts_of(dataset, "test", 0)}
    trained(given.runs, dataset, sets["seen"], given.set or [])
    model, judge = load_model(given.runs / "draw"), load_model(given.runs / "judge")
    assert isinstance(model, DrawingModel) and isinstance(judge, AlignmentModel)
    rows, measured, shown = [], {}, []
    for title, samples in sets.items():
        drawn, found = one_set(model, judge, samples, given)
        shown.append((title, [name_of(sample) for sample in samples], drawn, found["drawn"]))
        for what, places in found.items():
            figures = {f"R@{k}": recall(places, k) for k in (1, 5)}
            measured[f"{title}: {what}"] = figures
            cells = {
                f"{name}, %": f"{one['value']:.1f} ({one['low']:.1f} to {one['high']:.1f})"
                for name, one in figures.items()
            }
            rows.append({"names": title, "pictures": what, **cells})
            print(rows[-1], flush=True)
    draw_sheet(shown, given.pictures)
    publish(rows, measured, model, given)
    chance = 100 / PROMPTS
    return 0 if measured["seen: drawn"]["R@1"]["value"] >= BAR * chance else 1


def publish(
    rows: list[dict[str, Any]],
    measured: dict[str, Any],
    model: DrawingModel,
    given: argparse.Namespace,
) -> None:
    """Writes the results."""
    report = read_json(given.runs / "draw" / "report.json")
    judged = evaluate_drawing(model, open_dataset("openmoji").split("test"))
    dvae = judged["reconstruction"]
    seconds = sum(report["seconds"].values())
    write_results(
        "draw",
        "Emoji drawn from their names, named by an alignment model",
        rows,
        about=(
            f"The recipe `draw` in {seconds:.0f} s, then {given.pictures} pictures of each of "
            f"{PROMPTS} names; temperature {given.temperature:g}, top_k {given.top_k}, guidance "
            f"{given.guidance:g}; none is chosen. A judge (recipe `demo`, English names, emoji at "
            f"{model.dvae.image_size} pixels and as rebuilt by the discrete VAE) compares "
            f"each with all {PROMPTS} names; chance is {100 / PROMPTS:g}%. In parentheses: 95% "
            "intervals over names."
        ),
        machine=machine(threads=2),
        notes=[
            "seen: the drawing model was trained with these names and emoji, the judge with "
            "neither. unseen: test emoji, of which neither has seen anything.",
            "Controls: pictures drawn for another name; the emoji themselves, at the size of "
            "drawing and rebuilt from their codes.",
            f"The bar is {BAR:g} times chance in recall@1 for seen names.",
            f"The discrete VAE rebuilds test emoji at {dvae['psnr']:.1f} dB and uses "
            f"{100 * dvae['codes_used']:.0f}% of its codes for them.",
        ],
        details={
            "measured": measured,
            "draw": {"seconds": report["seconds"], **judged},
            "dvae": model.dvae.spec(),
            "transformer": model.transformer.spec(),
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of both runs")
    parser.add_argument("--set", action="append", help="change of the recipe draw (repeatable)")
    parser.add_argument("--pictures", type=int, default=6, help="drawn of each name")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=64)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    raise SystemExit(main(parser.parse_args()))
