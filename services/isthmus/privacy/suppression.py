"""Which cells of an exact table must be hidden: small or dominated ones, and others that would give those away.

Rules:
1. A cell is shown with at least `FEWEST` vehicles in it; one that counts values which rows may lack, with as many
   vehicles behind those values for sure.
2. No vehicle makes more than half of any total shown, no two more than 67 % of it.
3. Hidden cells stay hidden from whoever knows all margins of the declared hierarchy: by linear programming the number
   of vehicles that those margins leave open for each must be at least `FEWEST` wide, and a fifth of what it is. Cells
   are added, the smallest first, until that holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.queries import PrimitiveKind, primitives
from isthmus.privacy.bounds import bounds_of
from isthmus.privacy.regions import margins, regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.queries import CellPartial, Partials, QuerySpec

FEWEST = 10
"""Fewest vehicles behind anything that is shown."""
HALF_PERCENT = 50
TWO_PERCENT = 67
WIDE_PART = 5
"""The open interval is at least one part in this of the hidden number."""
MOST_PROGRAMS = 120
"""Linear programs that are solved for one answer, a few milliseconds each; beyond them all is withheld."""


def hidden_cells(spec: QuerySpec, partials: Partials) -> frozenset[int] | None:
    """Return the cells to hide; None where no set was found in time, so that nothing can be shown.

    Args:
        spec: the question.
        partials: its exact sums.
    """
    possible = [not region.empty for region in regions(spec)]
    vehicles = [cell.vehicles for cell in partials.cells]
    first = {i for i, cell in enumerate(partials.cells) if possible[i] and not _may_show(spec, cell)}
    hidden = _protected(first, vehicles, possible, [m for m in margins(spec) if m & first])
    if hidden is None:
        return None
    return frozenset(hidden) | {i for i, can_be in enumerate(possible) if not can_be}


def open_interval(
    cell: int, hidden: Sequence[int], vehicles: Sequence[int], sums: Sequence[frozenset[int]]
) -> tuple[float, float]:
    """Return what is left open of a hidden number by all that is shown and all margins: its least and largest value.

    Args:
        cell: whose number; one of `hidden`.
        hidden: the cells that are not shown and may have vehicles.
        vehicles: every cell's true number.
        sums: the margins whose totals are known.
    """
    # A third of a second, for the answers of one mode alone.
    from scipy.optimize import linprog  # type: ignore[import-untyped]  # noqa: PLC0415

    known = [sorted(members & set(hidden)) for members in sums if members & set(hidden)]
    rows = [[1.0 if other in members else 0.0 for other in hidden] for members in known]
    totals = [float(sum(vehicles[other] for other in members)) for members in known]
    goal = [1.0 if other == cell else 0.0 for other in hidden]
    if not rows:
        return 0.0, float("inf")
    ends = []
    for sign in (1.0, -1.0):
        found = linprog([sign * part for part in goal], A_eq=rows, b_eq=totals, bounds=(0, None), method="highs")
        ends.append(sign * float(found.fun) if found.success else float(vehicles[cell]))
    return ends[0], ends[1]


def _may_show(spec: QuerySpec, cell: CellPartial) -> bool:
    if cell.vehicles < FEWEST:
        return False
    needed = primitives(spec)
    known = {(p.kind, p.measure): (v[0], top) for p, v, top in zip(needed, cell.values, cell.largest, strict=True)}
    for primitive in needed:
        total, largest = known[primitive.kind, primitive.measure]
        match primitive.kind:
            case PrimitiveKind.VEHICLES | PrimitiveKind.BINS:
                continue
            case PrimitiveKind.COUNT if total < FEWEST * spec.rows_per_vehicle and _may_lack(spec, primitive.measure):
                return False
            case PrimitiveKind.SUM:  # the largest are of values, the sum is about the centre
                count = known[PrimitiveKind.COUNT, primitive.measure][0]
                total += bounds_of(spec, primitive.measure or "").centre * count
            case _:
                pass
        if _dominated(total, largest):
            return False
    return True


def _may_lack(spec: QuerySpec, measure: str | None) -> bool:
    return measure is not None and not bounds_of(spec, measure).always


def _dominated(total: int, largest: tuple[int, int]) -> bool:
    return largest[0] * 100 > HALF_PERCENT * total or sum(largest) * 100 > TWO_PERCENT * total if total > 0 else False


def _protected(
    first: set[int], vehicles: Sequence[int], possible: Sequence[bool], sums: Sequence[frozenset[int]]
) -> set[int] | None:
    """Add cells to `first` until no margin gives one of `first` away."""
    hidden, programs = set(first), 0
    while (alone := _alone(first, hidden, possible, sums)) or hidden:
        exposed = alone
        if exposed is None:
            for cell in sorted(first):
                programs += 2
                if programs > MOST_PROGRAMS:
                    return None
                low, high = open_interval(cell, sorted(hidden), vehicles, sums)
                if high - low < max(FEWEST, vehicles[cell] / WIDE_PART):
                    exposed = cell
                    break
        if exposed is None:
            break
        # The margin with the fewest hidden cells is the one that gives it away most.
        around = sorted((m for m in sums if exposed in m), key=lambda m: (len(m & hidden), len(m)))
        more = next((c for m in around if (c := _smallest(m - hidden, vehicles, possible)) is not None), None)
        if more is None:
            break  # all that could tell is hidden
        hidden.add(more)
    return hidden


def _alone(first: set[int], hidden: set[int], possible: Sequence[bool], sums: Sequence[frozenset[int]]) -> int | None:
    """Return a cell that is the only hidden one of a margin which shows others: found without a program."""
    for members in sums:
        inside = members & hidden
        if len(inside) == 1 and inside <= first and any(possible[c] for c in members - inside):
            return next(iter(inside))
    return None


def _smallest(cells: frozenset[int], vehicles: Sequence[int], possible: Sequence[bool]) -> int | None:
    found = [cell for cell in cells if possible[cell]]
    return min(found, key=lambda cell: (vehicles[cell], cell)) if found else None
