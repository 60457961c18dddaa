"""Questions, as their API serves them: asked, listed, shown with what has crossed, and explained beforehand.

Rules:
1. A question is a job (`coordinator.rounds`): recorded first, put to the zones by the runner, kill-safe as any.
2. What a zone's answer is, is what crossed. Figures and their intervals are computed from it each time they are asked
   for, and can be computed again by anyone who has the answers.
3. A zone that gives no answer is marked with its code; the whole says which zones it is made of.
4. A dry run asks nobody: it follows from the catalogue, the plan and the answers that have come.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from isthmus.analytics.sql_render import render
from isthmus.contracts.answers import QueryItem, QueryRequest, QueryView, ZoneAnswer
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, JobId
from isthmus.contracts.jobs import JobState
from isthmus.contracts.tables import TABLES
from isthmus.coordinator import answering
from isthmus.coordinator.asking import as_job, plan_of
from isthmus.coordinator.explaining import explain
from isthmus.coordinator.plans import make_orders
from isthmus.coordinator.requests import read_as
from isthmus.coordinator.slots import slot_checks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.contracts.answers import CellView, Explanation
    from isthmus.contracts.identifiers import CrossingId, Name, SiteId
    from isthmus.contracts.jobs import JobView, ZoneProgress
    from isthmus.contracts.queries import Answer, PrivacyBudget, QuerySpec
    from isthmus.coordinator.people import Caller
    from isthmus.coordinator.plans import Recipe
    from isthmus.coordinator.store import Store
    from isthmus.kit.bell import Bell
    from isthmus.kit.clock import Clock


WAITS: Mapping[str, Literal["order", "approval", "nothing"]] = {
    "order": "order", "approval": "approval", "nothing": "nothing",
}  # fmt: skip
"""What a job's zone waits for, in the words of a question; all else is its answer."""


UNASKED = JobId("job-0000000000000000")
"""The job of a question that is only explained; no order carries it."""


class Queries:
    """The questions of one coordinator."""

    def __init__(
        self,
        *,
        site: SiteId,
        store: Store,
        recipes: Mapping[Name, Recipe],
        budgets: Mapping[SiteId, PrivacyBudget],
        minimum_slots: Mapping[SiteId, int],
        bell: Bell,
        clock: Clock,
    ) -> None:
        self._site = site
        self._store = store
        self._recipes = recipes
        self._budgets = budgets
        self._minimum_slots = minimum_slots
        self._bell = bell
        self._clock = clock

    def ask(self, caller: Caller, text: bytes, key: str | None) -> QueryView:
        """Record a question; the runner puts it to its zones.

        Raises:
            Refusal: the request or its question is not valid; `CONFLICTING_PAYLOAD`: the key stands for another.
        """
        request = read_as(QueryRequest, text)
        plan, columns = plan_of(request)
        asked = as_job(request, plan)
        job = JobId(f"job-{secrets.token_hex(8)}")
        orders = make_orders(asked, dict(self._recipes), job=job, issuer=self._site, now=self._clock.now())
        body = Digest.of(text)
        return self.show(
            self._store.create(
                job=job, person=caller.person, request=asked, orders=orders, columns=columns, key=key, body=body
            )
        )

    def explain(self, text: bytes) -> Explanation:
        """Return what a question would cost and bring, without asking it.

        Raises:
            Refusal: the request or its question is not valid.
        """
        request = read_as(QueryRequest, text)
        plan, columns = plan_of(request)
        asked = as_job(request, plan)
        orders = make_orders(asked, dict(self._recipes), job=UNASKED, issuer=self._site, now=self._clock.now())
        paid = {order.zone: self._store.paid(order.zone) for order in orders}
        trained = {order.zone: self._store.trained(order.zone) for order in orders}
        explained = explain(plan, columns, orders, paid=paid, trained=trained, budgets=self._budgets)
        slots = slot_checks(plan.slot_s, (order.zone for order in orders), self._minimum_slots)
        return explained.model_copy(update={"checks": (*explained.checks, *slots)})

    def list(self) -> tuple[QueryItem, ...]:
        """Return all questions, newest first."""
        return tuple(self._item(job) for job in self._store.questions())

    def show(self, job: JobId) -> QueryView:
        """Return a question and what it has brought.

        Raises:
            Refusal: `NOT_FOUND`.
        """
        request, columns = self._store.request(job), self._store.columns(job)
        if request.query is None:
            raise no_such_question()
        view, answers = self._store.job(job), self._store.answers(job)
        plan, spec = request.query, request.query.spec
        kinds = tuple(spec.figures[column.figure].kind for column in columns.items)
        return QueryView(
            id=job,
            name=view.name,
            submitted_by=view.submitted_by,
            state=view.state,
            code=view.code,
            sql=render(spec),
            plan=plan,
            columns=columns.items,
            units=tuple(unit_of(spec, column.figure) for column in columns.items),
            kinds=kinds,
            zones=tuple(_zone(view, zone, answers, spec, columns.items) for zone in view.zones),
            whole=_cells(spec, columns.items, tuple(answer for _, answer in answers.values())),
            answered=tuple(answers),
            created_at=view.created_at,
            finished_at=view.finished_at,
        )

    async def watch(self, job: JobId, wait_s: float) -> QueryView:
        """Return a question when it is over, or when the wait is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            ticket = self._bell.ticket()
            view = await asyncio.to_thread(self._store.job, job)
            left = end - loop.time()
            if view.state is not JobState.RUNNING or left <= 0 or self._bell.closed:
                return await asyncio.to_thread(self.show, job)
            await self._bell.wait(ticket, left)

    def _item(self, job: JobId) -> QueryItem:
        view, query = self._store.job(job), self._store.request(job).query
        if query is None:
            raise no_such_question()
        return QueryItem(
            id=job,
            name=view.name,
            submitted_by=view.submitted_by,
            state=view.state,
            code=view.code,
            sql=render(query.spec),
            mode=query.mode,
            created_at=view.created_at,
            finished_at=view.finished_at,
        )


def no_such_question() -> Refusal:
    """Return the answer for a question that is not there."""
    return Refusal(Code.NOT_FOUND, "There is no such question.", remedy="`GET /v1/queries` lists them.")


def unit_of(spec: QuerySpec, figure: int) -> str:
    """Return a figure's unit: its measure's, squared for a variance; none for numbers of rows and vehicles."""
    return answering.unit(TABLES[spec.table], spec.figures[figure])


def _zone(
    view: JobView,
    zone: ZoneProgress,
    answers: Mapping[SiteId, tuple[CrossingId, Answer]],
    spec: QuerySpec,
    columns: answering.Columns,
) -> ZoneAnswer:
    crossing, answer = answers.get(zone.zone, (None, None))
    late = view.code if answer is None and view.state is not JobState.RUNNING else None
    return ZoneAnswer(
        zone=zone.zone,
        order=zone.order,
        waiting=WAITS.get(zone.waiting, "answer"),
        code=zone.code or late,
        crossing=crossing,
        answer=answer,
        cells=_cells(spec, columns, (answer,)) if answer else (),
    )


@lru_cache(maxsize=256)
def _cells(spec: QuerySpec, columns: answering.Columns, answers: tuple[Answer, ...]) -> tuple[CellView, ...]:
    """Return answers as figures; remembered, since an answer never changes and is looked at often."""
    return answering.cells(spec, columns, answers)
