"""From a question's specification to SQL for the engine: the catalogue's names and whole numbers, nothing else.

Rules:
1. A name in a statement is the catalogue's own, found by the question's. Numbers are whole. There is no text: the
   engine sees vehicles and cells as numbers (`analytics.choosing`).
2. What is added up has been bounded before (`analytics.shares`), but for the cells of a vehicle that counts in fewer
   than it may touch: `ranked` keeps the first ones. A row without a value counts nowhere in a measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.analytics.stored import VEHICLE
from isthmus.contracts.queries import PrimitiveKind, primitives
from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from isthmus.contracts.queries import Primitive, QuerySpec
    from isthmus.contracts.tables import Measure

SHARES = "shares"
"""What vehicles' shares of cells are called in statements."""
COUNTED = "counted"
"""What those of them are called that count."""
CELL = "cell"
ROWS = "rows_held"
FIRST = "first_draw"


def measures_of(spec: QuerySpec) -> tuple[Measure, ...]:
    """Return the measures that are added up, by name, each once."""
    names = {p.measure for p in primitives(spec) if p.measure is not None}
    return tuple(m for m in TABLES[spec.table].measures if m.name in names)


def in_any_cell(spec: QuerySpec) -> bool:
    """Tell whether a vehicle counts in every cell that its rows are in."""
    return spec.groups_per_vehicle >= min(spec.domain_size(), spec.rows_per_vehicle)


def rows_that_matter(spec: QuerySpec) -> int:
    """Return how many rows of a vehicle decide what it adds, its first by draw: one where it alone is counted."""
    one_cell, kinds = spec.domain_size() == 1, {p.kind for p in primitives(spec)}
    return 1 if one_cell and kinds == {PrimitiveKind.VEHICLES} else spec.rows_per_vehicle


def ranked(spec: QuerySpec) -> str:
    """Select the shares that count: of each vehicle those of as many cells as it may touch, by its rows' draws."""
    order = f"row_number() OVER (PARTITION BY {VEHICLE} ORDER BY {FIRST}, {CELL})"
    return f"SELECT * FROM {SHARES} QUALIFY {order} <= {spec.groups_per_vehicle}"  # noqa: S608 -- rule 1


def vehicles() -> str:
    """Select how many vehicles have shares that count."""
    return f"SELECT count(DISTINCT {VEHICLE}) FROM {COUNTED}"  # noqa: S608 -- rule 1


def sums(spec: QuerySpec) -> str:
    """Select, for each cell that has any, its number, its vehicles, and for each primitive its sum and two largest.

    A share adds `a<i>` to primitive i (to bins, its rows with a value), and weighs `b<i>` for the dominance rules.
    """
    columns, each = "", ""
    for number, primitive in enumerate(primitives(spec)):
        added, weighed = _added(spec, primitive)
        each += f", {added} AS a{number}, {weighed} AS b{number}"
        columns += f", sum(a{number}), max(b{number}, 2)"
    return f"SELECT {CELL}, count(*){columns} FROM (SELECT {CELL}{each} FROM {COUNTED}) GROUP BY {CELL}"  # noqa: S608 -- rule 1


def bins(spec: QuerySpec, primitive: Primitive) -> str:
    """Select cell, bin and rows of a histogram."""
    measure = _measure(spec, primitive)
    number = f"(value - {measure.low}) * {primitive.width} // {measure.high - measure.low + 1}"
    values = f"SELECT {CELL}, unnest({_name(measure)}) AS value FROM {COUNTED}"  # noqa: S608 -- rule 1
    return f"SELECT {CELL}, {number} AS bin, count(*) FROM ({values}) WHERE value IS NOT NULL GROUP BY ALL"  # noqa: S608 -- rule 1


def _added(spec: QuerySpec, primitive: Primitive) -> tuple[str, str]:
    if primitive.kind is PrimitiveKind.VEHICLES:
        return "1", "1"
    if primitive.kind is PrimitiveKind.ROWS:
        return ROWS, ROWS
    measure = _measure(spec, primitive)
    name, centre = _name(measure), (measure.low + measure.high) // 2
    count = f"list_count({name})" if measure.optional else ROWS
    if primitive.kind in {PrimitiveKind.COUNT, PrimitiveKind.BINS}:
        return count, count
    if primitive.kind is PrimitiveKind.SQUARES:
        squares = f"coalesce(list_sum([(v - {centre})::BIGINT * (v - {centre}) FOR v IN {name}]), 0)::BIGINT"
        return squares, squares
    total = f"coalesce(list_sum({name}), 0)::BIGINT"
    return f"{total} - {centre} * {count}", f"abs({total})"


def _measure(spec: QuerySpec, primitive: Primitive) -> Measure:
    measure = TABLES[spec.table].measure(primitive.measure or "")
    if measure is None:
        raise AssertionError("a question's measures are the catalogue's")
    return measure


def _name(column: Measure) -> str:
    if not column.name.isidentifier():
        raise AssertionError("names of the catalogue are identifiers")
    return f'"{column.name}"'
