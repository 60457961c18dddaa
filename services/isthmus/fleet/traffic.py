"""One time step of all scenes: lights and yielding, following, moving on, changing paths.

No loop runs over scenes or road users. Speeds are integrated by the trapezoid rule (the ballistic update of Treiber
and Kanagaraj 2015), so positions are the integrals of the recorded velocities up to second order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.raw_table import SAMPLE_RATE_HZ
from isthmus.fleet.following import find_leaders, find_stops, wanted_acceleration
from isthmus.fleet.layout import CROSSING, LEAVING, MAIN, MERGING, ONCOMING
from isthmus.fleet.parameters import JUNCTIONS
from isthmus.fleet.paths import SHORTEST_STRETCH
from isthmus.fleet.scenes import FREEWAY, ROUNDABOUT, by_road
from isthmus.fleet.users import PEDESTRIAN, TWO_WHEELER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.fleet.network import Network, Sample
    from isthmus.fleet.parameters import FleetParameters
    from isthmus.fleet.scenes import Scenes
    from isthmus.fleet.users import Users

STEP = 1.0 / SAMPLE_RATE_HZ
CLEARED = -2.0
"""Whoever has merged this far back, m, is a leader and no longer somebody to yield to."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Per scene: what drivers there do. Shape (n, 1) or (n,)."""

    stop_deceleration: NDArray[np.float64]
    critical_gap: NDArray[np.float64]
    through: NDArray[np.float64]
    turning: NDArray[np.float64]


