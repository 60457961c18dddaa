"""Who drives ahead of the recording vehicle, and who has just moved into the gap. Geometry alone (`zone.derived`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from isthmus.zone.columns import text_codes

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

AHEAD_M = 100.0
BESIDE_M = 1.8
USUAL_LENGTH_M = 4.5
"""For a vehicle whose length was not recorded."""
MOTOR = ("car", "truck", "bus")
SAMPLES_AT_ONCE = 2048
ROUNDING_M = 0.1
"""More than the roundings of single precision come to where somebody is ahead: there all places are near the ego's."""


@dataclass(frozen=True, slots=True)
class Leaders:
    """The vehicle ahead at each sample of the egos.

    Attributes:
        gap: bumper to bumper, m, infinite where nobody is ahead; below 0 where outlines overlap.
        track: its track, -1 where nobody is ahead.
        cut_in: it was not ahead at the sample before, but beside.
    """

    gap: NDArray[np.float64]
    track: NDArray[np.int32]
    cut_in: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Rows:
    """A batch's rows, and the samples of the egos that they belong to: from one ego's row to the next one's.

    Attributes:
        ego: the egos' rows.
        x: m.
        y: m.
        heading: rad.
        track: its track.
        length: m.
        motor: whether it is a motor vehicle.
    """

    ego: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    heading: NDArray[np.float32]
    track: NDArray[np.int32]
    length: NDArray[np.float32]
    motor: NDArray[np.bool_]


def find_leaders(batch: pa.Table, ego: NDArray[np.int64], next_to: NDArray[np.bool_]) -> Leaders:
    """Return who is ahead of the egos.

    Args:
        batch: a validated raw table, rows by `scene_id`, `t`, `track_id`.
        ego: the egos' rows.
        next_to: for each of them, whether the one before is the same drive one step earlier.
    """
    rows = _rows(batch, ego)
    row, sample, gap = _ahead(rows)
    nearest = np.full(len(ego), np.inf)
    np.minimum.at(nearest, sample, gap)
    leads = np.flatnonzero(gap == nearest[sample])[::-1]
    track = np.full(len(ego), -1, np.int32)
    track[sample[leads]] = rows.track[row[leads]]  # of equals, the lowest track is written last and stays
    return Leaders(nearest, track, _cut_ins(rows, track, next_to))


def _rows(batch: pa.Table, ego: NDArray[np.int64]) -> _Rows:
    codes, kinds = text_codes(batch.column("type"))
    length = pc.fill_null(batch.column("length").combine_chunks(), USUAL_LENGTH_M).to_numpy()
    x, y, heading, track = (batch.column(name).to_numpy() for name in ("x", "y", "heading", "track_id"))
    return _Rows(ego, x, y, heading, track, length, np.array([kind in MOTOR for kind in kinds])[codes])


def _ahead(rows: _Rows) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of vehicles ahead in the egos' lanes, the samples they belong to, and their gaps."""
    row, sample = _near(rows)
    same_way = np.cos(rows.heading[row].astype(np.float64) - rows.heading[rows.ego[sample]]) > 0.0
    row, sample = row[same_way], sample[same_way]
    ahead, left = _seen(rows, row, rows.ego[sample])
    leads = (np.abs(left) < BESIDE_M) & (ahead > 0.0) & (ahead <= AHEAD_M)
    row, sample = row[leads], sample[leads]
    return row, sample, ahead[leads] - 0.5 * (rows.length[row].astype(np.float64) + rows.length[rows.ego[sample]])


def _near(rows: _Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of motor vehicles that may be ahead in the lane, and their samples.

    A quick look, in single precision with room for its roundings, at a few samples at a time: in the processor's cache.
    """
    counts = np.diff(rows.ego, append=len(rows.x))
    turns = np.cos(rows.heading[rows.ego]), np.sin(rows.heading[rows.ego])
    found = [np.zeros((2, 0), np.int64)]
    for first in range(0, len(rows.ego), SAMPLES_AT_ONCE):
        part = slice(first, first + SAMPLES_AT_ONCE)
        ego, count = rows.ego[part], counts[part]
        here = slice(ego[0], ego[-1] + count[-1])
        dx, dy = (place[here] - np.repeat(place[ego], count) for place in (rows.x, rows.y))
        cos, sin = (np.repeat(turn[part], count) for turn in turns)
        ahead, left = cos * dx + sin * dy, cos * dy - sin * dx
        near = (np.abs(left) < BESIDE_M + ROUNDING_M) & (np.abs(ahead) < AHEAD_M + ROUNDING_M)
        near &= rows.motor[here] & (ahead > -ROUNDING_M)
        row = np.flatnonzero(near)
        found.append(np.stack([row + ego[0], np.repeat(np.arange(first, first + len(ego)), count)[row]]))
    row, sample = np.concatenate(found, axis=1)
    return row, sample


def _seen(
    rows: _Rows, row: NDArray[np.int64], ego: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far ahead and how far left of their egos some rows stand, m."""
    dx, dy = (place[row].astype(np.float64) - place[ego] for place in (rows.x, rows.y))
    heading = rows.heading[ego].astype(np.float64)
    cos, sin = np.cos(heading), np.sin(heading)
    return cos * dx + sin * dy, cos * dy - sin * dx


def _cut_ins(rows: _Rows, track: NDArray[np.int32], next_to: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell where the vehicle ahead is another than before, and was seen beside the lane one step before."""
    new = np.flatnonzero(next_to[1:] & (track[1:] >= 0) & (track[1:] != track[:-1])) + 1
    begins, counts = rows.ego[new - 1], rows.ego[new] - rows.ego[new - 1]
    sample = np.repeat(new, counts)
    row = np.arange(len(sample)) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
    same = rows.track[row] == track[sample]
    row, sample = row[same], sample[same]
    _, left = _seen(rows, row, rows.ego[sample - 1])
    came = np.zeros(len(track), np.bool_)
    came[sample[np.abs(left) >= BESIDE_M]] = True
    return came
