"""Drives on their way into files: batches of several vehicles, columns by group, and what they weigh.

Rules:
1. A file holds whole drives of about 20 vehicles or 64 MB, so its size tells little of one vehicle.
2. All groups of the raw table have the same rows in the same order. The motion group begins with the vehicle's
   pseudonym, and only the identity group says whose that is.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.contracts.raw_table import PSEUDONYM, RAW_COLUMNS, RAW_GROUPS, Dtype, Group
from isthmus.zone.columns import TEXT, changes, codes_of, text_codes, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

VEHICLES_PER_FILE = 20
BYTES_PER_FILE = 64_000_000
ROWS_PER_SLICE = 64
"""From so many rows a drive on, copying drives one by one beats picking rows."""
_WIDTH = {Dtype.INT32: 4, Dtype.FLOAT32: 4, Dtype.FLOAT64: 8}
_OFFSET = 4


def vehicles_of(table: pa.Table) -> tuple[str, ...]:
    """Return the vehicles of a validated table, in the order in which they first stand there."""
    codes, texts = text_codes(table.column("vehicle"))
    return tuple(texts[code] for code in _in_order(codes, len(texts)))


def drives_of(table: pa.Table) -> int:
    """Return how many drives a validated table holds."""
    codes, texts = text_codes(table.column("scene_id"))
    return len(_in_order(codes, len(texts)))


def raw_bytes(table: pa.Table) -> int:
    """Return the size of a validated table as plain Arrow columns (`nbytes`), but for the bits that mark nulls."""
    total: int = sum(_WIDTH[column.dtype] for column in RAW_COLUMNS if column.dtype in _WIDTH) * table.num_rows
    for column in RAW_COLUMNS:
        if column.dtype is Dtype.STRING:
            texts = whole(table.column(column.name))
            codes = codes_of(texts)
            begins = changes(codes)
            size = np.append(pc.binary_length(texts.dictionary).to_numpy(), 0)  # the last is that of a null
            total += int(size[codes[begins]] @ np.diff(begins, append=len(codes))) + _OFFSET * table.num_rows
    return total


def batches(tables: Iterable[pa.Table], *, weight_limit: int = BYTES_PER_FILE) -> Iterator[pa.Table]:
    """Gather validated tables into batches, one for each file; rows by `scene_id`, `t`, `track_id`."""
    pending: list[pa.Table] = []
    vehicles: set[str] = set()
    weight = 0
    for table in tables:
        for vehicle, part in _by_vehicle(table):
            size = raw_bytes(part)
            too_many = len(vehicles | {vehicle}) > VEHICLES_PER_FILE
            if pending and (too_many or weight + size > weight_limit):
                yield _joined(pending)
                pending, vehicles, weight = [], set(), 0
            pending.append(part)
            vehicles.add(vehicle)
            weight += size
    if pending:
        yield _joined(pending)


def group_columns(batch: pa.Table, pseudonyms: Mapping[str, str]) -> dict[Group, pa.Table]:
    """Return the raw table's columns of a batch by group, the motion group with its vehicles' pseudonyms first."""
    parts = {
        group: batch.select([column.name for column in RAW_COLUMNS if column.group is group]) for group in RAW_GROUPS
    }
    codes, texts = text_codes(batch.column("vehicle"))
    used = _in_order(codes, len(texts))
    names = list(dict.fromkeys(pseudonyms[texts[code]] for code in used))
    number = np.zeros(len(texts), np.int32)
    number[used] = [names.index(pseudonyms[texts[code]]) for code in used]
    named = pa.DictionaryArray.from_arrays(pa.array(number[codes]), pa.array(names, pa.string()))
    parts[Group.MOTION] = parts[Group.MOTION].add_column(0, PSEUDONYM.name, named)
    return parts


def _by_vehicle(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    codes, texts = text_codes(table.column("vehicle"))
    if bool((codes == codes[0]).all()):
        yield texts[codes[0]], table
        return
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ordered = table.take(pa.array(order))
    for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        yield texts[codes[order[start]]], ordered.slice(start, end - start)


def _joined(parts: list[pa.Table]) -> pa.Table:
    """Join tables, sort them, and keep of the texts only those that rows point to.

    A drive stands in one part, its rows in order and next to each other: so whole drives are put in order, not rows.
    """
    drives = sorted((drive for part in parts for drive in _by_drive(part)), key=lambda named: named[0])
    if len(drives) * ROWS_PER_SLICE <= sum(part.num_rows for part in parts):
        joined = pa.concat_tables([part.slice(start, length) for _, part, start, length in drives])
    else:
        places = dict(zip(map(id, parts), accumulate((part.num_rows for part in parts), initial=0), strict=False))
        rows = [np.arange(length) + places[id(part)] + start for _, part, start, length in drives]
        joined = pa.concat_tables(parts).unify_dictionaries().take(pa.array(np.concatenate(rows)))
    columns = [_used(values) if values.type == TEXT else values.combine_chunks() for values in joined.columns]
    return pa.table(columns, names=joined.schema.names)


def _by_drive(table: pa.Table) -> Iterator[tuple[str, pa.Table, int, int]]:
    """Yield each drive's name, its table, its first row in that, and how many it has."""
    codes, texts = text_codes(table.column("scene_id"))
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        yield texts[codes[start]], table, int(start), int(end - start)


def _used(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of texts with one dictionary: of the texts that rows point to, in the rows' order.

    In another order it would tell how the input was ordered, perhaps by vehicle.
    """
    encoded = whole(column.unify_dictionaries())
    codes, texts = text_codes(encoded)
    used = _in_order(codes, len(texts))
    if len(used) == len(texts) and bool((np.diff(used) == 1).all()):
        return encoded
    number = np.full(len(texts) + 1, -1, np.int32)  # the last is that of a null
    number[used] = np.arange(len(used), dtype=np.int32)
    indices = pa.array(number[codes], mask=codes < 0 if encoded.null_count else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array([texts[code] for code in used], pa.string()))


def _in_order(codes: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return which of `count` codes stand in a column, in the order in which they first do."""
    codes = codes[changes(codes)]
    first = np.full(count + 1, len(codes), np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of equals, the last that is written is the first
    order = np.argsort(first[:count])
    return order[: int((first[:count] < len(codes)).sum())]
