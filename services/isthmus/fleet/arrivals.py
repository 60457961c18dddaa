"""Who comes and goes: road users leave when the ego cannot see them any more, others appear where it cannot yet.

Rules: while a drive is recorded nobody appears or vanishes within the ego's view; nobody appears on top of another or
too close to stop for what is ahead; at most one road user appears per scene and step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from isthmus.fleet.layout import CROSSING, MAIN, MERGING, NEVER, ONCOMING
from isthmus.fleet.parameters import JUNCTIONS
from isthmus.fleet.scenes import FREEWAY, ROUNDABOUT
from isthmus.fleet.users import PEDESTRIAN, TWO_WHEELER, draw_users

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.fleet.traffic import Traffic
    from isthmus.fleet.users import Users

NEAREST, FURTHEST, GONE = 63.0, 84.0, 92.0
"""Newcomers appear this far from the ego, m; whoever is further than `GONE` is let go."""
SPACE = 9.0
"""Least distance between the centres of a newcomer and its neighbours in the lane, m, beside a second's way."""
APPROACH, PASSED = 90.0, 15.0
"""Merging and crossing traffic appears this far before a junction at most, m, until the ego is this far behind it."""
STOP_ROOM, GENTLE = 6.0, 1.2
"""Newcomers can stop this far before the next line, m, with this deceleration, m/s2."""
IN_EGO_LANE = EVEN = 0.5
"""Share of what appears along the ego's way that is in its very lane; chance to look left rather than right."""
CHANGING_FROM, KEEP_LANE = 5.0, 40.0
"""Lanes are changed above this speed, m/s, and not this close to a stop line, m."""
VERGE = 2.2
"""From the two-wheelers' track to the pedestrians', m."""


class _Way(IntEnum):
    """Where newcomers appear, in the order of `Road.placement`."""

    AHEAD = 0
    BEHIND = 1
    ONCOMING = 2
    MERGING = 3
    CROSSING = 4


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one newcomer per scene would appear, shape (n,)."""

    path: NDArray[np.int64]
    s: NDArray[np.float64]
    lane: NDArray[np.float64]


def distance_to_ego(traffic: Traffic) -> NDArray[np.float64]:
    """Return how far each slot's road user is from the ego, m, along straight lines; shape (scenes, slots)."""
    here = traffic.sample()
    side = traffic.users.side
    x, y = here.x - side * np.sin(here.heading), here.y + side * np.cos(here.heading)
    return np.hypot(x - x[:, :1], y - y[:, :1])


def let_go(traffic: Traffic) -> None:
    """Free the slots of those out of sight, and of those less than 1.2 s from the end of their path. Once a second."""
    users, network = traffic.users, traffic.network
    length = network.length[np.arange(len(users.s))[:, None], users.path]
    gone = (distance_to_ego(traffic) > GONE) | (users.s > length - 2.0 - 1.2 * users.speed)
    gone[:, 0] = False
    users.active &= ~gone


def let_in(traffic: Traffic, *, nearest: float = NEAREST) -> None:
    """Let one newcomer into each scene that has a free slot and room where the draw puts it."""
    users, scenes = traffic.users, traffic.scenes
    slots = np.arange(users.s.shape[1])
    free = ~users.active & (slots <= scenes.users[:, None])
    slot = free.argmax(axis=1)
    newcomers = draw_users(traffic.parameters, scenes, traffic.rng)
    place = _draw_place(traffic, newcomers, nearest)
    newcomers.path, newcomers.s = place.path, place.s
    newcomers.lane = newcomers.side = place.lane
    newcomers.speed = _entry_speed(traffic, newcomers)
    fits = free.any(axis=1) & _has_room(traffic, newcomers) & _is_hidden(traffic, newcomers, nearest)
    scene = np.flatnonzero(fits)
    newcomers.track = users.track.max(axis=1) + 1
    chosen = {name: getattr(newcomers, name)[scene] for name in type(newcomers).__dataclass_fields__}
    users.put(scene, slot[scene], type(newcomers)(**chosen))


