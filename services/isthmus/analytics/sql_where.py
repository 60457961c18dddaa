"""Conditions in SQL: on a dimension, some of its public values; on a measure, bounds. All of them hold together.

Bounds are read exactly, in the measure's unit, and become whole steps. A bound that every row keeps is no condition;
one that no row can keep is refused.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from sqlglot import exp

from isthmus.analytics.sql_figures import bounded
from isthmus.analytics.sql_tree import check, column_name, number, unknown
from isthmus.contracts.queries import Condition
from isthmus.contracts.tables import VEHICLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.analytics.sql_text import Source
    from isthmus.contracts.tables import Dimension, Measure, TableSpec

Bounds = tuple[int, int]
_MIRRORED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.LT: exp.GT, exp.GT: exp.LT, exp.LTE: exp.GTE, exp.GTE: exp.LTE, exp.EQ: exp.EQ, exp.NEQ: exp.NEQ,
}  # fmt: skip


def conditions(source: Source, where: object, table: TableSpec) -> tuple[Condition, ...]:
    """Return a question's conditions, one for each column, by name.

    Raises:
        Refusal: `QUERY_INVALID`, `QUERY_NAME_UNKNOWN`.
    """
    if where is None:
        return ()
    if type(where) is not exp.Where:
        raise source.refusal(0, "The conditions cannot be understood.")
    check(source, where, "this")
    values: dict[str, set[str]] = {}
    bounds: dict[str, Bounds] = {}
    for node in _joined(source, where.this):
        name = _column(source, node, table)
        dimension, measure = table.dimension(name), table.measure(name)
        if dimension is not None:
            kept = values.setdefault(name, set(dimension.values))
            kept &= _values(source, node, table, dimension)
            if not kept:
                raise source.invalid(node, "No group can fulfil this condition.")
        elif measure is not None:
            bounded(source, node, measure)
            low, high = bounds.get(name, (measure.low, measure.high))
            least, most = _bounds(source, node, table, measure)
            bounds[name] = (max(low, least), min(high, most))
            if bounds[name][0] > bounds[name][1]:
                raise source.invalid(node, "No row can fulfil this condition.", remedy=_range(measure))
    found = [*_of_dimensions(values, table), *_of_measures(bounds, table)]
    return tuple(sorted(found, key=lambda c: c.column))


def _of_dimensions(values: dict[str, set[str]], table: TableSpec) -> Iterator[Condition]:
    for name, kept in values.items():
        dimension = table.dimension(name)
        if dimension is not None and kept != set(dimension.values):
            yield Condition(column=name, values=tuple(sorted(kept)))


def _of_measures(bounds: dict[str, Bounds], table: TableSpec) -> Iterator[Condition]:
    for name, (low, high) in bounds.items():
        measure = table.measure(name)
        if measure is None:
            continue
        least, most = (None if low <= measure.low else low), (None if high >= measure.high else high)
        if least is None and most is None and measure.optional:
            least = measure.low  # it asks for rows that have a value
        if least is not None or most is not None:
            yield Condition(column=name, low=least, high=most)


def _joined(source: Source, node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield the conditions that AND joins, in the text's order."""
    open_ = [node]
    while open_:
        part = open_.pop()
        if type(part) is exp.And:
            check(source, part, "this", "expression")
            open_ += [part.expression, part.this]
        elif type(part) is exp.Paren and type(part.this) in {exp.And, exp.Paren}:
            check(source, part, "this")
            open_.append(part.this)
        else:
            yield part


def _column(source: Source, node: exp.Expr, table: TableSpec) -> str:
    """Return the one column that a condition is about."""
    names = {}
    for column in node.find_all(exp.Column):
        name = column_name(source, column, table)
        if table.dimension(name) is None and table.measure(name) is None:
            if name == VEHICLE:
                raise source.invalid(column, "Single vehicles cannot be selected.")
            known = [*(d.name for d in table.dimensions), *(m.name for m in table.measures)]
            raise unknown(source, column, "column", name, known)
        names[name] = column
    if len(names) > 1:
        raise source.invalid(list(names.values())[-1], "A condition is about one column; AND joins conditions.")
    if not names:
        raise source.invalid(node, "A condition compares a column with fixed values.")
    return next(iter(names))


