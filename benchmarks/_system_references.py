"""UNITER and ViLBERT as references: BERT's layers from transformers, the rest written out plainly.

The originals aren't packaged. Parts carry the originals' names, so that these models' state dicts
are checkpoints in the originals' format. Attention across streams is a pair of einsums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig
from transformers.models.bert.modeling_bert import (
    BertEmbeddings,
    BertLayer,
    BertOnlyMLMHead,
    BertPooler,
)


def bert_config(**sizes: Any) -> BertConfig:
    """A small BERT without dropout in its results."""
    return BertConfig(attn_implementation="eager", **sizes)


def additive(mask: Tensor) -> Tensor:
    """(B, N) True for real positions, to what BERT's layers add to their scores."""
    scores = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e30)
    return scores[:, None, None, :]


class Stack(nn.Module):
    """Layers in a list called ``layer``."""

    def __init__(self, config: BertConfig, count: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(count))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, additive(mask))
        return x


def norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-12)


class UniterImages(nn.Module):
    def __init__(self, region_width: int, width: int) -> None:
        super().__init__()
        self.img_linear = nn.Linear(region_width, width)
        self.img_layer_norm = norm(width)
        self.pos_linear = nn.Linear(7, width)
        self.pos_layer_norm = norm(width)
        self.mask_embedding = nn.Embedding(2, region_width, padding_idx=0)
        self.LayerNorm = norm(width)

    def forward(self, features: Tensor, boxes: Tensor, hidden: Tensor, kind: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        seven = torch.stack([x1, y1, x2, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1)], dim=-1)
        shown = torch.where(hidden[..., None], self.mask_embedding.weight[1], features)
        image = self.img_layer_norm(self.img_linear(shown))
        return self.LayerNorm(image + self.pos_layer_norm(self.pos_linear(seven)) + kind)


