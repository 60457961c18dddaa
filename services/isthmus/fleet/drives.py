"""Running a fleet: batches of drives through the traffic simulation, recorded step by step.

Rules: what comes out depends on the site, the seed and the minutes alone. Vehicles are simulated in batches of
`BATCH`, always whole, each with a generator of its own seeded by (seed, site, batch): how many vehicles are asked for
does not change any of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import SAMPLE_RATE_HZ
from isthmus.fleet.arrivals import change_lanes, let_go, let_in
from isthmus.fleet.frozen import parameters_of
from isthmus.fleet.network import build_network
from isthmus.fleet.recording import Recorder, Recording, table_of
from isthmus.fleet.scenes import RUN_UP, draw_scenes
from isthmus.fleet.traffic import STEP, Traffic, rules_of
from isthmus.fleet.users import draw_users, empty_users

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from isthmus.fleet.parameters import FleetParameters

BATCH = 40
"""Vehicles simulated together."""
WARM_UP = 100
"""Steps before recording begins, so that traffic has settled (20 s)."""
DRIVE_SECONDS = 60.0
FILLING = 60
"""Draws with which a scene is filled before anything moves."""
ROADS, SENSORS, DRIVER = 0, 1, 2
"""Which generator a seed is for."""
MOST_VEHICLES = 1_000_000
SHORTEST, LONGEST = 0.1, 600.0
"""What a vehicle may record, minutes."""


@dataclass(frozen=True, slots=True)
class _Span:
    """How many drives a vehicle makes, and how many instants each has."""

    drives: int
    instants: int


def simulate(site: str, vehicles: int, minutes: float, seed: int) -> Iterator[pa.Table]:
    """Yield one raw table per vehicle, each with all its drives of about a minute.

    Args:
        site: `cn-shanghai` or `us-texas`.
        vehicles: how many, from the first.
        minutes: recorded by each vehicle; divided into round(minutes) drives, at least one.
        seed: not negative. The same arguments give the same bytes on the same machine.

    Raises:
        Refusal: `INPUT_INVALID` for an unknown site or a number out of range.
    """
    parameters = parameters_of(site)
    if not (0 <= vehicles <= MOST_VEHICLES and SHORTEST <= minutes <= LONGEST and seed >= 0):
        raise Refusal(
            Code.INPUT_INVALID,
            "The fleet cannot be simulated.",
            why=f"vehicles={vehicles}, minutes={minutes}, seed={seed}",
            remedy="Ask for 0 to 1,000,000 vehicles, 0.1 to 600 minutes and a seed that is not negative.",
        )
    return _batches(site, parameters, vehicles, minutes, seed)


def _batches(site: str, parameters: FleetParameters, vehicles: int, minutes: float, seed: int) -> Iterator[pa.Table]:
    drives = max(1, round(minutes))
    span = _Span(drives, round(minutes * DRIVE_SECONDS * SAMPLE_RATE_HZ / drives))
    entropy = [seed, int.from_bytes(hashlib.sha256(site.encode()).digest()[:8])]
    for first in range(0, vehicles, BATCH):
        recording = _run(parameters, span, np.random.default_rng([*entropy, ROADS, first // BATCH]))
        for vehicle in range(first, min(first + BATCH, vehicles)):
            own = recording.drives((vehicle - first) * drives, drives)
            recorder = Recorder(parameters, site, seed, vehicle)
            sensors, driver = (np.random.default_rng([*entropy, kind, vehicle]) for kind in (SENSORS, DRIVER))
            yield table_of(own, recorder, sensors, driver)


def _run(parameters: FleetParameters, span: _Span, rng: np.random.Generator) -> Recording:
    """Simulate one batch of drives."""
    traffic = _begin(parameters, span, rng)
    recording = Recording.blank(traffic.scenes.road, span.instants, traffic.users.s.shape[1])
    for tick in range(-WARM_UP, span.instants):
        here = traffic.sample()
        if tick >= 0:
            recording.take(tick, traffic.users, here)
        traffic.step(tick * STEP, here)
        let_in(traffic)
        if tick % SAMPLE_RATE_HZ == 0:
            let_go(traffic)
            change_lanes(traffic)
    return recording


def _begin(parameters: FleetParameters, span: _Span, rng: np.random.Generator) -> Traffic:
    """Draw scenes, lay out their roads, place the egos and fill the roads around them."""
    scenes = draw_scenes(parameters, BATCH * span.drives, rng)
    seconds = (span.instants + WARM_UP) * STEP
    network = build_network(parameters, scenes, 1.25 * scenes.speed * seconds + RUN_UP + 300.0)
    most = max(road.users[1] for road in parameters.roads)
    users = empty_users(len(scenes), 1 + most)
    ego = draw_users(parameters, scenes, rng, ego=True)
    ego.s = RUN_UP + rng.random(len(scenes)) * 0.5 * (scenes.block[:, 0] - RUN_UP)
    ego.speed = 0.7 * scenes.speed
    users.put(np.arange(len(scenes)), np.zeros(len(scenes), dtype=np.int64), ego)
    traffic = Traffic(parameters, scenes, network, users, rng, rules_of(parameters, scenes))
    for _ in range(FILLING):
        let_in(traffic, nearest=12.0)
    return traffic