def _draw_place(traffic: Traffic, newcomers: Users, nearest: float) -> _Place:
    """Draw a path, a place on it and a lane."""
    scenes, network, rng = traffic.scenes, traffic.network, traffic.rng
    rows, ego = np.arange(len(scenes)), traffic.users.s[:, 0]
    weights = np.array([road.placement for road in traffic.parameters.roads])[scenes.road]
    way = (rng.random(len(scenes))[:, None] > np.cumsum(weights, axis=1)[:, :-1]).sum(axis=1)
    junction = (network.passed < ego[:, None] - PASSED).sum(axis=1)
    way = np.where((way >= _Way.MERGING) & (junction == JUNCTIONS), 0, way)
    junction = np.minimum(junction, JUNCTIONS - 1)
    away, share = rng.uniform(nearest, FURTHEST, len(scenes)), rng.random((2, len(scenes)))
    path = np.select(
        [way <= _Way.BEHIND, way == _Way.ONCOMING, way == _Way.MERGING],
        [MAIN, ONCOMING, MERGING + junction],
        CROSSING + junction,
    )
    length = network.length[rows, path]
    to_junction = network.stops[rows, path, 0]
    s = np.select(
        [way == _Way.AHEAD, way == _Way.BEHIND, way == _Way.ONCOMING],
        [ego + away, ego - away, length - ego - away],
        to_junction - APPROACH * share[0],
    )
    lane = _draw_lane(traffic, newcomers, way, share[1])
    too_deep = (way == _Way.ONCOMING) & (-lane > scenes.deepest)
    return _Place(path, np.where(too_deep, -1.0, s), lane)


