"""How road users accelerate: the Intelligent Driver Model, stop lines, and the speed the road allows.

Treiber, Hennecke, Helbing (2000), Phys. Rev. E 62, 1805, with the exponent delta free. A stop line that is closed is
a standing leader, unless stopping would take more than the road type's `stop_deceleration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.fleet.layout import NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.fleet.network import Network
    from isthmus.fleet.users import Users

SETTLING, SLOWING = 0.8, 4.0
"""Time in which drivers come to the speed a place allows, s, and the most they brake for it, m/s2."""


@dataclass(frozen=True, slots=True)
class Leaders:
    """Who is ahead: net distance, m (`NEVER` if nobody is) and speed, m/s; shape (scenes, slots)."""

    distance: NDArray[np.float64]
    speed: NDArray[np.float64]


def main_places(network: Network, users: Users) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return who is on road that path 0 shares, and how far along path 0, m."""
    scene = np.arange(len(users.s))[:, None]
    low, high = network.share_low[scene, users.path], network.share_high[scene, users.path]
    shared = (users.s >= low) & (users.s <= high) & users.active
    return shared, users.s + network.shift[scene, users.path]


def find_leaders(network: Network, users: Users) -> Leaders:
    """Return each road user's leader: the next one ahead on the same path or shared road that it overlaps sideways."""
    shared, along = main_places(network, users)
    # Not a number is never ahead: so who is absent, or not on shared road, is nobody's leader there.
    own = np.where(users.active, users.s, np.nan).astype(np.float32)
    main = np.where(shared, along, np.nan).astype(np.float32)
    side, half = users.side.astype(np.float32), (0.5 * users.width + 0.1).astype(np.float32)
    path = users.path.astype(np.int8)
    ahead = np.where(
        path[:, :, None] == path[:, None, :],
        own[:, None, :] - own[:, :, None],
        main[:, None, :] - main[:, :, None],
    )
    beside = np.abs(side[:, :, None] - side[:, None, :]) < half[:, :, None] + half[:, None, :]
    ahead = np.where(beside & (ahead > 0), ahead, np.float32(NEVER))
    leader = ahead.argmin(axis=2)
    centre = np.take_along_axis(ahead, leader[:, :, None], axis=2)[:, :, 0].astype(np.float64)
    lengths = 0.5 * (users.length + np.take_along_axis(users.length, leader, axis=1))
    return Leaders(
        distance=np.where(centre < 0.5 * NEVER, np.maximum(centre - lengths, 0.1), NEVER),
        speed=np.take_along_axis(users.speed, leader, axis=1),
    )


def find_stops(
    network: Network, users: Users, closed: NDArray[np.bool_], deceleration: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance from each front bumper to the stop line at which it must stop, m, `NEVER` if none.

    Args:
        network: n scenes.
        users: shape (n, slots).
        closed: which stop lines are closed, shape (n, paths, junctions).
        deceleration: the most that stopping may take, m/s2, shape (n,).
    """
    scene = np.arange(len(users.s))[:, None]
    front = users.s + 0.5 * users.length
    ahead = network.stops[scene, users.path] - front[..., None]
    room = users.speed**2 / (2 * deceleration[:, None]) - 0.5
    counts = closed[scene, users.path] & (ahead > np.maximum(room, -0.5)[..., None])
    distance: NDArray[np.float64] = np.where(counts, np.maximum(ahead, 0.1), NEVER).min(axis=2)
    return distance


def wanted_acceleration(
    users: Users, leaders: Leaders, stop: NDArray[np.float64], allowed: NDArray[np.float64], *, hardest: float
) -> NDArray[np.float64]:
    """Return the acceleration each driver wants, m/s2, shape (scenes, slots).

    Args:
        users: who drives.
        leaders: who is ahead.
        stop: distance to a closed stop line, m.
        allowed: the speed at which this driver takes this place, m/s.
        hardest: nobody brakes harder, m/s2.
    """
    sharp = 2 * np.sqrt(users.thrust * users.brake)

    def closeness(distance: NDArray[np.float64], speed: NDArray[np.float64] | float) -> NDArray[np.float64]:
        dynamic = users.speed * users.gap + users.speed * (users.speed - speed) / sharp
        squared: NDArray[np.float64] = np.square((users.jam + np.maximum(dynamic, 0.0)) / distance)
        return squared

    interaction = np.maximum(closeness(leaders.distance, leaders.speed), closeness(np.maximum(stop, 0.5), 0.0))
    free = np.power(users.speed / users.desired, users.exponent)
    idm = users.thrust * (1.0 - free - interaction)
    by_road = np.maximum((allowed - users.speed) / SETTLING, -SLOWING)
    wanted: NDArray[np.float64] = np.maximum(np.minimum(idm, by_road), -hardest)
    return wanted
