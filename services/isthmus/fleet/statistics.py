"""Figures of a fleet's recordings, to set beside the calibration table.

Definitions. Headway: net distance, bumper to bumper, over the follower's speed, s, of an ego that follows: at 3 m/s or
more, behind a motor vehicle in its lane, at most 4 s behind and within 1.5 m/s of its speed; every instant counts.
Urban: any road type but freeway. Moving: faster than 0.5 m/s. Braking: the ego's speed change over one sample, of all
its time. Shares of road users: of distinct tracks without the ego.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.contracts.raw_table import EGO_TRACK, ROAD_TYPES, ROAD_USER_TYPES, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

LANE_HALF = 1.5
FOLLOWING_FROM = 3.0
LONGEST_HEADWAY = 4.0
SAME_WAY = 0.9
SPEED_DIFFERENCE = 1.5
SHORT_HEADWAY = 1.0
MOVING_FROM = 0.5
HARD_BRAKING = -2.0


@dataclass(frozen=True, slots=True)
class RoadStatistics:
    """Figures of one road type; NaN where there is nothing to measure.

    Attributes:
        drives: how many.
        share: of all drives.
        headway_median: s.
        moving_speed_median: of all road users, m/s.
        ego_speed_median: of the ego while it moves, m/s.
        two_wheelers: share of road users.
        two_wheelers_high: the same in the tenth of the drives that have most (90th percentile).
        neighbours_mean: road users recorded beside the ego per instant.
        standing: share of the ego's time.
    """

    drives: int
    share: float
    headway_median: float
    moving_speed_median: float
    ego_speed_median: float
    two_wheelers: float
    two_wheelers_high: float
    neighbours_mean: float
    standing: float


@dataclass(frozen=True, slots=True)
class FleetStatistics:
    """Figures of a fleet.

    Attributes:
        vehicles, drives, rows: how many.
        headway_median: urban, s.
        headway_short: share of urban headways below 1 s.
        hard_braking: share of the egos' time below -2 m/s2.
        roads: by road type, those that occur.
    """

    vehicles: int
    drives: int
    rows: int
    headway_median: float
    headway_short: float
    hard_braking: float
    roads: Mapping[str, RoadStatistics]


@dataclass(frozen=True, slots=True)
class _Drive:
    """What one drive adds to the figures."""

    road: str
    headways: NDArray[np.float64]
    speeds: NDArray[np.float64]
    ego_speeds: NDArray[np.float64]
    accelerations: NDArray[np.float64]
    users: int
    two_wheelers: int
    neighbours: float


def statistics(tables: Iterable[pa.Table]) -> FleetStatistics:
    """Return the figures of raw tables, each of one or more whole drives in the raw table's row order."""
    vehicles: set[str] = set()
    drives: list[_Drive] = []
    rows = 0
    for table in tables:
        rows += table.num_rows
        vehicles.update(pc.unique(table["vehicle"]).to_pylist())
        drives += _drives_of(table)
    urban = _joined([drive.headways for drive in drives if drive.road != "freeway"])
    roads = {road: [drive for drive in drives if drive.road == road] for road in ROAD_TYPES}
    return FleetStatistics(
        vehicles=len(vehicles),
        drives=len(drives),
        rows=rows,
        headway_median=_median(urban),
        headway_short=_share(urban < SHORT_HEADWAY),
        hard_braking=_share(_joined([drive.accelerations for drive in drives]) < HARD_BRAKING),
        roads={road: _road_statistics(some, len(drives)) for road, some in roads.items() if some},
    )


def _road_statistics(drives: list[_Drive], of: int) -> RoadStatistics:
    ego = _joined([drive.ego_speeds for drive in drives])
    users = np.array([drive.users for drive in drives], dtype=np.float64)
    light = np.array([drive.two_wheelers for drive in drives], dtype=np.float64)
    return RoadStatistics(
        drives=len(drives),
        share=len(drives) / of,
        headway_median=_median(_joined([drive.headways for drive in drives])),
        moving_speed_median=_median(_moving(_joined([drive.speeds for drive in drives]))),
        ego_speed_median=_median(_moving(ego)),
        two_wheelers=float(light.sum() / max(users.sum(), 1.0)),
        two_wheelers_high=float(np.quantile(light / np.maximum(users, 1.0), 0.9)),
        neighbours_mean=float(np.mean([drive.neighbours for drive in drives])),
        standing=_share(ego <= MOVING_FROM),
    )


def _drives_of(table: pa.Table) -> list[_Drive]:
    """Measure every drive of a table."""
    scenes = table["scene_id"].combine_chunks().dictionary_encode()
    codes = scenes.indices.to_numpy()
    bounds = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
    return [_measure(table.slice(low, high - low)) for low, high in pairwise(bounds)]


def _measure(table: pa.Table) -> _Drive:
    column = {name: table[name].to_numpy().astype(np.float64) for name in ("x", "y", "vx", "vy", "heading", "length")}
    instant = np.rint(table["t"].to_numpy() * SAMPLE_RATE_HZ).astype(np.int64)
    track = table["track_id"].to_numpy()
    kinds = pc.index_in(table["type"], pa.array(ROAD_USER_TYPES)).to_numpy()
    is_ego = track == EGO_TRACK
    of_row = np.searchsorted(instant[is_ego], instant)
    ego = {name: values[is_ego][of_row] for name, values in column.items()}
    speed = np.hypot(column["vx"], column["vy"])
    ego_speed = speed[is_ego]
    first = np.unique(track[~is_ego], return_index=True)[1]
    return _Drive(
        road=table["road_type"][0].as_py(),
        headways=_headways(column, ego, kinds, is_ego, of_row),
        speeds=speed,
        ego_speeds=ego_speed,
        accelerations=np.diff(ego_speed) * SAMPLE_RATE_HZ,
        users=len(first),
        two_wheelers=int((kinds[~is_ego][first] == ROAD_USER_TYPES.index("two_wheeler")).sum()),
        neighbours=float((~is_ego).sum() / len(ego_speed)),
    )


def _headways(
    column: dict[str, NDArray[np.float64]],
    ego: dict[str, NDArray[np.float64]],
    kinds: NDArray[np.int32],
    is_ego: NDArray[np.bool_],
    of_row: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the ego's headway at every instant at which it follows, s."""
    dx, dy = column["x"] - ego["x"], column["y"] - ego["y"]
    cos, sin = np.cos(ego["heading"]), np.sin(ego["heading"])
    ahead, left = cos * dx + sin * dy, cos * dy - sin * dx
    same_way = np.cos(column["heading"] - ego["heading"]) > SAME_WAY
    motor = kinds < ROAD_USER_TYPES.index("two_wheeler")
    leads = ~is_ego & motor & same_way & (np.abs(left) < LANE_HALF) & (ahead > 0)
    gap = np.where(leads, ahead - 0.5 * (ego["length"] + column["length"]), np.inf)
    speed = np.hypot(column["vx"], column["vy"])
    own = np.hypot(ego["vx"], ego["vy"])
    nearest = np.full(int(of_row.max()) + 1, np.inf)
    np.minimum.at(nearest, of_row, gap)
    leads &= gap == nearest[of_row]
    follows = leads & (own >= FOLLOWING_FROM) & (np.abs(speed - own) <= SPEED_DIFFERENCE)
    headway: NDArray[np.float64] = np.maximum(gap[follows], 0.0) / own[follows]
    return headway[headway <= LONGEST_HEADWAY]


def _joined(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.empty(0)


def _moving(speeds: NDArray[np.float64]) -> NDArray[np.float64]:
    return speeds[speeds > MOVING_FROM]


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _share(values: NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
