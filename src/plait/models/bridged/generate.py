"""Writing: greedy, by beams, or by sampling, with a cache of keys, values and pictures.

Shape legend: B sequences, N positions, V vocabulary, K beams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from plait.language.base import Cache
from plait.models.bridged.model import BridgedModel, Media
from plait.models.bridged.sequences import Sequences

Method = Literal["greedy", "beam", "sample"]


@dataclass(frozen=True)
class Writing:
    """How to write.

    Attributes:
        method: ``greedy`` takes the likeliest token, ``beam`` the likeliest text that it finds,
            ``sample`` draws.
        longest: the most new tokens.
        beams: of ``beam``.
        length_penalty: of ``beam``: log probabilities are divided by length to this power.
        temperature, top_k, top_p: of ``sample``: logits are divided by the temperature; only the k
            likeliest, and the fewest that have p of the probability, are drawn from.
        seed: of ``sample``: each sequence draws by its own place, whatever is beside it.
    """

    method: Method = "greedy"
    longest: int = 32
    beams: int = 4
    length_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


@dataclass
class _State:
    """Where writing is: what is known of the sequences so far."""

    model: BridgedModel
    media: Media | None
    mask: Bool[Tensor, "B N"]
    time: Int64[Tensor, " B"]
    cache: Cache | None
    ids: Int64[Tensor, "B N"] = field(repr=False)

    def select(self, rows: Int64[Tensor, " R"]) -> None:
        """Keeps these sequences, in this order."""
        self.mask, self.time, self.ids = self.mask[rows], self.time[rows], self.ids[rows]
        self.media = None if self.media is None else self.media.select(rows)
        if self.cache is not None:
            self.cache.select(rows)

    def first(self) -> Float[Tensor, "B V"]:
        """Logits after the prompts."""
        hidden, self.mask = self.model.hidden(self.ids, self.mask, self.media, cache=self.cache)
        return self.model.language.logits(hidden[:, -1]).float()

    def next(self, tokens: Int64[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Logits after one more token each."""
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        if self.cache is None:  # everything anew: what a cache must agree with
            hidden, _ = self.model.hidden(self.ids, self.mask, self.media)
            return self.model.language.logits(hidden[:, -1]).float()
        x = self.model.embed(tokens[:, None])
        with self.model.looking(self.media, self.time[:, None]):
            hidden = self.model.language(x, self.mask, self.cache)
        return self.model.language.logits(hidden[:, -1]).float()


@torch.no_grad()
def generate(
    model: BridgedModel,
    prompts: Sequences,
    media: Media | None,
    how: Writing | None = None,
    *,
    cache: bool = True,
) -> list[list[int]]:
    """New tokens of each sequence, up to and with the end.

    Args:
        model: in evaluation mode.
        prompts: padded on the left.
        media: their pictures.
        how: greedy when None.
        cache: False computes every step from the beginning, much slower and equal.
    """
    how = how or Writing()
    language = model.language
    state = _State(
        model,
        media,
        prompts.mask,
        (prompts.ids == language.vocabulary).sum(dim=1),
        language.new_cache() if cache else None,
        prompts.ids,
    )
    longest = how.longest
    if language.context is not None:
        longest = min(longest, language.context - prompts.ids.shape[1])
    if how.method == "beam":
        return _beams(state, how, longest)
    choose = _sampler(how, len(prompts.ids)) if how.method == "sample" else _likeliest
    return _one_by_one(state, choose, longest)


Choose = Callable[[Float[Tensor, "B V"]], Int64[Tensor, " B"]]


def _likeliest(logits: Float[Tensor, "B V"]) -> Int64[Tensor, " B"]:
    return logits.argmax(dim=1)


