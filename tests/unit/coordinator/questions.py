"""Questions, and answers as zones give them, for these tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from isthmus.contracts.answers import QueryRequest
from isthmus.contracts.crossings import Kind
from isthmus.contracts.inside import Delivery
from isthmus.contracts.queries import CellPartial, Partials, PrimitiveKind, primitives
from isthmus.coordinator.asking import as_job, plan_of
from isthmus.coordinator.intake import judge, read_answer
from isthmus.coordinator.plans import default_recipes, make_orders
from isthmus.coordinator.store import Step, Store
from isthmus.privacy.release import release
from isthmus.proof import canonical, ids
from unit.coordinator.jobs import CN, ENGINEER, HQ, JOB, NOW, US

if TYPE_CHECKING:
    from isthmus.contracts.errors import Code
    from isthmus.contracts.identifiers import JobId, SiteId
    from isthmus.contracts.queries import Answer, Primitive, QueryPlan

SQL = "SELECT traffic, count(*) AS drives, avg(speed_mps) FROM drives GROUP BY traffic"


def question_json(**changes: Any) -> dict[str, Any]:
    return {
        "sql": SQL,
        "zones": [{"zone": zone, "dataset": {"dataset": "drives", "snapshot": "q3"}} for zone in (CN, US)],
        "purpose": "fleet-statistics",
        "recipients": ["hq"],
        **changes,
    }


def question(**changes: Any) -> QueryRequest:
    return QueryRequest.model_validate_json(json.dumps(question_json(**changes)))


def ask(store: Store, request: QueryRequest | None = None, job: JobId = JOB) -> QueryPlan:
    """Record a question as the API does."""
    request = request or question()
    plan, columns = plan_of(request)
    asked = as_job(request, plan)
    orders = make_orders(asked, default_recipes(), job=job, issuer=HQ, now=NOW)
    store.create(job=job, person=ENGINEER, request=asked, orders=orders, columns=columns)
    return plan


def answer(plan: QueryPlan, rows: int = 4_000) -> Answer:
    """Return what a border releases of `rows` rows in each cell, each in the middle of every measure's bounds."""
    parts = primitives(plan.spec)
    values = tuple(_numbers(p, rows) for p in parts)
    cell = CellPartial(vehicles=rows // 2, values=values, largest=((1, 1),) * len(parts))
    cells = (cell,) * plan.spec.domain_size()
    question = ids.question_digest(plan.spec)
    return release(plan, Partials(version=1, question=question, vehicles=rows // 2, cells=cells))


def _numbers(primitive: Primitive, rows: int) -> tuple[int, ...]:
    match primitive.kind:
        case PrimitiveKind.ROWS | PrimitiveKind.COUNT:
            return (rows,)
        case PrimitiveKind.VEHICLES:
            return (rows // 2,)
        case PrimitiveKind.BINS:
            return (rows // primitive.width,) * primitive.width
        case PrimitiveKind.SUM | PrimitiveKind.SQUARES:
            return (0,)


def crossing(store: Store, zone: SiteId, ordinal: int, job: JobId = JOB, **changes: Any) -> Delivery:
    """Return the delivery that brings a zone's answer."""
    order, _ = store.orders(job)[zone]
    fields: dict[str, Any] = {
        "ordinal": ordinal,
        "event": "crossing",
        "crossing": ids.crossing_id(order, Kind.AGGREGATE, HQ, 0),
        "kind": Kind.AGGREGATE,
        "sender": zone,
        "job": job,
        "order": order,
        "slot": 0,
        "contributors": None,
        "code": None,
    }
    return Delivery(**{**fields, **changes})


def notice(store: Store, zone: SiteId, ordinal: int, code: Code, job: JobId = JOB) -> Delivery:
    """Return a zone's notice about its answer."""
    order, _ = store.orders(job)[zone]
    about = ids.crossing_id(order, Kind.AGGREGATE, HQ, 0)
    named = ids.crossing_id(order, Kind.NOTICE, HQ, 0)
    return crossing(store, zone, ordinal, job, crossing=named, kind=Kind.NOTICE, code=code, about=about)


def refusal(store: Store, zone: SiteId, ordinal: int, code: Code, job: JobId = JOB) -> Delivery:
    """Return the news that a zone's border refused the order."""
    order, _ = store.orders(job)[zone]
    sent = ids.crossing_id(order, Kind.ORDER, zone, 0)
    return crossing(store, zone, ordinal, job, event="refused", crossing=sent, kind=Kind.ORDER, code=code)


def take(store: Store, zone: SiteId, delivery: Delivery, brought: Answer | None = None, job: JobId = JOB) -> None:
    """Take a delivery as the runner does."""
    plan = store.request(job).query
    assert plan is not None
    read = read_answer(plan, canonical.dump(brought)) if brought else None
    fact = judge(store.progress(job), own=HQ, zone=zone, delivery=delivery)
    store.record(job, Step(facts=(fact,) if fact else (), delivery=delivery, answer=read))
