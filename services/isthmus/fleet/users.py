"""Road users: what they are, how they drive, and where they are now.

Every array has shape (scenes, slots). Slot 0 is the ego and stays it; another slot holds one road user after the
other, each with a track number of its own. Slots that hold nobody are not active.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from isthmus.contracts.raw_table import ROAD_USER_TYPES
from isthmus.fleet.scenes import by_road

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.fleet.parameters import FleetParameters, Range
    from isthmus.fleet.scenes import Scenes

CAR, TRUCK, BUS, TWO_WHEELER, PEDESTRIAN = (
    ROAD_USER_TYPES.index(name) for name in ("car", "truck", "bus", "two_wheeler", "pedestrian")
)


@dataclass(slots=True)
class Users:
    """State and character of all road users, changed in place by the simulation.

    Attributes:
        active: whether the slot holds somebody.
        track: track number.
        kind: index into `ROAD_USER_TYPES`.
        path, s: on which path, and how far along it, m.
        speed, acceleration: along the path, m/s and m/s2.
        side, drift: lateral offset from the path, m, and its rate, m/s.
        lane: the offset that is aimed at, m.
        pace: wanted speed relative to the road's.
        waver: its present deviation, relative; `wander`: the present deviation from `lane`, m.
        own_speed: what it can do at most, m/s.
        length, width: m.
        desired, gap, thrust, brake, exponent, jam: IDM's v0, T, a, b, delta and s0.
    """

    active: NDArray[np.bool_]
    track: NDArray[np.int64]
    kind: NDArray[np.int64]
    path: NDArray[np.int64]
    s: NDArray[np.float64]
    speed: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    side: NDArray[np.float64]
    drift: NDArray[np.float64]
    lane: NDArray[np.float64]
    pace: NDArray[np.float64]
    waver: NDArray[np.float64]
    wander: NDArray[np.float64]
    own_speed: NDArray[np.float64]
    length: NDArray[np.float64]
    width: NDArray[np.float64]
    desired: NDArray[np.float64]
    gap: NDArray[np.float64]
    thrust: NDArray[np.float64]
    brake: NDArray[np.float64]
    exponent: NDArray[np.float64]
    jam: NDArray[np.float64]

    def put(self, scene: NDArray[np.int64], slot: NDArray[np.int64], newcomers: Users) -> None:
        """Put newcomers, each array of shape (m,), into the given slots."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[scene, slot] = getattr(newcomers, name)


def empty_users(scenes: int, slots: int) -> Users:
    """Return slots that hold nobody."""
    shape = (scenes, slots)
    return Users(
        active=np.zeros(shape, dtype=np.bool_),
        track=np.zeros(shape, dtype=np.int64),
        kind=np.zeros(shape, dtype=np.int64),
        path=np.zeros(shape, dtype=np.int64),
        **{
            name: np.ones(shape)
            for name in Users.__dataclass_fields__
            if name not in ("active", "track", "kind", "path")
        },
    )


def draw_users(parameters: FleetParameters, scenes: Scenes, rng: np.random.Generator, *, ego: bool = False) -> Users:
    """Draw one road user per scene, not yet placed; each array of shape (n,). An ego is a car."""
    count, drivers = len(scenes), parameters.drivers
    kind = np.full(count, CAR) if ego else _draw_kinds(parameters, scenes, rng)
    heavy, light = (kind == TRUCK) | (kind == BUS), kind == TWO_WHEELER

    def idm(name: str) -> NDArray[np.float64]:
        of_road = by_road(parameters, scenes.road, lambda road: float(getattr(road.idm, name)))
        return np.where(light, getattr(drivers.two_wheeler, name), of_road)

    def drawn(spread: Range) -> NDArray[np.float64]:
        return rng.uniform(spread.low, spread.high, count)

    own = np.where(light, drawn(drivers.two_wheeler_speed), 60.0)
    own = np.where(kind == PEDESTRIAN, drawn(drivers.pedestrian_speed), own)
    size = rng.random((count, 2))
    thrust = idm("acceleration") * rng.uniform(0.85, 1.15, count)
    zeros = np.zeros(count)
    return Users(
        active=np.ones(count, dtype=np.bool_),
        track=np.zeros(count, dtype=np.int64),
        kind=kind,
        path=np.zeros(count, dtype=np.int64),
        s=zeros,
        speed=zeros,
        acceleration=zeros,
        side=zeros,
        drift=zeros,
        lane=zeros,
        pace=np.exp(rng.normal(0.0, drivers.speed_spread, count)) * np.where(heavy, 0.92, 1.0),
        waver=zeros,
        wander=zeros,
        own_speed=own,
        length=_size(parameters, kind, "length", size[:, 0]),
        width=_size(parameters, kind, "width", size[:, 1]),
        desired=np.where(light, own, idm("desired_speed")),
        gap=idm("time_gap") * np.exp(rng.normal(0.0, drivers.time_gap_spread, count)) * np.where(heavy, 1.3, 1.0),
        thrust=thrust * np.where(heavy, drivers.heavy_acceleration, 1.0),
        brake=idm("deceleration"),
        exponent=idm("exponent"),
        jam=idm("jam_gap"),
    )


def _size(
    parameters: FleetParameters, kind: NDArray[np.int64], side: Literal["length", "width"], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return lengths or widths at `share` of the way from each kind's smallest to its largest, m."""
    ranges: list[Range] = [getattr(size, side) for size in parameters.sizes]
    low, high = (np.array([getattr(each, end) for each in ranges])[kind] for end in ("low", "high"))
    sizes: NDArray[np.float64] = low + share * (high - low)
    return sizes


def _draw_kinds(parameters: FleetParameters, scenes: Scenes, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw what newcomers are from each scene's shares."""
    walking = by_road(parameters, scenes.road, lambda road: road.pedestrians)
    heavy = by_road(parameters, scenes.road, lambda road: road.heavy)
    chance, other = rng.random((2, len(scenes)))
    motor = np.where(other < heavy, np.where(other < 0.3 * heavy, BUS, TRUCK), CAR)
    slow = np.where(chance < scenes.two_wheelers + walking, PEDESTRIAN, motor)
    return np.where(chance < scenes.two_wheelers, TWO_WHEELER, slow)
