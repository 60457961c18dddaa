"""From answers to what an analyst sees: each cell's columns in the order asked for, as whole millionths of a unit.

One answer gives a zone's figures, several give the whole. `privacy.figures` computes them; here they are arranged.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from isthmus.contracts.answers import AnswerColumn, CellColumn, CellView, Point
from isthmus.contracts.queries import FigureKind
from isthmus.contracts.tables import TABLES
from isthmus.contracts.wire import MAX_INTEGER
from isthmus.privacy.figures import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.queries import Answer, Figure, QuerySpec
    from isthmus.contracts.tables import TableSpec
    from isthmus.privacy.figures import CellFigures, Estimate

Columns: TypeAlias = tuple[AnswerColumn, ...]

MICRO = 1_000_000
NUMBERS = frozenset({FigureKind.ROWS, FigureKind.VEHICLES, FigureKind.HISTOGRAM})
"""Figures that are numbers of something: they have no unit."""


def unit(table: TableSpec, figure: Figure) -> str:
    """Return a figure's unit: its measure's, squared for a variance, none for a number or a share."""
    measure = table.measure(figure.measure or "")
    if measure is None or figure.kind in NUMBERS or not measure.unit:
        return ""
    return f"({measure.unit})2" if figure.kind is FigureKind.VARIANCE else measure.unit


def cells(spec: QuerySpec, columns: Columns, answers: Sequence[Answer]) -> tuple[CellView, ...]:
    """Return the figures of answers to one question, added up; no cells where there is no answer yet."""
    if not answers:
        return ()
    return tuple(_cell(spec, columns, cell) for cell in figures(spec, answers))


def _cell(spec: QuerySpec, columns: Columns, cell: CellFigures) -> CellView:
    told = tuple(CellColumn(points=_points(spec, column, cell)) for column in columns) if cell.figures else ()
    return CellView(group=cell.cell, suppressed=not cell.figures, missing=cell.missing, columns=told)


def _points(spec: QuerySpec, column: AnswerColumn, cell: CellFigures) -> tuple[Point, ...]:
    found = cell.figures[column.figure]
    if column.quantile_ppm is not None:
        return (_point(found.estimates[found.figure.quantiles_ppm.index(column.quantile_ppm)]),)
    if found.figure.kind is FigureKind.HISTOGRAM:
        edges = _edges(spec, found.figure)
        return tuple(_point(e, *edge) for e, edge in zip(found.estimates, edges, strict=True))
    return tuple(_point(e) for e in found.estimates)


def _edges(spec: QuerySpec, figure: Figure) -> list[tuple[int, int]]:
    """Return each bin's ends, in millionths of the unit: equal widths over the measure's bounds."""
    measure = TABLES[spec.table].measure(figure.measure or "")
    if measure is None or figure.bins is None:
        return []
    span = measure.high - measure.low + 1
    ends = [
        round((measure.low + place * span / figure.bins) / measure.steps_per_unit * MICRO)
        for place in range(figure.bins + 1)
    ]
    return list(pairwise(ends))


def _point(estimate: Estimate, start: int | None = None, end: int | None = None) -> Point:
    return Point(
        value_micro=_micro(estimate.value),
        low_micro=_micro(estimate.low),
        high_micro=_micro(estimate.high),
        from_micro=start,
        to_micro=end,
    )


def _micro(value: float) -> int:
    """Return millionths, held within what JSON keeps exactly."""
    return max(-MAX_INTEGER, min(MAX_INTEGER, round(value * MICRO)))