def _values(source: Source, node: exp.Expr, table: TableSpec, dimension: Dimension) -> set[str]:
    """Return the values of a dimension that fulfil a condition on it."""
    every = set(dimension.values)
    match node:
        case exp.Paren():
            check(source, node, "this")
            return _values(source, node.this, table, dimension)
        case exp.Not():
            check(source, node, "this")
            return every - _values(source, node.this, table, dimension)
        case exp.Or():
            check(source, node, "this", "expression")
            return _values(source, node.this, table, dimension) | _values(source, node.expression, table, dimension)
        case exp.And():
            check(source, node, "this", "expression")
            return _values(source, node.this, table, dimension) & _values(source, node.expression, table, dimension)
        case exp.EQ() | exp.NEQ():
            check(source, node, "this", "expression")
            column_name(source, node.this, table)
            named = {_value(source, node, node.expression, dimension)}
            return named if type(node) is exp.EQ else every - named
        case exp.In():
            check(source, node, "this", "expressions")
            column_name(source, node.this, table)
            return {_value(source, node, item, dimension) for item in node.expressions}
        case _:
            raise source.invalid(node, "A dimension's condition names values.", remedy="dimension IN ('a', 'b')")


def _value(source: Source, node: exp.Expr, item: object, dimension: Dimension) -> str:
    if type(item) is not exp.Literal or not item.is_string:
        at = item if isinstance(item, exp.Expr) else node
        raise source.invalid(at, "A value of a dimension is a string.", remedy=f"dimension = '{dimension.values[0]}'")
    check(source, item, "this", "is_string")
    if item.name not in dimension.values:
        at = item if "start" in (item.meta or {}) else node
        raise unknown(source, at, "value", item.name, dimension.values)
    return item.name


def _bounds(source: Source, node: exp.Expr, table: TableSpec, measure: Measure) -> Bounds:
    """Return the steps between which a condition on a measure holds, both included."""
    per_unit = measure.steps_per_unit
    if type(node) is exp.Paren:
        check(source, node, "this")
        return _bounds(source, node.this, table, measure)
    if type(node) is exp.Between:
        check(source, node, "this", "low", "high")
        column_name(source, node.this, table)
        low, high = number(source, node.args.get("low")), number(source, node.args.get("high"))
        return ceil(low * per_unit), floor(high * per_unit)
    if type(node) not in _MIRRORED or type(node) is exp.NEQ:
        why = "A measure's condition compares it with one number."
        raise source.invalid(node, why, remedy=f"{measure.name} < 1, or {measure.name} BETWEEN 1 AND 2")
    check(source, node, "this", "expression")
    kind: type[exp.Expr] = type(node)
    column, bound = node.this, node.expression
    if type(column) is not exp.Column:
        kind, column, bound = _MIRRORED[kind], bound, column
    column_name(source, column, table)
    steps = number(source, bound) * per_unit
    lows: dict[type[exp.Expr], int] = {exp.GT: floor(steps) + 1, exp.GTE: ceil(steps), exp.EQ: ceil(steps)}
    highs: dict[type[exp.Expr], int] = {exp.LT: ceil(steps) - 1, exp.LTE: floor(steps), exp.EQ: floor(steps)}
    return lows.get(kind, measure.low), highs.get(kind, measure.high)


def _range(measure: Measure) -> str:
    low, high = measure.low / measure.steps_per_unit, measure.high / measure.steps_per_unit
    return f"Values of {measure.name} are clamped to {low:g} to {high:g} {measure.unit}".rstrip() + "."
