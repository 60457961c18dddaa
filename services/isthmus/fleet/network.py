"""The paths of a scene: the ego's own, the same one back, and three at each junction.

Path 0 is the ego's. Path 1 is the ego's driven back: oncoming traffic keeps to an offset of it. Each junction has a
leaving path (splits from path 0 before the junction), a merging path (ends on path 0) and a crossing path. Paths that
share a stretch of road with path 0 say which, so that those who drive there see each other.

All tables lie in one flat array, so that one gather reads every road user's place on its path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.fleet.layout import MAIN, NEVER, ONCOMING, lay_out
from isthmus.fleet.parameters import JUNCTIONS
from isthmus.fleet.paths import speed_profile
from isthmus.fleet.scenes import by_road

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.fleet.parameters import FleetParameters
    from isthmus.fleet.paths import Curves
    from isthmus.fleet.scenes import Scenes

SHARED_AFTER = 14.0
"""How far behind the split a leaving vehicle still concerns the followers that go on, m."""
SHARED_BEFORE = 22.0
"""How far before the merge a merging vehicle already concerns those on path 0, m."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Where paths are, how they bend, and how fast they can be taken, at some points on them."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    heading: NDArray[np.float64]
    curvature: NDArray[np.float64]
    limit: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Network:
    """All paths of n scenes; P paths each.

    Attributes:
        table: x, y, heading, curvature, limit of every point, shape (all points, 5).
        base: first row of each path, shape (n, P).
        step: between its points, m, shape (n, P).
        length: of each path, m, shape (n, P).
        points: of each path, shape (P,).
        stops: stop lines along each path, m, `NEVER` where there is none, shape (n, P, JUNCTIONS).
        split: where leaving paths start on path 0, m, shape (n, JUNCTIONS).
        merge: where merging paths end on path 0, m, shape (n, JUNCTIONS).
        joined: where merging paths end on themselves, m, shape (n, JUNCTIONS).
        passed: where path 0 is through each junction, m, shape (n, JUNCTIONS).
        ring: start and end on the crossing path of the stretch to which merging traffic gives way, shape (n, 2).
        shift: what turns a place on a path into a place on path 0, m, shape (n, P).
        share_low, share_high: between which places on a path that is so, m, shape (n, P).
    """

    table: NDArray[np.float32]
    base: NDArray[np.int64]
    step: NDArray[np.float64]
    length: NDArray[np.float64]
    points: NDArray[np.int64]
    stops: NDArray[np.float64]
    split: NDArray[np.float64]
    merge: NDArray[np.float64]
    joined: NDArray[np.float64]
    passed: NDArray[np.float64]
    ring: NDArray[np.float64]
    shift: NDArray[np.float64]
    share_low: NDArray[np.float64]
    share_high: NDArray[np.float64]

    def sample(self, scene: NDArray[np.int64], path: NDArray[np.int64], s: NDArray[np.float64]) -> Sample:
        """Return the paths' points at arc length `s`; the three arguments broadcast to one shape."""
        position = np.maximum(s, 0.0) / self.step[scene, path]
        index = np.minimum(position.astype(np.int64), self.points[path] - 2)
        part = np.clip(position - index, 0.0, 1.0)[..., None]
        row = self.base[scene, path] + index
        low, high = self.table[row], self.table[row + 1]
        values = low + part * (high - low)
        return Sample(*np.moveaxis(values, -1, 0))


def build_network(parameters: FleetParameters, scenes: Scenes, reach: NDArray[np.float64]) -> Network:
    """Lay out the paths of all scenes.

    Args:
        parameters: of the fleet.
        scenes: n scenes.
        reach: how far the ego's path must go, m, shape (n,).
    """
    layout = lay_out(parameters, scenes, reach)
    lateral = by_road(parameters, scenes.road, lambda kind: kind.lateral_acceleration)
    deceleration = by_road(parameters, scenes.road, lambda kind: kind.curve_deceleration)

    def rows(curves: Curves, offset: NDArray[np.float64] | float = 0.0) -> NDArray[np.float32]:
        shape = (len(scenes),) + (1,) * (curves.step.ndim - 1)
        limit, accepted, slowing = (
            np.broadcast_to(value.reshape(shape), curves.step.shape) for value in (scenes.speed, lateral, deceleration)
        )
        profile = speed_profile(curves, limit=limit, lateral=accepted, deceleration=slowing, offset=offset)
        columns = (curves.x, curves.y, curves.heading, curves.curvature, profile)
        return np.stack([column.ravel() for column in columns], axis=1).astype(np.float32)

    main, sides = layout.main, layout.sides
    long, short = main.x.shape[-1], sides.x.shape[-1]
    count = len(scenes)
    table = np.concatenate([rows(main), rows(main.turned_back(), -scenes.oncoming), rows(sides)])
    side_rows = 2 * count * long + short * np.arange(count * 3 * JUNCTIONS).reshape(count, 3 * JUNCTIONS)
    main_rows = long * np.arange(count)[:, None]
    paths = 2 + 3 * JUNCTIONS
    step = np.concatenate([main.step[:, None], main.step[:, None], sides.step.reshape(count, -1)], axis=1)
    points = np.array([long, long] + [short] * (paths - 2))
    shift, low, high = np.zeros((count, paths)), np.full((count, paths), NEVER), np.full((count, paths), -NEVER)
    low[:, MAIN], high[:, MAIN] = -NEVER, NEVER
    leaving, merging = slice(2, 2 + JUNCTIONS), slice(2 + JUNCTIONS, 2 + 2 * JUNCTIONS)
    shift[:, leaving], low[:, leaving], high[:, leaving] = layout.split, -NEVER, layout.shared + SHARED_AFTER
    shift[:, merging], low[:, merging] = layout.merge - layout.joined, layout.joined - SHARED_BEFORE
    high[:, merging] = NEVER
    stops = np.full((count, paths, JUNCTIONS), NEVER)
    stops[:, MAIN] = layout.stops
    stops[:, ONCOMING] = np.where(layout.stops < NEVER, main.length[:, None] - layout.passed, NEVER)[:, ::-1]
    stops[:, 2:, 0] = layout.side_stops.reshape(count, -1)
    return Network(
        table=table,
        base=np.concatenate([main_rows, main_rows + count * long, side_rows], axis=1),
        step=step,
        length=step * (points - 1),
        points=points,
        stops=stops,
        split=layout.split,
        merge=layout.merge,
        joined=layout.joined,
        passed=layout.passed,
        ring=layout.ring,
        shift=shift,
        share_low=low,
        share_high=high,
    )
