"""What the endpoints do: inputs in, rows and answers out, through the lanes of the served models.

Shape legend: n inputs, E features of the shared space.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from plait.core.allocator import give_back
from plait.core.errors import PlaitError, UserError, shown
from plait.core.modality import IMAGE, TEXT
from plait.runtime.choose import cores
from plait.serving.backends.remote import SplitEmbedder
from plait.serving.backends.served import ASK, Served
from plait.serving.base.errors import RequestError
from plait.serving.base.inputs import Input
from plait.serving.base.metrics import Metrics
from plait.serving.base.settings import MIB, Settings
from plait.serving.queue.decoders import Decoders
from plait.serving.queue.lanes import HERE, Asked, Tensors
from plait.serving.queue.queueing import Misfit
from plait.serving.queue.scheduler import Scheduler
from plait.serving.service.body import Hold, Intake
from plait.serving.service.fetch import Fetcher
from plait.serving.service.searching import Searcher

log = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0  # how often readiness is looked at
_OPENING_SECONDS = 1800.0  # for the first pass, before which engines read and compile a graph
SEARCH = "search"  # the name of the index's lane in /readyz
_SEARCH_PROBE_SECONDS = 1.0
_GIVE_BACK_SECONDS = 1.0  # how often freed memory may go back to the system
_FREE_BYTES = 24 * MIB  # that may be kept
_PROBE_AGE = 10.0  # a lane that had no pass for so long gets one of its own


class Service:
    """Everything behind the endpoints.

    Args:
        settings: of the server.
        models: that are served, by name.
        searcher: over the index, if there is one.
        decoders: of the lanes' pictures, closed at the end.
        restarts: how often the worker had to be replaced before.
    """

    def __init__(
        self,
        settings: Settings,
        models: Mapping[str, Served],
        searcher: Searcher | None = None,
        *,
        decoders: Decoders | None = None,
        restarts: int = 0,
    ) -> None:
        self.settings, self.limits = settings, settings.limits
        self.models, self.searcher, self.decoders = dict(models), searcher, decoders
        self.intake = Intake(self.limits)
        lanes = {lane.name: lane for model in models.values() for lane in model.lanes.values()}
        self.metrics = Metrics(
            pending=lambda: self.scheduler.pending,
            held=lambda: self.intake.bytes,
            restarts=restarts,
        )
        threads = settings.prepare_threads or cores()
        self.scheduler = Scheduler(
            lanes,
            self.limits,
            threads=threads,
            streams=settings.streams,
            observer=self.metrics,
        )
        self.fetcher = Fetcher(settings.image_hosts, max_bytes=self.limits.picture_bytes)
        self.lanes = lanes
        self.draining = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts the threads, and runs every lane once so that the first request finds it warm."""
        self.scheduler.start()
        here = [name for name, lane in self.lanes.items() if lane.group == HERE]
        await asyncio.gather(*(self.probe(name, _OPENING_SECONDS) for name in here))
        # The first pass opened the engine; the second tells what an input costs, before a crowd
        # that waited for a new worker comes.
        await self._probe_those(list(self.lanes))
        jobs = (self._keep_probing(), self.intake.keep_time(), _keep_giving_back())
        self._tasks = [asyncio.create_task(job) for job in jobs]
        if self.searcher is not None:
            if self.searcher.ready:
                await self.searcher.probe()
            self._tasks.append(asyncio.create_task(self._keep_searching(self.searcher)))

    async def stop(self) -> None:
        """Ends the threads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self.scheduler.stop)
        self.fetcher.close()
        if self.decoders is not None:
            self.decoders.close()
        if self.searcher is not None:
            self.searcher.close()
        for model in self.models.values():
            if isinstance(model.embedder, SplitEmbedder):
                model.embedder.close()

    async def probe(self, lane: str, seconds: float | None = None) -> None:
        """One forward pass of a lane on an input of its own, within ``ready_seconds`` by default."""
        deadline = time.monotonic() + (seconds or self.settings.ready_seconds)
        raw = self.lanes[lane].probe()
        await self.scheduler.do(lane, [raw], deadline=deadline)

    async def _keep_probing(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            await self._probe_those(
                [name for name in self.lanes if self.scheduler.age(name) >= _PROBE_AGE]
            )

    async def _keep_searching(self, searcher: Searcher) -> None:
        while True:
            try:
                await searcher.probe()
            except PlaitError as error:  # shows in /readyz
                log.warning("the readiness probe of the search failed: %s", error)
            await asyncio.sleep(_SEARCH_PROBE_SECONDS)

    async def _probe_those(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                await self.probe(name)
            except RequestError as error:  # a probe that fails shows in /readyz
                log.warning("the readiness probe of %s failed: %s", name, error)
            except Exception:
                log.exception("the readiness probe of %s failed", name)

    def ages(self) -> dict[str, float | None]:
        """Seconds since the last good forward pass, by lane; None where there was none."""
        ages: dict[str, float | None] = {name: self.scheduler.age(name) for name in self.lanes}
        if self.searcher is not None:
            ages[SEARCH] = self.searcher.age
        return {
            name: None if age is None or age == float("inf") else round(age, 3)
            for name, age in ages.items()
        }

    @property
    def ready(self) -> bool:
        """Whether every lane had a good forward pass lately, and a search could begin now."""
        if self.searcher is not None and not self.searcher.ready:
            return False
        limit = self.settings.ready_seconds
        return all(age is not None and age < limit for age in self.ages().values())

    def model(self, name: str | None, *needed: str) -> Served:
        """The model that a request names, or the first that has the needed lanes.

        Raises:
            RequestError: 404 when there is none of that name, 400 when it cannot do this.
        """
        if name is not None:
            if name not in self.models:
                known = ", ".join(self.models)
                raise RequestError(
                    404,
                    f"there is no model {shown(name)} here; there is {known}",
                    param="model",
                    code="model_not_found",
                )
            model = self.models[name]
            if not all(lane in model.lanes for lane in needed):
                raise _cannot(f"the model {name!r} is none that", needed)
            return model
        for model in self.models.values():
            if all(lane in model.lanes for lane in needed):
                return model
        raise _cannot("no model is served here that", needed)

    async def embed(
        self, model: Served, inputs: Sequence[Input], deadline: float
    ) -> tuple[Float[np.ndarray, "n E"], int]:
        """(rows of unit length in the order of the inputs, tokens of the texts).

        Raises:
            RequestError: an input that cannot be used, by its place, or a server that is busy.
        """
        with self.intake.holding() as hold:
            known = await self.fetched(inputs, deadline, hold)
            return await self._embed(model, known, deadline)

    async def _embed(
        self, model: Served, inputs: Sequence[Input], deadline: float
    ) -> tuple[Float[np.ndarray, "n E"], int]:
        assert model.embedder is not None
        places: dict[str, list[int]] = {}
        for place, one in enumerate(inputs):
            places.setdefault(one.modality, []).append(place)
        rows = np.zeros((len(inputs), model.embedder.dim), np.float32)
        tokens = 0

        async def run(modality: str) -> None:
            nonlocal tokens
            mine = [inputs[place] for place in places[modality]]
            lane = model.lanes[modality].name
            values = [one.value for one in mine]
            done = await self._do(lane, values, [one.place for one in mine], deadline, claim)
            rows[places[modality]] = np.stack(done.results)
            tokens += sum(done.lengths) if modality == TEXT else 0

        # Admitted once: the lanes of a request do not wait for each other.
        counts = {model.lanes[modality].name: len(mine) for modality, mine in places.items()}
        try:
            with self.scheduler.admitted(counts, deadline) as claim:
                async with asyncio.TaskGroup() as group:
                    for modality in places:
                        group.create_task(run(modality))
        except* Exception as problems:
            raise problems.exceptions[0] from None
        return rows, tokens

    async def run_tensors(
        self, model: Served, modality: str, rows: Sequence[Tensors], deadline: float
    ) -> Float[np.ndarray, "n E"]:
        """Rows of tensors that another server prepared.

        Raises:
            RequestError: see `embed`.
        """
        places = [f"row {place}" for place in range(len(rows))]
        lane = model.lanes[modality].name
        with self.scheduler.admitted({lane: len(rows)}, deadline) as claim:
            done = await self._do(lane, rows, places, deadline, claim)
        return np.stack(done.results)

    async def ask(
        self, model: Served, picture: Input, question: str, answers: int, deadline: float
    ) -> list[dict[str, Any]]:
        """The likeliest answers to a question about a picture, the likeliest first.

        Raises:
            RequestError: see `embed`.
        """
        with self.intake.holding() as hold:
            (shown,) = await self.fetched([picture], deadline, hold)
            raw = Asked(shown.value, question, answers)
            lane = model.lanes[ASK].name
            with self.scheduler.admitted({lane: 1}, deadline) as claim:
                done = await self._do(lane, [raw], [shown.place], deadline, claim)
            found: list[dict[str, Any]] = done.results[0]
            return found

    async def fetched(
        self, inputs: Sequence[Input], deadline: float, hold: Hold
    ) -> Sequence[Input]:
        """The inputs with every remote picture's bytes, which count as a body's do.

        Raises:
            RequestError: 400 for a picture that may not or cannot be fetched, 413 or 429 for too
                many bytes (see `Hold.take`).
        """
        if not any(one.remote for one in inputs):
            return inputs

        async def bytes_of(one: Input) -> Input:
            if not one.remote:
                return one
            found = await self.fetcher.fetched(one, deadline, self.limits)
            hold.take(hold.bytes + len(found.value))
            return found

        try:
            async with asyncio.TaskGroup() as group:  # one that fails ends the others
                tasks = [group.create_task(bytes_of(one)) for one in inputs]
        except* Exception as problems:
            raise problems.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _do(
        self,
        lane: str,
        values: Sequence[Any],
        places: Sequence[str],
        deadline: float,
        claim: dict[str, int],
    ) -> Any:
        try:
            return await self.scheduler.do(lane, values, deadline=deadline, claim=claim)
        except Misfit as misfit:
            place, problem = places[misfit.place], misfit.problem
            if not isinstance(problem, UserError):
                raise problem from misfit
            message = str(problem).removeprefix(": ")
            raise RequestError(
                400, f"{place}: {message}", param=place, code="invalid_input"
            ) from misfit


def _cannot(who: str, needed: Sequence[str]) -> RequestError:
    words = {IMAGE: "embeds pictures", TEXT: "embeds texts", ASK: "answers questions"}
    deeds = " and ".join(words.get(lane, lane) for lane in needed)
    return RequestError(400, f"{who} {deeds}", param="model", code="model_unfit")


async def _keep_giving_back() -> None:
    """What large requests took and left in pieces is no longer held a second later."""
    while True:
        await asyncio.sleep(_GIVE_BACK_SECONDS)
        await asyncio.to_thread(give_back, _FREE_BYTES)
