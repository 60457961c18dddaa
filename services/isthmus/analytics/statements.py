"""From a question's specification to SQL for the engine: the catalogue's names and whole numbers, nothing else.

Rules:
1. A name in a statement is the catalogue's own, found by the question's. Numbers are whole. There is no text: the
   engine sees vehicles and cells as numbers (`analytics.choosing`).
2. A measure counts clamped to its bounds; a row without a value counts nowhere in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.analytics.stored import DRAW, VEHICLE
from isthmus.contracts.queries import PrimitiveKind, primitives
from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from isthmus.contracts.queries import Primitive, QuerySpec
    from isthmus.contracts.tables import Measure

BOUNDED = "bounded"
"""What the rows that count are called in statements."""
CELL = "cell"
FIRST = "first_draw"


def measures_of(spec: QuerySpec) -> tuple[Measure, ...]:
    """Return the measures that are added up, by name, each once."""
    names = {p.measure for p in primitives(spec) if p.measure is not None}
    return tuple(m for m in TABLES[spec.table].measures if m.name in names)


def in_any_cell(spec: QuerySpec) -> bool:
    """Tell whether a vehicle counts in every cell that its rows are in."""
    return spec.groups_per_vehicle >= min(spec.domain_size(), spec.rows_per_vehicle)


def contributions(spec: QuerySpec) -> str:
    """Select what each vehicle adds to each cell: `VEHICLE`, `CELL`, then two columns for each primitive.

    `a<i>` is what it adds to primitive i (to bins, its rows with a value), `b<i>` that for the dominance rules. A
    vehicle counts in as many cells as it may: in those of its first rows.
    """
    columns = []
    for number, primitive in enumerate(primitives(spec)):
        added, weighed = _added(spec, primitive)
        columns.append(f"{added} AS a{number}, {weighed} AS b{number}")
    in_any = in_any_cell(spec)
    if not in_any:
        columns.append(f"min({DRAW}) AS {FIRST}")
    cell = CELL if spec.domain_size() > 1 else f"0 AS {CELL}"
    each = f"SELECT {VEHICLE}, {cell}, {', '.join(columns)} FROM {BOUNDED} GROUP BY ALL"  # noqa: S608 -- rule 1
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
    centre = (measure.low + measure.high) // 2
    if primitive.kind is PrimitiveKind.SQUARES:
        centred = f"(({clamped}) - {centre})"
        squares = f"coalesce(sum({centred}::BIGINT * {centred}), 0)::BIGINT"
        return squares, squares
    total = f"coalesce(sum({clamped}), 0)"
    return f"({total} - {centre} * count({_name(measure)}))::BIGINT", f"abs({total})::BIGINT"


def _measure(spec: QuerySpec, primitive: Primitive) -> Measure:
    measure = TABLES[spec.table].measure(primitive.measure or "")
    if measure is None:
        raise AssertionError("a question's measures are the catalogue's")
    return measure


def _clamped(measure: Measure) -> str:
    """Write a measure's clamped value; null stays null, which `least` and `greatest` would pass over."""
    name, low, high = _name(measure), measure.low, measure.high
    return f"CASE WHEN {name} < {low} THEN {low} WHEN {name} > {high} THEN {high} ELSE {name} END"


def _name(column: Measure) -> str:
    if not column.name.isidentifier():
        raise AssertionError("names of the catalogue are identifiers")
    return f'"{column.name}"'
