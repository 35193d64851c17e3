"""`plait serve` against infinity: requests a second of mixed pictures and of short texts.

Both serve the same CLIP ViT-B/32 (random weights, written by transformers) on the same machine with
the same threads and the same client, taking turns. infinity runs its torch engine; plait runs the
bundle that `plait export` makes of the checkpoint. infinity lives in an environment of its own:

    python -m venv VENV
    VENV/bin/pip install infinity_emb==0.0.78 --no-deps
    VENV/bin/pip install "torch>=2.8" "transformers==4.57.*" "numpy==1.26.*" fastapi uvicorn orjson \
        typer rich prometheus-fastapi-instrumentator posthog hf_transfer pillow aiohttp diskcache \
        sentence-transformers timm httpx
    python benchmarks/server.py --infinity VENV/bin/infinity_emb
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

from benchmarks._load import at_rate, closed, embedding_sender  # noqa: E402
from benchmarks._requests import EMBED, pictures, texts  # noqa: E402
from benchmarks._server import Caller, serving  # noqa: E402

from _measure import machine, write_results  # noqa: E402

KINDS = ("images", "texts")
SIZES = ((640, 480), (480, 640), (224, 224), (320, 240), (1024, 683), (500, 375))
CALLERS = 32
LEVELS = (0.5, 1.0, 2.0)
LEAST_COSINE = 0.98  # between the two servers' rows of one input: bfloat16, other resizing


@dataclass(frozen=True)
class Side:
    """A server, and how it is asked."""

    name: str
    url: str
    path: str

    def bodies(self, kind: str, inputs: list[Any]) -> list[bytes]:
        modality = "image" if kind == "images" else "text"
        made = []
        for one in inputs:
            value = {"model": "clip", "modality": modality, "input": [one]}
            made.append(json.dumps({**value, "encoding_format": "float"}).encode())
        return made


def write_checkpoint(folder: Path, *, small: bool) -> None:
    """CLIP ViT-B/32 with random weights, in transformers' format, with CLIP's own tokenizer."""
    import torch
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from plait.modalities.text.tokenizer_files import open_clip_tokenizer

    torch.manual_seed(0)
    if small:
        tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        config = CLIPConfig(
            text_config={**tower, "num_attention_heads": 2},
            vision_config={**tower, "num_attention_heads": 2},
            projection_dim=32,
        )
    else:
        config = CLIPConfig()
    tokenizer = SimpleTokenizer()
    ids = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    for name, value in ids.items():
        setattr(config.text_config, name, value)
    model = CLIPModel(config)
    model.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    open_clip_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").write_text(json.dumps(tokenizer.encoder), encoding="utf-8")
    merges = sorted(tokenizer.bpe_ranks.items(), key=lambda pair: pair[1])
    lines = ["#version: 0.2", *(" ".join(pair) for pair, _ in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


@contextlib.contextmanager
def infinity(program: Path, checkpoint: Path, threads: int, log: Path) -> Iterator[Side]:
    """infinity with its torch engine, as its documentation starts it on a processor."""
    port = 17997
    environ = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "INFINITY_BETTERTRANSFORMER": "false",  # the optimum that it needs is gone
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(threads),
    }
    command = [program, "v2", "--model-id", checkpoint, "--served-model-name", "clip"]
    command += ["--engine", "torch", "--device", "cpu"]
    command += ["--port", port, "--host", "127.0.0.1", "--batch-size", 32]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(part) for part in command], stderr=file, stdout=file, env=environ
        )
    try:
        side = Side("infinity", f"http://127.0.0.1:{port}", "/embeddings")
        asyncio.run(_until_up(side.url, process, log))
        yield side
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


async def _until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"infinity ended:\n{log.read_text()[-3000:]}")
        caller = Caller(url)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if (await caller.get("/health")).status == 200:
                return
        caller.close()
        await asyncio.sleep(0.5)
    raise RuntimeError(f"infinity was not up in time:\n{log.read_text()[-3000:]}")


async def agreement(sides: list[Side], inputs: dict[str, list[Any]]) -> dict[str, float]:
    """The least cosine between the two servers' rows of one input."""
    found = {}
    for kind, values in inputs.items():
        rows = []
        for side in sides:
            caller, mine = Caller(side.url), []
            for body in side.bodies(kind, values):
                reply = await caller.send("POST", side.path, body)
                assert reply.status == 200, (side.name, reply)
                row = np.array(reply.json["data"][0]["embedding"], np.float64)
                mine.append(row / np.linalg.norm(row))
            caller.close()
            rows.append(np.stack(mine))
        found[kind] = round(float((rows[0] * rows[1]).sum(axis=1).min()), 4)
    return found


