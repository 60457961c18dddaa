"""Recorded tracks become drives: each motor vehicle that was watched long enough is an ego, what was near it its scene.

Rules:
1. A track of a car, truck or bus that lasts 6 s or more becomes a drive of its own: the track is the ego, every other
   track within 50 m at the same instant is a neighbour. Shorter tracks, cyclists and walkers are neighbours only.
2. Everything is brought to 5 Hz by linear interpolation, headings along the shorter arc; nothing is interpolated over
   a gap of more than 0.5 s.
3. A drive's time starts at 0 and its ego at the origin, so that where and when it was recorded does not show.
4. `vehicle` and `scene_id` are hashes of the source's scene and track. There is no VIN and no place.
5. A refusal names row and column of the source, never a value. Columns that are not listed here are not looked at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import ROAD_TYPES, ROAD_USER_TYPES, SAMPLE_RATE_HZ, Column, Dtype, Group
from isthmus.zone.columns import Source, array, text_codes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

STEP_S = 1.0 / SAMPLE_RATE_HZ
SHORTEST_DRIVE_S = 6.0
LONGEST_GAP_S = 0.5
NEIGHBOURHOOD_M = 50.0
MOST_TURNED = 25.2
"""Four turns, rad: a recording may count turns on instead of wrapping them, but degrees are refused."""
_TIME_TOLERANCE_S = 0.005

TRACK_COLUMNS = (
    Column("scene_id", Group.MOTION, Dtype.STRING),
    Column("track_id", Group.MOTION, Dtype.STRING),
    Column("t", Group.MOTION, Dtype.FLOAT64, "s", -1e10, 1e10),
    Column("x", Group.MOTION, Dtype.FLOAT64, "m", -1e8, 1e8),
    Column("y", Group.MOTION, Dtype.FLOAT64, "m", -1e8, 1e8),
    Column("vx", Group.MOTION, Dtype.FLOAT64, "m/s", -100.0, 100.0),
    Column("vy", Group.MOTION, Dtype.FLOAT64, "m/s", -100.0, 100.0),
    Column("heading", Group.MOTION, Dtype.FLOAT64, "rad", -MOST_TURNED, MOST_TURNED),
    Column("length", Group.MOTION, Dtype.FLOAT64, "m", 0.0, 40.0, required=False),
    Column("width", Group.MOTION, Dtype.FLOAT64, "m", 0.0, 10.0, required=False),
    Column("type", Group.MOTION, Dtype.STRING, required=False),
    Column("road_type", Group.MOTION, Dtype.STRING, required=False),
)
"""What is read of a table of tracks. `track_id` is unique within `scene_id`; both may be numbers."""

ROAD_USERS: dict[str, str] = {name: name for name in ROAD_USER_TYPES} | {
    "van": "car",
    "bicycle": "two_wheeler",
    "cyclist": "two_wheeler",
    "motorcycle": "two_wheeler",
    "motorcyclist": "two_wheeler",
    "tricycle": "two_wheeler",
    "person": "pedestrian",
}
ROADS: dict[str, str] = {name: name for name in ROAD_TYPES} | {
    "intersection": "urban_intersection",
    "crossroad": "urban_intersection",
    "motorway": "freeway",
    "highway": "freeway",
    "expressway": "freeway",
}
DEFAULT_ROAD_USER = "car"
DEFAULT_ROAD = "urban_intersection"
EGO_TYPES = frozenset({"car", "truck", "bus"})
_MOTION = ("x", "y", "vx", "vy", "heading", "length", "width")
_X, _Y, _HEADING = 0, 1, 4


@dataclass(frozen=True, slots=True)
class _Samples:
    """One scene at 5 Hz, rows by frame, then track.

    Attributes:
        scene: its name in the source.
        tracks: names of its tracks in the source, by number.
        types: their road user types, by number.
        road: the road's type.
        frame: int64 [n], instants of 0.2 s since the scene began.
        track: int64 [n], numbers of tracks.
        motion: float64 [n, 7], `_MOTION`; NaN for a size that was not recorded.
    """

    scene: str
    tracks: list[str]
    types: list[str]
    road: str
    frame: NDArray[np.int64]
    track: NDArray[np.int64]
    motion: NDArray[np.float64]


def drives_from_tracks(table: pa.Table, *, name: str = "the table") -> Iterator[pa.Table]:
    """Make raw tables, one a drive, of a table of plain tracks.

    Args:
        table: columns `TRACK_COLUMNS`, in any order of rows, at 2 Hz or more.
        name: what to call it in a refusal.

    Raises:
        Refusal: `INPUT_INVALID`, naming row and column; or when there is no row, or no track is long enough.
    """
    source = Source(name)
    source.refuse_empty(table)
    columns = _columns(table, source)
    found = False
    for scene in _scenes(columns, source):
        for number, type_ in enumerate(scene.types):
            drive = _drive(scene, number) if type_ in EGO_TYPES else None
            if drive is not None:
                found = True
                yield drive
    if not found:
        what = f"No track of {source.name} lasts {SHORTEST_DRIVE_S:g} s."
        raise Refusal(Code.INPUT_INVALID, what, why="Only a car, truck or bus sampled at 2 Hz or more makes a drive.")


def _columns(table: pa.Table, source: Source) -> dict[str, pa.Array]:
    for column in TRACK_COLUMNS:
        times = table.schema.names.count(column.name)
        if times > 1 or (column.required and times == 0):
            fault = "more than once" if times else "not there"
            remedy = f"A table of tracks has the columns {', '.join(c.name for c in TRACK_COLUMNS if c.required)}."
            raise Refusal(Code.INPUT_INVALID, f"Column {column.name} of {source.name} is {fault}.", remedy=remedy)
    wanted = table.select([c.name for c in TRACK_COLUMNS if c.name in table.schema.names])
    for index, field in enumerate(wanted.schema):
        values = wanted.column(index)
        if field.name.endswith("_id") and pa.types.is_integer(field.type):
            wanted = wanted.set_column(index, field.name, values.cast(pa.string()))
        if field.name in {"length", "width"} and pa.types.is_floating(field.type):
            # A recording spells an unknown size as NaN.
            recorded = pc.if_else(pc.is_nan(values), pa.scalar(None, field.type), values)
            wanted = wanted.set_column(index, field.name, recorded)
    columns = {column.name: array(wanted, column, source) for column in TRACK_COLUMNS}
    columns["type"] = _mapped(columns["type"], "type", ROAD_USERS, DEFAULT_ROAD_USER, source)
    columns["road_type"] = _mapped(columns["road_type"], "road_type", ROADS, DEFAULT_ROAD, source)
    return columns


def _mapped(values: pa.Array, name: str, known: Mapping[str, str], default: str, source: Source) -> pa.Array:
    codes, texts = text_codes(values)
    mapped = [known.get(text.strip().lower()) for text in texts]
    bad = np.array([text is None for text in mapped] + [False])
    source.refuse(bad[codes], name, f"it is none of {', '.join(known)}.")
    return pa.array([*mapped, default], pa.string()).take(pa.array(codes % (len(mapped) + 1))).dictionary_encode()


def _scenes(columns: Mapping[str, pa.Array], source: Source) -> Iterator[_Samples]:
    """Sort, look for repeats, and bring scene after scene to 5 Hz."""
    scene, scene_names = text_codes(columns["scene_id"])
    track, track_names = text_codes(columns["track_id"])
    t = columns["t"].to_numpy()
    order = np.lexsort((t, track, scene))
    same = (np.diff(scene[order]) == 0) & (np.diff(track[order]) == 0) & (np.diff(t[order]) == 0)
    repeated = np.zeros(len(order), np.bool_)
    repeated[order[1:][same]] = True
    source.refuse(repeated, "t", "its track is at this instant twice.")
    motion = np.stack([columns[name].to_numpy(zero_copy_only=False) for name in _MOTION], axis=1)
    types, type_names = text_codes(columns["type"])
    roads, road_names = text_codes(columns["road_type"])
    for rows in np.split(order, np.flatnonzero(np.diff(scene[order])) + 1):
        begins = float(t[rows].min())
        parts = np.split(rows, np.flatnonzero(np.diff(track[rows])) + 1)
        samples = [_resampled(t[part] - begins, motion[part]) for part in parts]
        frame = np.concatenate([frames for frames, _ in samples])
        number = np.repeat(np.arange(len(parts)), [len(frames) for frames, _ in samples])
        by_frame = np.lexsort((number, frame))
        yield _Samples(
            scene=scene_names[scene[rows[0]]],
            tracks=[track_names[track[part[0]]] for part in parts],
            types=[type_names[types[part[0]]] for part in parts],
            road=road_names[roads[rows[0]]],
            frame=frame[by_frame],
            track=number[by_frame],
            motion=np.concatenate([values for _, values in samples])[by_frame],
        )


def _resampled(t: NDArray[np.float64], motion: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Interpolate one track at the scene's instants: their numbers, and the motion there."""
    first = int(np.ceil((t[0] - _TIME_TOLERANCE_S) / STEP_S))
    last = int(np.floor((t[-1] + _TIME_TOLERANCE_S) / STEP_S))
    frame = np.arange(first, last + 1, dtype=np.int64)
    at = frame * STEP_S
    after = np.clip(np.searchsorted(t, at), 1, max(1, len(t) - 1)) if len(t) > 1 else np.zeros(len(at), np.int64)
    before = np.maximum(after - 1, 0)
    nearest = np.minimum(np.abs(t[before] - at), np.abs(t[after] - at))
    known = (t[after] - t[before] <= LONGEST_GAP_S) | (nearest <= _TIME_TOLERANCE_S)
    turned = motion.copy()
    turned[:, _HEADING] = np.unwrap(motion[:, _HEADING])
    values = np.stack([np.interp(at, t, column) for column in turned.T], axis=1)
    values[:, _HEADING] = (values[:, _HEADING] + np.pi) % (2 * np.pi) - np.pi
    return frame[known], values[known]


