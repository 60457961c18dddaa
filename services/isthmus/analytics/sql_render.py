"""A specification as SQL: what `gate.parse` reads back to the same specification. For people to read; it never crosses.

How many rows and cells of a vehicle count is no part of the text.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from isthmus.analytics.sql_figures import own_name, share
from isthmus.contracts.queries import FigureKind
from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from isthmus.contracts.queries import Condition, Figure, QuerySpec
    from isthmus.contracts.tables import TableSpec


def render(spec: QuerySpec) -> str:
    """Return the question as one line of SQL."""
    table = TABLES[spec.table]
    selected = ", ".join([*spec.group_by, *(_figure(f) for f in spec.figures)])
    parts = ["SELECT", selected, "FROM", spec.table.value]
    if spec.where:
        parts.append("WHERE " + " AND ".join(_condition(c, table) for c in spec.where))
    if spec.group_by:
        parts.append("GROUP BY " + ", ".join(spec.group_by))
    return " ".join(parts)


def _figure(figure: Figure) -> str:
    if figure.kind is FigureKind.QUANTILES:
        return f"quantile({figure.measure}, [{', '.join(share(ppm) for ppm in figure.quantiles_ppm)}])"
    return own_name(figure)


def _condition(condition: Condition, table: TableSpec) -> str:
    column, measure = condition.column, table.measure(condition.column)
    if measure is None:
        return f"{column} IN ({', '.join(repr(value) for value in condition.values)})"
    low, high = (
        None if steps is None else _decimal(Fraction(steps, measure.steps_per_unit))
        for steps in (condition.low, condition.high)
    )
    if low is None:
        return f"{column} <= {high}"
    return f"{column} >= {low}" if high is None else f"{column} BETWEEN {low} AND {high}"


def _decimal(value: Fraction) -> str:
    """Return a number of steps in the measure's unit: a power of ten of them makes one, so that it ends."""
    return f"{float(value):.9f}".rstrip("0").rstrip(".") or "0"
