"""From a question's specification to SQL for the engine: the catalogue's names and whole numbers, nothing else.

Rules:
1. A name in a statement is the catalogue's own, found by the question's. Numbers are whole. There is no text: the
   engine sees words as their numbers in a dictionary (`Words`).
2. A row's cell is its number in `QuerySpec.cells`. A row outside the question's domain has none and does not count.
3. A measure counts clamped to its bounds; a row without a value counts nowhere in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from isthmus.analytics.stored import DRAW, PLACE, VEHICLE
from isthmus.contracts.queries import PrimitiveKind, primitives
from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from isthmus.contracts.queries import Condition, Primitive, QuerySpec
    from isthmus.contracts.tables import Dimension, Measure

Words = Mapping[str, Sequence[str]]
"""For each dimension that a question reads: the words that its numbers stand for."""

STORED = "stored"
"""What the stored rows are called in statements."""
MATCHING = "matching"
"""What the rows that may count are called."""
BOUNDED = "bounded"
"""What the rows that count are called."""
CELL = "cell"
FIRST = "first_draw"


def measures_of(spec: QuerySpec) -> tuple[Measure, ...]:
    """Return the measures that are added up, by name, each once."""
    names = {p.measure for p in primitives(spec) if p.measure is not None}
    return tuple(m for m in TABLES[spec.table].measures if m.name in names)


def columns_read(spec: QuerySpec) -> list[str]:
    """Return the stored columns that a question needs."""
    table = TABLES[spec.table]
    named = {*spec.group_by, *(c.column for c in spec.where), *(m.name for m in measures_of(spec))}
    columns = [*(d.name for d in table.dimensions), *(m.name for m in table.measures)]
    return [VEHICLE, DRAW, PLACE, *(name for name in columns if name in named)]


def matching_rows(spec: QuerySpec, words: Words) -> str:
    """Select, of the stored rows, those that fulfil the conditions: `VEHICLE`, `DRAW`, `CELL` and measures, as stored.

    Where there are no conditions, a row that is not among the first of its file (`PLACE`) cannot be among its
    vehicle's first of all, and is not looked at.
    """
    conditions = [_condition(spec, condition, words) for condition in spec.where]
    if not conditions:
        conditions = [f"{PLACE} < {spec.rows_per_vehicle}"]
    names = "".join(f", {_name(m)}" for m in measures_of(spec))
    columns = f"{VEHICLE}, {DRAW}, {_cell(spec, words)} AS {CELL}{names}"
    rows = f"SELECT {columns} FROM {STORED} WHERE {' AND '.join(conditions)}"  # noqa: S608 -- rule 1
    return f"SELECT * FROM ({rows}) WHERE {CELL} IS NOT NULL" if spec.group_by else rows  # noqa: S608 -- rule 1


def most_rows(source: str) -> str:
    """Select how many rows the vehicle with the most has."""
    return f"SELECT max(count) FROM (SELECT count(*) AS count FROM {source} GROUP BY {VEHICLE})"  # noqa: S608 -- rule 1


def first_rows(spec: QuerySpec, source: str) -> str:
    """Select each vehicle's first rows by draw. Rows with one draw are the same (`zone.derived`)."""
    order = f"row_number() OVER (PARTITION BY {VEHICLE} ORDER BY {DRAW})"
    return f"SELECT * FROM {source} QUALIFY {order} <= {spec.rows_per_vehicle}"  # noqa: S608 -- rule 1


def contributions(spec: QuerySpec) -> str:
    """Select what each vehicle adds to each cell: `VEHICLE`, `CELL`, then two columns for each primitive.

    `a<i>` is what it adds to primitive i (to bins, its rows with a value), `b<i>` that for the dominance rules. A
    vehicle counts in as many cells as it may: in those of its first rows.
    """
    columns = []
    for number, primitive in enumerate(primitives(spec)):
        added, weighed = _added(spec, primitive)
        columns.append(f"{added} AS a{number}, {weighed} AS b{number}")
    in_any = spec.groups_per_vehicle >= min(spec.domain_size(), spec.rows_per_vehicle)
    if not in_any:
        columns.append(f"min({DRAW}) AS {FIRST}")
    each = f"SELECT {VEHICLE}, {CELL}, {', '.join(columns)} FROM {BOUNDED} GROUP BY ALL"  # noqa: S608 -- rule 1
    if in_any:
        return each
    order = f"row_number() OVER (PARTITION BY {VEHICLE} ORDER BY {FIRST}, {CELL})"
    return f"SELECT * FROM ({each}) QUALIFY {order} <= {spec.groups_per_vehicle}"  # noqa: S608 -- rule 1


