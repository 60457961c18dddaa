"""Cells as regions: which rows a cell counts, so that two answers' cells can be held against each other.

A region is a box: road types, traffic, an interval for each measure that a question conditions. A coarser dimension
is its finer one's values, so that a class of roads contains its types.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise, product
from typing import TYPE_CHECKING

from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isthmus.contracts.queries import QuerySpec
    from isthmus.contracts.tables import TableSpec

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Region:
    """Rows of one table.

    Attributes:
        table: the table's name.
        values: for each finest dimension, the values it may have.
        intervals: for each conditioned measure, its bounds in steps, both included; a row without a value is outside.
    """

    table: str
    values: Mapping[str, frozenset[str]]
    intervals: Mapping[str, Interval]

    @property
    def empty(self) -> bool:
        """Tell whether no row can be in it: a road type with the class of another."""
        return any(not allowed for allowed in self.values.values())

    def within(self, other: Region) -> bool:
        """Tell whether every row of this region is in the other, whatever the data."""
        if self.table != other.table:
            return False
        inside = all(allowed <= other.values[name] for name, allowed in self.values.items())
        return inside and all(
            (mine := self.intervals.get(name)) is not None and low <= mine[0] and mine[1] <= high
            for name, (low, high) in other.intervals.items()
        )

    def meets(self, other: Region) -> bool:
        """Tell whether a row may be in both."""
        return (
            self.table == other.table
            and all(allowed & other.values[name] for name, allowed in self.values.items())
            and all(
                low <= other.intervals.get(name, (low, high))[1] and other.intervals.get(name, (low, high))[0] <= high
                for name, (low, high) in self.intervals.items()
            )
        )


def regions(spec: QuerySpec) -> tuple[Region, ...]:
    """Return each cell's region, in the order of `QuerySpec.cells`."""
    table = TABLES[spec.table]
    conditions = {c.column: frozenset(c.values) for c in spec.where if c.values}
    intervals: dict[str, Interval] = {}
    for condition in spec.where:
        measure = table.measure(condition.column)
        if measure is not None:
            low = measure.low if condition.low is None else condition.low
            intervals[condition.column] = (low, measure.high if condition.high is None else condition.high)
    found = []
    for cell in spec.cells():
        allowed = {**conditions}
        for name, value in zip(spec.group_by, cell, strict=True):
            allowed[name] = frozenset({value})
        found.append(Region(spec.table.value, _finest(table, allowed), intervals))
    return tuple(found)


def margins(spec: QuerySpec) -> tuple[frozenset[int], ...]:
    """Return the sets of cells whose totals somebody may ask for or know: over each dimension, and over its classes."""
    levels = [_levels(spec, name) for name in spec.group_by]
    cells = spec.cells()
    found: set[frozenset[int]] = set()
    for level in product(*levels):
        sums: dict[tuple[str, ...], set[int]] = {}
        for index, cell in enumerate(cells):
            key = tuple(names.get(value, "") for names, value in zip(level, cell, strict=True))
            sums.setdefault(key, set()).add(index)
        found.update(frozenset(members) for members in sums.values() if len(members) > 1)
    return tuple(sorted(found, key=lambda members: (len(members), sorted(members))))


def indicators(every: Sequence[Region], limit: int) -> list[list[int]] | None:
    """Return for each region which of the smallest pieces it is made of; None where there are more than `limit`.

    The pieces are those that no region cuts: any sum of answers is a sum over them.
    """
    axes: list[list[tuple[str, str | Interval | None]]] = [
        [(name, value) for value in sorted(frozenset[str]().union(*(r.values[name] for r in every)))]
        for name in sorted({name for region in every for name in region.values})
    ]
    axes += [
        [(name, None), *((name, piece) for piece in _pieces([r.intervals.get(name) for r in every]))]
        for name in sorted({name for region in every for name in region.intervals})
    ]
    if reduce(lambda size, axis: size * len(axis), axes, 1) > limit:
        return None
    pieces = list(product(*axes))
    return [[int(all(_covers(region, name, part) for name, part in piece)) for piece in pieces] for region in every]


def _covers(region: Region, name: str, part: str | Interval | None) -> bool:
    if isinstance(part, str):
        return part in region.values[name]
    own = region.intervals.get(name)
    return own is None or (part is not None and own[0] <= part[0] and part[1] <= own[1])


def _pieces(intervals: Sequence[Interval | None]) -> list[Interval]:
    known = [interval for interval in intervals if interval is not None]
    cuts = sorted({low for low, _ in known} | {high + 1 for _, high in known})
    return [(low, high - 1) for low, high in pairwise(cuts)]


def _finest(table: TableSpec, allowed: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Return the values of each dimension that is no other's parent."""
    parents = {d.parent for d in table.dimensions if d.parent}
    found: dict[str, frozenset[str]] = {}
    for dimension in table.dimensions:
        if dimension.name in parents:
            continue
        values = allowed.get(dimension.name, frozenset(dimension.values))
        coarse = allowed.get(dimension.parent or "")
        found[dimension.name] = (
            values if coarse is None else frozenset(v for v in values if dimension.within[v] in coarse)
        )
    return found


def _levels(spec: QuerySpec, name: str) -> list[Mapping[str, str]]:
    """Return how a dimension's values can be told: each, by class, all as one."""
    dimension = TABLES[spec.table].dimension(name)
    values = dimension.values if dimension else ()
    levels: list[Mapping[str, str]] = [{value: value for value in values}, {}]
    if dimension is not None and dimension.parent:
        levels.append(dimension.within)
    return levels
