"""What an answer would tell together with earlier ones about the same frozen snapshot.

Rules, each on vehicles, each refusing on a lower bound:
1. Two shown cells, one within the other: the rows between them have at least as many vehicles as their numbers differ
   by; under `FEWEST` is isolating.
2. A shown cell and all shown cells of another answer within it: what is left, where anything can be, has at least as
   many vehicles as the largest hidden cell there, and as the numbers differ by.
3. A hidden cell with fewer than `FEWEST` vehicles must not be a sum and difference of shown cells, of all answers
   together (by linear algebra over the smallest pieces).
4. Another bound on a vehicle's rows, about rows that an earlier answer counted, is refused: the difference is that
   vehicle's other rows.

It cannot see: overlapping cells of which neither holds the other and that only a third answer ties together; small
groups that no answer ever had as a cell; a bound on a vehicle's cells that differs; what is known from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.privacy.regions import Region, indicators, regions
from isthmus.privacy.suppression import FEWEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from isthmus.contracts.queries import QuerySpec

MOST_PIECES = 1_024
MOST_CELLS = 1_500
"""Beyond these the third rule would take seconds: refused instead."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer's cells.

    Attributes:
        spec: its question.
        vehicles: each cell's exact number of vehicles.
        hidden: the cells that it does not show.
    """

    spec: QuerySpec
    vehicles: tuple[int, ...]
    hidden: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Cell:
    region: Region
    vehicles: int
    shown: bool


def isolates(new: Shown, earlier: Sequence[Shown]) -> str | None:
    """Return the rule by which an answer, with earlier ones, isolates too few vehicles; None where none does.

    Args:
        new: the answer that would be released.
        earlier: those released before about the same snapshot.
    """
    cells = _cells(new)
    others = [_cells(one) for one in earlier]
    for one, theirs in zip(earlier, others, strict=True):
        other = new.spec.rows_per_vehicle != one.spec.rows_per_vehicle
        if other and any(a.region.meets(b.region) for a in cells for b in theirs):
            return "other_bounds"
        if any(_between(a, b) for a in cells for b in theirs):
            return "difference"
        if any(_rest(a, theirs) for a in cells) or any(_rest(b, cells) for b in theirs):
            return "rest"
    return _spanned([*cells, *(cell for theirs in others for cell in theirs)])


def _cells(one: Shown) -> list[_Cell]:
    return [
        _Cell(region, one.vehicles[i], i not in one.hidden)
        for i, region in enumerate(regions(one.spec))
        if not region.empty
    ]


def _between(a: _Cell, b: _Cell) -> bool:
    if not (a.shown and b.shown):
        return False
    inside, outside = a.region.within(b.region), b.region.within(a.region)
    if inside and outside:
        return a.vehicles != b.vehicles  # the same rows: the same number, or the sums are not of one snapshot
    return (inside or outside) and abs(a.vehicles - b.vehicles) < FEWEST


def _rest(whole: _Cell, parts: Iterable[_Cell]) -> bool:
    """Tell whether a shown cell less the shown ones within it leaves rows of fewer than `FEWEST` vehicles."""
    within = [part for part in parts if part.region.within(whole.region)]
    shown = [part for part in within if part.shown]
    if not whole.shown or not shown:
        return False
    hidden = [part.vehicles for part in within if not part.shown]
    # Hidden cells' vehicles may be the same ones: only the largest is sure. One with rows in several shown cells counts
    # in each, so all of them together have at most as many vehicles as their numbers add up to.
    sure = max(0, *hidden, whole.vehicles - sum(part.vehicles for part in shown))
    return sure < FEWEST and (bool(hidden) or not _covered(whole.region, [part.region for part in shown]))


def _covered(whole: Region, parts: Sequence[Region]) -> bool:
    """Tell whether the parts leave nothing of the whole over."""
    vectors = indicators([whole, *parts], MOST_PIECES)
    if vectors is None:
        return False
    first, *rest = vectors
    return all(sum(pieces) > 0 for inside, *pieces in zip(first, *rest, strict=True) if inside)


def _spanned(cells: Sequence[_Cell]) -> str | None:
    small = [cell.region for cell in cells if not cell.shown and cell.vehicles < FEWEST]
    shown = [cell.region for cell in cells if cell.shown]
    if not small or not shown:
        return None
    if len(cells) > MOST_CELLS:
        return "too_many_answers"
    vectors = indicators([*shown, *small], MOST_PIECES)
    if vectors is None:
        return "too_many_answers"
    import numpy as np  # noqa: PLC0415 - for the answers of one mode alone

    known = np.array(vectors[: len(shown)], dtype=np.float64).T
    wanted = np.array(vectors[len(shown) :], dtype=np.float64).T
    nearest, *_ = np.linalg.lstsq(known, wanted, rcond=None)
    left = np.abs(known @ nearest - wanted).max(axis=0)
    return "span" if bool((left < 1e-6).any()) else None  # noqa: PLR2004 - zeros and ones: what is left is 0 or far from it
