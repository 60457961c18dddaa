"""From stored rows to the exact, bounded sums that compute hands its border.

    stored tables --candidates--> each vehicle's first rows --shares--> what it adds to each cell --engine--> Partials

Rules:
1. Of one vehicle, at most `rows_per_vehicle` rows count, over all cells, in at most `groups_per_vehicle` cells; each
   value is clamped. That holds whatever the rows are.
2. Which of a vehicle's rows count is decided by that vehicle's rows alone (by their draws), so a vehicle more or less
   changes nothing of another's part. The order of tables and rows plays no part.
3. Every cell of the question is there, in one order; an empty one holds zeros.

Whose rows count, and how much a vehicle adds, is decided here, over rows as they stand (`analytics.choosing`, `firsts`,
`shares`); the engine adds up.

Work can be shared out: `bounded` of each part of the tables, then `summed` of all its results, is what `partials` of
all tables is, however the tables are divided.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isthmus.analytics import statements
from isthmus.analytics.choosing import Candidates, chosen_schema, columns_read, guessed_limit
from isthmus.analytics.engine import opened
from isthmus.analytics.firsts import are_first
from isthmus.analytics.numbering import CORES, Blocks, rows_of
from isthmus.analytics.shares import shares_of
from isthmus.analytics.stored import TEXT, VEHICLE, in_schema
from isthmus.contracts.queries import CellPartial, Partials, PrimitiveKind, primitives
from isthmus.contracts.tables import TABLES
from isthmus.proof.ids import question_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from isthmus.analytics.engine import Engine
    from isthmus.analytics.numbering import Numbers
    from isthmus.contracts.queries import QuerySpec


def partials(spec: QuerySpec, tables: Sequence[pa.Table]) -> Partials:
    """Return a question's exact sums over stored tables (`analytics.stored`), bounded per vehicle.

    Args:
        spec: the question.
        tables: rows of its table, in any number of parts; a vehicle may have rows in several.

    Raises:
        Refusal: `SCHEMA_MISMATCH`: a table is not of the question's kind.
        Fault: `COMPUTE_FAILED`: too long, or too much memory.
    """
    return _summed(spec, _stored(spec, tables))


def bounded(spec: QuerySpec, tables: Sequence[pa.Table]) -> pa.Table:
    """Return, of some of the stored tables, the rows that can count: a vehicle's first ones. Raises as `partials`.

    Returns:
        Columns `VEHICLE`, `DRAW`, `CELL` and the measures that the question adds up, as stored.
    """
    stored = _stored(spec, tables)
    rows = pa.concat_tables(_of_each_vehicle(spec, stored, lambda rows: rows))
    named = pa.DictionaryArray.from_arrays(rows.column(VEHICLE).combine_chunks(), stored.vehicles)
    return rows.set_column(0, VEHICLE, named)


def summed(spec: QuerySpec, parts: Sequence[pa.Table]) -> Partials:
    """Return a question's sums over what `bounded` returned for each part of its tables. Raises as `partials`."""
    none = chosen_schema(spec).set(0, pa.field(VEHICLE, TEXT)).empty_table()
    return _summed(spec, Blocks.of(pa.concat_tables([none, *parts]), len(parts)))


def rows_that_count(spec: QuerySpec, sums: Partials) -> int | None:
    """Return how many rows are behind the sums, None where the question does not count them."""
    kinds = [p.kind for p in primitives(spec)]
    if PrimitiveKind.ROWS not in kinds:
        return None
    place = kinds.index(PrimitiveKind.ROWS)
    return sum(cell.values[place][0] for cell in sums.cells)


def _stored(spec: QuerySpec, tables: Sequence[pa.Table]) -> Blocks:
    """Return stored tables' rows, with the columns that the question reads."""
    return Blocks.of(in_schema(tables, TABLES[spec.table]).select(columns_read(spec)), len(tables))


def _of_each_vehicle(spec: QuerySpec, stored: Blocks, made: Callable[[pa.Table], pa.Table]) -> list[pa.Table]:
    """Return what is made of the rows that count: of some vehicles after the others, on all cores."""
    with ThreadPoolExecutor(CORES) as pool:
        found = _candidates(spec, stored, pool)
        edges = np.linspace(0, len(stored.vehicles), CORES + 1).astype(int).tolist()
        return list(pool.map(lambda start, end: made(_rows(spec, found, start, end)), edges[:-1], edges[1:]))


def _candidates(spec: QuerySpec, stored: Blocks, pool: ThreadPoolExecutor) -> list[Candidates]:
    """Return the rows of blocks that can count.

    Where files share vehicles, most of the first rows of each are not among a vehicle's first of all. So rows are
    looked for within a limit of draws, and then all those of vehicles that have too few within it.
    """
    vehicles, each = len(stored.vehicles), (stored.blocks, stored.numbers)
    limit = guessed_limit(spec, stored)
    found = list(pool.map(lambda block, numbers: Candidates.of(spec, block, numbers, limit), *each))
    if limit is not None:
        rows = sum(pool.map(lambda part: np.bincount(part.vehicle, minlength=vehicles), found), np.zeros(vehicles))
        few = rows < statements.rows_that_matter(spec)
        found += pool.map(lambda block, numbers: _beyond(spec, block, numbers, few, limit), *each)
    return found


def _beyond(spec: QuerySpec, block: pa.RecordBatch, numbers: Numbers, few: NDArray[np.bool_], limit: int) -> Candidates:
    """Return the rows of some vehicles that can count and are beyond a limit."""
    rows = block.take(pa.array(rows_of(block, few if numbers is None else few.take(numbers))))
    found = Candidates.of(spec, rows, numbers)
    return found.those(np.flatnonzero(found.draw > limit))


def _rows(spec: QuerySpec, found: Sequence[Candidates], start: int, end: int) -> pa.Table:
    """Return the rows that count of vehicles whose numbers are in [start, end)."""
    mine = [part for each in found if len((part := each.between(start, end)).rows)]
    if mine:
        vehicle = np.concatenate([each.vehicle for each in mine])
        vehicle -= np.int32(start)
        draw = np.concatenate([each.draw for each in mine])
        first = are_first(vehicle, draw, statements.rows_that_matter(spec))
        if not first.all():
            ends = np.cumsum([len(each.rows) for each in mine])[:-1]
            apart = zip(mine, np.split(first, ends), strict=True)
            mine = [each if these.all() else each.those(np.flatnonzero(these)) for each, these in apart]
    return pa.Table.from_batches([each.read(spec) for each in mine], chosen_schema(spec))


def _summed(spec: QuerySpec, stored: Blocks) -> Partials:
    """Have the engine add up the shares of vehicles whose rows these are."""
    shares = pa.concat_tables(_of_each_vehicle(spec, stored, partial(shares_of, spec)))
    with opened() as engine:
        if not statements.in_any_cell(spec):
            engine.show(statements.SHARES, shares)
            shares = engine.table(statements.ranked(spec))
        engine.show(statements.COUNTED, shares)
        cells = _cells(spec, engine)
        vehicles = cells[0].vehicles if len(cells) == 1 else engine.run(statements.vehicles())[0][0]
    return Partials(version=1, question=question_digest(spec), vehicles=vehicles, cells=cells)


def _cells(spec: QuerySpec, engine: Engine) -> tuple[CellPartial, ...]:
    wanted = primitives(spec)
    found = {row[0]: row[1:] for row in engine.run(statements.sums(spec))}
    histograms = {
        number: _histogram(engine.run(statements.bins(spec, primitive)))
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
