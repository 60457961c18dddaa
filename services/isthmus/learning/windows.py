"""From recorded drives to the forecasting task: 2 s of history and 6 neighbours in, 3 s of future out.

A window is 26 consecutive samples of the ego at 5 Hz: 11 of history (the last one is "now") and 15 of future. One
starts every second of a gapless stretch; a stretch ends where a drive ends or the ego misses a sample. Everything is
in the ego's frame of now: its position is the origin, x points along its heading. Nothing of the future reaches the
inputs. Inputs, in this order (72):

    10 x 2   earlier positions, oldest first            / 10 m
    11 x 2   velocities, oldest first, the last is now  in m/s
     6 x 5   neighbours now, nearest first: relative position / 10 m, relative velocity / 5 m/s, present (1 or 0)

Splits are by vehicle, never by window, and depend on a salt and the pseudonyms alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import EGO_TRACK, PSEUDONYM, ROAD_TYPES, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HISTORY = 11
FUTURE = 15
NEIGHBOURS = 6
STRIDE = SAMPLE_RATE_HZ
STEP_S = 1.0 / SAMPLE_RATE_HZ
STEP_TOLERANCE_S = 0.01
POSITION_SCALE_M = 10.0
RELATIVE_VELOCITY_SCALE_M_S = 5.0
INPUTS = 2 * (HISTORY - 1) + 2 * HISTORY + 5 * NEIGHBOURS
MAX_TURN_RATE = 1.0
"""rad/s. A car at a walking pace on full lock turns at about this rate; more is noise of a heading at standstill."""
HORIZONS_S: NDArray[np.float64] = np.arange(1, FUTURE + 1, dtype=np.float64) * STEP_S
"""When the 15 future points are, in seconds from now."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """n windows of one or more vehicles, in the order of the table they came from.

    Attributes:
        inputs: float32 [n, 72], see the module.
        residuals: float32 [n, 15, 2] m, future position less what constant velocity gives.
        velocity: float32 [n, 2] m/s, the ego's velocity now.
        turn_rate: float32 [n] rad/s, positive to the left, from the 2 s of history.
        vehicles: int32 [n], index into `vehicle_names`.
        vehicle_names: pseudonyms of the vehicles that have windows here, sorted.
        road_types: int8 [n], index into `raw_table.ROAD_TYPES`.
    """

    inputs: NDArray[np.float32]
    residuals: NDArray[np.float32]
    velocity: NDArray[np.float32]
    turn_rate: NDArray[np.float32]
    vehicles: NDArray[np.int32]
    vehicle_names: tuple[str, ...]
    road_types: NDArray[np.int8]

    def __len__(self) -> int:
        """How many windows."""
        return len(self.vehicles)


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """The columns that windows are made of, as arrays of one length; `drive` numbers the drives in table order."""

    drive: NDArray[np.int32]
    vehicle: NDArray[np.int32]
    vehicle_names: tuple[str, ...]
    road_type: NDArray[np.int32]
    road_type_names: tuple[str, ...]
    track: NDArray[np.int32]
    t: NDArray[np.float64]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    heading: NDArray[np.float64]


def extract(motion: pa.Table) -> Windows:
    """Cut drives into windows.

    Args:
        motion: the motion column group; rows sorted by `scene_id`, `t`, `track_id`, 5 Hz. Text columns may be plain
            or dictionary-encoded; `length`, `width` and `type` are not looked at.

    Returns:
        The windows; none where no drive is long enough.

    Raises:
        Refusal: INPUT_INVALID, when a column is missing, holds nulls or numbers that are not finite, or the rows are
            not in order.
    """
    table = _read(motion)
    frame_end = _frame_ends(table)
    ego = np.flatnonzero(table.track == EGO_TRACK)
    starts = _window_starts(table.drive[ego], table.t[ego])
    rows = ego[starts[:, None] + np.arange(HISTORY + FUTURE)]
    now = rows[:, HISTORY - 1]
    cos, sin = np.cos(table.heading[now]), np.sin(table.heading[now])
    position = _rotate(table.position[rows] - table.position[now][:, None], cos, sin)
    velocity = _rotate(table.velocity[rows[:, :HISTORY]], cos, sin)
    residuals = position[:, HISTORY:] - velocity[:, -1:] * HORIZONS_S[:, None]
    inputs = np.concatenate(
        [
            (position[:, : HISTORY - 1] / POSITION_SCALE_M).reshape(len(now), 2 * (HISTORY - 1)),
            velocity.reshape(len(now), 2 * HISTORY),
            _neighbours(table, now, frame_end[now], cos, sin).reshape(len(now), 5 * NEIGHBOURS),
        ],
        axis=1,
    )
    vehicles, names = _renumber(table.vehicle[now], table.vehicle_names)
    return Windows(
        inputs=inputs.astype(np.float32),
        residuals=residuals.astype(np.float32),
        velocity=velocity[:, -1].astype(np.float32),
        turn_rate=_turn_rate(table.heading[rows[:, :HISTORY]]),
        vehicles=vehicles,
        vehicle_names=names,
        road_types=_road_codes(table.road_type[now], table.road_type_names),
    )


def concatenate(parts: Sequence[Windows]) -> Windows:
    """Join windows, in the order given. A vehicle in several parts is one vehicle.

    Raises:
        Refusal: INPUT_INVALID, when there is nothing to join.
    """
    if not parts:
        raise Refusal(Code.INPUT_INVALID, "There are no windows to join.")
    names = sorted({name for part in parts for name in part.vehicle_names})
    place = {name: index for index, name in enumerate(names)}
    numbering = [np.array([place[name] for name in part.vehicle_names], dtype=np.int32) for part in parts]
    return Windows(
        inputs=np.concatenate([part.inputs for part in parts]),
        residuals=np.concatenate([part.residuals for part in parts]),
        velocity=np.concatenate([part.velocity for part in parts]),
        turn_rate=np.concatenate([part.turn_rate for part in parts]),
        vehicles=np.concatenate([new[part.vehicles] for part, new in zip(parts, numbering, strict=True)]),
        vehicle_names=tuple(names),
        road_types=np.concatenate([part.road_types for part in parts]),
    )


def split_by_vehicle(windows: Windows, held_out: int, salt: str, *, least: int = 1) -> tuple[Windows, Windows]:
    """Set `held_out` vehicles aside: those whose SHA-256 of salt and pseudonym is smallest.

    Which vehicles they are does not depend on the order of the windows or on how many a vehicle has.

    Args:
        windows: of all vehicles.
        held_out: how many to set aside.
        salt: what their hashes are drawn with.
        least: how many must be left to train on. With 0 nothing is refused for want of vehicles: all there are may be
            set aside. Who chooses `held_out` would learn from a refusal how many there are.

    Returns:
        The windows to train on, and those of the vehicles held out.

    Raises:
        Refusal: INPUT_INVALID, when fewer vehicles than `least` would be left to train on.
    """
    if held_out < 0 or (least and held_out + least > len(windows.vehicle_names)):
        raise Refusal(
            Code.INPUT_INVALID,
            f"Cannot hold out {held_out} of {len(windows.vehicle_names)} vehicles.",
            why="At least one vehicle must be left to train on.",
            remedy="Hold out fewer vehicles, or take a dataset with more.",
        )
    drawn = sorted(windows.vehicle_names, key=lambda name: hashlib.sha256(f"{salt}\0{name}".encode()).digest())
    is_held_out = np.isin(windows.vehicle_names, drawn[:held_out])[windows.vehicles]
    return _select(windows, ~is_held_out), _select(windows, is_held_out)


def _select(windows: Windows, chosen: NDArray[np.bool_]) -> Windows:
    vehicles, names = _renumber(windows.vehicles[chosen], windows.vehicle_names)
    return Windows(
        inputs=windows.inputs[chosen],
        residuals=windows.residuals[chosen],
        velocity=windows.velocity[chosen],
        turn_rate=windows.turn_rate[chosen],
        vehicles=vehicles,
        vehicle_names=names,
        road_types=windows.road_types[chosen],
    )


def _renumber(codes: NDArray[np.int32], names: tuple[str, ...]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Keep only the names that occur, sorted, and number them from zero."""
    used = sorted(np.unique(codes).tolist(), key=lambda code: names[code])
    place = np.zeros(len(names), dtype=np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    return place[codes], tuple(names[code] for code in used)


def _read(motion: pa.Table) -> _Motion:
    vehicle, vehicle_names = _codes(motion, PSEUDONYM.name)
    scene, _ = _codes(motion, "scene_id")
    road_type, road_type_names = _codes(motion, "road_type")
    change = (scene[1:] != scene[:-1]) | (vehicle[1:] != vehicle[:-1])
    return _Motion(
        drive=np.concatenate([np.zeros(min(1, len(scene)), np.int32), np.cumsum(change, dtype=np.int32)]),
        vehicle=vehicle,
        vehicle_names=vehicle_names,
        road_type=road_type,
        road_type_names=road_type_names,
        track=_numbers(motion, "track_id").astype(np.int32),
        t=_numbers(motion, "t"),
        position=np.stack([_numbers(motion, "x"), _numbers(motion, "y")], axis=1),
        velocity=np.stack([_numbers(motion, "vx"), _numbers(motion, "vy")], axis=1),
        heading=_numbers(motion, "heading"),
    )


def _column(motion: pa.Table, name: str) -> pa.ChunkedArray:
    if motion.schema.get_field_index(name) < 0:
        raise Refusal(Code.INPUT_INVALID, f"Column {name} is missing or there are several.")
    column = motion.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # a dictionary may hold nulls and repeats of its own
    if column.null_count:
        raise Refusal(Code.INPUT_INVALID, f"Column {name} holds nulls.")
    return column


def _numbers(motion: pa.Table, name: str) -> NDArray[np.float64]:
    column = _column(motion, name)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise Refusal(Code.INPUT_INVALID, f"Column {name} is not a column of numbers.")
    values = cast("NDArray[np.float64]", column.to_numpy().astype(np.float64, copy=False))
    if not np.isfinite(values).all():
        raise Refusal(Code.INPUT_INVALID, f"Column {name} holds numbers that are not finite.")
    return values


def _codes(motion: pa.Table, name: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return a text column as numbers, and the values by number."""
    column = _column(motion, name)
    encoded = pc.dictionary_encode(column)
    if encoded.num_chunks == 0:
        return np.zeros(0, np.int32), ()
    chunk = encoded.unify_dictionaries().combine_chunks()
    names = tuple(chunk.dictionary.to_pylist())
    if not all(isinstance(value, str) for value in names):
        raise Refusal(Code.INPUT_INVALID, f"Column {name} is not a column of text.")
    return chunk.indices.to_numpy().astype(np.int32, copy=False), names


def _frame_ends(table: _Motion) -> NDArray[np.int64]:
    """For each row, the row after the last of its frame (same drive, same instant); refuses rows out of order."""
    same_drive = table.drive[1:] == table.drive[:-1]
    step = np.diff(table.t)
    same_frame = same_drive & (step == 0)
    disordered = (same_drive & (step < 0)) | (same_frame & (np.diff(table.track) <= 0))
    if disordered.any():
        raise Refusal(
            Code.INPUT_INVALID,
            f"Row {int(np.argmax(disordered)) + 1} is out of order or a repeat.",
            why="Rows go by scene_id, t, track_id, each combination once.",
        )
    ends = np.append(np.flatnonzero(~same_frame) + 1, len(table.t))
    frame = np.concatenate([np.zeros(min(1, len(table.t)), np.int64), np.cumsum(~same_frame)])
    of_row: NDArray[np.int64] = ends[frame]
    return of_row


def _window_starts(drive: NDArray[np.int32], t: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where windows start among the ego's samples: every `STRIDE` samples of each gapless stretch."""
    index = np.arange(len(t))
    gap = (np.diff(drive) != 0) | (np.abs(np.diff(t) - STEP_S) > STEP_TOLERANCE_S)
    first = np.concatenate([np.zeros(min(1, len(t)), np.int64), np.where(gap, index[1:], 0)])
    stretch = np.maximum.accumulate(first)
    is_start = (index - stretch) % STRIDE == 0
    is_start[max(0, len(t) - HISTORY - FUTURE + 1) :] = False
    starts = np.flatnonzero(is_start)
    whole: NDArray[np.int64] = starts[stretch[starts] == stretch[starts + HISTORY + FUTURE - 1]]
    return whole


def _rotate(vectors: NDArray[np.float64], cos: NDArray[np.float64], sin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn world vectors [n, ..., 2] into the frames of n egos."""
    shape = (len(cos),) + (1,) * (vectors.ndim - 2)
    c, s = cos.reshape(shape), sin.reshape(shape)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([c * x + s * y, c * y - s * x], axis=-1)


def _neighbours(
    table: _Motion,
    now: NDArray[np.int64],
    frame_end: NDArray[np.int64],
    cos: NDArray[np.float64],
    sin: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the nearest road users of each window's last history frame, [n, 6, 5]; zeros where there are fewer.

    The ego has the lowest track number, so its frame's other rows follow it.
    """
    seen = frame_end - now - 1
    window = np.repeat(np.arange(len(now)), seen)
    first = np.cumsum(seen) - seen
    row = now[window] + 1 + np.arange(len(window)) - first[window]
    offset = table.position[row] - table.position[now[window]]
    nearest_first = np.lexsort((np.square(offset).sum(axis=1), window))
    rank = np.arange(len(window)) - first[window]
    kept = nearest_first[rank < NEIGHBOURS]
    rank = rank[rank < NEIGHBOURS]
    row, offset, window = row[kept], offset[kept], window[kept]
    found = np.zeros((len(now), NEIGHBOURS, 5))
    relative = table.velocity[row] - table.velocity[now[window]]
    found[window, rank, 0:2] = _rotate(offset, cos[window], sin[window]) / POSITION_SCALE_M
    found[window, rank, 2:4] = _rotate(relative, cos[window], sin[window]) / RELATIVE_VELOCITY_SCALE_M_S
    found[window, rank, 4] = 1.0
    return found


def _turn_rate(heading: NDArray[np.float64]) -> NDArray[np.float32]:
    """Slope of the heading over the history: the median over all pairs of samples (Theil 1950, Sen 1968).

    One wild heading in five does not move it, unlike a difference or a least-squares line.
    """
    unwrapped = np.unwrap(heading, axis=1)
    early, late = np.triu_indices(HISTORY, k=1)
    slopes = (unwrapped[:, late] - unwrapped[:, early]) / ((late - early) * STEP_S)
    rate: NDArray[np.float64] = np.median(slopes, axis=1)
    return rate.clip(-MAX_TURN_RATE, MAX_TURN_RATE).astype(np.float32)


def _road_codes(codes: NDArray[np.int32], names: tuple[str, ...]) -> NDArray[np.int8]:
    unknown = set(names) - set(ROAD_TYPES)
    if unknown:
        raise Refusal(Code.INPUT_INVALID, f"There are {len(unknown)} unknown road types.")
    return np.array([ROAD_TYPES.index(name) for name in names], dtype=np.int8)[codes]
