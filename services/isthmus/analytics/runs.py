"""Sums over rows of which each vehicle's stand together, as stored rows do: read off in one pass, without an engine.

Rules:
1. The sums are those of `analytics.statements`, to the number: whole numbers of 64 bits, added up in whole numbers.
2. What is added up has been bounded before (`analytics.choosing`): every row counts, in every cell that it is in. A
   question that counts a vehicle in fewer cells than it may touch is the engine's.

A vehicle's rows in a cell are its share of the cell. Shares are found by comparing neighbours, which costs a look at
each row; an engine, which may not trust their order, hashes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.analytics.statements import CELL, measures_of
from isthmus.analytics.stored import VEHICLE
from isthmus.contracts.queries import CellPartial, PrimitiveKind, primitives

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from isthmus.contracts.queries import Primitive, QuerySpec
    from isthmus.contracts.tables import Measure

    Ints = NDArray[np.int64]


def cells_of(spec: QuerySpec, rows: pa.Table) -> tuple[CellPartial, ...]:
    """Return every cell's exact sums.

    Args:
        spec: the question.
        rows: those that count, of the columns of `choosing.chosen_schema`; vehicles' numbers rise.
    """
    wanted = primitives(spec)
    if not rows.num_rows:
        none = tuple((0,) * primitive.width for primitive in wanted)
        return (CellPartial(vehicles=0, values=none, largest=((0, 0),) * len(wanted)),) * spec.domain_size()
    shares = _Shares.of(spec, rows)
    columns = {measure.name: _Column.of(measure, rows, shares) for measure in measures_of(spec)}
    found = [_told(primitive, shares, columns) for primitive in wanted]
    return tuple(
        CellPartial(
            vehicles=vehicles,
            values=tuple(values[cell] for values, _ in found),
            largest=tuple(largest[cell] for _, largest in found),
        )
        for cell, vehicles in enumerate(shares.vehicles.tolist())
    )


@dataclass(frozen=True, slots=True)
class _Shares:
    """Vehicles' shares of cells.

    Attributes:
        order: rows, share after share; None where they stand so.
        starts: where each share starts, in that order.
        rows: how many rows it has.
        cell: of each row, as rows stand; None where there is one cell.
        by_cell: shares, cell after cell; None where there is one cell.
        vehicles: how many shares each cell has.
    """

    order: Ints | None
    starts: Ints
    rows: Ints
    cell: Ints | None
    by_cell: Ints | None
    vehicles: Ints

    @classmethod
    def of(cls, spec: QuerySpec, rows: pa.Table) -> _Shares:
        """Find the shares of rows by their vehicles and cells."""
        vehicle, size = rows.column(VEHICLE).to_numpy(), spec.domain_size()
        if size == 1:
            starts = _changes(vehicle)
            return cls(None, starts, _lengths(starts, len(vehicle)), None, None, np.array([len(starts)]))
        cell = rows.column(CELL).to_numpy().astype(np.int64)
        share = vehicle * np.int64(size) + cell
        order = np.argsort(share, kind="stable")  # a vehicle's rows stand together: it finds them nearly in order
        share = share[order]
        starts = _changes(share)
        cells = (share[starts] % size).astype(np.int16)
        by_cell, vehicles = np.argsort(cells, kind="stable"), np.bincount(cells, minlength=size)
        return cls(order, starts, _lengths(starts, len(vehicle)), cell, by_cell, vehicles)

    def summed(self, numbers: NDArray[np.int32] | NDArray[np.bool_] | Ints) -> Ints:
        """Return each share's sum of its rows' numbers."""
        ordered = numbers if self.order is None else numbers[self.order]
        return np.add.reduceat(ordered, self.starts, dtype=np.int64)

    def in_cells(self, added: Ints) -> list[tuple[int]]:
        """Return each cell's sum of its shares' numbers."""
        return [(int(mine.sum()),) for mine in self._apart(added)]

    def largest(self, weights: Ints) -> list[tuple[int, int]]:
        """Return each cell's two largest of its shares' weights; zeros where it has fewer."""
        return [_two(mine) for mine in self._apart(weights)]

    def _apart(self, numbers: Ints) -> list[Ints]:
        ordered = numbers if self.by_cell is None else numbers[self.by_cell]
        return np.split(ordered, np.cumsum(self.vehicles)[:-1])


@dataclass(frozen=True, slots=True)
class _Column:
    """A measure's values.

    Attributes:
        measure: the measure.
        values: clamped; where there is none, any.
        told: of which rows there is one; None where of all.
        count: how many each share has.
    """

    measure: Measure
    values: NDArray[np.int32]
    told: NDArray[np.bool_] | None
    count: Ints

    @classmethod
    def of(cls, measure: Measure, rows: pa.Table, shares: _Shares) -> _Column:
        """Read a measure of rows."""
        column = rows.column(measure.name)
        told = column.is_valid().to_numpy() if column.null_count else None
        values = (column if told is None else column.fill_null(measure.low)).to_numpy()
        count = shares.rows if told is None else shares.summed(told)
        return cls(measure, values.clip(measure.low, measure.high), told, count)

    @property
    def centre(self) -> int:
        """Return the value about which sums are taken."""
        return (self.measure.low + self.measure.high) // 2

    def bins(self, width: int, cell: Ints | None, size: int) -> list[tuple[int, ...]]:
        """Return each cell's rows by bin."""
        span = self.measure.high - self.measure.low + 1
        number = (self.values.astype(np.int64) - self.measure.low) * width // span
        number += 0 if cell is None else cell * width
        number = number if self.told is None else number[self.told]
        counts = np.bincount(number, minlength=size * width).reshape(size, width)
        return [tuple(mine) for mine in counts.tolist()]


def _told(
    primitive: Primitive, shares: _Shares, columns: Mapping[str, _Column]
) -> tuple[list[tuple[int, ...]], list[tuple[int, int]]]:
    """Return each cell's numbers of a primitive, and its two largest contributions."""
    if primitive.measure is None:
        each = np.ones_like(shares.rows) if primitive.kind is PrimitiveKind.VEHICLES else shares.rows
        return [*shares.in_cells(each)], shares.largest(each)
    column = columns[primitive.measure]
    if primitive.kind is PrimitiveKind.BINS:
        return column.bins(primitive.width, shares.cell, len(shares.vehicles)), shares.largest(column.count)
    if primitive.kind is PrimitiveKind.COUNT:
        return [*shares.in_cells(column.count)], shares.largest(column.count)
    if primitive.kind is PrimitiveKind.SQUARES:
        centred = column.values.astype(np.int64) - column.centre
        squares = shares.summed(_where(centred * centred, column.told))
        return [*shares.in_cells(squares)], shares.largest(squares)
    total = shares.summed(_where(column.values, column.told))
    return [*shares.in_cells(total - column.centre * column.count)], shares.largest(np.abs(total))


def _where(numbers: NDArray[np.int32] | Ints, told: NDArray[np.bool_] | None) -> NDArray[np.int32] | Ints:
    return numbers if told is None else numbers * told


def _changes(numbers: NDArray[np.int32] | Ints) -> Ints:
    """Return where runs of the same number start."""
    return np.concatenate([np.zeros(1, np.int64), np.flatnonzero(numbers[1:] != numbers[:-1]) + 1])


def _lengths(starts: Ints, end: int) -> Ints:
    return np.diff(starts, append=end)


def _two(weights: Ints) -> tuple[int, int]:
    if len(weights) < 2:  # noqa: PLR2004 - the two largest
        return (int(weights[0]) if len(weights) else 0), 0
    second, first = np.partition(weights, -2)[-2:].tolist()
    return first, second
