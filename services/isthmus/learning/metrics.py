"""How far forecasts are from what happened, and the two physical baselines they must beat.

A forecast is a residual over constant velocity, [n, 15, 2] m in the ego's frame, like `Windows.residuals`. Figures
are means over windows: ADE over all 15 points, FDE at the last one (3 s), the miss rate over windows whose FDE is
above 2 m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning.windows import HORIZONS_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.learning.windows import Windows

MISS_M = 2.0


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of one predictor.

    Attributes:
        ade_m: average displacement error, m.
        fde_m: final displacement error at 3 s, m.
        miss_rate: share of windows whose final displacement is above 2 m.
        windows: how many windows it is over.
        vehicles: how many vehicles they come from.
    """

    ade_m: float
    fde_m: float
    miss_rate: float
    windows: int
    vehicles: int


def evaluate(predicted: NDArray[np.float32], windows: Windows) -> Errors:
    """Compare forecasts with what happened.

    Args:
        predicted: residuals over constant velocity, [n, 15, 2] m, in the order of `windows`.
        windows: n windows, at least one.

    Raises:
        Refusal: INPUT_INVALID for no windows, SCHEMA_MISMATCH for another shape, NOT_FINITE for NaN or infinity.
    """
    if len(windows) == 0:
        raise Refusal(Code.INPUT_INVALID, "There are no windows to evaluate on.")
    if predicted.shape != windows.residuals.shape:
        raise Refusal(Code.SCHEMA_MISMATCH, f"Forecasts are {predicted.shape}, windows {windows.residuals.shape}.")
    displacement = np.linalg.norm(predicted.astype(np.float64) - windows.residuals, axis=2)
    if not np.isfinite(displacement).all():
        raise Refusal(Code.NOT_FINITE, "A forecast is not finite.", why="Training diverged.")
    final = displacement[:, -1]
    return Errors(
        ade_m=float(displacement.mean()),
        fde_m=float(final.mean()),
        miss_rate=float((final > MISS_M).mean()),
        windows=len(windows),
        vehicles=len(windows.vehicle_names),
    )


def constant_velocity(windows: Windows) -> Errors:
    """Errors of going straight on at the velocity of now."""
    return evaluate(np.zeros_like(windows.residuals), windows)


def constant_turn_rate(windows: Windows) -> Errors:
    """Errors of going on at the speed of now on the arc of the turn rate of the last 2 s (CTRV)."""
    return evaluate(turning_residuals(windows.velocity, windows.turn_rate), windows)


def turning_residuals(velocity: NDArray[np.float32], turn_rate: NDArray[np.float32]) -> NDArray[np.float32]:
    """Residuals over constant velocity of an arc, [n, 15, 2] m, from velocity [n, 2] m/s and turn rate [n] rad/s.

    After t the displacement is v t sinc(a/2) along v turned by a/2, where a = turn rate x t: the chord of the arc.
    So nothing is divided by a turn rate near zero.
    """
    half_angle = 0.5 * turn_rate.astype(np.float64)[:, None] * HORIZONS_S
    chord = HORIZONS_S * np.sinc(half_angle / np.pi)
    along, across = chord * np.cos(half_angle) - HORIZONS_S, chord * np.sin(half_angle)
    vx, vy = velocity[:, 0:1].astype(np.float64), velocity[:, 1:2].astype(np.float64)
    return np.stack([along * vx - across * vy, along * vy + across * vx], axis=2).astype(np.float32)
