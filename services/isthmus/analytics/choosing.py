"""Which stored rows can count: those that fulfil the conditions, and of each vehicle the first by draw.

Rules:
1. A row outside the question's domain, or that fails a condition, does not count. A measure's condition is on its
   clamped value; a row without a value fails it.
2. A row is left out only where its vehicle has `rows_per_vehicle` rows that count before it, by draw: in a run of rows
   of one vehicle whose draws rise, the first ones alone can count. Where draws fall, nothing is left out here.
3. Stored rows are looked at block by block, and a block's choice is not the last word: runs go on in the next block,
   vehicles in other files. `first_rows` over what the blocks left settles it, or says that it cannot.

Rows are compared with their neighbours as they stand. An engine that may not trust their order would have to sort or
hash millions of them to find out what one look at each says.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isthmus.analytics.statements import CELL, measures_of
from isthmus.analytics.stored import DRAW, PLACE, VEHICLE
from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from isthmus.contracts.queries import Condition, QuerySpec
    from isthmus.contracts.tables import Dimension

BLOCK = 1 << 20
"""Rows looked at together, on one core: what is computed about them is small beside the table."""


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


def chosen_rows(spec: QuerySpec, stored: pa.Table, *, block: int = BLOCK) -> pa.Table:
    """Return the rows that can count, in their order: all that do, and few others.

    Args:
        spec: the question.
        stored: columns `columns_read`; texts with one dictionary each.
        block: how many rows are looked at together. What counts in the end does not depend on it.

    Returns:
        Columns of `chosen_schema`; a vehicle's number is its place in its column's dictionary.
    """
    schema = chosen_schema(spec)
    blocks = stored.to_batches(max_chunksize=block)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return pa.Table.from_batches(pool.map(partial(_chosen, spec, schema), blocks), schema)


def first_rows(vehicle: NDArray[np.int32], draw: NDArray[np.int64], most: int) -> tuple[NDArray[np.bool_], bool]:
    """Tell which rows can be among their vehicle's first `most`, by draw.

    Returns:
        For each row whether it can, and whether these are all: true where no vehicle can have more than `most` of them.
    """
    same = vehicle[1:] == vehicle[:-1]
    can = np.ones(len(vehicle), np.bool_)
    if (same & (draw[1:] < draw[:-1])).any():
        return can, False
    ordered = rise(vehicle)
    run = vehicle if ordered else np.concatenate([np.zeros(1, np.int64), np.cumsum(~same)])
    can[most:] = run[most:] != run[:-most]
    return can, ordered


def rise(vehicle: NDArray[np.int32]) -> bool:
    """Tell whether vehicles' numbers never fall: each vehicle's rows stand together."""
    return bool((vehicle[1:] >= vehicle[:-1]).all())


def _chosen(spec: QuerySpec, schema: pa.Schema, block: pa.RecordBatch) -> pa.RecordBatch:
    fulfilled: NDArray[np.bool_] | None = None
    for held in _held(spec, block):
        fulfilled = held if fulfilled is None else fulfilled & held
    rows = np.arange(block.num_rows) if fulfilled is None else np.flatnonzero(fulfilled)
    vehicle, draw = _numbers(block, VEHICLE).take(rows), block.column(DRAW).to_numpy().take(rows)
    can, _ = first_rows(vehicle, draw, spec.rows_per_vehicle)
    first = np.flatnonzero(can)
    rows = rows.take(first)
    measures = [block.column(name).take(pa.array(rows)) for name in schema.names[3:]]
    return pa.record_batch([vehicle.take(first), draw.take(first), _cells(spec, block, rows), *measures], schema=schema)


def _held(spec: QuerySpec, block: pa.RecordBatch) -> Iterator[NDArray[np.bool_]]:
    """Yield, for each thing that the question asks of a row, which rows fulfil it.

    Where there are no conditions, a row that is not among the first of its file (`PLACE`) cannot be among its
    vehicle's first of all.
    """
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
    if not spec.where:
        yield block.column(PLACE).to_numpy() < spec.rows_per_vehicle


def _allowed(spec: QuerySpec, dimension: Dimension) -> list[str]:
    """Return the values of a dimension that conditions allow, in the order of `QuerySpec.cells`."""
    allowed = next((c.values for c in spec.where if c.column == dimension.name), dimension.values)
    return [value for value in dimension.values if value in allowed]


def _one_of(numbers: NDArray[np.int32], allowed: list[int]) -> NDArray[np.bool_]:
    found = np.zeros(len(numbers), np.bool_)
    for number in allowed:
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
