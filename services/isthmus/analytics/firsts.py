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
    Words = NDArray[np.uint32] | NDArray[np.uint64]

FEW = 18
"""Bits of a vehicle's number that leave enough of 32 for the draw. Half as wide, both are sorted in half the time."""


def are_first(vehicle: NDArray[np.int32], draw: Ints, most: int) -> NDArray[np.bool_]:
    """Tell of each row whether it is among its vehicle's first.

    Args:
        vehicle: of each row its vehicle's number, not negative.
        draw: of each row.
        most: how many rows of a vehicle are taken.
    """
    rows = np.bincount(vehicle)
    over = np.flatnonzero(rows > most)
    if not len(over):
        return np.ones(len(vehicle), np.bool_)
    both = _both(vehicle, draw, len(rows).bit_length())
    ordered = np.sort(both)
    last = (np.cumsum(rows) - rows + most - 1)[over]
    limit = np.full(len(rows), np.iinfo(both.dtype).max, both.dtype)
    limit[over] = ordered[last]
    first: NDArray[np.bool_] = both <= limit.take(vehicle)
    torn = over[ordered[last] == ordered[last + 1]]
    if len(torn):
        _settle(vehicle, draw, most, torn, first)
    return first


def _both(vehicle: NDArray[np.int32], draw: Ints, bits: int) -> Words:
    """Return vehicle and draw as one number that rises with both; the vehicle's has so many bits."""
    spare = (32 if bits <= FEW else 64) - bits
    low = draw.min()
    span = int(draw.max()) - int(low)
    place = draw.view(np.uint64) - low.view(np.uint64)  # from the smallest; a difference wraps around to what it is
    place >>= np.uint64(max(0, span.bit_length() - spare))
    word = np.uint32 if bits <= FEW else np.uint64
    both: Words = np.bitwise_or(place.astype(word), np.left_shift(vehicle, spare, dtype=word, casting="unsafe"))
    return both


def _settle(vehicle: NDArray[np.int32], draw: Ints, most: int, torn: Ints, first: NDArray[np.bool_]) -> None:
    """Tell it of the rows of some vehicles, by their whole draws."""
    these = np.zeros(int(vehicle.max()) + 1, np.bool_)
    these[torn] = True
    rows = np.flatnonzero(these.take(vehicle))
    rows = rows.take(np.lexsort((draw.take(rows), vehicle.take(rows))))
    ordered = vehicle.take(rows)
    among = np.ones(len(rows), np.bool_)
    among[most:] = ordered[most:] != ordered[:-most]
    first[rows] = among