class FeatureRegression(nn.Module):
    def __init__(self, width: int, linear: nn.Linear) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, width), nn.GELU(), norm(width))
        self.weight = linear.weight
        self.bias = nn.Parameter(torch.zeros(linear.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bmd,dr->bmr", self.net(x), self.weight) + self.bias


class UniterBody(nn.Module):
    def __init__(self, config: BertConfig, region_width: int) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.img_embeddings = UniterImages(region_width, config.hidden_size)
        self.encoder = Stack(config, config.num_hidden_layers)
        self.pooler = BertPooler(config)


class ReferenceUniter(nn.Module):
    """UNITER with its pretraining heads."""

    def __init__(self, config: BertConfig, region_width: int, classes: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.uniter = UniterBody(config, region_width)
        self.cls = BertOnlyMLMHead(config)
        self.cls.predictions.decoder = nn.Linear(width, config.vocab_size, bias=False)
        self.cls.predictions.decoder.weight = self.uniter.embeddings.word_embeddings.weight
        self.cls.predictions.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.feat_regress = FeatureRegression(width, self.uniter.img_embeddings.img_linear)
        self.region_classifier = nn.Module()
        self.region_classifier.net = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), norm(width), nn.Linear(width, classes)
        )
        self.itm_output = nn.Linear(width, 2)

    def forward(
        self, ids: Tensor, text: Tensor, features: Tensor, boxes: Tensor, seen: Tensor, hidden: Any
    ) -> dict[str, Tensor]:
        body = self.uniter
        kind = body.embeddings.token_type_embeddings.weight[1]
        images = body.img_embeddings(features, boxes, hidden, kind)
        x = torch.cat([body.embeddings(ids), images], dim=1)
        x = body.encoder(x, torch.cat([text, seen], dim=1))
        words, found = x[:, : ids.shape[1]], x[:, ids.shape[1] :]
        pooled = body.pooler(x)
        return {
            "words": words,
            "image": found,
            "pooled": pooled,
            "word logits": self.cls(words) + self.cls.predictions.bias,
            "match logits": self.itm_output(pooled),
            "class logits": self.region_classifier.net(found),
            "regressed features": self.feat_regress(found),
        }


class Projected(nn.Module):
    """A linear layer called ``dense``, and a norm."""

    def __init__(self, before: int, width: int, **extra: nn.Module) -> None:
        super().__init__()
        self.dense = nn.Linear(before, width)
        self.LayerNorm = norm(width)
        for name, module in extra.items():
            self.add_module(name, module)


def crossed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Attention of one stream to another, head by head, written out in einsums."""
    out = []
    size = query.shape[-1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("bnd,bmd->bnm", query[..., part], key[..., part]) * size**-0.5
        weights = scores.masked_fill(~mask[:, None, :], float("-inf")).softmax(-1)
        out.append(torch.einsum("bnm,bmd->bnd", weights, value[..., part]))
    return torch.cat(out, dim=-1)


class Connection(nn.Module):
    """Co-attention; 1 is the picture, 2 the text."""

    def __init__(self, text: BertConfig, image: BertConfig, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        wide = {"1": image.hidden_size, "2": text.hidden_size}
        self.biattention, self.biOutput = nn.Module(), nn.Module()
        for digit, width in wide.items():
            for name in ("query", "key", "value"):
                self.biattention.add_module(name + digit, nn.Linear(width, inner))
            self.biOutput.add_module("dense" + digit, nn.Linear(inner, width))
            self.biOutput.add_module("LayerNorm" + digit, norm(width))
            self.biOutput.add_module("q_dense" + digit, nn.Linear(inner, width))  # never used
        for short, config in (("v", image), ("t", text)):
            up = nn.Module()
            up.dense = nn.Linear(config.hidden_size, config.intermediate_size)
            self.add_module(f"{short}_intermediate", up)
            down = Projected(config.intermediate_size, config.hidden_size)
            self.add_module(f"{short}_output", down)

    def forward(
        self, image: Tensor, seen: Tensor, text: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        a, o = self.biattention, self.biOutput
        from_text = crossed(a.query1(image), a.key2(text), a.value2(text), real, self.heads)
        from_image = crossed(a.query2(text), a.key1(image), a.value1(image), seen, self.heads)
        image = o.LayerNorm1(o.dense1(from_text) + image)
        text = o.LayerNorm2(o.dense2(from_image) + text)
        for_image = self.v_output.dense(F.gelu(self.v_intermediate.dense(image)))
        for_text = self.t_output.dense(F.gelu(self.t_intermediate.dense(text)))
        return self.v_output.LayerNorm(for_image + image), self.t_output.LayerNorm(for_text + text)


class VilbertImages(nn.Module):
    def __init__(self, region_width: int, width: int) -> None:
        super().__init__()
        self.image_embeddings = nn.Linear(region_width, width)
        self.image_location_embeddings = nn.Linear(5, width)
        self.LayerNorm = norm(width)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        five = torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], dim=-1)
        return self.LayerNorm(
            self.image_embeddings(features) + self.image_location_embeddings(five)
        )


class VilbertBody(nn.Module):
    def __init__(
        self, text: BertConfig, image: BertConfig, region_width: int, inner: int, heads: int, n: int
    ) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(text)
        self.v_embeddings = VilbertImages(region_width, image.hidden_size)
        self.encoder = Stack(text, text.num_hidden_layers)
        self.encoder.v_layer = nn.ModuleList(
            BertLayer(image) for _ in range(image.num_hidden_layers)
        )
        self.encoder.c_layer = nn.ModuleList(
            Connection(text, image, inner, heads) for _ in range(n)
        )
        for name, config in (("t_pooler", text), ("v_pooler", image)):
            pooler = nn.Module()
            pooler.dense = nn.Linear(config.hidden_size, inner)
            self.add_module(name, pooler)


class ReferenceVilbert(nn.Module):
    """ViLBERT with its pretraining heads; connection k stands before layers (text, image)[k]."""

    def __init__(
        self,
        text: BertConfig,
        image: BertConfig,
        *,
        region_width: int,
        classes: int,
        inner: int,
        heads: int,
        meetings: list[tuple[int, int]],
        product: bool,
    ) -> None:
        super().__init__()
        self.meetings, self.product = meetings, product
        self.bert = VilbertBody(text, image, region_width, inner, heads, len(meetings))
        self.cls = BertOnlyMLMHead(text)
        self.cls.predictions.decoder = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        self.cls.predictions.bias = nn.Parameter(torch.zeros(text.vocab_size))
        self.cls.bi_seq_relationship = nn.Linear(inner, 2)
        head = nn.Module()
        head.transform = Projected(image.hidden_size, image.hidden_size)
        head.decoder = nn.Linear(image.hidden_size, classes)
        self.cls.imagePredictions = head

    def forward(
        self, ids: Tensor, text: Tensor, features: Tensor, boxes: Tensor, seen: Tensor
    ) -> dict[str, Tensor]:
        body, encoder = self.bert, self.bert.encoder
        words, found = body.embeddings(ids), body.v_embeddings(features, boxes)
        at = dict(enumerate(self.meetings))
        schedule: list[tuple[str, int]] = []
        text_done = image_done = 0
        for number, (text_next, image_next) in at.items():
            schedule += [("text", i) for i in range(text_done, text_next)]
            schedule += [("image", i) for i in range(image_done, image_next)]
            schedule.append(("both", number))
            text_done, image_done = text_next, image_next
        schedule += [("text", i) for i in range(text_done, len(encoder.layer))]
        schedule += [("image", i) for i in range(image_done, len(encoder.v_layer))]
        for stream, number in schedule:
            if stream == "text":
                words = encoder.layer[number](words, additive(text))
            elif stream == "image":
                found = encoder.v_layer[number](found, additive(seen))
            else:
                found, words = encoder.c_layer[number](found, seen, words, text)
        t = body.t_pooler.dense(words[:, 0]).clamp(min=0)
        v = body.v_pooler.dense(found[:, 0]).clamp(min=0)
        pooled = t * v if self.product else t + v
        head = self.cls.imagePredictions
        hidden = head.transform.LayerNorm(F.gelu(head.transform.dense(found)))
        return {
            "words": words,
            "image": found,
            "pooled": pooled,
            "word logits": self.cls(words) + self.cls.predictions.bias,
            "match logits": self.cls.bi_seq_relationship(pooled),
            "class logits": head.decoder(hidden),
        }


def log_shares(logits: Tensor) -> Tensor:
    """The logarithm of the softmax of the last dimension, by its definition."""
    powers = (logits - logits.detach().max(dim=-1, keepdim=True).values).exp()
    return (powers / powers.sum(dim=-1, keepdim=True)).log()


def reference_loss(out: dict[str, Tensor], inputs: Any, targets: Any) -> Tensor:
    """MLM + matching + region classes (KL), and for UNITER region features + alignment.

    The papers' sums, row by row and position by position, without a loss of plait or of torch.
    UNITER (Chen et al. 2020) section 3.2, ViLBERT (Lu et al. 2019) section 2.2.
    """
    words, matching, classes, features = [], [], [], []
    for b in range(len(inputs.ids)):
        shares = log_shares(out["word logits"][b])
        asked = [(n, k) for n, k in enumerate(targets["labels"][b].tolist()) if k >= 0]
        words += [-shares[n, k] for n, k in asked]
        matching.append(-log_shares(out["match logits"][b])[int(targets["match"][b])])
        for m in inputs.hidden[b].nonzero()[:, 0].tolist():
            wanted, told = targets["classes"][b, m], log_shares(out["class logits"][b, m])
            classes.append(sum(p * (p.log() - q) for p, q in zip(wanted, told)))
            if "regressed features" in out:
                off = out["regressed features"][b, m] - targets["features"][b, m]
                features.append((off * off).mean())
    loss = sum(sum(part) / len(part) for part in (words, matching, classes, features) if part)
    if "regressed features" in out:
        loss = loss + reference_alignment(out, inputs, targets["match"])
    return loss


def reference_alignment(out: dict[str, Tensor], inputs: Any, match: Tensor) -> Tensor:
    """UNITER's word-region alignment: cosine costs by the plan of IPOT (Xie et al. 2018, alg. 1)."""
    total: Any = 0.0
    for b in range(len(match)):
        words, regions = out["words"][b][inputs.text[b]], out["image"][b][inputs.seen[b]]
        cost = torch.stack([1 - torch.cosine_similarity(w[None], regions) for w in words])
        n, m = cost.shape
        kernel, plan = (-cost.detach() / 0.5).exp(), torch.ones(n, m, dtype=torch.float64)
        right = torch.full((m,), 1 / m, dtype=torch.float64)
        for _ in range(50):
            step = kernel * plan
            left = 1 / n / (step @ right)
            right = 1 / m / (left @ step)
            plan = torch.outer(left, right) * step
        total = total + (cost * plan).sum() * (1 if match[b] == 1 else -1)
    return total / len(match)
