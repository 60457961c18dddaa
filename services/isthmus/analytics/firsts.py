"""Each vehicle's first rows by draw, whatever order rows stand in: files hold a vehicle's rows each in its own order.

Rules:
1. Of each vehicle exactly the `most` rows with the smallest draws are taken, or all where it has no more. Rows with one
   draw are the same row (`zone.derived`), so which of them is taken makes no difference.
2. What makes this quick decides nothing. Vehicle and draw are sorted as one number, which cuts the draw's last bits:
   where a vehicle's last row that is taken and its first that is not look the same, both columns of its rows are.

Rows themselves stay where they are: what is sorted is a number of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Words = NDArray[np.uint64]

BITS = 64
_SIGN = np.uint64(1 << (BITS - 1))


def are_first(vehicle: NDArray[np.int32], draw: Ints, most: int) -> NDArray[np.bool_]:
    """Tell of each row whether it is among its vehicle's first.

    Args:
        vehicle: of each row its vehicle's number, not negative.
        draw: of each row.
        most: how many rows of a vehicle are taken.
    """
    rows = np.bincount(vehicle)
    over = rows > most
    if not over.any():
        return np.ones(len(vehicle), np.bool_)
    of_these = over.take(vehicle)
    if of_these.all():
        return _first(vehicle, draw, most)
    places = np.flatnonzero(of_these)
    first = ~of_these
    first[places] = _first(vehicle.take(places), draw.take(places), most)
    return first


def _first(vehicle: NDArray[np.int32], draw: Ints, most: int) -> NDArray[np.bool_]:
    """Tell it of rows of vehicles each of which has more rows than are taken."""
    rows = np.bincount(vehicle)
    both = _both(vehicle, draw, len(rows).bit_length())
    ordered = np.sort(both)
    cut = np.flatnonzero(rows)
    last = (np.cumsum(rows) - rows + most - 1)[cut]
    limit = np.zeros(len(rows), np.uint64)
    limit[cut] = ordered[last]
    first: NDArray[np.bool_] = both <= limit.take(vehicle)
    torn = cut[ordered[last] == ordered[last + 1]]
    if len(torn):
        _settle(vehicle, draw, most, torn, first)
    return first


def _both(vehicle: NDArray[np.int32], draw: Ints, bits: int) -> Words:
    """Return vehicle and draw as one number that rises with both; the vehicle's has so many bits."""
    both = draw.view(np.uint64) ^ _SIGN
    both >>= np.uint64(bits)
    both |= vehicle.astype(np.uint64) << np.uint64(BITS - bits)
    return both


def _settle(vehicle: NDArray[np.int32], draw: Ints, most: int, torn: Ints, first: NDArray[np.bool_]) -> None:
    """Tell it of the rows of some vehicles, by their whole draws."""
    rows = np.flatnonzero(np.isin(vehicle, torn))
    rows = rows.take(np.lexsort((draw.take(rows), vehicle.take(rows))))
    ordered = vehicle.take(rows)
    among = np.ones(len(rows), np.bool_)
    among[most:] = ordered[most:] != ordered[:-most]
    first[rows] = among
