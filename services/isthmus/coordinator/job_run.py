"""One job at work: carries out the actions of `rounds.decide` and notes what came of them.

In memory is only what saves work: the latest model, and updates that are being fetched. Both can be had again, from
the registry and from the border.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.inside import CandidateHeader
from isthmus.contracts.jobs import JobState, ModelRecord
from isthmus.contracts.orders import Order
from isthmus.coordinator import averaging
from isthmus.coordinator.progress import (
    ANSWER_SLOT,
    Averaged,
    Begun,
    Ended,
    EvaluationDeclined,
    Fact,
    JobProgress,
    Ordered,
    Sent,
    Stopped,
)
from isthmus.coordinator.rounds import (
    Action,
    Aggregate,
    Fail,
    Finish,
    Prepare,
    SubmitModel,
    SubmitOrder,
    decide,
)
from isthmus.coordinator.store import Step
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from isthmus.client.border import BorderClient
    from isthmus.contracts.identifiers import CrossingId, Digest, JobId, OrderId, SiteId
    from isthmus.contracts.jobs import JobRequest
    from isthmus.contracts.orders import TrainingPlan
    from isthmus.coordinator.archive import StoredUpdate
    from isthmus.coordinator.averaging import Model, Update
    from isthmus.coordinator.plans import Recipe
    from isthmus.coordinator.registry import Registry
    from isthmus.coordinator.store import Store
    from isthmus.kit.clock import Clock

log = structlog.get_logger(__name__)

LARGE_BYTES = 4 << 20
"""Models above this are kept only where they were evaluated or are the last."""

SKEW_S = 300
"""How far a zone's clock may be behind: until then an answer may still come."""

NO_MEANS = frozenset({"refused", "withdrawn", "expired"})
"""States of a candidate that will not leave the own border."""