def _draw_lane(
    traffic: Traffic, newcomers: Users, way: NDArray[np.int64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the offset at which a newcomer drives; half of what appears along the ego's way is in its lane."""
    scenes = traffic.scenes
    lanes = scenes.lanes
    all_fit = scenes.far_curb < scenes.deepest
    any_lane = np.where(all_fit, np.minimum((share * lanes).astype(np.int64), lanes - 1), 0)
    spread = np.floor((2 * share - 1) * lanes).astype(np.int64) - scenes.lanes_right
    same = np.where(share < IN_EGO_LANE, 0, np.minimum(spread, scenes.lanes_left))
    along, against = way <= _Way.BEHIND, way == _Way.ONCOMING
    motor = np.select(
        [along, against], [same * scenes.lane_width, -scenes.oncoming - any_lane * scenes.lane_width], 0.0
    )
    curb = np.select([along, against], [-scenes.curb, -scenes.far_curb], -0.5 * scenes.lane_width - 1.1)
    return np.select([newcomers.kind == PEDESTRIAN, newcomers.kind == TWO_WHEELER], [curb - VERGE, curb], motor)


def _entry_speed(traffic: Traffic, newcomers: Users) -> NDArray[np.float64]:
    """Return the speed at which a newcomer appears: what the road allows, and the stop line ahead."""
    rows = np.arange(len(newcomers.s))
    limit = traffic.network.sample(rows, newcomers.path, newcomers.s).limit
    ahead = traffic.network.stops[rows, newcomers.path] - newcomers.s[:, None]
    nearest = np.where(ahead > 0.0, np.maximum(ahead - STOP_ROOM, 0.0), NEVER).min(axis=1)
    cruising = 0.9 * np.minimum(limit * newcomers.pace, newcomers.own_speed)
    speed: NDArray[np.float64] = np.minimum(cruising, np.sqrt(2 * GENTLE * nearest))
    return speed


def _has_room(traffic: Traffic, newcomers: Users) -> NDArray[np.bool_]:
    """Return whether nobody is near in the same lane."""
    users = traffic.users
    beside = np.abs(users.side - newcomers.side[:, None]) < 0.5 * (users.width + newcomers.width[:, None]) + 0.6
    away = users.s - newcomers.s[:, None]
    lengths = 0.5 * (users.length + newcomers.length[:, None])
    closing = np.maximum(newcomers.speed[:, None] - users.speed, 0.0) ** 2 / 2.0
    needed = SPACE + lengths + np.where(away > 0, 0.8 * newcomers.speed[:, None] + closing, 0.8 * users.speed)
    near = users.active & (users.path == newcomers.path[:, None]) & beside & (np.abs(away) < needed)
    room: NDArray[np.bool_] = ~near.any(axis=1)
    return room


def _is_hidden(traffic: Traffic, newcomers: Users, nearest: float) -> NDArray[np.bool_]:
    """Return whether the place exists and is out of the ego's sight, but not out of reach."""
    rows, network = np.arange(len(newcomers.s)), traffic.network
    here = network.sample(rows, newcomers.path, newcomers.s)
    ego_at = network.sample(rows, traffic.users.path[:, 0], traffic.users.s[:, 0])
    x = here.x - newcomers.side * np.sin(here.heading) - ego_at.x
    y = here.y + newcomers.side * np.cos(here.heading) - ego_at.y
    distance = np.hypot(x, y)
    on_path = (newcomers.s > STOP_ROOM) & (newcomers.s < network.length[rows, newcomers.path] - SPACE)
    visible: NDArray[np.bool_] = on_path & (distance > nearest) & (distance < GONE - 3.0)
    return visible


def change_lanes(traffic: Traffic) -> None:
    """Let one road user of each scene change lane if it has a reason (a slow leader), a lane, room. Once a second."""
    users, scenes, rng = traffic.users, traffic.scenes, traffic.rng
    rows = np.arange(len(scenes))
    slot = rng.integers(0, users.s.shape[1], len(scenes))
    wish = rng.random((2, len(scenes)))
    step = np.where(wish[0] < EVEN, 1, -1)
    target = users.lane[rows, slot] + step * scenes.lane_width
    s, speed = users.s[rows, slot], users.speed[rows, slot]
    same_road = users.active & (users.path == MAIN) & (np.arange(users.s.shape[1]) != slot[:, None])
    gap = users.s - s[:, None]
    in_lane = same_road & (np.abs(users.side - users.side[rows, slot][:, None]) < 0.5 * scenes.lane_width[:, None])
    in_target = same_road & (np.abs(users.side - target[:, None]) < 0.7 * scenes.lane_width[:, None])
    in_target |= same_road & (np.abs(users.lane - target[:, None]) < 0.5 * scenes.lane_width[:, None])
    held_up = (in_lane & (gap > 0) & (gap < 3.0 * speed[:, None] + 10.0)).any(axis=1)
    closing = np.maximum(np.where(gap > 0, speed[:, None] - users.speed, users.speed - speed[:, None]), 0.0)
    taken = (in_target & (np.abs(gap) < 10.0 + 0.7 * speed[:, None] + 3.0 * closing)).any(axis=1)
    low, high = -(scenes.lanes_right + 0.3) * scenes.lane_width, (scenes.lanes_left + 0.3) * scenes.lane_width
    settled = np.abs(users.side[rows, slot] - users.lane[rows, slot]) < 1.0
    able = users.active[rows, slot] & (users.path[rows, slot] == MAIN) & (users.kind[rows, slot] < TWO_WHEELER)
    able &= (
        (target > low)
        & (target < high)
        & settled
        & (speed > CHANGING_FROM)
        & ((slot > 0) | (scenes.turn == 0).all(axis=1))
    )
    to_line = np.where(
        traffic.network.stops[:, MAIN] > s[:, None], traffic.network.stops[:, MAIN] - s[:, None], NEVER
    ).min(axis=1)
    able &= (scenes.road != ROUNDABOUT) & ((scenes.road == FREEWAY) | (to_line > KEEP_LANE))
    goes = able & ~taken & (wish[1] < np.where(held_up, 1.0, 0.1) * traffic.parameters.drivers.lane_changes)
    users.lane[rows[goes], slot[goes]] = target[goes]
