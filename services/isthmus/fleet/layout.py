"""Where roads and junctions lie: the pieces of every path and the poses that join them.

Rules: at a signalled junction the ego's turn is one arc; whatever else moves there is joined to the poses of the
ego's path, so that lanes meet. At a roundabout every way through is an entry curve to the right, an arc of the ring
to the left and an exit curve to the right, all tangent; the ring is driven counterclockwise in both countries. A ramp
of a freeway is one long arc to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.fleet.parameters import JUNCTIONS
from isthmus.fleet.paths import Curves, Pose, trace
from isthmus.fleet.scenes import FREEWAY, ROUNDABOUT, RUN_UP, by_road

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.fleet.parameters import FleetParameters
    from isthmus.fleet.scenes import Scenes

MAIN, ONCOMING = 0, 1
LEAVING, MERGING, CROSSING = 2, 2 + JUNCTIONS, 2 + 2 * JUNCTIONS
"""First path of each kind; junction k's is that plus k."""

MAIN_POINTS, SIDE_POINTS = 1500, 220
INSET = 1.5
"""From the stop line to where turning begins, m."""
NEVER = 1e9


@dataclass(frozen=True, slots=True)
class Layout:
    """Curves and the places on them that matter; see `network.Network` for those. Sides: shape (n, 3, JUNCTIONS)."""

    main: Curves
    sides: Curves
    stops: NDArray[np.float64]
    side_stops: NDArray[np.float64]
    split: NDArray[np.float64]
    shared: NDArray[np.float64]
    merge: NDArray[np.float64]
    joined: NDArray[np.float64]
    passed: NDArray[np.float64]
    ring: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Ways:
    """Measures of each junction, shape (n, JUNCTIONS), all in m, rad and 1/m."""

    round: NDArray[np.bool_]
    free: NDArray[np.bool_]
    box: NDArray[np.float64]
    entry: NDArray[np.float64]
    scenes: Scenes

    def through(self, turn: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return lengths and curvatures of the three pieces of a way through, shape (n, JUNCTIONS, 3)."""
        left, right = self.scenes.radius_left, self.scenes.radius_right
        radius = np.where(turn > 0, left, right)
        straight = np.where(self.free, 1.0, self.box)
        arc = np.where(turn != 0, self.scenes.angle * radius, 1e-3)
        ring = np.maximum(2 * self.entry + turn * np.pi / 2, 0.05)
        lengths = np.stack(
            [
                np.where(self.round, self.entry * right, np.where(turn == 0, straight, INSET)),
                np.where(self.round, ring * left, arc),
                np.where(self.round, self.entry * right, np.full_like(arc, 1e-3)),
            ],
            axis=-1,
        )
        curvatures = np.stack(
            [
                np.where(self.round, -1 / right, 0.0),
                np.where(self.round, 1 / left, turn / radius),
                np.where(self.round, -1 / right, 0.0),
            ],
            axis=-1,
        )
        return lengths, curvatures


def lay_out(parameters: FleetParameters, scenes: Scenes, reach: NDArray[np.float64]) -> Layout:
    """Return all paths of all scenes; `reach` is how far the ego's must go, m, shape (n,)."""
    ways = _ways(scenes)
    transition = by_road(parameters, scenes.road, lambda kind: kind.junction.transition)
    lengths, curvatures = _main_pieces(scenes, ways)
    main = trace(lengths, curvatures, step=reach / (MAIN_POINTS - 1), points=MAIN_POINTS, transition=transition)
    starts = np.cumsum(lengths, axis=-1) - lengths
    stop, entered, through = starts[:, 1:-1:4], starts[:, 2:-1:4], starts[:, 4::4]
    block = scenes.block - RUN_UP * (np.arange(JUNCTIONS) == 0)
    lead_in = np.minimum(0.8 * block - 15.0, 70.0 + np.where(ways.free, 8.0, 2.5) * scenes.speed[:, None])
    settle = 0.5 * transition[:, None] + 1.0
    merge = np.where(ways.round, entered, through) + settle
    split = stop - lead_in
    leaving, merging, crossing = (
        _leaving(scenes, ways, lead_in),
        _merging(scenes, ways, settle),
        _crossing(scenes, ways),
    )
    side_lengths = np.stack([leaving[0], merging[0], crossing[0]], axis=1)
    side_curvatures = np.stack([leaving[1], merging[1], crossing[1]], axis=1)
    fast = np.where(scenes.road == FREEWAY, 2.5, 1.4)
    step = np.broadcast_to(fast[:, None, None], side_lengths.shape[:-1])
    sides = trace(
        side_lengths,
        side_curvatures,
        step=step,
        points=SIDE_POINTS,
        transition=np.broadcast_to(transition[:, None, None], step.shape),
    )
    side_starts = np.cumsum(side_lengths, axis=-1) - side_lengths
    joined = side_starts[:, 1, :, 4]
    crossing_at, crossing_pose = _crossing_pose(scenes, ways, main.at(stop), main.at(entered), side_starts[:, 2])
    at = np.stack([np.zeros_like(split), joined, crossing_at], axis=1)
    poses = [main.at(split), main.at(merge), crossing_pose]
    pose = Pose(*(np.stack([getattr(each, axis) for each in poses], axis=1) for axis in ("x", "y", "heading")))
    return Layout(
        main=main,
        sides=sides.moved(at, pose),
        stops=np.where(ways.free, NEVER, stop),
        side_stops=np.where(
            ways.free[:, None], NEVER, np.stack([lead_in, side_starts[:, 1, :, 1], side_starts[:, 2, :, 1]], 1)
        ),
        split=split,
        shared=np.where(ways.round, lead_in + lengths[:, 1:-1:4] + 4.0, lead_in),
        merge=merge,
        joined=joined,
        passed=through,
        ring=np.stack([side_starts[:, 2, :, 1] - 6.0, side_starts[:, 2, :, 3]], axis=-1),
    )


def _ways(scenes: Scenes) -> _Ways:
    """Return the measures of the junctions.

    On a roundabout the entry curve's angle is the one for which entry, ring and the two lanes of the arm fit:
    (r + R) cos(angle) = r + o, with r its radius, R the ring's, o the lane's distance from the arm's axis.
    """
    oncoming = scenes.oncoming[:, None]
    fits = (scenes.radius_right + 0.5 * oncoming) / (scenes.radius_right + scenes.radius_left)
    return _Ways(
        round=np.broadcast_to((scenes.road == ROUNDABOUT)[:, None], scenes.turn.shape),
        free=np.broadcast_to((scenes.road == FREEWAY)[:, None], scenes.turn.shape),
        box=2 * (INSET + scenes.radius_right) + oncoming,
        entry=np.arccos(np.clip(fits, 0.0, 0.7)),
        scenes=scenes,
    )


def _main_pieces(scenes: Scenes, ways: _Ways) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pieces of the ego's path: block, three pieces of the junction, and so on, then a last block."""
    lengths, curvatures = ways.through(scenes.turn)
    count = len(scenes)
    each = np.concatenate([scenes.block[..., None], lengths], axis=-1).reshape(count, -1)
    bends = np.concatenate([scenes.bend[:, :-1, None], curvatures], axis=-1).reshape(count, -1)
    return (
        np.concatenate([each, np.full((count, 1), 1.0)], axis=1),
        np.concatenate([bends, scenes.bend[:, -1:]], axis=1),
    )


def _pieces(
    *pieces: tuple[NDArray[np.float64] | float, NDArray[np.float64] | float], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stack (length, curvature) pairs along a new last axis."""
    lengths = np.stack([np.broadcast_to(length, shape) for length, _ in pieces], axis=-1)
    curvatures = np.stack([np.broadcast_to(curvature, shape) for _, curvature in pieces], axis=-1)
    return lengths, curvatures


def _leaving(
    scenes: Scenes, ways: _Ways, lead_in: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pieces of the paths that go another way than the ego, from `lead_in` before the junction."""
    turn = np.where(scenes.turn == 0, np.where(ways.free, 0, scenes.side), 0)
    lengths, curvatures = ways.through(turn)
    a, b, c = ((lengths[..., piece], curvatures[..., piece]) for piece in range(3))
    return _pieces((lead_in, scenes.bend[:, :-1]), a, b, c, (1.0, 0.0), shape=scenes.turn.shape)


def _merging(
    scenes: Scenes, ways: _Ways, settle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pieces of the paths that end on the ego's.

    Where the ego goes straight on they turn into its road; where it turns they come straight along the road it turns
    into; on a roundabout they come from the arm to the left and pass where the ego enters.
    """
    lengths, curvatures = ways.through(np.where(scenes.turn == 0, scenes.side, 0))
    quarter = 0.5 * np.pi * scenes.radius_left
    lengths[..., 1] = np.where(ways.round, quarter, lengths[..., 1])
    lengths[..., 2] = np.where(ways.round, 1e-3, lengths[..., 2])
    last = np.where(ways.round, curvatures[..., 1], 0.0)
    a, b, c = ((lengths[..., piece], curvatures[..., piece]) for piece in range(3))
    lead = 130.0
    joins = (lengths[..., 2] + settle, last)
    return _pieces((lead, 0.0), a, b, joins, (np.full_like(c[0], 1.0), last), shape=scenes.turn.shape)


def _crossing(scenes: Scenes, ways: _Ways) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pieces of the paths that cross: straight, or half round a roundabout."""
    lengths, curvatures = ways.through(np.zeros_like(scenes.turn))
    a, b, c = ((lengths[..., piece], curvatures[..., piece]) for piece in range(3))
    return _pieces((130.0, 0.0), a, b, c, (1.0, 0.0), shape=scenes.turn.shape)


def _crossing_pose(
    scenes: Scenes, ways: _Ways, stop: Pose, entered: Pose, starts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Pose]:
    """Return where on the crossing paths, and at which poses, they are joined to the ego's.

    Roundabout: the ring's entry from the arm ahead, opposite to the ego's own. The ego goes straight on: the middle
    of the cross street's lane. The ego turns: the lane that comes straight from ahead.
    """
    oncoming = scenes.oncoming[:, None] + np.zeros(scenes.turn.shape)
    near = INSET + scenes.radius_right
    forward = np.where(scenes.turn == 0, near + np.where(scenes.side > 0, oncoming, 0.0), 0.5 * ways.box)
    turned = np.where(scenes.turn == 0, scenes.side * 0.5 * np.pi, np.pi)
    crossing = stop.shifted(forward, np.where(scenes.turn == 0, 0.0, oncoming), turned)
    opposite = entered.shifted(np.zeros_like(forward), 2 * scenes.radius_left, np.full_like(forward, np.pi))
    pose = Pose(
        np.where(ways.round, opposite.x, crossing.x),
        np.where(ways.round, opposite.y, crossing.y),
        np.where(ways.round, opposite.heading, crossing.heading),
    )
    return np.where(ways.round, starts[..., 2], starts[..., 1] + 0.5 * ways.box), pose
