"""Which stored rows can count: those that fulfil the conditions, and of each vehicle the first by draw.

Rules:
1. A row outside the question's domain, or that fails a condition, does not count. A measure's condition is on its
   clamped value; a row without a value fails it.
2. Of the rows of a block that fulfil the conditions, a vehicle's first by draw can count: no row is left out that has
   fewer than `rows_that_matter` of its vehicle before it.
3. A block's choice is not the last word: vehicles have rows in other blocks and files (`analytics.firsts`).

Stored rows stand by vehicle and draw, so they are compared with their neighbours as they stand. That is looked at, not
believed: of rows that stand otherwise, the first are found as those of several files are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isthmus.analytics.firsts import are_first
from isthmus.analytics.statements import CELL, measures_of, rows_that_matter
from isthmus.analytics.stored import DRAW, PLACE, VEHICLE
from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from isthmus.analytics.numbering import Blocks
    from isthmus.contracts.queries import Condition, QuerySpec
    from isthmus.contracts.tables import Dimension

    Ints = NDArray[np.int64]

SAMPLE = 1 << 14
"""Rows of which a limit is guessed."""
ENOUGH = 0.6
"""Where a limit leaves more of the rows that can count, looking for those beyond it costs as much."""


def columns_read(spec: QuerySpec) -> list[str]:
    """Return the stored columns that a question needs."""
    table = TABLES[spec.table]
    named = {*spec.group_by, *(c.column for c in spec.where), *(m.name for m in measures_of(spec))}
    columns = [*(d.name for d in table.dimensions), *(m.name for m in table.measures)]
    return [VEHICLE, DRAW, PLACE, *(name for name in columns if name in named)]


def chosen_schema(spec: QuerySpec) -> pa.Schema:
    """Return the schema of chosen rows: a vehicle's number, `DRAW`, `CELL`, and the measures that are added up."""
    names = [(m.name, pa.int32()) for m in measures_of(spec)]
    return pa.schema([(VEHICLE, pa.int32()), (DRAW, pa.int64()), (CELL, pa.int32()), *names])


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of a block that can count, by vehicle.

    Attributes:
        block: stored rows, with `columns_read`; or rows that have been chosen before, with those of `chosen_schema`.
        rows: their places in it.
        vehicle: the vehicle's number of each, which never falls.
        draw: of each.
    """

    block: pa.RecordBatch
    rows: Ints
    vehicle: NDArray[np.int32]
    draw: Ints

    @classmethod
    def of(
        cls, spec: QuerySpec, block: pa.RecordBatch, numbers: NDArray[np.int32] | None, limit: int | None = None
    ) -> Candidates:
        """Choose rows of a block.

        Args:
            spec: the question.
            block: as above.
            numbers: the vehicles' numbers by their places in the block's dictionary, None where they are these.
            limit: only rows whose draw is at most this are looked at.
        """
        rows = _fulfilled(spec, block, limit)
        vehicle, draw = _numbers(block, VEHICLE).take(rows), block.column(DRAW).to_numpy().take(rows)
        found = cls(block, rows, vehicle if numbers is None else numbers.take(vehicle), draw)
        most = rows_that_matter(spec)
        return found._first(most) if found._is_in_order() else found._sorted_out(most)

    def _is_in_order(self) -> bool:
        same = self.vehicle[1:] == self.vehicle[:-1]
        falls = (self.vehicle[1:] < self.vehicle[:-1]).any() or (same & (self.draw[1:] < self.draw[:-1])).any()
        return not falls

    def _sorted_out(self, most: int) -> Candidates:
        first = self.those(np.flatnonzero(are_first(self.vehicle, self.draw, most)))
        return first.those(np.argsort(first.vehicle, kind="stable"))

    def _first(self, most: int) -> Candidates:
        after = self.vehicle[most:] == self.vehicle[:-most]
        if not after.any():
            return self
        first = np.ones(len(self.rows), np.bool_)
        first[most:] = ~after
        return self.those(np.flatnonzero(first))

    def between(self, start: int, end: int) -> Candidates:
        """Return those of vehicles whose numbers are in [start, end)."""
        these = slice(*np.searchsorted(self.vehicle, (start, end)).tolist())
        return Candidates(self.block, self.rows[these], self.vehicle[these], self.draw[these])

    def those(self, places: Ints) -> Candidates:
        """Return some of them."""
        rows, vehicle, draw = self.rows.take(places), self.vehicle.take(places), self.draw.take(places)
        return Candidates(self.block, rows, vehicle, draw)

    def read(self, spec: QuerySpec) -> pa.RecordBatch:
        """Return them as the columns of `chosen_schema`; measures as stored."""
        schema, places = chosen_schema(spec), pa.array(self.rows)
        measures = [self.block.column(name).take(places) for name in schema.names[3:]]
        return pa.record_batch([self.vehicle, self.draw, _cells(spec, self.block, self.rows), *measures], schema=schema)


def _fulfilled(spec: QuerySpec, block: pa.RecordBatch, limit: int | None) -> Ints:
    """Return the places of rows that fulfil all that the question asks of a row, and whose draw is within a limit.

    Where there are no conditions, a row that is not among the first of its file (`PLACE`) cannot be among its
    vehicle's first of all.
    """
    asked = list(_held(spec, block))
    if not spec.where and PLACE in block.schema.names:
        asked.append(block.column(PLACE).to_numpy() < rows_that_matter(spec))
    if limit is not None:
        asked.append(block.column(DRAW).to_numpy() <= limit)
    if not asked:
        return np.arange(block.num_rows)
    fulfilled, *others = asked
    for other in others:
        fulfilled &= other
    return np.flatnonzero(fulfilled)


def guessed_limit(spec: QuerySpec, stored: Blocks) -> int | None:
    """Guess a draw within which nearly every vehicle has as many rows as are taken; None where it would spare little.

    A guess: draws are hashes, so the rows of a sample tell about the others. Who uses it looks at what is left.
    """
    if stored.files < 2 or not stored.blocks:  # noqa: PLR2004 -- of one file, each vehicle's first rows are known
        return None
    sample = max(stored.blocks, key=lambda block: block.num_rows).slice(0, SAMPLE)
    held = float(np.prod([each.mean() for each in _held(spec, sample)]))
    rows = held * sum(block.num_rows for block in stored.blocks) / len(stored.vehicles)
    most = rows_that_matter(spec)
    wanted = most + 3 * math.sqrt(most)
    if wanted > ENOUGH * min(rows, most * stored.files):
        return None
    return int(np.quantile(sample.column(DRAW).to_numpy(), wanted / rows, method="lower"))


def _held(spec: QuerySpec, block: pa.RecordBatch) -> Iterator[NDArray[np.bool_]]:
    """Yield, for each thing that the question asks of a row, which rows fulfil it; nothing of rows chosen before."""
    if CELL in block.schema.names:
        return
    table = TABLES[spec.table]
    for dimension in table.dimensions:
        allowed = _allowed(spec, dimension)
        if dimension.name in spec.group_by or len(allowed) < len(dimension.values):
            words = block.column(dimension.name).dictionary.to_pylist()
            if not set(words) <= set(allowed):
                yield _one_of(_numbers(block, dimension.name), [n for n, word in enumerate(words) if word in allowed])
    for condition in spec.where:
        if table.measure(condition.column) is not None:
            yield from _within(spec, condition, block)


def _allowed(spec: QuerySpec, dimension: Dimension) -> list[str]:
    """Return the values of a dimension that conditions allow, in the order of `QuerySpec.cells`."""
    allowed = next((c.values for c in spec.where if c.column == dimension.name), dimension.values)
    return [value for value in dimension.values if value in allowed]


def _one_of(numbers: NDArray[np.int32], allowed: list[int]) -> NDArray[np.bool_]:
    if not allowed:
        return np.zeros(len(numbers), np.bool_)
    first, *others = allowed
    found: NDArray[np.bool_] = numbers == first
    for number in others:
        found |= numbers == number
    return found


def _within(spec: QuerySpec, condition: Condition, block: pa.RecordBatch) -> Iterator[NDArray[np.bool_]]:
    measure = TABLES[spec.table].measure(condition.column)
    if measure is None:
        raise AssertionError("a question's columns are the catalogue's")
    values, column = _numbers(block, measure.name), block.column(measure.name)
    if column.null_count:
        yield column.is_valid().to_numpy(zero_copy_only=False)
    # The condition is on the clamped value: a bound at the measure's own is fulfilled by every row with a value.
    if condition.low is not None and condition.low > measure.low:
        yield values >= condition.low
    if condition.high is not None and condition.high < measure.high:
        yield values <= condition.high


def _cells(spec: QuerySpec, block: pa.RecordBatch, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the numbers of rows' cells: values in the order of `QuerySpec.cells`."""
    if CELL in block.schema.names:
        return _numbers(block, CELL).take(rows)
    cell = np.zeros(len(rows), np.int32)
    for name in spec.group_by:
        dimension = TABLES[spec.table].dimension(name)
        if dimension is None:
            raise AssertionError("a question's groups are the catalogue's")
        values = _allowed(spec, dimension)
        words = block.column(name).dictionary.to_pylist()
        places = np.array([values.index(word) if word in values else -1 for word in words], np.int32)
        cell = cell * np.int32(len(values)) + places[_numbers(block, name)[rows]]
    return cell


def _numbers(block: pa.RecordBatch, name: str) -> NDArray[np.int32]:
    """Return a column's numbers as they lie in memory: words' places in their dictionary, measures; nulls are any."""
    column = block.column(name)
    if isinstance(column, pa.DictionaryArray):
        column = column.indices
    width = np.dtype(np.int32).itemsize
    return np.frombuffer(column.buffers()[1], np.int32, len(column), column.offset * width)
