"""Curves as tables: points at equal steps of arc length, joined by transitions of bounded steering.

A curve is a list of pieces of constant curvature. Its heading is the running mean of the piecewise linear heading
over the transition length, so curvature is continuous; position is the integral of heading. Everything works on any
number of curves at once: the last axis is along the curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREVIEW, SLOWEST = 0.9, 0.5
"""How far ahead drivers read the speed that the road allows, s; the least it allows anywhere, m/s."""
SHORTEST_STRETCH = 0.3
"""Least length driven at an offset per length of the curve."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Positions in m and headings in rad, of any one shape."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    heading: NDArray[np.float64]

    def shifted(self, forward: NDArray[np.float64], left: NDArray[np.float64], turned: NDArray[np.float64]) -> Pose:
        """Return the pose `forward` and `left` of this one, m, turned left by `turned`, rad."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return Pose(self.x + forward * cos - left * sin, self.y + forward * sin + left * cos, self.heading + turned)


@dataclass(frozen=True, slots=True)
class Curves:
    """Tables of curves.

    Attributes:
        x, y: m, shape (..., points).
        heading: rad, unwrapped.
        curvature: 1/m, positive to the left.
        step: arc length between points, m, shape (...).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    heading: NDArray[np.float64]
    curvature: NDArray[np.float64]
    step: NDArray[np.float64]

    @property
    def length(self) -> NDArray[np.float64]:
        """Length of each curve, m."""
        length: NDArray[np.float64] = self.step * (self.x.shape[-1] - 1)
        return length

    def at(self, s: NDArray[np.float64]) -> Pose:
        """Return the poses at arc length `s`, m, shape (...) or (..., q)."""
        along = s if s.ndim == self.x.ndim else s[..., None]
        position = along / self.step[..., None]
        index = np.clip(position.astype(np.int64), 0, self.x.shape[-1] - 2)
        part = position - index

        def between(values: NDArray[np.float64]) -> NDArray[np.float64]:
            low = np.take_along_axis(values, index, axis=-1)
            high = np.take_along_axis(values, index + 1, axis=-1)
            return (low + part * (high - low)).reshape(s.shape)

        return Pose(between(self.x), between(self.y), between(self.heading))

    def moved(self, s: NDArray[np.float64], pose: Pose) -> Curves:
        """Return the curves moved rigidly so that their points at `s` take the given poses, shape (...)."""
        here = self.at(s)
        turn = (pose.heading - here.heading)[..., None]
        cos, sin = np.cos(turn), np.sin(turn)
        dx, dy = self.x - here.x[..., None], self.y - here.y[..., None]
        return Curves(
            pose.x[..., None] + cos * dx - sin * dy,
            pose.y[..., None] + sin * dx + cos * dy,
            self.heading + turn,
            self.curvature,
            self.step,
        )

    def turned_back(self) -> Curves:
        """Return the same curves driven the other way."""
        return Curves(
            self.x[..., ::-1],
            self.y[..., ::-1],
            self.heading[..., ::-1] + np.pi,
            -self.curvature[..., ::-1],
            self.step,
        )


def trace(
    lengths: NDArray[np.float64],
    curvatures: NDArray[np.float64],
    *,
    step: NDArray[np.float64],
    points: int,
    transition: NDArray[np.float64],
) -> Curves:
    """Return curves that start at the origin towards +x; the last piece goes on to the end of the table.

    Args:
        lengths: of the pieces, m, shape (..., pieces).
        curvatures: of the pieces, 1/m, the same shape.
        step: between points, m, shape (...).
        points: in each table.
        transition: length of the running mean, m, shape (...).
    """
    starts = np.cumsum(lengths, axis=-1) - lengths
    lengths = lengths.copy()
    lengths[..., -1] = 1e6
    s = step[..., None] * np.arange(points)
    half = 0.5 * transition[..., None]
    ahead = _heading(s + half, starts, lengths, curvatures)
    behind = _heading(s - half, starts, lengths, curvatures)
    heading = (ahead[1] - behind[1]) / (2 * half)
    middle = 0.5 * (heading[..., 1:] + heading[..., :-1])
    x = np.zeros(s.shape)
    y = np.zeros(s.shape)
    np.cumsum(np.cos(middle) * step[..., None], axis=-1, out=x[..., 1:])
    np.cumsum(np.sin(middle) * step[..., None], axis=-1, out=y[..., 1:])
    return Curves(x, y, heading, (ahead[0] - behind[0]) / (2 * half), step)


def _heading(
    s: NDArray[np.float64],
    starts: NDArray[np.float64],
    lengths: NDArray[np.float64],
    curvatures: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the exact heading at `s`, and its integral up to `s`."""
    heading, integral = np.zeros(s.shape), np.zeros(s.shape)
    for piece in range(lengths.shape[-1]):
        since = s - starts[..., piece, None]
        inside = np.clip(since, 0.0, lengths[..., piece, None])
        curvature = curvatures[..., piece, None]
        heading += curvature * inside
        integral += curvature * inside * (np.maximum(since, inside) - 0.5 * inside)
    return heading, integral


def speed_profile(
    curves: Curves,
    *,
    limit: NDArray[np.float64],
    lateral: NDArray[np.float64],
    deceleration: NDArray[np.float64],
    offset: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Return the highest speed at each point, m/s, from which the curves ahead can still be taken.

    Drivers read it `PREVIEW` ahead, which makes up for their lag.

    Args:
        curves: shape (..., points).
        limit: of the road, m/s, shape (...).
        lateral: accepted lateral acceleration, m/s2.
        deceleration: with which drivers slow down for a curve, m/s2.
        offset: to the left of the curve at which it is driven, m, shape (...).
    """
    stretch = np.maximum(1.0 - curves.curvature * np.asarray(offset)[..., None], SHORTEST_STRETCH)
    tightest = np.maximum(np.abs(curves.curvature) / stretch, 1e-9)
    squared = np.minimum(limit[..., None] ** 2, lateral[..., None] / tightest)
    slowest = np.minimum(stretch.min(axis=-1), 1.0) * deceleration
    climb = 2 * slowest[..., None] * curves.step[..., None] * np.arange(squared.shape[-1])
    reachable = np.minimum.accumulate((squared + climb)[..., ::-1], axis=-1)[..., ::-1] - climb
    profile = np.sqrt(np.maximum(reachable, SLOWEST**2))
    last = profile.shape[-1] - 1
    seen = np.minimum(np.arange(last + 1) + np.rint(PREVIEW * profile / curves.step[..., None]), last).astype(np.int64)
    previewed: NDArray[np.float64] = np.minimum(profile, np.take_along_axis(profile, seen, axis=-1))
    return previewed
