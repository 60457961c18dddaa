"""A dry run: what a question would be checked for, cost and bring. From the catalogue and the plan alone."""

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
from isthmus.coordinator import answering
from isthmus.privacy.mechanism import curve_of, noise_of
from isthmus.proof import accounting, ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isthmus.contracts.answers import AnswerColumns, CellColumn
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.queries import PrivacyBudget, QueryPlan

MILLION = 1_000_000
ROWS = 1_000
"""Rows of the cell for which the error of a mean is told."""
ALWAYS = frozenset({FigureKind.ROWS, FigureKind.VEHICLES, FigureKind.SUM, FigureKind.HISTOGRAM})
"""Figures whose error does not depend on the data."""


def explain(
    plan: QueryPlan, columns: AnswerColumns, zones: tuple[SiteId, ...], budgets: Mapping[SiteId, PrivacyBudget]
) -> Explanation:
    """Return what a question would cost and bring.

    Args:
        plan: how it would be answered.
        columns: the answer's columns.
        zones: whom it would be put to.
        budgets: the zones' budgets, where they are known.
    """
    return Explanation(
        sql=render(plan.spec),
        plan=plan,
        cells=plan.spec.domain_size(),
        mechanisms=tuple(_mechanisms(plan)),
        checks=tuple(_checks(plan)),
        costs=tuple(_cost(plan, zone, budgets.get(zone)) for zone in zones),
        expected=tuple(_expected(plan, columns)),
    )


def _mechanisms(plan: QueryPlan) -> Iterator[str]:
    for primitive, noise in zip(primitives(plan.spec), _noise(plan), strict=True):
        name = primitive.kind.value + (f" of {primitive.measure}" if primitive.measure else "")
        yield f"{name}: {noise.mechanism.replace('_', ' ')}, scale {noise.scale_micro / MILLION:g} steps"


def _checks(plan: QueryPlan) -> Iterator[str]:
    spec = plan.spec
    yield "the specification fits the catalogue that both sides have"
    yield f"at most {spec.rows_per_vehicle} rows and {spec.groups_per_vehicle} cells of a vehicle count, values clamped"
    yield "purpose, recipients and snapshot are permitted by the zone's policy"
    if plan.mode is Mode.DP:
        yield "the zone's privacy budget has room; it is reserved when the order is accepted, and never renews"
        yield "a cell is shown only if its noised size is clearly above the smallest"
    else:
        yield "officers of two organisations approve the answer"
        yield "at least 10 vehicles a cell, none with most of it; what would give a hidden cell away is hidden too"
        yield "no difference with earlier answers about the snapshot isolates fewer than 10 vehicles"
    yield f"an answer, or the notice that there is none, leaves at a multiple of {plan.slot_s} s after acceptance"


def _cost(plan: QueryPlan, zone: SiteId, budget: PrivacyBudget | None) -> ZoneCost:
    """Return what part of a budget one answer takes alone: as the budget counts it, at the budget's own delta."""
    share = None
    if budget is not None:
        alone = accounting.epsilon_micro(curve_of(plan), budget.delta_exponent)
        share = -(-alone * MILLION // budget.epsilon_micro)
    return ZoneCost(zone=zone, budget=budget, share_ppm=share)


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
