"""What a drive's surroundings are: drawn once per drive from the fleet's parameters.

A scene has the ego's road with `JUNCTIONS` junctions along it. Every array's first axis is the scene. Lateral places
are signed offsets from the ego's lane, m, positive to the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.raw_table import ROAD_TYPES
from isthmus.fleet.parameters import JUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from isthmus.fleet.parameters import FleetParameters, Range, Road

ROUNDABOUT = ROAD_TYPES.index("roundabout")
FREEWAY = ROAD_TYPES.index("freeway")
INNER = 0.65
"""Share of a turn's radius that offsets to its inner side may take."""
RUN_UP = 110.0
"""Road before the ego's first block, m, so that what follows it has a place to come from."""


@dataclass(frozen=True, slots=True)
class Scenes:
    """Drawn surroundings of `n` drives.

    Attributes:
        road: index into `ROAD_TYPES`, shape (n,).
        speed: of the road, m/s.
        lane_width: m.
        lanes_left, lanes_right: further lanes of the ego's direction beside its own, counted.
        oncoming: distance to the innermost oncoming lane, m.
        users: road users to keep around the ego.
        two_wheelers: expected share of two-wheelers.
        block: distance between junctions, m, shape (n, JUNCTIONS).
        bend: curvature of the blocks, 1/m, shape (n, JUNCTIONS + 1).
        turn: +1 where the ego turns left, 0 straight on, -1 right, shape (n, JUNCTIONS).
        angle: size of a turn, rad.
        side: +1 or -1: which way others turn where the ego does not.
        radius_left, radius_right: m.
        cycle, green, offset: of the signals, s.
    """

    road: NDArray[np.int64]
    speed: NDArray[np.float64]
    lane_width: NDArray[np.float64]
    lanes_left: NDArray[np.int64]
    lanes_right: NDArray[np.int64]
    oncoming: NDArray[np.float64]
    users: NDArray[np.int64]
    two_wheelers: NDArray[np.float64]
    block: NDArray[np.float64]
    bend: NDArray[np.float64]
    turn: NDArray[np.int64]
    angle: NDArray[np.float64]
    side: NDArray[np.int64]
    radius_left: NDArray[np.float64]
    radius_right: NDArray[np.float64]
    cycle: NDArray[np.float64]
    green: NDArray[np.float64]
    offset: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.road)

    @property
    def lanes(self) -> NDArray[np.int64]:
        """Lanes per direction."""
        return self.lanes_left + 1 + self.lanes_right

    @property
    def curb(self) -> NDArray[np.float64]:
        """Distance from the ego's lane to the track of two-wheelers at its right, m."""
        return (self.lanes_right + 0.5) * self.lane_width + 1.1

    @property
    def far_curb(self) -> NDArray[np.float64]:
        """Distance from the ego's lane to the track of oncoming two-wheelers, m."""
        return self.oncoming + (self.lanes - 0.5) * self.lane_width + 1.1

    @property
    def deepest(self) -> NDArray[np.float64]:
        """How far to the left of the ego's path anybody can drive who follows its tightest left turn, m."""
        radius = np.where(self.turn > 0, self.radius_left, np.inf).min(axis=1)
        return np.where(self.road == ROUNDABOUT, np.inf, INNER * radius)


def by_road(
    parameters: FleetParameters, road: NDArray[np.int64], value: Callable[[Road], float]
) -> NDArray[np.float64]:
    """Return `value` of each scene's road, shape of `road`."""
    return np.array([value(kind) for kind in parameters.roads], dtype=np.float64)[road]


def draw_scenes(parameters: FleetParameters, count: int, rng: np.random.Generator) -> Scenes:
    """Draw the surroundings of `count` drives."""
    road = rng.choice(len(ROAD_TYPES), size=count, p=[kind.share for kind in parameters.roads])
    shape = (count, JUNCTIONS)

    def drawn(value: Callable[[Road], Range], size: tuple[int, ...] = (count,)) -> NDArray[np.float64]:
        low = by_road(parameters, road, lambda kind: value(kind).low)
        high = by_road(parameters, road, lambda kind: value(kind).high)
        return (low + (high - low) * rng.random(size[::-1])).T

    turn = _turns(parameters, road, rng)
    lanes = _whole(parameters, road, lambda kind: kind.lanes, rng)
    left, right = _beside(turn, lanes, rng)
    lane_width = by_road(parameters, road, lambda kind: kind.lane_width)
    cycle = drawn(lambda kind: kind.junction.cycle, shape)
    block = drawn(lambda kind: kind.block, shape)
    block[:, 0] += RUN_UP
    bend_radius = by_road(parameters, road, lambda kind: kind.bend_radius)
    bend = rng.uniform(-1.0, 1.0, (count, JUNCTIONS + 1))
    return Scenes(
        road=road,
        speed=drawn(lambda kind: kind.speed),
        lane_width=lane_width,
        lanes_left=left,
        lanes_right=right,
        oncoming=(left + 1) * lane_width + by_road(parameters, road, lambda kind: kind.median),
        users=_whole(parameters, road, lambda kind: kind.users, rng),
        two_wheelers=drawn(lambda kind: kind.two_wheelers),
        block=block,
        bend=bend * np.abs(bend) / bend_radius[:, None],
        turn=turn,
        angle=drawn(lambda kind: kind.junction.turn_angle, shape),
        side=rng.choice(np.array([-1, 1]), size=shape),
        radius_left=drawn(lambda kind: kind.junction.radius_left, shape),
        radius_right=drawn(lambda kind: kind.junction.radius_right, shape),
        cycle=cycle,
        green=cycle * drawn(lambda kind: kind.junction.green, shape),
        offset=cycle * rng.random(shape),
    )


def _turns(parameters: FleetParameters, road: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw which way the ego goes at each junction, shape (n, JUNCTIONS)."""
    left = by_road(parameters, road, lambda kind: kind.junction.turns[0])[:, None]
    straight = by_road(parameters, road, lambda kind: kind.junction.turns[1])[:, None]
    chance = rng.random((len(road), JUNCTIONS))
    return np.where(chance < left, 1, np.where(chance < left + straight, 0, -1))


def _whole(
    parameters: FleetParameters,
    road: NDArray[np.int64],
    value: Callable[[Road], tuple[int, int]],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw whole numbers between the two ends, both included."""
    low = by_road(parameters, road, lambda kind: value(kind)[0]).astype(np.int64)
    high = by_road(parameters, road, lambda kind: value(kind)[1]).astype(np.int64)
    return rng.integers(low, high, endpoint=True)


def _beside(
    turn: NDArray[np.int64], lanes: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lanes left and right of the ego's: it keeps to the side to which it will turn."""
    lefts, rights = (turn > 0).any(axis=1), (turn < 0).any(axis=1)
    anywhere = rng.integers(0, lanes)
    left = np.where(lefts, 0, np.where(rights, lanes - 1, anywhere))
    right = np.where(rights, 0, np.where(lefts, lanes - 1, lanes - 1 - anywhere))
    return left, right
