"""Small bundles written by hand as ONNX graphs, and the same sums in numpy.

The image tower is one matrix on the pixels, the text tower a table of word vectors summed over the
words; both results are brought to unit length. The answer tower adds the two into logits.

Shape legend: B inputs, N words, E features, A answers.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from plait.core.files import write_json
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.runtime.manifest import Manifest, Port, TowerEntry, graph_of, write_manifest

SIDE, DIM, LONGEST = 8, 6, 12
MODEL = "0123456789abcdef"
WORDS = ("[UNK]", "[PAD]", "a", "red", "blue", "green", "picture", "of", "the", "what", "colour")
ANSWERS = ("red", "blue", "green")
PIXELS = Port("uint8", ("batch", 3, SIDE, SIDE))
IDS = Port("int64", ("batch", "length"))
MASK = Port("bool", ("batch", "length"))


@dataclass(frozen=True)
class Weights:
    """Of the matrices, drawn once."""

    image: np.ndarray
    text: np.ndarray
    image_answer: np.ndarray
    text_answer: np.ndarray

    @classmethod
    def drawn(cls, seed: int = 0) -> Weights:
        rng = np.random.default_rng(seed)
        shapes = [(3 * SIDE * SIDE, DIM), (len(WORDS), DIM)]
        shapes += [(3 * SIDE * SIDE, len(ANSWERS)), (len(WORDS), len(ANSWERS))]
        return cls(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


WEIGHTS = Weights.drawn()


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return made


def text_row(text: str) -> np.ndarray:
    """(E,) of a text, in numpy."""
    return _unit(_words(text, WEIGHTS.text))


def image_row(array: np.ndarray) -> np.ndarray:
    """(E,) of a picture that is ``SIDE`` pixels high and wide, in numpy."""
    return _unit(_pixels(array, WEIGHTS.image))


def answer_shares(array: np.ndarray, question: str) -> dict[str, float]:
    logits = _pixels(array, WEIGHTS.image_answer) + _words(question, WEIGHTS.text_answer)
    exp = np.exp(logits - logits.max())
    return dict(zip(ANSWERS, (exp / exp.sum()).tolist(), strict=True))


def _words(text: str, table: np.ndarray) -> np.ndarray:
    known = [WORDS.index(word) if word in WORDS else 0 for word in text.split()][:LONGEST]
    return table[known].astype(np.float64).sum(axis=0)


def _pixels(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    flat = array.transpose(2, 0, 1).reshape(-1).astype(np.float64) / 255 - 0.5
    return flat @ matrix


def _unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), (red, green, blue), np.uint8)


def noisy(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def write_bundle(folder: Path, *, name: str = "tiny") -> Path:
    """A bundle that embeds."""
    folder.mkdir(parents=True)
    image = [*_image_nodes("image"), *_unit_nodes("image", "embedding")]
    text = [*_text_nodes("text"), *_unit_nodes("text", "embedding")]
    towers = {
        "image": _tower(folder, "image", image, {"pixels": PIXELS}, DIM),
        "text": _tower(folder, "text", text, {"ids": IDS, "mask": MASK}, DIM),
    }
    _preprocessing(folder)
    write_manifest(
        folder, Manifest("alignment", name, "0", towers, model=MODEL, dim=DIM, scale=10.0)
    )
    return folder


def write_answering_bundle(folder: Path, *, name: str = "teller") -> Path:
    """A bundle that answers questions."""
    folder.mkdir(parents=True)
    nodes = [*_image_nodes("image_answer"), *_text_nodes("text_answer")]
    nodes.append(helper.make_node("Add", ["image_answer_sum", "text_answer_sum"], ["logits"]))
    inputs = {"pixels": PIXELS, "ids": IDS, "mask": MASK}
    towers = {"answer": _tower(folder, "answer", nodes, inputs, len(ANSWERS), "logits")}
    _preprocessing(folder)
    write_manifest(folder, Manifest("fusion", name, "0", towers, model=MODEL, labels=ANSWERS))
    return folder


def _preprocessing(folder: Path) -> None:
    settings = ImagePreprocess(size=SIDE, resize="squash", mean=(0.5,) * 3, std=(1.0,) * 3)
    write_json(folder / "image_preprocess.json", settings.to_json())
    TextPreprocess(tokenizer(), LONGEST).save(folder)


def _image_nodes(weight: str) -> list[Any]:
    return [
        helper.make_node("Cast", ["pixels"], [f"{weight}_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", [f"{weight}_float", "full"], [f"{weight}_share"]),
        helper.make_node("Sub", [f"{weight}_share", "half"], [f"{weight}_centred"]),
        helper.make_node("Flatten", [f"{weight}_centred"], [f"{weight}_flat"]),
        helper.make_node("MatMul", [f"{weight}_flat", weight], [f"{weight}_sum"]),
    ]


def _text_nodes(weight: str) -> list[Any]:
    return [
        helper.make_node("Gather", [weight, "ids"], [f"{weight}_rows"]),
        helper.make_node("Cast", ["mask"], [f"{weight}_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [f"{weight}_mask", "last"], [f"{weight}_column"]),
        helper.make_node("Mul", [f"{weight}_rows", f"{weight}_column"], [f"{weight}_real"]),
        helper.make_node("ReduceSum", [f"{weight}_real", "second"], [f"{weight}_sum"], keepdims=0),
    ]


def _unit_nodes(weight: str, output: str) -> list[Any]:
    return [
        helper.make_node("ReduceL2", [f"{weight}_sum"], [f"{weight}_norm"], axes=[1]),
        helper.make_node("Div", [f"{weight}_sum", f"{weight}_norm"], [output]),
    ]


def _tower(
    folder: Path,
    tower: str,
    nodes: list[Any],
    inputs: dict[str, Port],
    width: int,
    output: str = "embedding",
) -> TowerEntry:
    kinds = {"uint8": TensorProto.UINT8, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
    constants = {
        "full": np.float32(255),
        "half": np.float32(0.5),
        "last": np.array([-1], np.int64),
        "second": np.array([1], np.int64),
        "image": WEIGHTS.image,
        "text": WEIGHTS.text,
        "image_answer": WEIGHTS.image_answer,
        "text_answer": WEIGHTS.text_answer,
    }
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        tower,
        [
            helper.make_tensor_value_info(name, kinds[port.dtype], list(port.shape))
            for name, port in inputs.items()
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
            if name in used
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, folder / f"{tower}.onnx")
    entry = graph_of(folder, f"{tower}.onnx", format="onnx", precision="float32")
    return TowerEntry(inputs, output, (entry,))
