"""Full fine-tuning of the same two towers on the same files: plait against open_clip.

ResNet-18 and a BERT-base encoder with the same initial weights, batches of 32, each side in a
process of its own with its own data pipeline and its own training step at their defaults:

- plait: `StageRunner`'s own loop, as `plait train` runs it, in the environment that the plait
  command sets up.
- open_clip: `open_clip_train.train.train_one_epoch` over its CSV data set, with the settings of its
  argument parser (four data workers). Its default precision, "amp", is float16 on a processor too,
  where convolutions take some thirty times as long as in float32: it is measured on one batch, and
  the comparison is with the other two, amp_bf16 and fp32 (what its models are created with).

Optimiser, learning rate and weight decay are the same, the rate is constant. A window is one epoch,
timed from its first batch on, so that the start of data workers does not count.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import machine, write_results
from _photos import make_photographs
from _workers import (
    Worker,
    default_environment,
    median_ratio,
    serve,
    take_turns,
    tuned_environment,
)

DIM, RATE, DECAY = 256, 1e-4, 0.2
WEIGHTS = "initial.pt"
LONGEST = 21  # tokens of the longest of these captions


@dataclass(frozen=True)
class Peer:
    """How open_clip runs: its precision, tokens a caption, and which allocator settings."""

    precision: str
    tokens: int | None = None  # None: open_clip's 77
    tuned: bool = False


PEERS = {
    "open_clip, fp32": Peer("fp32"),
    "open_clip, amp_bf16": Peer("amp_bf16"),
    "open_clip, amp_bf16, plait's allocator": Peer("amp_bf16", tuned=True),
    "open_clip, amp_bf16, plait's allocator and padding": Peer("amp_bf16", LONGEST, tuned=True),
    "open_clip, amp (float16)": Peer("amp"),
}
PRECISIONS = ["fp32", "amp_bf16", "amp"]


class Timed:
    """An iterable of batches that notes when its first one is there."""

    def __init__(self, batches: Any) -> None:
        self.batches, self.started = batches, 0.0

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.batches):
            if number == 0:
                self.started = time.perf_counter()
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)


def window(run: Callable[[], float], losses: list[float], pairs: int) -> dict[str, float]:
    """Runs an epoch that returns when its first batch was there; rate, work and mean loss."""
    losses.clear()
    before = os.times()
    started = run()
    rate = pairs / (time.perf_counter() - started)
    work = sum(os.times()[:4]) - sum(before[:4])  # data workers included
    return {
        "pairs/s": round(rate, 3),
        "pairs per processor second": round(pairs / work, 3),
        "loss": round(statistics.mean(losses), 4),
    }


# ---- open_clip


def clip_config(folder: Path, tokens: int | None) -> dict[str, Any]:
    """The two towers in open_clip's configuration format."""
    bert = str(folder / "bert")
    return {
        "embed_dim": DIM,
        "vision_cfg": {
            "timm_model_name": "resnet18",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": bert,
            "hf_tokenizer_name": bert,
            "hf_model_pretrained": False,
            "hf_proj_type": "linear",
            "hf_pooler_type": "mean_pooler",
            **({"context_length": tokens} if tokens else {}),
        },
    }


