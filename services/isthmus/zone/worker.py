"""The zone's worker: orders and models in from the border; updates, evaluations and sums for questions back to it.

Rules:
1. Deliveries are worked on one at a time and in order; the cursor moves after the effect. So a worker that is killed
   anywhere goes on where it was: what it does again gives the same bytes, and the border knows them by their id.
2. An order's keys come sealed to keys that compute made for this run; the worker passes them on and cannot open them.
3. An order that cannot be worked on is closed with a code, and with nothing else; the others go on. A run that is
   lost with its machine is opened again, with new keys, `REOPENINGS` times: only what was cut off is done again.
4. While the border is away, the worker waits (`zone.patience`).
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, assert_never

import structlog

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, IsthmusError, Refusal
from isthmus.contracts.inside import CandidateHeader, CloseOrder, KeyRequest
from isthmus.contracts.orders import Order
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from isthmus.zone.compute import RunLost
from isthmus.zone.computed import computed
from isthmus.zone.patience import patiently
from isthmus.zone.plan import (
    UNSETTLED,
    Abandon,
    Begin,
    CloseAgain,
    OrderState,
    PassOver,
    Step,
    Work,
    cannot_evaluate,
    decide,
    is_over,
    steps_at,
)
from isthmus.zone.progress import Aggregate
from isthmus.zone.quiet import quiet
from isthmus.zone.results import ZoneResults, write_results

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from isthmus.client.border import BorderClient
    from isthmus.contracts.crossings import Contributors
    from isthmus.contracts.identifiers import CrossingId, FileId, OrderId, SiteId
    from isthmus.contracts.inside import CandidateStatus, Delivery, KeyGrant
    from isthmus.contracts.orders import Evaluation
    from isthmus.kit.clock import Clock
    from isthmus.zone.catalogue import Catalogue
    from isthmus.zone.compute import Compute, Opening, Run
    from isthmus.zone.progress import Progress, Standing
    from isthmus.zone.questions import Asking, Questions

WAIT_S = 25.0
WAIT_WHILE_FINISHING_S = 5.0
REOPENINGS = 4
"""How often one step of an order is begun again after its run was lost."""
NOT_ALLOWED = frozenset({Code.UNAUTHENTICATED, Code.FORBIDDEN})
"""Refusals of the worker itself, not of an order: it stops, since its token is wrong."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Opened:
    """An order's run, and the files it works on."""

    run: Run
    files: frozenset[FileId]