def sums(spec: QuerySpec, source: str) -> str:
    """Select, for each cell that has any, its number, its vehicles, and for each primitive its sum and two largest."""
    count = len(primitives(spec))
    columns = "".join(f", sum(a{i}), max(b{i}, 2)" for i in range(count))
    return f"SELECT {CELL}, count(*){columns} FROM {source} GROUP BY {CELL}"  # noqa: S608 -- rule 1


def bins(spec: QuerySpec, primitive: Primitive, source: str) -> str:
    """Select cell, bin and rows of a histogram, over what counts of the vehicles and cells in `source`."""
    measure = _measure(spec, primitive)
    span = measure.high - measure.low + 1
    number = f"(({_clamped(measure)}) - {measure.low}) * {primitive.width} // {span}"
    return (
        f"SELECT {CELL}, {number} AS bin, count(*) FROM {BOUNDED} SEMI JOIN {source} USING ({VEHICLE}, {CELL})"  # noqa: S608 -- rule 1
        f" WHERE {_name(measure)} IS NOT NULL GROUP BY ALL"
    )


def _added(spec: QuerySpec, primitive: Primitive) -> tuple[str, str]:
    if primitive.kind is PrimitiveKind.VEHICLES:
        return "1", "1"
    if primitive.kind is PrimitiveKind.ROWS:
        return "count(*)", "count(*)"
    measure = _measure(spec, primitive)
    if primitive.kind in {PrimitiveKind.COUNT, PrimitiveKind.BINS}:
        return f"count({_name(measure)})", f"count({_name(measure)})"
    clamped = _clamped(measure)
    centred = f"(({clamped}) - {(measure.low + measure.high) // 2})"
    if primitive.kind is PrimitiveKind.SQUARES:
        squares = f"coalesce(sum({centred}::BIGINT * {centred}), 0)::BIGINT"
        return squares, squares
    return f"coalesce(sum({centred}), 0)::BIGINT", f"abs(coalesce(sum({clamped}), 0))::BIGINT"


def _measure(spec: QuerySpec, primitive: Primitive) -> Measure:
    measure = TABLES[spec.table].measure(primitive.measure or "")
    if measure is None:
        raise AssertionError("a question's measures are the catalogue's")
    return measure


def _clamped(measure: Measure) -> str:
    """Write a measure's clamped value; null stays null, which `least` and `greatest` would pass over."""
    name, low, high = _name(measure), measure.low, measure.high
    return f"CASE WHEN {name} < {low} THEN {low} WHEN {name} > {high} THEN {high} ELSE {name} END"


def _condition(spec: QuerySpec, condition: Condition, words: Words) -> str:
    table = TABLES[spec.table]
    if (dimension := table.dimension(condition.column)) is not None:
        numbers = [number for number, word in enumerate(words[dimension.name]) if word in condition.values]
        return f"{_name(dimension)} IN ({', '.join(map(str, numbers))})" if numbers else "FALSE"
    measure = table.measure(condition.column)
    if measure is None:
        raise AssertionError("a question's columns are the catalogue's")
    name = _name(measure)
    # The condition is on the clamped value: a bound at the measure's own is fulfilled by every row with a value.
    bounds = [f"{name} IS NOT NULL"]
    if condition.low is not None and condition.low > measure.low:
        bounds.append(f"{name} >= {int(condition.low)}")
    if condition.high is not None and condition.high < measure.high:
        bounds.append(f"{name} <= {int(condition.high)}")
    return " AND ".join(bounds)


def _cell(spec: QuerySpec, words: Words) -> str:
    """Write the number of a row's cell, null where it has none: values in the order of `QuerySpec.cells`."""
    cell = "0"
    for name in spec.group_by:
        dimension = TABLES[spec.table].dimension(name)
        if dimension is None:
            raise AssertionError("a question's groups are the catalogue's")
        allowed = next((c.values for c in spec.where if c.column == name), dimension.values)
        values = [value for value in dimension.values if value in allowed]
        places = [(number, values.index(word)) for number, word in enumerate(words[name]) if word in values]
        cases = " ".join(f"WHEN {number} THEN {place}" for number, place in places) or "WHEN NULL THEN NULL"
        cell = f"({cell}) * {len(values)} + CASE {_name(dimension)} {cases} END"
    return f"({cell})::INTEGER"


def _name(column: Dimension | Measure) -> str:
    if not column.name.isidentifier():
        raise AssertionError("names of the catalogue are identifiers")
    return f'"{column.name}"'