async def capacity(
    sides: list[Side], inputs: dict[str, list[Any]], *, rounds: int, seconds: float
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Each server's requests a second with so many callers, by kind, in turns."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {k: {} for k in KINDS}
    for kind in KINDS:
        for side in sides:  # warm-up
            send = embedding_sender(side.path, side.bodies(kind, inputs[kind]))
            await closed(side.url, send, callers=CALLERS, seconds=min(5.0, seconds))
        for _ in range(rounds):
            for side in sides:
                send = embedding_sender(side.path, side.bodies(kind, inputs[kind]))
                load = await closed(side.url, send, callers=CALLERS, seconds=seconds)
                found[kind].setdefault(side.name, []).append(load.figures())
                print(kind, side.name, load.figures(), flush=True)
    return found


async def levels(
    sides: list[Side],
    inputs: dict[str, list[Any]],
    rates: dict[str, dict[str, float]],
    seconds: float,
) -> list[dict[str, Any]]:
    """Latency at shares of each server's own capacity, and of infinity's at the other's rate."""
    rows = []
    for kind in KINDS:
        for level in LEVELS:
            for side in sides:
                rate = level * rates[kind][side.name]
                send = embedding_sender(side.path, side.bodies(kind, inputs[kind]))
                load = await at_rate(side.url, send, rate=rate, seconds=seconds)
                row = {"what": kind, "load": f"{level:g}x", "server": side.name}
                rows.append({**row, "asked per s": round(rate, 1), **load.figures()})
                print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--infinity", type=Path, required=True, help="the program infinity_emb")
    parser.add_argument("--precision", default="auto", help="of plait's bundle")
    parser.add_argument("--bundle", type=Path, help="of the same weights, made before")
    parser.add_argument("--checkpoint", type=Path, help="where the weights are, or are put")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--streams", type=int, default=1, help="of plait's bundle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--small", action="store_true", help="a tiny model: does the script work?")
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    checkpoint = given.checkpoint or scratch / "clip"
    if not (checkpoint / "config.json").is_file():
        checkpoint.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, small=given.small)
    bundle = given.bundle or scratch / "bundle" / "clip"
    if not bundle.is_dir():
        plait = Path(sys.executable).with_name("plait")
        subprocess.run([plait, "export", checkpoint, "--out", bundle], check=True)
    rng = random.Random(0)
    inputs = {"images": pictures(rng, 48, SIZES), "texts": texts(rng, 256)}
    options = ["--precision", given.precision, "--threads", given.threads]
    options += ["--streams", given.streams, "--log-level", "warning"]
    with (
        serving(bundle, *options, log=scratch / "plait.log") as server,
        infinity(given.infinity, checkpoint, given.threads, scratch / "infinity.log") as peer,
    ):
        sides = [Side("plait", server.url, EMBED), peer]
        same = asyncio.run(agreement(sides, {k: v[:12] for k, v in inputs.items()}))
        print("least cosine between the two:", same, flush=True)
        found = asyncio.run(capacity(sides, inputs, rounds=given.rounds, seconds=given.seconds))
        rates = {
            kind: {n: statistics.median(f["good per s"] for f in fs) for n, fs in by.items()}
            for kind, by in found.items()
        }
        rows = asyncio.run(levels(sides, inputs, rates, given.seconds))
    report(rates, rows, same, found, given)
    return 0 if min(same.values()) >= LEAST_COSINE or given.small else 1


def report(
    rates: dict[str, dict[str, float]],
    rows: list[dict[str, Any]],
    same: dict[str, float],
    found: dict[str, Any],
    given: argparse.Namespace,
) -> None:
    """Writes the results."""
    ratios = {kind: by["plait"] / by["infinity"] for kind, by in rates.items()}
    capacities = [
        {
            "what": kind,
            "load": f"{CALLERS} callers",
            "server": name,
            "asked per s": "",
            **found[kind][name][given.rounds // 2],
            "good per s": rate,
        }
        for kind, by in rates.items()
        for name, rate in by.items()
    ]
    write_results(
        "server-small" if given.small else "server",
        "plait serve against infinity",
        [*capacities, *rows],
        about=(
            f"CLIP ViT-B/32, the same random weights, {given.threads} threads, one input a request, "
            f"client on the same machine. plait: the bundle, precision {given.precision}, "
            f"{given.streams} streams; infinity "
            "0.0.78: torch engine, float32."
        ),
        machine=machine("openvino", threads=given.threads),
        notes=[
            *(f"{kind}: plait {ratio:.1f} times infinity's" for kind, ratio in ratios.items()),
            f"With {CALLERS} callers: the median of {given.rounds} rounds in turns.",
            "At 0.5x, 1x, 2x: evenly spaced requests at that share of the server's own capacity; "
            "latency from the moment a request was due. infinity has no limit of its queue.",
            f"Least cosine between the two servers' rows of an input: {same}.",
        ],
        details={"rates": rates, "ratios": ratios, "rounds": found},
    )
    print(json.dumps(ratios))


if __name__ == "__main__":
    sys.exit(main())