def _drive(scene: _Samples, ego: int) -> pa.Table | None:
    """Return the drive of one track, None where the track is too short or has more gaps than samples."""
    own = np.flatnonzero(scene.track == ego)
    steps = int(scene.frame[own[-1]] - scene.frame[own[0]]) if len(own) else 0
    if steps * STEP_S < SHORTEST_DRIVE_S - _TIME_TOLERANCE_S or 2 * len(own) < steps:
        return None
    frames = scene.frame[own]
    starts = np.searchsorted(scene.frame, frames)
    seen = np.searchsorted(scene.frame, frames, side="right") - starts
    instant = np.repeat(np.arange(len(own)), seen)
    row = starts[instant] + np.arange(len(instant)) - (np.cumsum(seen) - seen)[instant]
    offset = scene.motion[row, : _Y + 1] - scene.motion[own[instant], : _Y + 1]
    near = np.hypot(offset[:, _X], offset[:, _Y]) <= NEIGHBOURHOOD_M
    row, instant = row[near], instant[near]
    motion = scene.motion[row].copy()
    motion[:, : _Y + 1] -= scene.motion[own[0], : _Y + 1]
    track = np.where(scene.track[row] == ego, 0, scene.track[row] + 1)
    names = {"vehicle": _hashed("vehicle", scene, ego), "scene_id": _hashed("drive", scene, ego)}
    columns = {name: _constant(text, len(row)) for name, text in names.items()}
    columns["track_id"] = pa.array(track, pa.int32())
    columns["t"] = pa.array((frames[instant] - frames[0]) * STEP_S)
    for index, name in enumerate(_MOTION):
        columns[name] = pa.array(motion[:, index], mask=np.isnan(motion[:, index])).cast(pa.float32())
    columns["type"] = pa.array(scene.types, pa.string()).take(pa.array(scene.track[row]))
    columns["road_type"] = _constant(scene.road, len(row))
    return pa.table(columns)


def _hashed(what: str, scene: _Samples, track: int) -> str:
    text = f"{what}\0{scene.scene}\0{scene.tracks[track]}"
    return f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _constant(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [text])
