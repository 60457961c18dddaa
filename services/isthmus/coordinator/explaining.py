"""A dry run: what a question would be checked for, cost and bring.

It follows from the catalogue, the plan, and what zones have answered and privately trained before. What is told of a
budget is what its filter will count (`proof.accounting`): what an answer takes depends on what was taken before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.analytics.sql_render import render
from isthmus.contracts.answers import ExpectedError, Explanation, ZoneCost
from isthmus.contracts.queries import (
    Answer,
    CellAnswer,
    FigureKind,
    Mode,
    Noise,
    Primitive,
    PrimitiveKind,
    QuerySpec,
    primitives,
)
from isthmus.contracts.tables import TABLES
from isthmus.contracts.wire import MAX_INTEGER
from isthmus.coordinator import answering
from isthmus.privacy.mechanism import curve_of, noise_of
from isthmus.privacy.training import noise_of as training_noise
from isthmus.proof import accounting, ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from isthmus.contracts.answers import AnswerColumns, CellColumn
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.orders import Order
    from isthmus.contracts.queries import PrivacyBudget, QueryPlan

MILLION = 1_000_000
ROWS = 1_000
"""Rows of the cell for which the error of a mean is told."""
ALWAYS = frozenset({FigureKind.ROWS, FigureKind.VEHICLES, FigureKind.SUM, FigureKind.HISTOGRAM})
"""Figures whose error does not depend on the data."""


def explain(
    plan: QueryPlan,
    columns: AnswerColumns,
    orders: Sequence[Order],
    *,
    paid: Mapping[SiteId, Sequence[Order]],
    trained: Mapping[SiteId, Sequence[tuple[Order, int]]],
    budgets: Mapping[SiteId, PrivacyBudget],
) -> Explanation:
    """Return what a question would cost and bring.

    Args:
        plan: how it would be answered.
        columns: the answer's columns.
        orders: what would put it to each zone.
        paid: for each zone, the orders whose answers its budget has paid for.
        trained: for each zone, the orders of its private trainings, and how many rounds its budget pays for.
        budgets: the zones' budgets, where they are known.
    """
    return Explanation(
        sql=render(plan.spec),
        plan=plan,
        cells=plan.spec.domain_size(),
        mechanisms=tuple(_mechanisms(plan)),
        checks=tuple(_checks(plan)),
        costs=tuple(
            _cost(order, paid.get(order.zone, ()), trained.get(order.zone, ()), budgets.get(order.zone))
            for order in orders
        ),
        expected=tuple(_expected(plan, columns)),
    )


def _mechanisms(plan: QueryPlan) -> Iterator[str]:
    for primitive, noise in zip(primitives(plan.spec), _noise(plan), strict=True):
        name = primitive.kind.value + (f" of {primitive.measure}" if primitive.measure else "")
        yield f"{name}: {noise.mechanism.replace('_', ' ')}, scale {noise.scale_micro / MILLION:g} steps"


def _checks(plan: QueryPlan) -> Iterator[str]:
    spec = plan.spec
    yield "the specification fits the catalogue that both sides have"
    rows, cells = _some(spec.rows_per_vehicle, "row"), _some(spec.groups_per_vehicle, "cell")
    yield f"at most {rows} and {cells} of a vehicle count, values clamped"
    yield "purpose, recipients and snapshot are permitted by the zone's policy"
    if plan.mode is Mode.DP:
        yield "the zone's privacy budget has room; it is reserved when the order is accepted, and never renews"
        yield _noised(plan)
        yield "a cell is shown only if its noised size is clearly above the smallest"
    else:
        yield "officers of two organisations approve the answer"
        yield "at least 10 vehicles a cell, none with most of it; what would give a hidden cell away is hidden too"
        yield "no difference with earlier answers about the snapshot isolates fewer than 10 vehicles"
    yield f"an answer, or the notice that there is none, leaves 1, 2, 4, 8 ... times {plan.slot_s} s after acceptance"


def _some(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _noised(plan: QueryPlan) -> str:
    """Return what the answer's noise promises: pure epsilon under Laplace's, else what its loss distribution means."""
    epsilon = f"epsilon {plan.epsilon_micro / MILLION:g}"
    if noise_of(plan).mechanism == "discrete_laplace":
        return f"every number gets discrete Laplace noise: pure {epsilon}"
    return f"every number gets discrete Gaussian noise: {epsilon} at delta 1e-{plan.delta_exponent}, by PLD"


def _cost(
    order: Order, paid: Sequence[Order], trained: Sequence[tuple[Order, int]], budget: PrivacyBudget | None
) -> ZoneCost:
    """Return what part of a zone's budget an answer takes, as its filter counts: on top of those that it paid for."""
    repeated = _asked(order) in {_asked(earlier) for earlier in paid}
    if budget is None:
        return ZoneCost(zone=order.zone, budget=None, spent_ppm=None, share_ppm=None, repeated=repeated, fits=None)
    before = accounting.zero()
    for earlier in paid:
        before = accounting.add(before, _curve(earlier))
    for training, rounds in trained:
        before = accounting.add(before, _spent(training, rounds))
    after = before if repeated else accounting.add(before, _curve(order))
    spent, total = (accounting.spent_micro(curve, budget) for curve in (before, after))
    return ZoneCost(
        zone=order.zone,
        budget=budget,
        spent_ppm=_share(spent, budget),
        share_ppm=_share(total - spent, budget),
        repeated=repeated,
        fits=repeated or total <= budget.epsilon_micro,
    )


