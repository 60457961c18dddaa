"""Drives on their way into files: batches of several vehicles, columns by group, and what they weigh.

Rules:
1. A file holds whole drives of about 20 vehicles or 64 MB, so its size tells little of one vehicle.
2. All groups of the raw table have the same rows in the same order. The motion group begins with the vehicle's
   pseudonym, and only the identity group says whose that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.contracts.raw_table import PSEUDONYM, RAW_COLUMNS, RAW_GROUPS, Dtype, Group
from isthmus.zone.columns import TEXT, text_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

VEHICLES_PER_FILE = 20
BYTES_PER_FILE = 64_000_000
_WIDTH = {Dtype.INT32: 4, Dtype.FLOAT32: 4, Dtype.FLOAT64: 8}
_OFFSET = 4


def vehicles_of(table: pa.Table) -> tuple[str, ...]:
    """Return the vehicles of a validated table, in the order in which they first stand there."""
    codes, texts = text_codes(table.column("vehicle"))
    used, first = np.unique(codes, return_index=True)
    return tuple(texts[code] for code in used[np.argsort(first)])


def drives_of(table: pa.Table) -> int:
    """Return how many drives a validated table holds."""
    return len(np.unique(text_codes(table.column("scene_id"))[0]))


def raw_bytes(table: pa.Table) -> int:
    """Return the size of a validated table as plain Arrow columns (`nbytes`), but for the bits that mark nulls."""
    total: int = sum(_WIDTH[column.dtype] for column in RAW_COLUMNS if column.dtype in _WIDTH) * table.num_rows
    for column in RAW_COLUMNS:
        if column.dtype is Dtype.STRING:
            codes, texts = text_codes(table.column(column.name))
            size = np.array([len(text.encode()) for text in texts] + [0], np.int64)
            total += int(size[codes].sum()) + _OFFSET * table.num_rows
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
    named = pc.take(pa.array([pseudonyms[text] for text in texts], pa.string()), pa.array(codes))
    parts[Group.MOTION] = parts[Group.MOTION].add_column(0, PSEUDONYM.name, pc.dictionary_encode(named).cast(TEXT))
    return parts


def _by_vehicle(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    codes, texts = text_codes(table.column("vehicle"))
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ordered = table.take(pa.array(order)) if len(starts) > 1 else table
    for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        yield texts[codes[order[start]]], ordered.slice(start, end - start)


def _joined(parts: list[pa.Table]) -> pa.Table:
    """Join tables, keep of the texts only those that rows point to, and sort."""
    joined = pa.concat_tables(parts)
    columns = [
        pc.dictionary_encode(values.cast(pa.string())).unify_dictionaries().combine_chunks().cast(TEXT)
        if values.type == TEXT
        else values.combine_chunks()
        for values in joined.columns
    ]
    table = pa.table(columns, names=joined.schema.names)
    keys = [(name, "ascending") for name in ("scene_id", "t", "track_id")]
    plain = table.select(["t", "track_id"]).append_column("scene_id", table.column("scene_id").cast(pa.string()))
    return table.take(pc.sort_indices(plain, keys))
