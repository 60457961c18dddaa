"""What each vehicle adds to each cell, as the engine reads it: one row a share, with the values that it holds.

Rules:
1. A vehicle's rows in a cell are its share of the cell: one row here, with a list of its values of each measure. So
   what the engine adds up needs no grouping by vehicle, which would hash every row to find out what its place says.
2. Every row given is in one share. Values are clamped to their measure's bounds; a row without one has none.
3. Nothing is added up here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isthmus.analytics.statements import CELL, FIRST, ROWS, in_any_cell, measures_of
from isthmus.analytics.stored import DRAW, VEHICLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.contracts.queries import QuerySpec
    from isthmus.contracts.tables import Measure

    Ints = NDArray[np.int64]


def shares_of(spec: QuerySpec, rows: pa.Table) -> pa.Table:
    """Return vehicles' shares of cells, vehicle by vehicle.

    Args:
        spec: the question.
        rows: those that count, of the columns of `choosing.chosen_schema`, in any order.

    Returns:
        `VEHICLE` (int32), `CELL` (int16), `ROWS`: how many it holds; `FIRST`: their smallest draw, only where a
        vehicle's cells have to be ranked; and each measure's clamped values, a list of int32.
    """
    order, starts, edges = _found(rows, spec.domain_size())
    vehicle, cell = (rows.column(name).to_numpy() for name in (VEHICLE, CELL))
    each = starts if order is None else order.take(starts)
    columns = {
        VEHICLE: pa.array(vehicle.take(each)),
        CELL: pa.array(cell.take(each).astype(np.int16)),
        ROWS: pa.array(np.diff(edges)),
    }
    if not in_any_cell(spec):
        draw = rows.column(DRAW).to_numpy()
        draw = draw if order is None else draw.take(order)
        columns[FIRST] = pa.array(np.minimum.reduceat(draw, starts) if len(starts) else draw)
    for measure in measures_of(spec):
        columns[measure.name] = pa.ListArray.from_arrays(pa.array(edges), _values(measure, rows, order))
    return pa.table(columns)


def _found(rows: pa.Table, cells: int) -> tuple[Ints | None, Ints, NDArray[np.int32]]:
    """Return rows' order share after share, None where they stand so; where each share starts; its edges."""
    share = rows.column(VEHICLE).to_numpy()
    if cells > 1:
        share = share * np.int64(cells) + rows.column(CELL).to_numpy()
    order = None
    if (share[1:] < share[:-1]).any():
        order = np.argsort(share)
        share = share.take(order)
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(share)), np.bool_), share[1:] != share[:-1]]))
    return order, starts, np.append(starts, len(share)).astype(np.int32)


def _values(measure: Measure, rows: pa.Table, order: Ints | None) -> pa.Array:
    column = rows.column(measure.name).combine_chunks()
    column = column if order is None else column.take(pa.array(order))
    none = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    values = (column if none is None else column.fill_null(measure.low)).to_numpy()
    return pa.array(values.clip(measure.low, measure.high), pa.int32(), mask=none)
