"""From stored rows to the exact, bounded sums that compute hands its border.

    stored tables --chosen_rows, bounded--> rows that count --summed--> Partials

Rules:
1. Of one vehicle, at most `rows_per_vehicle` rows count, over all cells, in at most `groups_per_vehicle` cells; each
   value is clamped. That holds whatever the rows are.
2. Which of a vehicle's rows count is decided by that vehicle's rows alone (by their draws), so a vehicle more or less
   changes nothing of another's part. The order of tables and rows plays no part.
3. Every cell of the question is there, in one order; an empty one holds zeros.

Rows are looked at with numpy, as they stand or once they do; what is left for the engine is to rank the cells of a
vehicle that counts in fewer than it may touch.

Work can be shared out: `bounded` of each part of the tables, then `summed` of all its results, is what `partials` of
all tables is, however the tables are divided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isthmus.analytics import runs, statements
from isthmus.analytics.choosing import chosen_rows, chosen_schema, columns_read, first_rows, rise
from isthmus.analytics.engine import opened
from isthmus.analytics.firsts import first_of_all
from isthmus.analytics.statements import BOUNDED
from isthmus.analytics.stored import DRAW, TEXT, VEHICLE, in_schema, schema_of
from isthmus.contracts.queries import CellPartial, Partials, PrimitiveKind, primitives
from isthmus.contracts.tables import TABLES
from isthmus.proof.ids import question_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from isthmus.analytics.engine import Engine
    from isthmus.contracts.queries import QuerySpec

EACH = "each_vehicle"
"""What a vehicle adds to a cell, in statements."""
FEW_RUNS = 1_000


def partials(spec: QuerySpec, tables: Sequence[pa.Table]) -> Partials:
    """Return a question's exact sums over stored tables (`analytics.stored`), bounded per vehicle.

    Args:
        spec: the question.
        tables: rows of its table, in any number of parts; a vehicle may have rows in several.

    Raises:
        Refusal: `SCHEMA_MISMATCH`: a table is not of the question's kind.
        Fault: `COMPUTE_FAILED`: too long, or too much memory.
    """
    return _summed(spec, _first(spec, chosen_rows(spec, _stored(spec, tables))))


def bounded(spec: QuerySpec, tables: Sequence[pa.Table]) -> pa.Table:
    """Return, of some of the stored tables, the rows that can count: a vehicle's first ones. Raises as `partials`.

    Returns:
        Columns `VEHICLE`, `DRAW`, `CELL` and the measures that the question adds up, as stored.
    """
    together = _stored(spec, tables)
    rows = _first(spec, chosen_rows(spec, together))
    vehicles = together.column(VEHICLE)
    words = vehicles.chunk(0).dictionary if vehicles.num_chunks else pa.array([], pa.string())
    named = pa.DictionaryArray.from_arrays(rows.column(VEHICLE).combine_chunks(), words)
    return rows.set_column(0, VEHICLE, named)


def summed(spec: QuerySpec, parts: Sequence[pa.Table]) -> Partials:
    """Return a question's sums over what `bounded` returned for each part of its tables. Raises as `partials`."""
    together = pa.concat_tables(parts).unify_dictionaries() if parts else _nothing_bounded(spec)
    numbers = [chunk.indices for chunk in together.column(VEHICLE).chunks]
    rows = together.set_column(0, VEHICLE, pa.chunked_array(numbers, pa.int32()))
    return _summed(spec, _first(spec, rows))


def rows_that_count(spec: QuerySpec, sums: Partials) -> int | None:
    """Return how many rows are behind the sums, None where the question does not count them."""
    kinds = [p.kind for p in primitives(spec)]
    if PrimitiveKind.ROWS not in kinds:
        return None
    place = kinds.index(PrimitiveKind.ROWS)
    return sum(cell.values[place][0] for cell in sums.cells)


def _stored(spec: QuerySpec, tables: Sequence[pa.Table]) -> pa.Table:
    """Join stored tables, with the columns that the question reads; texts have one dictionary."""
    table = TABLES[spec.table]
    whole = [in_schema(part, table) for part in tables] or [schema_of(table).empty_table()]
    return pa.concat_tables(whole).select(columns_read(spec)).unify_dictionaries()


def _nothing_bounded(spec: QuerySpec) -> pa.Table:
    _, *others = chosen_schema(spec)
    return pa.schema([(VEHICLE, TEXT), *others]).empty_table()


def _first(spec: QuerySpec, rows: pa.Table) -> pa.Table:
    """Return each vehicle's first rows by draw, vehicle by vehicle. One file's rows stand so, and are not sorted."""
    vehicle, draw = rows.column(VEHICLE).to_numpy(), rows.column(DRAW).to_numpy()
    if rise(vehicle):
        can, all_of_them = first_rows(vehicle, draw, spec.rows_per_vehicle)
        if all_of_them:
            return _those(rows, can)
    return rows.combine_chunks().take(pa.array(first_of_all(vehicle, draw, spec.rows_per_vehicle)))


def _those(rows: pa.Table, can: NDArray[np.bool_]) -> pa.Table:
    """Return some rows of a table; not a copy where they stand in few runs, as when only blocks' edges lose some."""
    edges = np.flatnonzero(np.diff(can, prepend=False, append=False))
    if len(edges) > FEW_RUNS:
        return rows.filter(pa.array(can))
    together = [rows.slice(begins, ends - begins) for begins, ends in edges.reshape(-1, 2).tolist()]
    return pa.concat_tables(together) if together else rows


def _summed(spec: QuerySpec, rows: pa.Table) -> Partials:
    """Add up the rows that count, vehicle by vehicle: as they stand, or by the engine where cells have to be ranked."""
    if statements.in_any_cell(spec):
        cells = runs.cells_of(spec, rows)
    else:
        with opened() as engine:
            cells = _by_engine(spec, rows, engine)
    # Each vehicle of a row that counts does: in that row's cell, or in those of rows before it.
    vehicles = int(np.count_nonzero(np.bincount(rows.column(VEHICLE).to_numpy())))
    return Partials(version=1, question=question_digest(spec), vehicles=vehicles, cells=cells)


def _by_engine(spec: QuerySpec, rows: pa.Table, engine: Engine) -> tuple[CellPartial, ...]:
    wanted = primitives(spec)
    engine.show(BOUNDED, rows)
    each = f"({statements.contributions(spec)})"
    if any(primitive.kind is PrimitiveKind.BINS for primitive in wanted):
        engine.run(f"CREATE TEMP TABLE {EACH} AS {each}")
        each = EACH
    found = {row[0]: row[1:] for row in engine.run(statements.sums(spec, each))}
    histograms = {
        number: _histogram(engine.run(statements.bins(spec, primitive, EACH)))
        for number, primitive in enumerate(wanted)
        if primitive.kind is PrimitiveKind.BINS
    }
    cells = []
    for cell in range(spec.domain_size()):
        vehicles, *rest = found.get(cell, (0, *([0, []] * len(wanted))))
        values = tuple(
            tuple(histograms[number].get((cell, place), 0) for place in range(primitive.width))
            if number in histograms
            else (int(rest[2 * number]),)
            for number, primitive in enumerate(wanted)
        )
        largest = tuple(_two(rest[2 * number + 1]) for number in range(len(wanted)))
        cells.append(CellPartial(vehicles=vehicles, values=values, largest=largest))
    return tuple(cells)


def _histogram(rows: list[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    return {(cell, place): count for cell, place, count in rows}


def _two(largest: list[int]) -> tuple[int, int]:
    first, second, *_ = (*map(int, largest), 0, 0)
    return first, second