class JobRun:
    """The work of one running job."""

    def __init__(
        self,
        *,
        job: JobId,
        site: SiteId,
        request: JobRequest,
        orders: dict[SiteId, tuple[OrderId, bytes]],
        recipe: Recipe | None,
        border: BorderClient,
        store: Store,
        registry: Registry,
        clock: Clock,
    ) -> None:
        self.job = job
        self._site = site
        self._request = request
        self._orders = orders
        self._expires_at = SKEW_S + max(canonical.load(Order, body).expires_at for _, body in orders.values())
        self._recipe = recipe
        self._border = border
        self._store = store
        self._registry = registry
        self._clock = clock
        self._latest: tuple[int, Model] | None = None
        self._fetches: dict[CrossingId, asyncio.Task[Update]] = {}
        self._round_began: tuple[int, float] | None = None

    def time_left_s(self) -> int:
        """Return the seconds until the job's orders have expired everywhere."""
        return max(self._expires_at - self._clock.now(), 0)

    async def advance(self) -> tuple[bool, bool]:
        """Do what is due. Return whether the job now waits for others, and whether it is over.

        Raises:
            Fault: something could not be done now; what could be is noted.
        """
        if not self.time_left_s():
            over = Stopped(self._site, Code.EXPIRED)
            await asyncio.to_thread(self._store.record, self.job, Step((over,)))
        progress = await asyncio.to_thread(self._store.progress, self.job)
        actions = decide(progress)
        outcomes = await asyncio.gather(*(self._attempt(self._carry_out(action, progress)) for action in actions))
        ends = [fact for facts, _ in outcomes for fact in facts]
        if ends:
            await asyncio.to_thread(self._store.record, self.job, Step(tuple(ends)))
        for _, fault in outcomes:
            if fault:
                raise fault
        return not actions, progress.state is not JobState.RUNNING

    def expect(self, crossing: CrossingId) -> None:
        """Fetch an update now: it will be wanted."""
        if crossing not in self._fetches:
            task = asyncio.create_task(self._fetch(crossing))
            task.add_done_callback(_look_at)
            self._fetches[crossing] = task

    def forget(self) -> None:
        """Drop what is in memory."""
        for task in self._fetches.values():
            task.cancel()
        self._fetches.clear()
        self._latest = None

    async def _attempt(self, doing: Coroutine[None, None, tuple[Fact, ...]]) -> tuple[tuple[Fact, ...], Fault | None]:
        """Turn a rule's no into the fact that ends the job, and hand back a machine's no."""
        try:
            return await doing, None
        except Refusal as refusal:
            log.info("job_stopped", job=self.job, code=refusal.code.value, what=refusal.what, why=refusal.why)
            return (Stopped(self._site, refusal.code),), None
        except Fault as fault:
            return (), fault

    async def _carry_out(self, action: Action, progress: JobProgress) -> tuple[Fact, ...]:
        match action:
            case SubmitOrder(zone):
                return await self._order(zone, progress)
            case Prepare():
                return await self._prepare()
            case SubmitModel(zone, slot):
                return await self._send(zone, slot, await self._model(slot))
            case Aggregate(slot):
                return await self._aggregate(slot, progress)
            case Finish():
                return (Ended(JobState.DONE),)
            case Fail():
                return (Ended(JobState.FAILED),)

    async def _order(self, zone: SiteId, progress: JobProgress) -> tuple[Fact, ...]:
        """Hand over a zone's order. A question goes on without a zone that the own border sends nothing to."""
        try:
            await self._submit(zone, Kind.ORDER, 0, self._orders[zone][1])
        except Refusal as refusal:
            if progress.work != "query":
                raise
            log.info("question_not_sent", job=self.job, zone=zone, code=refusal.code.value, why=refusal.why)
            return (EvaluationDeclined(zone, ANSWER_SLOT, refusal.code),)
        return (Ordered(zone),)

    async def _prepare(self) -> tuple[Fact, ...]:
        """Make the first model, or find the registered one that the job starts from."""
        recipe, training = self._plan()
        self._round_began = (0, time.monotonic())
        if self._request.base:
            self._latest = (0, await self._load(self._request.base))
            return (Begun(),)
        model = await asyncio.to_thread(lambda: averaging.made_of(recipe.first(training.seed)))
        await asyncio.to_thread(self._registry.put, model.payload, model.digest)
        self._latest = (0, model)
        record = self._record(0, model, lineage=(), inputs=(), parent=None)
        await asyncio.to_thread(self._store.record, self.job, Step((Begun(),), model=record))
        return ()

    async def _aggregate(self, slot: int, progress: JobProgress) -> tuple[Fact, ...]:
        """Average a slot's updates; write the new model and send it to every zone at the same time."""
        stored = await asyncio.to_thread(self._store.updates, self.job, slot)
        base, updates = await self._model(slot), await self._updates(stored)
        behind = {item.zone: item.contributors for item in stored}
        weighting = self._plan()[1].weighting
        model = await asyncio.to_thread(averaging.average, base, updates, behind, weighting)
        record = await asyncio.to_thread(self._descended, slot + 1, model, stored, base.digest)
        took, self._round_began = self._took(slot), (slot + 1, time.monotonic())
        self._latest = (slot + 1, model)
        writing = asyncio.create_task(asyncio.to_thread(self._registry.put, model.payload, model.digest))
        sends = (self._attempt(self._send(work.zone, slot + 1, model, record)) for work in progress.zones)
        outcomes = await asyncio.gather(*sends)
        await writing
        facts = (Averaged(slot), *(fact for facts, _ in outcomes for fact in facts))
        step = Step(facts, model=record, round_us=took)
        await asyncio.to_thread(self._store.record, self.job, step)
        for item in stored:
            self._fetches.pop(item.crossing, None)
        await self._let_go(slot, progress, base)
        return ()

    async def _send(self, zone: SiteId, slot: int, model: Model, record: ModelRecord | None = None) -> tuple[Fact, ...]:
        if record is None:
            record = await asyncio.to_thread(self._store.model, model.digest, self.job)
        await self._submit(zone, Kind.MODEL, slot, model.payload, record.inputs)
        return (Sent(zone, slot),)

    async def _submit(
        self, zone: SiteId, kind: Kind, slot: int, payload: bytes, inputs: tuple[CrossingId, ...] = ()
    ) -> None:
        header = CandidateHeader(
            order=self._orders[zone][0], kind=kind, recipient=zone, slot=slot, size=len(payload), inputs=inputs
        )
        status = await self._border.submit(header, payload)
        if status.state in NO_MEANS:
            raise Refusal(status.code or Code.NOT_RELEASED, f"The own border does not release the {kind} for {zone}.")

    async def _updates(self, stored: tuple[StoredUpdate, ...]) -> dict[SiteId, Update]:
        for item in stored:
            self.expect(item.crossing)
        tasks = [self._fetches[item.crossing] for item in stored]
        try:
            return dict(zip((item.zone for item in stored), await asyncio.gather(*tasks), strict=True))
        except IsthmusError:
            for item in stored:  # what failed is fetched again
                if (task := self._fetches[item.crossing]).done() and task.exception():
                    del self._fetches[item.crossing]
            raise

    async def _fetch(self, crossing: CrossingId) -> Update:
        payload = await self._border.payload(crossing)
        return await asyncio.to_thread(averaging.read_update, payload, self._plan()[0].schema)

    async def _model(self, slot: int) -> Model:
        """Return the model of the current slot."""
        if self._latest and self._latest[0] == slot:
            return self._latest[1]
        digest = await asyncio.to_thread(self._store.current, self.job)
        if digest is None:
            raise Refusal(Code.NOT_FOUND, "The job has no model yet.")
        model = await self._load(digest)
        self._latest = (slot, model)
        return model

    async def _load(self, digest: Digest) -> Model:
        payload = await asyncio.to_thread(self._registry.read, digest)
        return await asyncio.to_thread(averaging.read_model, payload, digest, self._plan()[0].schema)

    def _descended(self, slot: int, model: Model, stored: tuple[StoredUpdate, ...], parent: Digest) -> ModelRecord:
        """Record a model's descent: this slot's updates, and of its parent what came from zones outside this job."""
        older = self._store.model(parent, self.job)
        zones = {item.zone for item in stored}
        carried = {crossing for crossing in older.inputs if self._store.origin(crossing) not in zones}
        return self._record(
            slot,
            model,
            lineage=tuple(sorted(zones.union(older.lineage))),
            inputs=tuple(sorted(carried.union(item.crossing for item in stored))),
            parent=parent,
        )

    def _record(
        self,
        slot: int,
        model: Model,
        *,
        lineage: tuple[SiteId, ...],
        inputs: tuple[CrossingId, ...],
        parent: Digest | None,
    ) -> ModelRecord:
        return ModelRecord(
            digest=model.digest,
            job=self.job,
            slot=slot,
            size=len(model.payload),
            lineage=lineage,
            inputs=inputs,
            parent=parent,
            created_at=self._clock.now(),
        )

    async def _let_go(self, slot: int, progress: JobProgress, model: Model) -> None:
        """Give back the space of a large model that nobody will ask for again."""
        if len(model.payload) <= LARGE_BYTES or slot in progress.at_slots:
            return
        if digest := await asyncio.to_thread(self._store.disposable, self.job, slot):
            await asyncio.to_thread(self._registry.give_back, digest)

    def _plan(self) -> tuple[Recipe, TrainingPlan]:
        """Return what the job trains, and how."""
        if self._recipe is None or self._request.training is None:
            raise Refusal(Code.ALGORITHM_UNKNOWN, "This release does not have the job's algorithm.")
        return self._recipe, self._request.training

    def _took(self, slot: int) -> int | None:
        """Return the microseconds since the models of `slot` went out, None where this process did not send them."""
        if self._round_began is None or self._round_began[0] != slot:
            return None
        return round((time.monotonic() - self._round_began[1]) * 1_000_000)


def _look_at(task: asyncio.Task[Update]) -> None:
    """Note a fetch that failed; whoever needs the update meets the error."""
    if not task.cancelled() and (error := task.exception()):
        log.info("fetch_failed", error=type(error).__name__)
