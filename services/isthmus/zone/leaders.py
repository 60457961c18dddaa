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
class _Seen:
    """All rows of a batch in the frame of the ego that recorded them.

    Attributes:
        frame: which sample of the egos a row belongs to; it does not fall.
        track: its track.
        left: m, beside the ego's axis.
        gap: m, bumper to bumper, infinite for whoever is not ahead in the lane.
    """

    frame: NDArray[np.int64]
    track: NDArray[np.int32]
    left: NDArray[np.float64]
    gap: NDArray[np.float64]


def find_leaders(batch: pa.Table, ego: NDArray[np.int64], next_to: NDArray[np.bool_]) -> Leaders:
    """Return who is ahead of the egos.

    Args:
        batch: a validated raw table, rows by `scene_id`, `t`, `track_id`.
        ego: the egos' rows.
        next_to: for each of them, whether the one before is the same drive one step earlier.
    """
    seen = _seen(batch, ego)
    nearest = np.minimum.reduceat(seen.gap, ego)
    leads = np.flatnonzero(np.isfinite(seen.gap) & (seen.gap == nearest[seen.frame]))[::-1]
    row = np.full(len(ego), -1, np.int64)
    row[seen.frame[leads]] = leads  # of equals, the lowest track is written last and stays
    track = np.where(row >= 0, seen.track[row], -1).astype(np.int32)
    return Leaders(nearest, track, _cut_ins(seen, track, next_to))


def _seen(batch: pa.Table, ego: NDArray[np.int64]) -> _Seen:
    frame = np.zeros(batch.num_rows, np.int64)
    frame[ego[1:]] = 1
    frame = np.cumsum(frame)
    column = {name: batch.column(name).to_numpy().astype(np.float64) for name in ("x", "y", "heading")}
    length = pc.fill_null(batch.column("length").combine_chunks(), USUAL_LENGTH_M).to_numpy().astype(np.float64)
    of = ego[frame]
    dx, dy = column["x"] - column["x"][of], column["y"] - column["y"][of]
    cos, sin = np.cos(column["heading"][ego])[frame], np.sin(column["heading"][ego])[frame]
    ahead, left = cos * dx + sin * dy, cos * dy - sin * dx
    codes, kinds = text_codes(batch.column("type"))
    motor = np.array([kind in MOTOR for kind in kinds])[codes]
    same_way = np.cos(column["heading"] - column["heading"][of]) > 0.0
    leads = motor & same_way & (np.abs(left) < BESIDE_M) & (ahead > 0.0) & (ahead <= AHEAD_M)
    gap = np.where(leads, ahead - 0.5 * (length + length[of]), np.inf)
    return _Seen(frame, batch.column("track_id").to_numpy(), left, gap)


def _cut_ins(seen: _Seen, track: NDArray[np.int32], next_to: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell where the vehicle ahead is another than before, and was seen beside the lane one step before."""
    came = np.zeros(len(track), np.bool_)
    came[1:] = next_to[1:] & (track[1:] >= 0) & (track[1:] != track[:-1])
    sample = np.flatnonzero(came)
    # Rows stand by frame and track, so that a row of both is found by halving.
    key = (seen.frame << 32) + seen.track
    wanted = ((sample - 1) << 32) + track[sample]
    before = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    came[sample] = (key[before] == wanted) & (np.abs(seen.left[before]) >= BESIDE_M)
    return came