def _one_by_one(state: _State, choose: Choose, longest: int) -> list[list[int]]:
    end = state.model.language.end
    written: list[list[int]] = [[] for _ in state.ids]
    logits = state.first()
    for step in range(longest):
        tokens = choose(logits)
        for row, token in zip(written, tokens.tolist(), strict=True):
            if not row or row[-1] != end:
                row.append(token)
        if all(row[-1] == end for row in written) or step == longest - 1:
            break
        logits = state.next(tokens)
    return written


def _sampler(how: Writing, rows: int) -> Choose:
    generators = [torch.Generator().manual_seed(how.seed * 1_000_003 + row) for row in range(rows)]

    def choose(logits: Float[Tensor, "B V"]) -> Int64[Tensor, " B"]:
        shares = narrowed(logits / max(how.temperature, 1e-6), how.top_k, how.top_p).softmax(dim=1)
        drawn = [
            torch.multinomial(share.cpu(), 1, generator=one)
            for share, one in zip(shares, generators, strict=True)
        ]
        return torch.cat(drawn).to(logits.device)

    return choose


def narrowed(
    logits: Float[Tensor, "B V"], top_k: int | None, top_p: float | None
) -> Float[Tensor, "B V"]:
    """Logits with -inf for all but the likeliest tokens.

    Args:
        logits: scores.
        top_k: so many stay (Fan et al. 2018).
        top_p: the fewest that have this share of the probability stay (Holtzman et al. 2020).
    """
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, places = logits.sort(dim=1, descending=True)
        before = ordered.softmax(dim=1).cumsum(dim=1) - ordered.softmax(dim=1)
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, places, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    return logits


def _beams(state: _State, how: Writing, longest: int) -> list[list[int]]:
    """Beam search: of each sequence the K likeliest beginnings go on, until K texts are ended and
    no beginning can become better than the worst of them.
    """
    count, beams, end = len(state.ids), how.beams, state.model.language.end
    device = state.ids.device
    logits = state.first()
    state.select(torch.arange(count, device=device).repeat_interleave(beams))
    logits = logits.repeat_interleave(beams, dim=0)
    scores = torch.full((count, beams), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all beams are alike at first
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(count)]
    texts: list[list[int]] = [[] for _ in range(count * beams)]
    done = [False] * count
    for step in range(1, longest + 1):
        ranked = (logits.log_softmax(dim=1).view(count, beams, -1) + scores[..., None]).flatten(1)
        size = logits.shape[1]
        best, places = ranked.topk(min(2 * beams, ranked.shape[1]), dim=1)
        rows, tokens, kept = [], [], torch.full_like(scores, -torch.inf)
        for one in range(count):
            chosen: list[tuple[float, int, int]] = []
            for rank, (score, place) in enumerate(
                zip(best[one].tolist(), places[one].tolist(), strict=True)
            ):
                beam, token = one * beams + place // size, place % size
                if token == end:
                    if rank < beams and not done[one]:
                        value = score / step**how.length_penalty
                        ended[one].append((value, [*texts[beam], end]))
                elif len(chosen) < beams:
                    chosen.append((score, beam, token))
            chosen += [(-torch.inf, one * beams, end)] * (beams - len(chosen))
            kept[one] = torch.tensor([score for score, _, _ in chosen], device=device)
            rows += [beam for _, beam, _ in chosen]
            tokens += [token for _, _, token in chosen]
            ended[one] = sorted(ended[one], key=lambda pair: -pair[0])[:beams]
            reachable = float(kept[one].max()) / step**how.length_penalty
            done[one] |= len(ended[one]) == beams and ended[one][-1][0] >= reachable
        texts = [[*texts[row], token] for row, token in zip(rows, tokens, strict=True)]
        scores = kept
        if all(done) or step == longest:
            break
        state.select(torch.tensor(rows, device=device))
        logits = state.next(torch.tensor(tokens, device=device))
    for one in range(count):
        if not done[one]:
            for beam in range(beams):
                value = float(scores[one, beam]) / longest**how.length_penalty
                ended[one].append((value, texts[one * beams + beam]))
    return [max(found, key=lambda pair: pair[0])[1] for found in ended]