def serve_open_clip(folder: Path, peer: Peer, batch: int, threads: int) -> None:
    """A worker with open_clip's own training function."""
    import open_clip
    import torch
    from open_clip_train.data import get_data
    from open_clip_train.params import parse_args
    from open_clip_train.train import train_one_epoch

    torch.set_num_threads(threads)
    precision, configs = peer.precision, folder / f"open_clip_config_{peer.tokens}"
    configs.mkdir(exist_ok=True)
    (configs / "bench.json").write_text(json.dumps(clip_config(folder, peer.tokens)))
    open_clip.add_model_config(configs)
    pairs_file = folder / "pairs.tsv"
    if precision == "amp":
        lines = pairs_file.read_text().splitlines()[: batch + 1]
        pairs_file = folder / "pairs-short.tsv"
        pairs_file.write_text("\n".join(lines) + "\n")
    chosen = ["--model", "bench", "--device", "cpu", "--train-data", str(pairs_file)]
    chosen += ["--dataset-type", "csv", "--batch-size", str(batch), "--lr", str(RATE)]
    chosen += ["--wd", str(DECAY), "--skip-scheduler"]
    if precision != "amp":
        chosen += ["--precision", precision]
    settings = parse_args(chosen)
    settings.distributed, settings.rank, settings.world_size, settings.local_rank = False, 0, 1, 0
    settings.distill, settings.horovod, settings.wandb = False, False, False
    torch.manual_seed(0)
    model, transform, _ = open_clip.create_model_and_transforms(
        "bench", precision=settings.precision, device="cpu", output_dict=True, pretrained_text=False
    )
    if (folder / WEIGHTS).exists():
        model.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    else:
        torch.save(model.state_dict(), folder / WEIGHTS)
    # The grouping of open_clip_train.main: no decay for vectors, norms, biases, the scale.
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "logit_scale" in n]
    decayed = [p for _, p in named if not any(p is other for other in plain)]
    optimiser = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}],
        lr=RATE,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
    )
    scaler = torch.amp.GradScaler(device="cpu") if settings.precision == "amp" else None
    tokenizer = open_clip.get_tokenizer("bench")
    data = get_data(settings, (transform, transform), epoch=0, tokenizer=tokenizer)
    data["train"].dataloader = batches = Timed(data["train"].dataloader)
    measure, losses = open_clip.ClipLoss(), []

    def loss(**outputs: Any) -> Any:
        found = measure(**outputs)
        losses.append(float(found["contrastive_loss"].detach()))
        return found

    epoch = [0]

    def run() -> float:
        train_one_epoch(
            model, data, loss, epoch[0], optimiser, scaler, None, None, settings, tb_writer=None
        )
        epoch[0] += 1
        return batches.started

    pairs = batches.num_batches * batch
    serve({"window": lambda: window(run, losses, pairs), "ready": lambda: "ready"})


# ---- plait


def recipe(folder: Path, batch: int) -> dict[str, Any]:
    """The two towers as a plait recipe; nothing that affects speed departs from a default."""
    linear = {"kind": "linear", "options": {"bias": False}}
    return {
        "name": "bench",
        "data": {"source": str(folder)},
        "model": {
            "dim": DIM,
            "towers": {
                "image": {"encoder": "timm/resnet18", "pretrained": False, "projection": linear},
                "text": {
                    "encoder": f"hf/{folder / 'bert'}",
                    "pretrained": False,
                    "projection": linear,
                },
            },
        },
        "stages": [
            {
                "train": {"image.encoder": "full", "text.encoder": "full"},
                "epochs": 10_000,
                "batch_size": batch,
                "optimiser": {"lr": RATE, "weight_decay": DECAY, "betas": [0.9, 0.98], "eps": 1e-6},
                "schedule": {"kind": "constant", "warmup": 0},
                "clip": None,
            }
        ],
    }


def to_plait(name: str) -> str:
    """A weight's name in open_clip to its name in plait."""
    for theirs, ours in (
        ("visual.trunk.", "towers.image.encoder.model."),
        ("visual.head.proj.", "towers.image.projection.linear."),
        ("text.transformer.", "towers.text.encoder.model."),
        ("text.proj.", "towers.text.projection.linear."),
        ("logit_scale", "log_scale"),
    ):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise KeyError(name)


def serve_plait(folder: Path, batch: int, threads: int) -> None:
    """A worker with plait's own training loop."""
    import torch
    from accelerate import Accelerator

    from plait.core.clock import Clock
    from plait.core.progress import bar
    from plait.data import open_dataset
    from plait.training.recipe.schema import Recipe
    from plait.training.run.run_folder import RunFolder
    from plait.training.run.stages import StageRunner

    torch.set_num_threads(threads)
    chosen = Recipe.model_validate(recipe(folder, batch))
    run_folder = RunFolder(folder / "run")
    data = open_dataset(folder)
    run_folder.begin(chosen, {"fingerprint": data.fingerprint}, resume=False)
    accelerator = Accelerator(cpu=True)
    runner = StageRunner(chosen, data, run_folder, Clock(), accelerator)
    stored = torch.load(folder / WEIGHTS, weights_only=True)
    found = runner.model.load_state_dict(
        {to_plait(name): value for name, value in stored.items()}, strict=False
    )
    assert not found.unexpected_keys, found
    assert not [key for key in found.missing_keys if not key.endswith("position_ids")], found
    from plait.training.build import build

    build.prepare_stage(runner.model, chosen, 0)
    loop = runner._loop(0)
    losses: list[float] = []
    told = loop.watcher.updated

    def updated(position: Any, record: Any, factor: float) -> None:
        losses.append(record.loss)
        told(position, record, factor)

    loop.watcher.updated = updated  # type: ignore[method-assign]
    supply = loop.supply

    class TimedSupply:
        steps = supply.steps
        started = 0.0

        def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
            timed = Timed(supply.epoch(number, start))
            for batch_ in timed:
                self.started = timed.started
                yield batch_

    loop.supply = timed_supply = TimedSupply()

    def run() -> float:
        loop.model.train()
        with bar("", None) as silent:
            loop._epoch(silent)
        loop.position.epoch, loop.position.batch = loop.position.epoch + 1, 0
        return timed_supply.started

    pairs = len(runner.data.training)
    serve({"window": lambda: window(run, losses, pairs), "ready": lambda: "ready"})


