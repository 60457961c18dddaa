"""How an answer is shown: each zone and the whole, a value with its 95 % bar, and what is not told and why.

Rules:
1. A suppressed cell says `hidden`, a zone without an answer its code: neither is a zero.
2. The mode is named with what it promises, the cost with whose budget it came from.
3. Digits end where the bar makes them meaningless.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isthmus.cli.screen import table
from isthmus.contracts.errors import Code
from isthmus.contracts.queries import FigureKind, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from isthmus.contracts.answers import CellView, Explanation, Point, QueryView, ZoneAnswer, ZoneCost

MICRO = 1_000_000
HIDDEN = "hidden"
WAITS = "waits"
WHOLE = "whole"
LOPSIDED = 1.2
"""Bars whose longer side is more than this times the other are shown by their ends."""
REASONS = {
    Code.BUDGET_EXHAUSTED: " What is left of its privacy budget does not pay for this question; it does not renew.",
    Code.NOT_RELEASED: " Why stays in the zone.",
    Code.DATASET_UNKNOWN: " It has no such snapshot.",
    Code.EXPIRED: " Its order has expired.",
}
"""What a code means here, where that is not plain."""
PROMISES = {
    Mode.DP: "Differential privacy per vehicle: each zone's border added the noise. Bars hold the exact figure 95 times"
    " in 100.",
    Mode.DISCLOSURE_CONTROLLED: "Disclosure-controlled: small and dominated cells are hidden, figures are exact."
    " This is NOT differential privacy.",
}


def shown(point: Point) -> str:
    """Return a value and its bar.

    >>> from isthmus.contracts.answers import Point
    >>> shown(Point(value_micro=12_345_678, low_micro=12_000_000, high_micro=12_691_356))
    '12.35 ± 0.35'
    >>> shown(Point(value_micro=7_000_000, low_micro=7_000_000, high_micro=7_000_000))
    '7'
    """
    value, low, high = (n / MICRO for n in (point.value_micro, point.low_micro, point.high_micro))
    below, above = value - low, high - value
    half = max(below, above)
    if half <= 0:
        return f"{value:,.6f}".rstrip("0").rstrip(".")
    digits = max(0, min(6, 1 - math.floor(math.log10(half))))
    if min(below, above) * LOPSIDED < half:
        return f"{value:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"
    return f"{value:,.{digits}f} ± {half:,.{digits}f}"


def rendered(view: QueryView) -> list[RenderableType]:
    """Return a question's answer for people: one table, then what it is worth and what it cost."""
    columns = (*view.plan.spec.group_by, "figure", *(zone.zone for zone in view.zones), WHOLE)
    return [table(view.sql, columns, _rows(view)), *_notes(view)]


def _rows(view: QueryView) -> Iterator[Sequence[str]]:
    """Yield a row for each cell and number of it."""
    sources = [zone.cells or None for zone in view.zones]
    for index, group in enumerate(view.plan.spec.cells()):
        cells = [None if found is None else found[index] for found in sources]
        whole = view.whole[index] if view.whole else None
        for place, name, number in _numbers(view, (*cells, whole)):
            parts = [_part(zone, cell, place, number) for zone, cell in zip(view.zones, cells, strict=True)]
            yield (*group, name, *parts, _whole(view, whole, place, number))


def _numbers(view: QueryView, cells: Sequence[CellView | None]) -> Iterator[tuple[int, str, int]]:
    """Yield each column's place, name and number: one, or one for each bin of a histogram."""
    for place, column in enumerate(view.columns):
        unit = f" [{view.units[place]}]" if view.units[place] else ""
        if view.kinds[place] is not FigureKind.HISTOGRAM:
            yield place, column.label + unit, 0
            continue
        points = next((c.columns[place].points for c in cells if c is not None and c.columns), ())
        if not points:  # no bin is told: one line says so
            yield place, column.label, 0
        for number, point in enumerate(points):
            ends = f"{(point.from_micro or 0) / MICRO:g} to {(point.to_micro or 0) / MICRO:g}"
            yield place, f"{column.label}: {ends}", number


def _part(zone: ZoneAnswer, cell: CellView | None, place: int, number: int) -> str:
    if cell is None:
        return str(zone.code or WAITS)
    return HIDDEN if cell.suppressed else shown(cell.columns[place].points[number])


def _whole(view: QueryView, cell: CellView | None, place: int, number: int) -> str:
    if cell is None:
        return "-"
    if cell.suppressed:
        return HIDDEN
    absent = len(view.zones) - len(view.answered) + cell.missing
    without = f", {len(view.zones) - absent} of {len(view.zones)} zones" if absent else ""
    return shown(cell.columns[place].points[number]) + without


def _notes(view: QueryView) -> Iterator[str]:
    if view.answered:
        yield PROMISES[view.plan.mode]
    for zone in view.zones:
        if zone.answer is None:
            yield f"{zone.zone}: no answer, {zone.code or WAITS}.{REASONS.get(zone.code, '') if zone.code else ''}"
        elif zone.answer.repeated:
            yield f"{zone.zone}: asked before: the same answer, which costs nothing."
        elif view.plan.mode is Mode.DP:
            yield f"{zone.zone}: cost {epsilon(zone.answer.epsilon_micro, zone.answer.delta_exponent)}, of its budget."
    if any(zone.cells and any(cell.suppressed for cell in zone.cells) for zone in view.zones):
        yield f"{HIDDEN}: too little stands behind it to be shown; it need not be zero."


def epsilon(epsilon_micro: int, delta_exponent: int) -> str:
    """Return a cost in the usual letters.

    >>> epsilon(1_000_000, 6)
    'epsilon 1 (delta 1e-6)'
    """
    return f"epsilon {epsilon_micro / MICRO:g} (delta 1e-{delta_exponent})"


def _percent(ppm: int | None) -> str:
    return "-" if ppm is None else f"{ppm / 10_000:.1f} %"


def _takes(cost: ZoneCost) -> str:
    if cost.repeated:
        return "nothing: asked before"
    return _percent(cost.share_ppm) + (": more than is left" if cost.fits is False else "")


def explained(found: Explanation) -> list[RenderableType]:
    """Return a dry run for people."""
    plan = found.plan
    cost = epsilon(plan.epsilon_micro, plan.delta_exponent) if plan.mode is Mode.DP else "no privacy budget"
    shares = [
        (
            c.zone,
            cost,
            epsilon(c.budget.epsilon_micro, c.budget.delta_exponent) if c.budget else "not known here",
            _percent(c.spent_ppm),
            _takes(c),
        )
        for c in found.costs
    ]
    errors = [
        (
            f"{e.label} [{e.unit}]" if e.unit else e.label,
            "-" if e.half_width_micro is None else f"± {e.half_width_micro / MICRO:.3g}",
            "any" if e.rows is None else f"{e.rows:,} rows",
        )
        for e in found.expected
    ]
    return [
        f"{found.sql}\n{found.cells} cell{'s' * (found.cells > 1)}. Nothing was asked, and no budget touched.\n",
        table("Cost", ("zone", "cost", "whole budget", "of it gone", "this one would take"), shares),
        table("Expected error in one zone", ("figure", "half of the 95 % bar", "in a cell of"), errors),
        table("Checked, in this order", ("what",), [(check,) for check in found.checks]),
    ]
