"""What a vehicle records of the traffic around it, as raw tables.

Rules: the ego is in every instant; of the others, those within the sensors' view, the nearest first, at most
`Sensors.most`. The ego's motion is exact (odometry), others' carry sensor noise, every place carries the receiver's
error of that instant. A drive's name is a hash: motion data does not say which vehicle recorded it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from isthmus.contracts.raw_table import EGO_TRACK, RAW_COLUMNS, ROAD_TYPES, ROAD_USER_TYPES, SAMPLE_RATE_HZ, Dtype
from isthmus.fleet.handovers import draw_engaged
from isthmus.fleet.paths import SHORTEST_STRETCH
from isthmus.fleet.place import to_wgs84
from isthmus.fleet.traffic import STEP
from isthmus.fleet.vin import made_up_vin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from isthmus.fleet.network import Sample
    from isthmus.fleet.parameters import FleetParameters, Sensors
    from isthmus.fleet.users import Users

_ARROW = {
    Dtype.STRING: pa.string(),
    Dtype.INT32: pa.int32(),
    Dtype.FLOAT32: pa.float32(),
    Dtype.FLOAT64: pa.float64(),
}
SCHEMA = pa.schema([pa.field(column.name, _ARROW[column.dtype]) for column in RAW_COLUMNS])
"""The raw table's Arrow schema."""

X, Y, VX, VY, HEADING, LENGTH, WIDTH = range(7)


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything that happened around the egos of n drives, before any sensor.

    Attributes:
        road: index into `ROAD_TYPES`, shape (n,).
        track: track numbers, -1 where a slot is empty, shape (n, instants, slots).
        kind: index into `ROAD_USER_TYPES`, the same shape.
        state: x, y, vx, vy, heading, length, width, shape (n, instants, slots, 7).
    """

    road: NDArray[np.int64]
    track: NDArray[np.int32]
    kind: NDArray[np.int8]
    state: NDArray[np.float32]

    def drives(self, first: int, count: int) -> Recording:
        """Return `count` drives from number `first`."""
        part = slice(first, first + count)
        return Recording(self.road[part], self.track[part], self.kind[part], self.state[part])

    @classmethod
    def blank(cls, road: NDArray[np.int64], instants: int, slots: int) -> Self:
        """Return a recording in which nothing has been taken yet."""
        shape = (len(road), instants, slots)
        return cls(road, np.full(shape, -1, np.int32), np.zeros(shape, np.int8), np.zeros((*shape, 7), np.float32))

    def take(self, instant: int, users: Users, here: Sample) -> None:
        """Record where everybody is, at which points of their paths, and how they move, at one instant."""
        cos, sin = np.cos(here.heading), np.sin(here.heading)
        bent = 1.0 - here.curvature * users.side
        forward = users.speed * bent / np.maximum(bent, SHORTEST_STRETCH)
        slip = np.arctan2(users.drift, np.maximum(forward, 0.5))
        self.track[:, instant] = np.where(users.active, users.track, -1)
        self.kind[:, instant] = users.kind
        state = self.state[:, instant]
        state[..., X], state[..., Y] = here.x - users.side * sin, here.y + users.side * cos
        state[..., VX], state[..., VY] = forward * cos - users.drift * sin, forward * sin + users.drift * cos
        state[..., HEADING] = here.heading + slip
        state[..., LENGTH], state[..., WIDTH] = users.length, users.width


@dataclass(frozen=True, slots=True)
class _Origins:
    """Where each drive's local frame lies: latitude, longitude, deg, and the direction of its x axis, rad; (n,)."""

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    direction: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recorder:
    """Who records: one vehicle of a fleet.

    Attributes:
        parameters: of the fleet.
        site: the fleet's site id.
        seed: of the fleet.
        vehicle: its number.
    """

    parameters: FleetParameters
    site: str
    seed: int
    vehicle: int