@dataclass(slots=True)
class Traffic:
    """All scenes of one batch while they run.

    Attributes:
        parameters: of the fleet.
        scenes, network: where.
        users: who; changed in place.
        rng: the batch's generator.
        rules: what drivers do there.
    """

    parameters: FleetParameters
    scenes: Scenes
    network: Network
    users: Users
    rng: np.random.Generator
    rules: Rules

    def step(self, time: float, here: Sample) -> None:
        """Move everybody on by one step from `time`, s, and from the paths' points `here` at which they are."""
        users, drivers = self.users, self.parameters.drivers
        leaders = find_leaders(self.network, users)
        stop = find_stops(self.network, users, self.closed(time), self.rules.stop_deceleration)
        stretch = _stretch(here, users.side)
        inner = np.where(users.path == ONCOMING, 1.0, np.sqrt(stretch))
        allowed = np.minimum(here.limit * inner * users.pace * (1.0 + users.waver), users.own_speed)
        wanted = wanted_acceleration(users, leaders, stop, allowed, hardest=drivers.hardest_braking)
        acceleration = users.acceleration + (wanted - users.acceleration) * (STEP / (STEP + drivers.reaction))
        speed = np.maximum(users.speed + acceleration * STEP, 0.0)
        users.acceleration = np.where(speed > 0.0, acceleration, 0.0)
        before = users.s
        users.s = before + 0.5 * (users.speed + speed) * STEP / stretch
        self._steer(speed)
        users.speed = speed
        self._change_paths(before)

    def sample(self) -> Sample:
        """Return the paths where the road users are."""
        return self.network.sample(np.arange(len(self.scenes))[:, None], self.users.path, self.users.s)

    def closed(self, time: float) -> NDArray[np.bool_]:
        """Return which stop lines are closed, shape (n, paths, JUNCTIONS)."""
        scenes, yellow = self.scenes, self.parameters.drivers.yellow
        cycle = np.maximum(scenes.cycle, 1.0)
        phase = np.mod(time + scenes.offset, cycle)
        along = phase >= scenes.green - yellow
        across = (phase < scenes.green) | (phase >= cycle - yellow)
        with_ego = np.where(scenes.turn < 0, along, across)
        enter, merge, cross = self._yields()
        ring = (scenes.road == ROUNDABOUT)[:, None]
        along, merging = np.where(ring, enter, along), np.where(ring, merge, across)
        crossing = np.where(ring, cross, with_ego)
        lines = np.zeros((len(scenes), 2 + 3 * JUNCTIONS, JUNCTIONS), dtype=np.bool_)
        lines[:, MAIN], lines[:, ONCOMING] = along, along[:, ::-1]
        lines[:, LEAVING:MERGING, 0] = along
        lines[:, MERGING:CROSSING, 0], lines[:, CROSSING:, 0] = merging, crossing
        return lines

    def _yields(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return where entering a roundabout would cut off who is on the ring: the ego's arm, merging, crossing."""
        users, network = self.users, self.network
        enter, merge, cross = (np.zeros(self.scenes.turn.shape, dtype=np.bool_) for _ in range(3))
        ring = np.flatnonzero(self.scenes.road == ROUNDABOUT)
        active, path, s = users.active[ring], users.path[ring], users.s[ring]
        reach = 7.0 + self.rules.critical_gap[ring, None] * users.speed[ring]
        three_quarters = 1.5 * np.pi * self.scenes.radius_left[ring]
        for junction in range(JUNCTIONS):
            left = network.joined[ring, junction, None] - s
            on_ring = s > network.stops[ring, MERGING + junction, :1]
            coming = active & (path == MERGING + junction) & ((left < reach) | on_ring) & (left > CLEARED)
            low, high = network.ring[ring, junction, :1], network.ring[ring, junction, 1:]
            opposite = active & (path == CROSSING + junction) & (s > low) & (s < high)
            merged, passed = network.merge[ring, junction, None], network.passed[ring, junction, None]
            turning = active & (path == MAIN) & (s > merged)
            turning &= s < np.minimum(merged + three_quarters[:, junction, None], passed)
            enter[ring, junction] = coming.any(axis=1)
            merge[ring, junction] = opposite.any(axis=1)
            cross[ring, junction] = turning.any(axis=1)
        return enter, merge, cross

    def _steer(self, speed: NDArray[np.float64]) -> None:
        """Correct lateral offsets towards each one's lane and its wander; let pace and wander waver."""
        users, drivers = self.users, self.parameters.drivers
        keep = np.exp(-STEP / drivers.waver_time)
        fresh = np.sqrt(1 - keep**2) * self.rng.standard_normal((2, *users.s.shape))
        light = (users.kind == TWO_WHEELER) | (users.kind == PEDESTRIAN)
        users.waver = keep * users.waver + drivers.speed_waver * fresh[0]
        users.wander = keep * users.wander + np.where(light, drivers.two_wheeler_wander, drivers.wander) * fresh[1]
        error = users.lane + users.wander - users.side
        drift = users.drift + STEP * (drivers.steering**2 * error - 2 * drivers.steering * users.drift)
        drift = np.clip(drift, -drivers.slip * speed, drivers.slip * speed)
        users.side = users.side + 0.5 * (users.drift + drift) * STEP
        users.drift = drift

    def _change_paths(self, before: NDArray[np.float64]) -> None:
        """Put who takes another way than the ego on it, and who has merged on path 0."""
        users, network = self.users, self.network
        chance = self.rng.random(users.s.shape)
        for junction in range(JUNCTIONS):
            split = network.split[:, junction, None]
            passing = (users.path == MAIN) & (before < split) & (users.s >= split) & users.active
            passing[:, 0] = False
            if passing.any():
                leaving = passing & (chance < self._leaving(junction))
                users.path = np.where(leaving, LEAVING + junction, users.path)
                users.s = np.where(leaving, users.s - split, users.s)
            joined = network.joined[:, junction, None]
            merged = (users.path == MERGING + junction) & (users.s >= joined) & users.active
            users.path = np.where(merged, MAIN, users.path)
            users.s = np.where(merged, users.s - joined + network.merge[:, junction, None], users.s)

    def _leaving(self, junction: int) -> NDArray[np.float64]:
        """Return the chance of each road user to take another way than the ego at a junction.

        Whoever keeps to another lane than the ego's goes straight on.
        """
        users, scenes = self.users, self.scenes
        straight = scenes.turn[:, junction, None] == 0
        other_lane = (np.abs(users.lane) > 0.5 * scenes.lane_width[:, None]) & (users.kind < TWO_WHEELER)
        free = (scenes.road == FREEWAY)[:, None]
        going_straight = np.where(other_lane, 0.0, np.where(free, 0.0, self.rules.turning[:, None]))
        return np.where(straight, going_straight, np.where(other_lane, 1.0, self.rules.through[:, None]))


def _stretch(here: Sample, side: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the length driven at an offset per length of the path."""
    return np.maximum(1.0 - here.curvature * side, SHORTEST_STRETCH)


def rules_of(parameters: FleetParameters, scenes: Scenes) -> Rules:
    """Return what drivers do in each scene."""
    road = scenes.road
    return Rules(
        stop_deceleration=by_road(parameters, road, lambda kind: kind.junction.stop_deceleration),
        critical_gap=by_road(parameters, road, lambda kind: kind.junction.critical_gap),
        through=by_road(parameters, road, lambda kind: kind.junction.through),
        turning=by_road(parameters, road, lambda kind: kind.junction.turning),
    )
