"""From stored rows to the exact, bounded sums that compute hands its border.

    stored tables --bounded--> rows that count --summed--> Partials

Rules:
1. Of one vehicle, at most `rows_per_vehicle` rows count, over all cells, in at most `groups_per_vehicle` cells; each
   value is clamped. That holds whatever the rows are.
2. Which of a vehicle's rows count is decided by that vehicle's rows alone (by their draws), so a vehicle more or less
   changes nothing of another's part. The order of tables and rows plays no part.
3. Every cell of the question is there, in one order; an empty one holds zeros.

Work can be shared out: `bounded` of each part of the tables, then `summed` of all its results, is what `partials` of
all tables is, however the tables are divided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isthmus.analytics import statements
from isthmus.analytics.engine import opened
from isthmus.analytics.statements import BOUNDED, CELL, MATCHING, STORED
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


def partials(spec: QuerySpec, tables: Sequence[pa.Table]) -> Partials:
    """Return a question's exact sums over stored tables (`analytics.stored`), bounded per vehicle.

    Args:
        spec: the question.
        tables: rows of its table, in any number of parts; a vehicle may have rows in several.

    Raises:
        Refusal: `SCHEMA_MISMATCH`: a table is not of the question's kind.
        Fault: `COMPUTE_FAILED`: too long, or too much memory.
    """
    with opened() as engine:
        return _summed(spec, _bounded(spec, _stored(spec, tables), engine), engine)


def bounded(spec: QuerySpec, tables: Sequence[pa.Table]) -> pa.Table:
    """Return, of some of the stored tables, the rows that can count: a vehicle's first ones. Raises as `partials`.

    Returns:
        Columns `VEHICLE`, `DRAW`, `CELL` and the measures that the question adds up, as stored.
    """
    together = _stored(spec, tables)
    with opened() as engine:
        rows = _bounded(spec, together, engine)
    words = pa.array(_words(together.column(VEHICLE)), pa.string())
    named = pa.DictionaryArray.from_arrays(rows.column(VEHICLE).combine_chunks(), words)
    return rows.set_column(0, VEHICLE, named)


def summed(spec: QuerySpec, parts: Sequence[pa.Table]) -> Partials:
    """Return a question's sums over what `bounded` returned for each part of its tables. Raises as `partials`."""
    together = pa.concat_tables(parts) if parts else _nothing_bounded(spec)
    with opened() as engine:
        return _summed(spec, _first_rows(spec, _coded(together.unify_dictionaries()), engine), engine)


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
    return pa.concat_tables(whole).select(statements.columns_read(spec)).unify_dictionaries()


def _coded(table: pa.Table) -> pa.Table:
    """Put numbers in the place of words: the engine tells vehicles and groups apart by them, and much faster."""
    columns = [
        pa.chunked_array([chunk.indices for chunk in column.chunks], pa.int32()) if column.type == TEXT else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _words(column: pa.ChunkedArray) -> list[str]:
    """Return the words of a text column's one dictionary."""
    return list(column.chunk(0).dictionary.to_pylist()) if column.num_chunks else []


def _bounded(spec: QuerySpec, together: pa.Table, engine: Engine) -> pa.Table:
    """Return the rows that count, with numbers for vehicles."""
    named = [d.name for d in TABLES[spec.table].dimensions if d.name in together.column_names]
    words = {name: _words(together.column(name)) for name in named}
    engine.show(STORED, _coded(together))
    return _first_rows(spec, engine.table(statements.matching_rows(spec, words)), engine)


def _nothing_bounded(spec: QuerySpec) -> pa.Table:
    names = [(m.name, pa.int32()) for m in statements.measures_of(spec)]
    return pa.schema([(VEHICLE, TEXT), (DRAW, pa.int64()), (CELL, pa.int32()), *names]).empty_table()


def _first_rows(spec: QuerySpec, rows: pa.Table, engine: Engine) -> pa.Table:
    """Return each vehicle's first rows by draw. Sorting is left to where it is needed: stored rows stand in order."""
    possible = may_be_first(rows, spec.rows_per_vehicle)
    if not possible.all():
        rows = rows.filter(pa.array(possible))
    engine.show(MATCHING, rows)
    ((most,),) = engine.run(statements.most_rows(MATCHING))
    if most is not None and most > spec.rows_per_vehicle:
        return engine.table(statements.first_rows(spec, MATCHING))
    return rows


def may_be_first(rows: pa.Table, most: int) -> NDArray[np.bool_]:
    """Tell which rows can be among their vehicle's first `most`, by draw.

    In a run of rows of one vehicle whose draws rise, only the first `most` can be. Where draws do not rise, any can.
    """
    vehicle, draw = rows.column(VEHICLE).to_numpy(), rows.column(DRAW).to_numpy()
    begins = np.flatnonzero(np.diff(vehicle, prepend=-1))
    if (draw[1:] < draw[:-1]).sum() > np.count_nonzero(draw[begins[1:]] < draw[begins[1:] - 1]):
        return np.ones(len(vehicle), np.bool_)
    lengths = np.diff(begins, append=len(vehicle))
    return np.arange(len(vehicle)) - np.repeat(begins, lengths) < most


def _summed(spec: QuerySpec, rows: pa.Table, engine: Engine) -> Partials:
    """Add up the rows that count."""
    wanted = primitives(spec)
    engine.show(BOUNDED, rows)
    engine.run(f"CREATE TEMP TABLE {EACH} AS {statements.contributions(spec)}")
    found = {row[0]: row[1:] for row in engine.run(statements.sums(spec, EACH))}
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
    ((vehicles,),) = engine.run(f"SELECT count(DISTINCT {VEHICLE}) FROM {EACH}")  # noqa: S608 -- constants
    return Partials(version=1, question=question_digest(spec), vehicles=vehicles, cells=tuple(cells))


def _histogram(rows: list[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    return {(cell, place): count for cell, place, count in rows}


def _two(largest: list[int]) -> tuple[int, int]:
    first, second, *_ = (*map(int, largest), 0, 0)
    return first, second