def table_of(
    recording: Recording, recorder: Recorder, rng: np.random.Generator, driver: np.random.Generator
) -> pa.Table:
    """Return the raw table of one vehicle.

    Args:
        recording: all of its drives.
        recorder: the vehicle.
        rng: a generator for its sensors alone.
        driver: a generator for when its driver takes over, alone.
    """
    names, order = _drive_names(recorder, len(recording.road))
    sensors, parameters = recorder.parameters.sensors, recorder.parameters
    origins = _draw_origins(parameters, len(names), rng)
    turned = _turned(recording.state[order], origins.direction)
    scene, instant, slot = _seen(recording.track[order], turned, sensors)
    track = recording.track[order][scene, instant, slot]
    state = _measured(turned[scene, instant, slot], turned[scene, instant, 0], track, sensors, rng)
    error = _receiver_errors(recording.track.shape[:2], sensors, rng)[scene, instant]
    latitude, longitude = to_wgs84(
        (origins.latitude[scene], origins.longitude[scene]), state[:, X] + error[:, 0], state[:, Y] + error[:, 1]
    )
    everywhere = np.zeros(len(scene), dtype=np.int32)
    near = _users_near(scene, instant, recording.track.shape[:2])
    columns = {
        "vehicle": _words(everywhere, [f"{recorder.site}-{recorder.vehicle:06d}"]),
        "vin": _words(everywhere, [made_up_vin(parameters.wmi, parameters.model_years, recorder.vehicle)]),
        "lat": latitude,
        "lon": longitude,
        "scene_id": _words(scene, names),
        "track_id": track,
        "t": instant / SAMPLE_RATE_HZ,
        "x": state[:, X],
        "y": state[:, Y],
        "vx": state[:, VX],
        "vy": state[:, VY],
        "heading": np.mod(state[:, HEADING] + np.pi, 2 * np.pi) - np.pi,
        "length": state[:, LENGTH],
        "width": state[:, WIDTH],
        "type": _words(recording.kind[order][scene, instant, slot], ROAD_USER_TYPES),
        "road_type": _words(recording.road[order][scene], ROAD_TYPES),
        "engaged": draw_engaged(near, driver)[scene, instant],
    }
    arrays = [_arrow(columns[field.name], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _drive_names(recorder: Recorder, drives: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return the drives' names, sorted, and which drive each is; a name does not tell the vehicle."""
    named = sorted(
        (hashlib.sha256(f"{recorder.site}|{recorder.seed}|{recorder.vehicle}|{drive}".encode()).hexdigest()[:20], drive)
        for drive in range(drives)
    )
    return [f"drive-{name}" for name, _ in named], np.array([drive for _, drive in named])


def _arrow(column: NDArray[np.generic] | pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column as an Arrow array of the given type."""
    return column if isinstance(column, pa.Array) else pa.array(column.astype(kind.to_pandas_dtype()))


def _words(index: NDArray[np.integer], words: Sequence[str]) -> pa.Array:
    """Return the words at the given indices as an Arrow string array."""
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(list(words))).cast(pa.string())


def _draw_origins(parameters: FleetParameters, count: int, rng: np.random.Generator) -> _Origins:
    """Draw where each drive lies and which way its ego's road leads."""
    places = np.array(parameters.origins)[rng.integers(0, len(parameters.origins), count)]
    places = places + rng.uniform(-parameters.spread, parameters.spread, places.shape)
    return _Origins(places[:, 0], places[:, 1], rng.uniform(-np.pi, np.pi, count))


def _turned(state: NDArray[np.float32], direction: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn everything so that x is east and y north, with the ego's first place as the origin."""
    angle = direction.astype(np.float32)[:, None, None]
    cos, sin = np.cos(angle), np.sin(angle)
    turned = state.copy()
    dx, dy = state[..., X] - state[:, :1, :1, X], state[..., Y] - state[:, :1, :1, Y]
    turned[..., X], turned[..., Y] = cos * dx - sin * dy, sin * dx + cos * dy
    turned[..., VX] = cos * state[..., VX] - sin * state[..., VY]
    turned[..., VY] = sin * state[..., VX] + cos * state[..., VY]
    turned[..., HEADING] += angle
    return turned


def _seen(
    track: NDArray[np.int32], state: NDArray[np.float32], sensors: Sensors
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return scene, instant and slot of every row, ordered by scene, instant and track."""
    away = np.hypot(state[..., X] - state[..., :1, X], state[..., Y] - state[..., :1, Y])
    away[..., 0] = -1.0
    away = np.where((track >= 0) & (away <= sensors.view), away, np.inf)
    rank = away.argsort(axis=-1, kind="stable").argsort(axis=-1, kind="stable")
    seen = np.isfinite(away) & (rank <= sensors.most)
    by_track = np.where(seen, track, np.iinfo(np.int32).max).argsort(axis=-1, kind="stable")
    scene, instant, place = np.nonzero(np.take_along_axis(seen, by_track, axis=-1))
    return scene, instant, by_track[scene, instant, place]


def _users_near(scene: NDArray[np.int64], instant: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return how many others are recorded at each instant, shape (scenes, instants)."""
    rows = np.bincount(scene * shape[1] + instant, minlength=shape[0] * shape[1])
    return rows.reshape(shape) - 1


def _measured(
    state: NDArray[np.float32],
    ego: NDArray[np.float32],
    track: NDArray[np.int32],
    sensors: Sensors,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Add sensor noise to everybody but the ego; rows of shape (rows, 7)."""
    noise = rng.standard_normal((len(state), 5), dtype=np.float32)
    away = np.hypot(state[:, X] - ego[:, X], state[:, Y] - ego[:, Y])
    others = (track != EGO_TRACK).astype(np.float64)
    scale = np.empty((len(state), 5))
    scale[:, X] = scale[:, Y] = others * (sensors.position + sensors.position_growth * away)
    scale[:, VX] = scale[:, VY] = others * sensors.velocity
    scale[:, HEADING] = others * sensors.heading
    measured = state.astype(np.float64)
    measured[:, :5] += noise * scale
    return measured


def _receiver_errors(shape: tuple[int, ...], sensors: Sensors, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the error of the ego's place, m to the east and north, shape (scenes, instants, 2)."""
    keep = np.exp(-STEP / sensors.gps_drift_time)
    fresh = rng.standard_normal((*shape, 2))
    drift = np.empty_like(fresh)
    drift[:, 0] = fresh[:, 0]
    for instant in range(1, shape[1]):
        drift[:, instant] = keep * drift[:, instant - 1] + np.sqrt(1 - keep**2) * fresh[:, instant]
    return sensors.gps_drift * drift + sensors.gps_jitter * rng.standard_normal((*shape, 2))
