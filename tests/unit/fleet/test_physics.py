"""What moves, moves as cars do: no jumps, no impossible accelerations, nobody appears out of nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.fleet import PARAMETERS
from isthmus.fleet.parameters import Idm

Columns = dict[str, np.ndarray]
STEP = 0.2


@pytest.fixture
def tracks(columns: Columns) -> dict[str, np.ndarray]:
    """Rows ordered by track, and which successive rows are the same track one sample apart."""
    _, scene = np.unique(columns["scene_id"], return_inverse=True)
    track = scene.astype(np.int64) * 1_000_000 + columns["track_id"]
    order = np.lexsort((columns["t"], track))
    rows = {name: values[order] for name, values in columns.items() if values.dtype != object}
    rows |= {"type": columns["type"][order], "road_type": columns["road_type"][order], "track": track[order]}
    rows["next"] = (np.diff(rows["track"]) == 0) & (np.abs(np.diff(rows["t"]) - STEP) < 1e-6)
    return rows


def _changes(rows: dict[str, np.ndarray], *, ego: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return position error, m, against the integral of velocity, and acceleration, m/s2, of successive rows."""
    of = rows["next"] & ((rows["track_id"][1:] == 0) == ego)
    x, y, vx, vy = (rows[name].astype(np.float64) for name in ("x", "y", "vx", "vy"))
    error = np.hypot(np.diff(x) - 0.5 * STEP * (vx[1:] + vx[:-1]), np.diff(y) - 0.5 * STEP * (vy[1:] + vy[:-1]))
    return error[of], np.hypot(np.diff(vx), np.diff(vy))[of] / STEP


def test_the_egos_velocity_is_the_derivative_of_its_position(tracks: dict[str, np.ndarray]) -> None:
    error, acceleration = _changes(tracks, ego=True)
    assert error.max() < 0.06
    assert acceleration.max() < 9.0


def test_others_move_as_smoothly_beneath_the_sensor_noise(site: str, tracks: dict[str, np.ndarray]) -> None:
    sensors = PARAMETERS[site].sensors
    error, acceleration = _changes(tracks, ego=False)
    position = np.sqrt(2) * (sensors.position + sensors.position_growth * sensors.view)
    assert error.max() < 7 * position + 0.1
    assert acceleration.max() < 9.0 + 7 * np.sqrt(2) * sensors.velocity / STEP


def test_headings_point_where_cars_go(tracks: dict[str, np.ndarray]) -> None:
    speed = np.hypot(tracks["vx"], tracks["vy"])
    off = np.abs(np.angle(np.exp(1j * (np.arctan2(tracks["vy"], tracks["vx"]) - tracks["heading"]))))
    ego = (tracks["track_id"] == 0) & (speed > 1.0)
    assert off[ego].max() < 1e-3
    others = (tracks["track_id"] > 0) & (speed > 3.0)
    assert np.median(off[others]) < 0.05
    assert off[others].max() < 0.6


def test_a_track_keeps_its_kind_and_size(tracks: dict[str, np.ndarray]) -> None:
    same = np.diff(tracks["track"]) == 0
    assert (tracks["type"][1:] == tracks["type"][:-1])[same].all()
    assert (np.diff(tracks["length"]) == 0)[same].all()


def test_nobody_appears_or_vanishes_within_sight(site: str, columns: Columns) -> None:
    is_ego = columns["track_id"] == 0
    instant = np.cumsum(is_ego) - 1
    away = np.hypot(*(columns[axis] - columns[axis][is_ego][instant] for axis in ("x", "y")))
    crowded = np.bincount(instant)[instant] > PARAMETERS[site].sensors.most
    _, scene = np.unique(columns["scene_id"], return_inverse=True)
    track = scene.astype(np.int64) * 1_000_000 + columns["track_id"]
    order = np.lexsort((columns["t"], track))
    change = np.flatnonzero(np.diff(track[order]))
    last, first = order[change], order[change + 1]
    last = last[(columns["t"][last] < 59.5) & ~crowded[last] & ~is_ego[last]]
    first = first[(columns["t"][first] > 0.1) & ~crowded[first] & ~is_ego[first]]
    assert len(last) > 100
    assert away[last].min() > 45.0
    assert away[first].min() > 45.0


def test_nothing_drives_through_the_ego_but_for_the_rare_scrape(columns: Columns) -> None:
    is_ego = columns["track_id"] == 0
    instant = np.cumsum(is_ego) - 1
    ego = {name: columns[name][is_ego][instant].astype(np.float64) for name in ("x", "y", "heading", "length", "width")}
    dx, dy = columns["x"] - ego["x"], columns["y"] - ego["y"]
    ahead = np.cos(ego["heading"]) * dx + np.sin(ego["heading"]) * dy
    left = np.cos(ego["heading"]) * dy - np.sin(ego["heading"]) * dx
    inside = (np.abs(ahead) < 0.5 * ego["length"]) & (np.abs(left) < 0.5 * ego["width"]) & ~is_ego
    assert inside.sum() < 2e-3 * is_ego.sum()


def test_cars_stop_and_start_and_turn(columns: Columns) -> None:
    ego = columns["track_id"] == 0
    speed = np.hypot(columns["vx"], columns["vy"])
    urban = ego & (columns["road_type"] == "urban_intersection")
    assert 0.05 < (speed[urban] < 0.1).mean() < 0.6
    turned = []
    for scene in np.unique(columns["scene_id"][urban]):
        heading = np.unwrap(columns["heading"][urban & (columns["scene_id"] == scene)].astype(np.float64))
        turned.append(np.abs(heading - heading[0]).max())
    assert np.mean(np.array(turned) > 1.3) > 0.25


def test_the_countries_take_their_turns_differently(site: str, columns: Columns) -> None:
    ego = (columns["track_id"] == 0) & (columns["road_type"] == "urban_intersection")
    heading, speed = columns["heading"][ego].astype(np.float64), np.hypot(columns["vx"], columns["vy"])[ego]
    rate = np.abs(np.angle(np.exp(1j * np.diff(heading)))) / STEP
    turning = (rate > 0.15) & (speed[1:] > 2.0) & (columns["scene_id"][ego][1:] == columns["scene_id"][ego][:-1])
    lateral = np.median((rate * speed[1:])[turning])
    radius = np.median((speed[1:] / np.maximum(rate, 1e-9))[turning])
    if site == "cn-shanghai":
        assert 0.7 < lateral < 1.5
        assert radius > 14.0
    else:
        assert 1.5 < lateral < 3.0
        assert radius < 14.5


def test_the_given_driver_parameters_are_the_calibrations() -> None:
    assert PARAMETERS["cn-shanghai"].roads[3].idm == Idm(32.05, 0.74, 1.19, 0.88, 1.0, 2.95)
    assert PARAMETERS["us-texas"].roads[3].idm == Idm(35.84, 1.05, 0.86, 0.20, 1.47, 1.40)
