"""Each vehicle's first rows by draw, whatever order rows stand in: files hold a vehicle's rows each in its own order.

Rules:
1. Of each vehicle exactly the `most` rows with the smallest draws are taken, or all where it has no more. Rows with one
   draw are the same row (`zone.derived`), so which of them is taken makes no difference.
2. What makes this quick is not trusted: draws are hashes, so a vehicle's first rows are looked for below a limit that
   leaves about twice as many as are taken; where it leaves too few, all of that vehicle's are looked at. Vehicle and
   draw are sorted as one number, which cuts the draw's last bits; where two draws are told apart by these alone, both
   columns are sorted.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

BITS = 63
"""Of a number that is not negative."""


def first_of_all(vehicle: NDArray[np.int32], draw: NDArray[np.int64], most: int) -> Ints:
    """Return the places of each vehicle's first rows, by vehicle and draw.

    Args:
        vehicle: of each row its vehicle's number, not negative.
        draw: of each row.
        most: how many rows of a vehicle are taken.
    """
    if not len(vehicle):
        return np.zeros(0, np.int64)
    parts = os.cpu_count() or 1
    edges = np.linspace(0, int(vehicle.max()) + 1, parts + 1).astype(np.int64)
    with ThreadPoolExecutor(parts) as pool:
        found = pool.map(partial(_first_between, vehicle, draw, most), edges[:-1].tolist(), edges[1:].tolist())
        return np.concatenate(list(found))


def _first_between(vehicle: NDArray[np.int32], draw: NDArray[np.int64], most: int, start: int, end: int) -> Ints:
    """Return what `first_of_all` does, of vehicles whose numbers are in [start, end)."""
    mine = np.flatnonzero((vehicle >= start) & (vehicle < end))
    numbers, draws = vehicle.take(mine) - np.int32(start), draw.take(mine)
    near = np.flatnonzero(_may_be_first(numbers, draws, most, end - start))
    numbers, draws = numbers.take(near), draws.take(near)
    order = _sorted(numbers, draws, (end - start).bit_length())
    ordered = numbers.take(order)
    first = np.ones(len(order), np.bool_)
    first[most:] = ordered[most:] != ordered[:-most]
    return mine.take(near.take(order[first]))


def _may_be_first(vehicle: NDArray[np.int32], draw: Ints, most: int, vehicles: int) -> NDArray[np.bool_]:
    """Tell of which rows less than `most` of their vehicle may have a smaller draw: of all that do, and others."""
    largest = int(draw.max(initial=0))
    rows = np.bincount(vehicle, minlength=vehicles)
    limit = np.where(rows > 2 * most, largest // np.maximum(1, rows) * (2 * most), largest)
    below = np.bincount(vehicle[draw <= limit[vehicle]], minlength=vehicles)
    return draw <= np.where(below >= most, limit, largest)[vehicle]


def _sorted(vehicle: NDArray[np.int32], draw: Ints, bits: int) -> Ints:
    """Return the order of rows by vehicle, whose number has so many bits, and draw."""
    if int(draw.min(initial=0)) >= 0:
        both = vehicle.astype(np.int64) << (BITS - bits) | draw >> bits
        order = np.argsort(both)
        both, draw = both.take(order), draw.take(order)
        if not ((both[1:] == both[:-1]) & (draw[1:] != draw[:-1])).any():
            return order
        vehicle = vehicle.take(order)
        return order.take(np.lexsort((draw, vehicle)))
    return np.lexsort((draw, vehicle))