def _asked(order: Order) -> tuple[str, ...]:
    """Return what makes an order's question the same as another's: what it is about, and its protection."""
    plan = order.query
    if plan is None:
        return ()
    return ids.question_about(order), plan.mode, str(plan.epsilon_micro), str(plan.delta_exponent)


def _curve(order: Order) -> accounting.Curve:
    return accounting.zero() if order.query is None else curve_of(order.query)


def _spent(order: Order, rounds: int) -> accounting.Curve:
    """Return what some rounds of a private training cost."""
    plan = order.training
    return accounting.zero() if plan is None else accounting.paid(training_noise(plan).curve, rounds, plan.rounds)


def _share(micro: int, budget: PrivacyBudget) -> int:
    """Return the part of a budget in millionths, rounded up."""
    return min(MAX_INTEGER, -(-micro * MILLION // budget.epsilon_micro))


def _expected(plan: QueryPlan, columns: AnswerColumns) -> Iterator[ExpectedError]:
    """Yield each column's error, read off the figures of an answer that is made up: one cell in the middle."""
    spec, table = plan.spec, TABLES[plan.spec.table]
    (cell, *_) = answering.cells(spec, columns.items, (_made_up(plan),))
    for column, found in zip(columns.items, cell.columns, strict=True):
        figure = spec.figures[column.figure]
        yield ExpectedError(
            label=column.label,
            unit=answering.unit(table, figure),
            half_width_micro=_half_width(found),
            rows=None if figure.kind in ALWAYS else ROWS,
        )


def _half_width(found: CellColumn) -> int | None:
    return max((max(p.high_micro - p.value_micro, p.value_micro - p.low_micro) for p in found.points), default=None)


def _noise(plan: QueryPlan) -> tuple[Noise, ...]:
    if plan.mode is Mode.DP:
        return noise_of(plan).told
    return tuple(Noise(mechanism="none", scale_micro=0) for _ in primitives(plan.spec))


def _made_up(plan: QueryPlan) -> Answer:
    """Return an answer that no zone gave: `ROWS` rows in each cell, in the middle of every measure's bounds."""
    values = tuple(_values(plan.spec, primitive) for primitive in primitives(plan.spec))
    cell = CellAnswer(suppressed=False, values=values)
    return Answer(
        version=1,
        question=ids.question_digest(plan.spec),
        mode=plan.mode,
        noise=_noise(plan),
        cells=(cell,) * plan.spec.domain_size(),
        repeated=False,
        epsilon_micro=plan.epsilon_micro,
        delta_exponent=plan.delta_exponent,
    )


def _values(spec: QuerySpec, primitive: Primitive) -> tuple[int, ...]:
    match primitive.kind:
        case PrimitiveKind.ROWS | PrimitiveKind.COUNT:
            return (ROWS,)
        case PrimitiveKind.VEHICLES:
            return (ROWS // spec.rows_per_vehicle,)
        case PrimitiveKind.SUM:
            return (0,)
        case PrimitiveKind.SQUARES:
            measure = TABLES[spec.table].measure(primitive.measure or "")
            reach = (measure.high - measure.low) // 4 if measure else 0
            return (ROWS * reach**2,)
        case PrimitiveKind.BINS:
            return (ROWS // primitive.width,) * primitive.width
