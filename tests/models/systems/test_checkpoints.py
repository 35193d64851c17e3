"""Checkpoints made here in the published formats, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks._system_references import ReferenceUniter, ReferenceVilbert, bert_config
from benchmarks._system_tools import randomise
from tests.models.systems.cases import inputs
from torch import Tensor, nn

from plait.core.errors import ModelError
from plait.models.systems.checkpoints import load_checkpoint
from plait.models.systems.lxmert import Lxmert
from plait.models.systems.visual_bert import VisualBert

WORDS, REGIONS = 23, 5
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def visual_bert(cls: str, **changes: Any) -> Any:
    import transformers

    config = transformers.VisualBertConfig(
        vocab_size=WORDS, hidden_size=12, num_attention_heads=3, intermediate_size=14,
        num_hidden_layers=2, max_position_embeddings=12, visual_embedding_dim=REGIONS,
        num_labels=6, pad_token_id=0, **changes,
    )  # fmt: skip
    model = getattr(transformers, cls)(config).double().eval()
    randomise(model, 0)
    return model.float()


def lxmert() -> Any:
    from transformers import LxmertConfig, LxmertForPreTraining

    config = LxmertConfig(
        vocab_size=WORDS, hidden_size=12, num_attention_heads=3, intermediate_size=14, l_layers=2,
        r_layers=1, x_layers=2, max_position_embeddings=12, visual_feat_dim=REGIONS,
        num_qa_labels=6, num_object_labels=7, num_attr_labels=4,
    )  # fmt: skip
    model = LxmertForPreTraining(config).double().eval()
    randomise(model, 0)
    return model.float()


def small_bert(width: int, heads: int, layers: int) -> Any:
    return bert_config(
        vocab_size=WORDS, hidden_size=width, num_attention_heads=heads, intermediate_size=14,
        num_hidden_layers=layers, max_position_embeddings=12,
    )  # fmt: skip


def uniter() -> ReferenceUniter:
    model = ReferenceUniter(small_bert(12, 3, 2), REGIONS, 7).double().eval()
    randomise(model, 0)
    return model


def vilbert() -> ReferenceVilbert:
    model = ReferenceVilbert(
        small_bert(12, 3, 3), small_bert(8, 2, 2), region_width=REGIONS, classes=7, inner=10,
        heads=2, meetings=[(1, 0), (2, 1)], product=True,
    )  # fmt: skip
    model = model.double().eval()
    randomise(model, 0)
    return model


VILBERT_HEADS = {
    "heads": 3,
    "image": {"width": 8, "layers": 2, "heads": 2, "hidden": 14},
    "joint": {"width": 10, "heads": 2},
}


def single() -> Any:
    """Inputs in float32, every row with a picture."""
    ids, text, regions = inputs()
    regions.mask[-1] = True
    assert regions.boxes is not None
    floats = type(regions)(
        regions.tokens.float(), regions.mask, regions.pooled.float(), regions.boxes.float()
    )
    return ids, text, floats


@pytest.mark.parametrize("torch_file", [False, True])
def test_visual_bert_for_pretraining(tmp_path: Path, torch_file: bool) -> None:
    model = visual_bert("VisualBertForPreTraining")
    model.save_pretrained(tmp_path)
    if torch_file:  # as published: tied weights twice, buffers too
        state = model.state_dict() | {"visual_bert.embeddings.position_ids": torch.arange(12)[None]}
        torch.save(state, tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    found = load_checkpoint(tmp_path)
    assert isinstance(found.system, VisualBert) and not found.system.training
    assert set(found.heads) == {"words", "match"}
    assert len(found.left_over) == int(torch_file)
    ids, text, regions = single()
    fused = found.system(ids, text, regions)
    with torch.no_grad():
        out = model(
            input_ids=ids, attention_mask=text.long(), visual_embeds=regions.tokens,
            visual_attention_mask=regions.mask.long(),
        )  # fmt: skip
    words = found.heads["words"](fused.parts["text"].tokens, found.system.word_table)
    torch.testing.assert_close(words[text], out.prediction_logits[:, :6][text], **CLOSE)
    matched = found.heads["match"](fused.pooled)
    torch.testing.assert_close(matched, out.seq_relationship_logits.flip(1), **CLOSE)


def test_visual_bert_for_answers_and_bare(tmp_path: Path) -> None:
    model = visual_bert("VisualBertForQuestionAnswering")
    model.save_pretrained(tmp_path)
    found = load_checkpoint(tmp_path)
    ids, text, regions = single()
    fused = found.system(ids, text, regions)
    with torch.no_grad():
        out = model(
            input_ids=ids, attention_mask=text.long(), visual_embeds=regions.tokens,
            visual_attention_mask=regions.mask.long(),
        )  # fmt: skip
    answers = found.heads["answer"](found.system.answer_vector(fused))
    torch.testing.assert_close(answers, out.logits, **CLOSE)
    model.visual_bert.save_pretrained(tmp_path / "bare")
    bare = load_checkpoint(tmp_path / "bare", visual_type=0)
    assert bare.heads == {} and bare.system.spec()["visual_type"] == 0
    weights = bare.system.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in found.system.state_dict().items())


def test_lxmert(tmp_path: Path) -> None:
    model = lxmert()
    model.save_pretrained(tmp_path)
    found = load_checkpoint(tmp_path)
    assert isinstance(found.system, Lxmert)
    assert set(found.heads) == {"words", "match", "objects", "answer"}
    ids, text, regions = single()
    fused = found.system(ids, text, regions)
    with torch.no_grad():
        out = model(
            input_ids=ids, attention_mask=text.long(), visual_feats=regions.tokens,
            visual_pos=regions.boxes, visual_attention_mask=regions.mask.long(),
        )  # fmt: skip
    answers = found.heads["answer"](fused.pooled)
    torch.testing.assert_close(answers, out.question_answering_score, **CLOSE)
    objects, attributes, features = found.heads["objects"](fused.parts["image"].tokens)
    assert (objects.shape[-1], attributes.shape[-1], features.shape[-1]) == (7, 4, REGIONS)


@pytest.mark.parametrize("prefix", ["uniter.", "bert."])
def test_uniter(tmp_path: Path, prefix: str) -> None:
    model = uniter()
    state = {k.replace("uniter.", prefix): v.float() for k, v in model.state_dict().items()}
    assert f"{prefix}img_embeddings.pos_layer_norm.weight" in state
    state["vqa_output.0.weight"] = torch.randn(24, 12)
    state["vqa_output.0.bias"] = torch.randn(24)
    state["vqa_output.2.weight"], state["vqa_output.2.bias"] = torch.ones(24), torch.zeros(24)
    state["vqa_output.3.weight"], state["vqa_output.3.bias"] = torch.randn(6, 24), torch.zeros(6)
    torch.save(state, tmp_path / "uniter-tiny.pt")
    found = load_checkpoint(tmp_path / "uniter-tiny.pt", heads=3)
    assert set(found.heads) == {"words", "match", "features", "classes", "answer"}
    ids, text, regions = single()
    hidden = torch.zeros_like(regions.mask)
    hidden[:, 0] = True
    fused = found.system(ids, text, regions, masked_regions=hidden)
    doubles = regions.tokens.double(), regions.boxes.double()
    out = model(ids.masked_fill(~text, 0), text, *doubles, regions.mask, hidden)
    torch.testing.assert_close(fused.pooled.double(), out["pooled"], **CLOSE)
    classes = found.heads["classes"](fused.parts["image"].tokens).double()
    torch.testing.assert_close(classes[regions.mask], out["class logits"][regions.mask], **CLOSE)
    assert found.heads["answer"](fused.pooled).shape == (3, 6)


def test_vilbert_with_heads_of_other_tasks(tmp_path: Path) -> None:
    model = vilbert()
    state = {f"module.{k}": v.float() for k, v in model.state_dict().items()}
    assert "module.bert.encoder.c_layer.1.biattention.query1.weight" in state
    state["module.vil_logit.weight"] = torch.zeros(1, 10)
    old = "module.bert.encoder.v_layer.0.output.LayerNorm."
    state[f"{old}gamma"], state[f"{old}beta"] = state.pop(f"{old}weight"), state.pop(f"{old}bias")
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = load_checkpoint(tmp_path / "pytorch_model.bin", **VILBERT_HEADS, global_region=False)
    spec = found.system.spec()
    assert (spec["text_at"], spec["image_at"], spec["layers"]) == ([1, 2], [0, 1], 3)
    assert set(found.heads) == {"words", "match", "classes"}
    assert "vil_logit.weight" in found.left_over and len(found.left_over) == 2 * 4 + 1
    ids, text, regions = single()
    fused = found.system(ids, text, regions)
    doubles = regions.tokens.double(), regions.boxes.double()
    out = model(ids.masked_fill(~text, 0), text, *doubles, regions.mask)
    torch.testing.assert_close(fused.pooled.double(), out["pooled"], **CLOSE)
    matched = found.heads["match"](fused.pooled).double()
    torch.testing.assert_close(matched, out["match logits"].flip(1), **CLOSE)


def test_heads_of_vilbert_from_its_configuration(tmp_path: Path) -> None:
    torch.save(vilbert().state_dict(), tmp_path / "pytorch_model.bin")
    config = {"num_attention_heads": 3, "v_num_attention_heads": 2, "bi_num_attention_heads": 5,
              "fusion_method": "sum", "t_biattention_id": [0, 2], "v_biattention_id": [0, 1]}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = load_checkpoint(tmp_path).system.spec()
    assert (spec["heads"], spec["image"]["heads"], spec["joint"]["heads"]) == (3, 2, 5)
    assert spec["fusion"] == "sum" and spec["text_at"] == [0, 2]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


def refused(path: Path, state: Any, message: str, **options: Any) -> None:
    torch.save(state, path / "weights.pt")
    with pytest.raises(ModelError, match=message):
        load_checkpoint(path / "weights.pt", **options)


def test_missing_and_left_over_weights_are_named(tmp_path: Path) -> None:
    state = state_of(uniter())
    without = {k: v for k, v in state.items() if k != "uniter.encoder.layer.1.output.dense.bias"}
    refused(
        tmp_path,
        without,
        r"1 weights are missing \(first 'uniter.encoder.layer.1.output.dense",
        heads=3,
    )
    without = {k: v for k, v in state.items() if k != "itm_output.bias"}
    refused(tmp_path, without, r"missing \(first 'itm_output.bias'", heads=3)
    without = {k: v for k, v in state.items() if "position_embeddings" not in k}
    refused(tmp_path, without, "'uniter.embeddings.position_embeddings.weight' is missing")
    more = state | {"rank_output.weight": torch.zeros(1, 12)}
    refused(tmp_path, more, r"1 weights are left over \(first 'rank_output.weight'\)", heads=3)
    found = load_checkpoint(tmp_path / "weights.pt", allow_left_over=["rank_output.*"], heads=3)
    assert found.left_over == ("rank_output.weight",)


def test_misshapen_and_untied_weights_are_named(tmp_path: Path) -> None:
    state = state_of(uniter())
    bent = state | {"uniter.pooler.dense.weight": torch.zeros(12, 11)}
    refused(
        tmp_path,
        bent,
        r"another shape \(first uniter.pooler.dense.weight: \(12, 11\) for \(12, 12\)",
        heads=3,
    )
    loose = state | {"feat_regress.weight": state["feat_regress.weight"] + 1}
    refused(tmp_path, loose, "'feat_regress.weight' should equal", heads=3)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, {"a.weight": torch.zeros(2)}, "holds none of visual_bert, uniter")
    refused(tmp_path, {"epoch": 3}, "'epoch' is no tensor")
    refused(tmp_path, {"code": Path}, "more than tensors")
    refused(tmp_path, [1, 2], "no state dict but a list")
    with pytest.raises(ModelError, match="no file or folder"):
        load_checkpoint(tmp_path / "nothing")
    with pytest.raises(ModelError, match="holds none of the weight files"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        ("VisualBertForVisualReasoning", {}, "holds a VisualBertForVisualReasoning"),
        ("VisualBertModel", {"bypass_transformer": True}, "bypass_transformer is on"),
        ("VisualBertModel", {"hidden_act": "relu"}, "activation 'relu'"),
    ],
)
def test_variants_that_plait_lacks_are_refused(
    tmp_path: Path, cls: str, changes: dict[str, Any], message: str
) -> None:
    visual_bert(cls, **changes).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(tmp_path)
