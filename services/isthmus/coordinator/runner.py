"""Runs the jobs: listens to the own border, does what `rounds.decide` says, notes what came of it.

Rules:
1. What is done next follows from the store alone. Killed at any point, the runner starts where the store stands: a
   thing done and not noted is done again, with the same bytes under the same crossing id, which changes nothing.
2. An update stays with the border until the model made from it is durable; only then is the border's copy let go.
3. A model goes out while it is being written: until both are done, the updates that it follows from are kept.
4. A rule's no ends a job with its code; a machine's no is waited out, with a bounded pause.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.orders import Evaluation
from isthmus.contracts.queries import Answer
from isthmus.coordinator.intake import judge, read_answer, weighed
from isthmus.coordinator.job_run import JobRun
from isthmus.coordinator.pauses import Pause
from isthmus.coordinator.progress import UpdateIn, awaits
from isthmus.coordinator.store import Step
from isthmus.proof import canonical

if TYPE_CHECKING:
    from isthmus.client.border import BorderClient
    from isthmus.contracts.identifiers import JobId, Name, SiteId
    from isthmus.contracts.inside import Delivery
    from isthmus.coordinator.plans import Recipe
    from isthmus.coordinator.registry import Registry
    from isthmus.coordinator.store import Store
    from isthmus.kit.bell import Bell
    from isthmus.kit.clock import Clock

log = structlog.get_logger(__name__)

POLL_S = 25.0
IDLE_S = 3600.0
"""How long a wait for the bell lasts at most; a job's last wait ends when its orders expire."""
AT_ONCE_S = 1.0
"""An empty answer sooner than this comes from a border that is stopping, not from a wait that is over."""


class Runner:
    """All of a coordinator's jobs."""

    def __init__(
        self,
        *,
        site: SiteId,
        border: BorderClient,
        store: Store,
        registry: Registry,
        recipes: dict[Name, Recipe],
        bell: Bell,
        clock: Clock,
    ) -> None:
        self._site = site
        self._border = border
        self._store = store
        self._registry = registry
        self._recipes = recipes
        self._bell = bell
        self._clock = clock
        self._runs: dict[JobId, JobRun] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._acknowledge())
            group.create_task(self._start_jobs(group))

    async def _start_jobs(self, group: asyncio.TaskGroup) -> None:
        """Give every running job a task of its own."""
        pause = Pause()
        while not self._bell.closed:
            ticket = self._bell.ticket()
            try:
                fresh = set(await asyncio.to_thread(self._store.running)) - self._runs.keys()
                for job in sorted(fresh):
                    self._runs[job] = await self._prepared(job)
                    group.create_task(self._follow(self._runs[job]))
            except Fault as fault:
                await _wait_out(fault, pause, "jobs")
                continue
            pause.over()
            await self._bell.wait(ticket, IDLE_S)

    async def _prepared(self, job: JobId) -> JobRun:
        request = await asyncio.to_thread(self._store.request, job)
        orders = await asyncio.to_thread(self._store.orders, job)
        return JobRun(
            job=job,
            site=self._site,
            request=request,
            orders=orders,
            recipe=self._recipes.get(request.algorithm),
            border=self._border,
            store=self._store,
            registry=self._registry,
            clock=self._clock,
        )

    async def _follow(self, run: JobRun) -> None:
        """Do what is due for one job, until it is over."""
        pause = Pause()
        while not self._bell.closed:
            ticket = self._bell.ticket()
            try:
                waits, over = await run.advance()
            except Fault as fault:
                await _wait_out(fault, pause, run.job)
                continue
            pause.over()
            if over:
                break
            if waits:
                await self._bell.wait(ticket, min(IDLE_S, run.time_left_s() + 1))
        self._runs.pop(run.job, None)
        run.forget()

    async def _listen(self) -> None:
        """Take what the border delivers, in its order."""
        pause = Pause()
        while not self._bell.closed:
            try:
                cursor = await asyncio.to_thread(self._store.cursor)
                asked = time.monotonic()
                items = await self._border.deliveries(cursor, POLL_S)
                for delivery in items:
                    await self._take(delivery)
            except IsthmusError as error:  # a border that refuses its own site is set up wrongly: say so, keep the jobs
                await _wait_out(error, pause, "deliveries")
                continue
            if items or time.monotonic() - asked >= AT_ONCE_S:
                pause.over()
            else:
                await pause.wait()

    async def _take(self, delivery: Delivery) -> None:
        place = await asyncio.to_thread(self._store.place, delivery.order)
        if place is None or place[0] != delivery.job:
            await asyncio.to_thread(self._store.ignore, delivery)
            return
        job, zone = place
        if delivery.kind is Kind.MODEL_UPDATE and delivery.event == "crossing":
            delivery = weighed(delivery, (await asyncio.to_thread(self._store.request, job)).training)
        brought = await self._brought(delivery, job)
        unread = brought if isinstance(brought, Code) else None
        progress = await asyncio.to_thread(self._store.progress, job)
        fact = judge(progress, own=self._site, zone=zone, delivery=delivery, unread=unread)
        step = Step(
            facts=(fact,) if fact else (),
            delivery=delivery,
            evaluation=brought if isinstance(brought, Evaluation) else None,
            answer=brought if isinstance(brought, Answer) else None,
        )
        progress = await asyncio.to_thread(self._store.record, job, step)
        if isinstance(fact, UpdateIn) and awaits(progress, fact) and (run := self._runs.get(job)):
            run.expect(delivery.crossing)

    async def _brought(self, delivery: Delivery, job: JobId) -> Evaluation | Answer | Code | None:
        """Fetch the evaluation or the answer that a delivery brings, if it does; a code where it cannot be read."""
        if delivery.event != "crossing" or delivery.kind is not Kind.AGGREGATE:
            return None
        request = await asyncio.to_thread(self._store.request, job)
        try:
            payload = bytes(await self._border.payload(delivery.crossing))
            if request.query is not None:
                return read_answer(request.query, payload)
            evaluation = canonical.load(Evaluation, payload)
        except Refusal as refusal:
            return refusal.code
        return evaluation if evaluation.slot == delivery.slot else Code.SLOT_UNEXPECTED

    async def _acknowledge(self) -> None:
        """Tell the border which copies it may let go."""
        pause = Pause()
        while not self._bell.closed:
            ticket = self._bell.ticket()
            try:
                settled = await asyncio.to_thread(self._store.acknowledgements)
                for crossing in settled:
                    try:
                        await self._border.delivered(crossing)
                    except Refusal as refusal:  # the border has let it go already
                        log.info("acknowledgement_refused", crossing=crossing, code=refusal.code.value)
                if settled:
                    await asyncio.to_thread(self._store.acknowledged, settled)
            except Fault as fault:
                await _wait_out(fault, pause, "acknowledgements")
                continue
            pause.over()
            if not settled:
                await self._bell.wait(ticket, IDLE_S)


async def _wait_out(error: IsthmusError, pause: Pause, what: str) -> None:
    log.warning("trying_again", what=what, code=error.code.value, why=error.why)
    await pause.wait()