class Worker:
    """Serves one zone's orders until it is stopped."""

    def __init__(
        self,
        *,
        site: SiteId,
        border: BorderClient,
        compute: Compute,
        questions: Questions,
        catalogue: Catalogue,
        progress: Progress,
        results: Path,
        clock: Clock,
    ) -> None:
        self._site = site
        self._border = border
        self._compute = compute
        self._questions = questions
        self._catalogue = catalogue
        self._progress = progress
        self._results = results
        self._clock = clock
        self._opened: dict[OrderId, _Opened] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set.

        Raises:
            Refusal: the border does not take the worker's token.
            Fault: the zone's own storage fails.
        """
        serving = asyncio.create_task(self._serve())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        finally:
            for task in (serving, stopping):
                task.cancel()
            await asyncio.gather(serving, stopping, return_exceptions=True)
            for order in tuple(self._opened):
                self._drop(order)

    async def _serve(self) -> None:
        cursor, crossing = await asyncio.to_thread(self._progress.cursor)
        await self._acknowledge(crossing)
        while True:
            finishing = await self._tidy()
            poll = partial(self._border.deliveries, cursor, WAIT_WHILE_FINISHING_S if finishing else WAIT_S)
            for delivery in await patiently(poll):
                await self._handle(delivery)
                crossing = delivery.crossing if delivery.event == "crossing" else None
                await asyncio.to_thread(self._progress.advance, delivery.ordinal, crossing)
                await self._acknowledge(crossing)
                cursor = delivery.ordinal

    async def _acknowledge(self, crossing: CrossingId | None) -> None:
        """Let the border drop its copy. Done again at every start, since a crash may come in between."""
        if crossing is not None:
            try:
                await patiently(lambda: self._border.delivered(crossing))
            except Refusal as refusal:
                _raise_if_not_allowed(refusal)
                log.info("not_acknowledged", crossing=crossing, code=refusal.code.value)

    async def _tidy(self) -> bool:
        """Finish what only waited for officers, give up what is out of time; tell whether anything still waits."""
        waiting = False
        for standing in await asyncio.to_thread(self._progress.unfinished):
            if is_over(standing.order, self._clock.now()):
                await self._abandon(standing.id, Code.EXPIRED)
            elif standing.state is OrderState.FINISHING:
                waiting |= not await self._settled(standing)
        return waiting

    async def _handle(self, delivery: Delivery) -> None:
        standing = await asyncio.to_thread(self._progress.standing, delivery.order)
        decision = decide(delivery, standing.state if standing else None)
        log.info(
            "delivery",
            kind=delivery.kind.value,
            order=delivery.order,
            slot=delivery.slot,
            delivered_as=delivery.event,
        )
        match decision:
            case Begin():
                await self._alone(delivery.order, self._begin(delivery))
            case Work() if standing is not None:
                await self._alone(delivery.order, self._work(delivery, standing))
            case Abandon(code=code):
                await self._abandon(delivery.order, code)
            case CloseAgain() if standing is not None:
                await self._close(delivery.order, standing.code)
            case Begin() | Work() | CloseAgain() | PassOver():
                pass
            case _:
                assert_never(decision)

    async def _alone(self, order: OrderId, work: Awaitable[None]) -> None:
        """Do the work of one order: if it fails, the order does, alone."""
        try:
            await work
        except IsthmusError as error:
            if isinstance(error, Refusal):
                _raise_if_not_allowed(error)
            log.warning("order_failed", order=order, code=error.code.value, what=error.what)
            await self._abandon(order, error.code)

    async def _begin(self, delivery: Delivery) -> None:
        """Take an order in and open it."""
        body = bytes(await patiently(lambda: self._border.payload(delivery.crossing)))
        order = canonical.load(Order, body)
        if order_id(order) != delivery.order:
            raise Refusal(Code.ID_MISMATCH, "The order is not the one that was announced.")
        if order.zone != self._site:
            raise Refusal(Code.WRONG_RECIPIENT, "The order is for another zone.")
        standing = await asyncio.to_thread(self._progress.begin, order)
        work = self._open if order.query is None else self._answer
        await self._found_again(standing, partial(work, standing))

    async def _open(self, standing: Standing) -> _Opened:
        """Return an order's run; opened again, with a new key, where a restart has lost it."""
        if opened := self._opened.get(standing.id):
            return opened
        opened = await self._open_anew(standing)
        self._opened[standing.id] = opened
        if cannot_evaluate(standing.order, opened.run.evaluators):
            raise Refusal(Code.TOO_FEW_CONTRIBUTORS, "The order wants evaluations and no vehicle is held out.")
        return opened

    async def _open_anew(self, standing: Standing) -> _Opened:
        """Have the border seal the order's keys to each part of compute, and compute load the files."""
        opening = await computed(self._compute.prepare, standing.order)
        try:
            grants = await self._granted(standing, opening)
            run = await computed(opening.open, grants)
        except BaseException:
            opening.close()
            raise
        return _Opened(quiet(standing.order, run), frozenset(file.file for grant in grants for file in grant.files))

    async def _granted(self, standing: Standing, run: Opening | Asking) -> list[KeyGrant]:
        """Have the border seal the order's keys to each part of a run, having told it of the chips of all parts."""
        requests = [
            KeyRequest(order=standing.id, groups=standing.order.groups, accelerators=run.accelerators, run_key=key)
            for key in run.run_keys
        ]
        return [await patiently(partial(self._border.keys, request)) for request in requests]

    async def _answer(self, standing: Standing) -> None:
        """Count what the order asks and hand the sums over; it is closed once they have been let out, or not.

        Sums that were kept before a restart are not counted again.
        """
        kept = await asyncio.to_thread(self._progress.aggregates, standing.id)
        aggregate = kept[0] if kept else await self._counted(standing)
        await self._submit(standing, Kind.AGGREGATE, aggregate.slot, aggregate.payload, aggregate.contributors)
        await asyncio.to_thread(self._progress.move, standing.id, OrderState.FINISHING)
        await self._settled(standing)

    async def _counted(self, standing: Standing) -> Aggregate:
        asking = await computed(self._questions.prepare, standing.order)
        try:
            found = await computed(asking.count, await self._granted(standing, asking))
        finally:
            asking.close()
        aggregate = Aggregate(0, found.payload, found.contributors)
        await asyncio.to_thread(self._progress.keep_aggregate, standing.id, aggregate)
        return aggregate

    async def _work(self, delivery: Delivery, standing: Standing) -> None:
        """Do all that one model asks for."""
        await self._found_again(standing, partial(self._open, standing))
        model = await patiently(lambda: self._border.payload(delivery.crossing))
        for step in steps_at(standing.order, delivery.slot, reference_kept=standing.reference_kept):
            await self._found_again(standing, partial(self._step, step, standing, delivery.slot, model))

    async def _found_again(self, standing: Standing, work: Callable[[], Awaitable[object]]) -> None:
        """Do `work`, again where the run was lost under it. What a lost run had not handed over is forgotten."""
        for lost in range(REOPENINGS + 1):
            try:
                await work()
            except RunLost as fault:
                self._drop(standing.id)
                log.warning("run_lost", order=standing.id, times=lost + 1, what=fault.what, why=fault.why)
                if lost == REOPENINGS:
                    raise
            else:
                return

    async def _step(self, step: Step, standing: Standing, slot: int, model: bytearray) -> None:
        opened = await self._open(standing)
        match step:
            case Step.TRAIN:
                await self._train(standing, opened.run, slot, model)
            case Step.EVALUATE:
                await self._evaluate(standing, opened.run, slot, model)
            case Step.REFERENCE:
                figures = await computed(opened.run.reference, model)
                await asyncio.to_thread(self._progress.keep_reference, standing.id, figures)
            case Step.FINISH:
                await self._finish(standing, opened, slot, model)

    async def _train(self, standing: Standing, run: Run, slot: int, base: bytearray) -> None:
        began = time.perf_counter()
        delta = await computed(run.train, slot, base)
        microseconds = round((time.perf_counter() - began) * 1e6)
        await asyncio.to_thread(self._progress.keep_training, standing.id, slot, microseconds)
        status = await self._submit(standing, Kind.MODEL_UPDATE, slot, delta, run.contributors)
        if status is not None and status.state == "refused":
            raise Refusal(status.code or Code.NOT_RELEASED, "The border does not release the update.")

    async def _evaluate(self, standing: Standing, run: Run, slot: int, model: bytearray) -> None:
        """Hand an evaluation over. One that is refused costs the job nothing but itself."""
        evaluation: Evaluation | None = await computed(run.evaluate, slot, model)
        if evaluation is not None:
            aggregate = Aggregate(slot, canonical.dump(evaluation), run.evaluators)
            await asyncio.to_thread(self._progress.keep_aggregate, standing.id, aggregate)
            await self._aggregate_state(standing, aggregate)

    async def _finish(self, standing: Standing, opened: _Opened, slot: int, model: bytearray) -> None:
        """Adapt the last model, write the zone's results, and close the order once nothing of it is held."""
        evaluation = await computed(opened.run.evaluate, slot, model)
        adapted, figures = await computed(opened.run.adapt, model)
        results = await asyncio.to_thread(self._results_of, standing, opened, evaluation)
        if figures is not None:
            results = results.model_copy(update={"figures": (*results.figures, figures)})
        await asyncio.to_thread(write_results, self._results, results, adapted)
        self._drop(standing.id)
        await asyncio.to_thread(self._progress.move, standing.id, OrderState.FINISHING)
        await self._settled(standing)

    def _results_of(self, standing: Standing, opened: _Opened, evaluation: Evaluation | None) -> ZoneResults:
        trained, held_out = opened.run.contributors, opened.run.evaluators
        reference = () if standing.reference is None else (standing.reference,)
        times = self._progress.training_times(standing.id)
        return ZoneResults(
            version=1,
            zone=self._site,
            job=standing.order.job,
            order=standing.id,
            vehicles=trained.vehicles,
            windows=trained.windows,
            held_out_vehicles=held_out.vehicles,
            held_out_windows=held_out.windows,
            raw_bytes=self._catalogue.holdings_of(opened.files).raw_bytes,
            figures=(*(evaluation.figures if evaluation else ()), *reference),
            rounds=len(times),
            training_us_median=round(statistics.median(times)) if times else 0,
        )

    async def _settled(self, standing: Standing) -> bool:
        """Close an order of which nothing is held any more; tell whether that is so."""
        for aggregate in await asyncio.to_thread(self._progress.aggregates, standing.id):
            if await self._aggregate_state(standing, aggregate) in UNSETTLED:
                return False
        # No delivery comes again to say so: the border is told first.
        await self._close(standing.id, None)
        await asyncio.to_thread(self._progress.move, standing.id, OrderState.CLOSED)
        return True

    async def _aggregate_state(self, standing: Standing, aggregate: Aggregate) -> str:
        """Hand an evaluation to the border, again where it has it already, and return where it stands there."""
        try:
            status = await self._submit(
                standing, Kind.AGGREGATE, aggregate.slot, aggregate.payload, aggregate.contributors
            )
        except Refusal as refusal:
            _raise_if_not_allowed(refusal)
            log.info("evaluation_refused", order=standing.id, slot=aggregate.slot, code=refusal.code.value)
            return "refused"
        return "sealed" if status is None else status.state

    async def _submit(
        self, standing: Standing, kind: Kind, slot: int, payload: bytes, contributors: Contributors
    ) -> CandidateStatus | None:
        """Hand a candidate over; None where another one has crossed under its id, which then stands."""
        header = CandidateHeader(
            order=standing.id,
            kind=kind,
            recipient=standing.order.issuer,
            slot=slot,
            size=len(payload),
            contributors=contributors,
        )
        try:
            return await patiently(lambda: self._border.submit(header, payload))
        except Refusal as refusal:
            if refusal.code is not Code.CONFLICTING_PAYLOAD:
                raise
            return None

    async def _abandon(self, order: OrderId, code: Code) -> None:
        self._drop(order)
        await self._close(order, code)  # the border first, as in `_settled`
        await asyncio.to_thread(self._progress.move, order, OrderState.CLOSED, code)

    async def _close(self, order: OrderId, code: Code | None) -> None:
        try:
            await patiently(lambda: self._border.close_order(CloseOrder(order=order, code=code)))
        except Refusal as refusal:
            _raise_if_not_allowed(refusal)
            log.info("not_closed", order=order, code=refusal.code.value)

    def _drop(self, order: OrderId) -> None:
        """Drop an order's plaintext."""
        if opened := self._opened.pop(order, None):
            opened.run.close()


def _raise_if_not_allowed(refusal: Refusal) -> None:
    if refusal.code in NOT_ALLOWED:
        raise refusal
