"""How much one vehicle can add: what follows from the catalogue and the question alone.

Rules:
1. Nothing here looks at data. Bounds are the catalogue's, narrowed by the question's own condition on that measure:
   rows outside it do not count, so no row that counts lies outside it.
2. A vehicle counts with at most `rows_per_vehicle` rows over all cells, in at most `groups_per_vehicle` cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.tables import TABLES

if TYPE_CHECKING:
    from isthmus.contracts.queries import QuerySpec


@dataclass(frozen=True, slots=True)
class Bounds:
    """A measure as a question sees it, in steps.

    Attributes:
        low: smallest value a row that counts can have.
        high: largest such value, above `low`.
        centre: what primitives of the measure are taken about: the middle of the catalogue's bounds, rounded down.
        floor: the catalogue's lowest value, from which bins are laid out.
        ceiling: the catalogue's highest value.
        steps_per_unit: how many steps make one unit.
        always: true where every row that counts has a value, so that counting its values is counting rows.
    """

    low: int
    high: int
    centre: int
    floor: int
    ceiling: int
    steps_per_unit: int
    always: bool

    @property
    def width(self) -> int:
        """Return how far two values can be apart, in steps; at least 1."""
        return self.high - self.low

    @property
    def reach(self) -> int:
        """Return how far a value can be from the centre, in steps."""
        return max(self.high - self.centre, self.centre - self.low)

    @property
    def tilt(self) -> float:
        """Return how far the middle of [low, high] lies above the centre, in steps."""
        return (self.low + self.high) / 2 - self.centre


def bounds_of(spec: QuerySpec, measure: str) -> Bounds:
    """Return a measure's bounds under a question.

    Raises:
        ValueError: the question's table has no such measure.
    """
    found = TABLES[spec.table].measure(measure)
    if found is None:
        raise ValueError("the table has no such measure")
    low, high, conditioned = found.low, found.high, False
    for condition in spec.where:
        if condition.column == measure:
            conditioned = True
            low = low if condition.low is None else condition.low
            high = high if condition.high is None else condition.high
    return Bounds(
        low=low,
        high=max(high, low + 1),  # a single value: one step more keeps sums about both ends apart
        centre=(found.low + found.high) // 2,
        floor=found.low,
        ceiling=found.high,
        steps_per_unit=found.steps_per_unit,
        always=conditioned or not found.optional,
    )