# ---- the comparison


def make_bert(folder: Path, layers: int) -> None:
    """Configuration and tokenizer of BERT-base, without weights."""
    from transformers import BertConfig

    from plait.encoders.image.packaged import find_file

    BertConfig(num_hidden_layers=layers, architectures=["BertModel"]).save_pretrained(folder)
    source = find_file("minilm-l6").parent  # BERT's own word pieces
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(source / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12, help="of the text tower")
    parser.add_argument("--peers", nargs="*", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--worker")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.worker == "plait":
        serve_plait(chosen.folder, chosen.batch, chosen.threads)
        return
    if chosen.worker:
        serve_open_clip(chosen.folder, PEERS[chosen.worker], chosen.batch, chosen.threads)
        return
    assert chosen.images % chosen.batch == 0, "whole batches only: open_clip drops the rest"
    peers = [name for name, peer in PEERS.items() if peer.precision in chosen.peers]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder, chosen.images)
        make_bert(folder / "bert", chosen.layers)
        common = ["--folder", name, "--threads", str(chosen.threads), "--batch", str(chosen.batch)]

        def compare(sides: list[str], rounds: int) -> dict[str, list[Any]]:
            workers = []
            for side in sides:
                tuned = side == "plait" or PEERS[side].tuned
                environment = tuned_environment() if tuned else default_environment()
                workers.append(Worker(side, common, environment))
                workers[-1].ask("ready")  # the first writes the weights that all start from
            found = take_turns(workers, "window", rounds)
            for worker in workers:
                worker.close()
            return found

        brief = [side for side in peers if PEERS[side].precision == "amp"]
        found = compare([*(p for p in peers if p not in brief), "plait"], chosen.rounds + 1)
        found |= compare(brief, 2)  # afterwards, to leave the others the memory
    write(chosen, peers, found)


def write(chosen: argparse.Namespace, peers: list[str], found: dict[str, list[Any]]) -> None:
    """The table; the first window of each side warms up."""
    rates = {side: [w["pairs/s"] for w in windows[1:]] for side, windows in found.items()}
    ours = rates["plait"]
    rows = []
    for side in (*peers, "plait"):
        rows.append(
            {
                "side": side,
                "pairs/s (median)": round(statistics.median(rates[side]), 2),
                "plait is faster by": f"{median_ratio(ours[: len(rates[side])], rates[side]):.2f}",
                "pairs per processor second": round(
                    statistics.median(w["pairs per processor second"] for w in found[side][1:]), 2
                ),
                "mean loss by epoch": ", ".join(f"{w['loss']:.2f}" for w in found[side]),
            }
        )
    write_results(
        "finetune_throughput",
        "Full fine-tuning of the same two towers",
        rows,
        about=f"ResNet-18 and BERT-base ({chosen.layers} layers), batches of {chosen.batch}, "
        f"{chosen.images} JPEGs of 500 x 375 pixels with captions; every window is one epoch, "
        f"medians of {chosen.rounds} windows that take turns.",
        machine=machine("timm", "transformers", "open_clip_torch", threads=chosen.threads),
        notes=[
            "The aim is 2.2 times open_clip. Its parser's default precision, amp, is float16, which "
            "processors compute slowly: it ran one batch twice, and is not what to compare with.",
            "Same files, initial weights, optimiser and learning rate; the order of the files and "
            "open_clip's random crops differ, so losses agree only roughly.",
            "open_clip pads every caption to 77 tokens, plait to the longest of a batch; with plait's "
            f"padding: to {LONGEST}, the longest of all.",
        ],
        details={"windows": found, "open_clip": importlib.metadata.version("open_clip_torch")},
    )


if __name__ == "__main__":
    main()
