from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning.metrics import constant_turn_rate, constant_velocity, evaluate, turning_residuals
from isthmus.learning.windows import extract
from unit.learning.tracks import Mover, drive


def test_going_straight_is_forecast_by_both_baselines() -> None:
    windows = extract(drive(Mover(speed=12.0, heading=1.0), samples=61))
    for errors in (constant_velocity(windows), constant_turn_rate(windows)):
        assert errors.ade_m == pytest.approx(0.0, abs=2e-3)
        assert errors.miss_rate == 0.0
        assert (errors.windows, errors.vehicles) == (8, 1)


@settings(max_examples=25, deadline=None)
@given(speed=st.floats(1, 20), turn_rate=st.floats(0.05, 0.6), left=st.booleans())
def test_a_circle_is_forecast_by_constant_turn_rate_and_missed_by_constant_velocity_as_geometry_says(
    speed: float, turn_rate: float, *, left: bool
) -> None:
    windows = extract(drive(Mover(speed=speed, turn_rate=turn_rate if left else -turn_rate)))
    assert constant_turn_rate(windows).fde_m < 0.02
    radius, angle = speed / turn_rate, turn_rate * 3.0
    miss = math.hypot(radius * math.sin(angle) - 3.0 * speed, radius * (1 - math.cos(angle)))
    straight = constant_velocity(windows)
    assert straight.fde_m == pytest.approx(miss, abs=0.02)
    if abs(miss - 2.0) > 0.05:
        assert straight.miss_rate == float(miss > 2.0)


def test_an_arc_follows_the_direction_of_travel_not_the_heading() -> None:
    # travelling to the left of where the car points: after a quarter turn it has gone r along and r across
    rate = (math.pi / 2) / 3.0
    residual = turning_residuals(np.array([[0.0, 10.0]], np.float32), np.array([rate], np.float32))
    radius = 10.0 / rate
    np.testing.assert_allclose(residual[0, -1], [-radius, radius - 30.0], rtol=1e-5)


def test_figures_are_means_over_windows() -> None:
    windows = extract(pa.concat_tables([drive(Mover(), vehicle=v, scene=v) for v in ("a", "b")]))
    predicted = windows.residuals.copy()
    predicted[1, :, 0] += np.linspace(0.2, 3.0, 15, dtype=np.float32)
    errors = evaluate(predicted, windows)
    assert errors.ade_m == pytest.approx(0.8, abs=1e-5)
    assert errors.fde_m == pytest.approx(1.5, abs=1e-5)
    assert (errors.miss_rate, errors.windows, errors.vehicles) == (0.5, 2, 2)


def test_what_cannot_be_evaluated_is_refused() -> None:
    windows = extract(drive(Mover()))
    nothing = extract(drive(Mover(), samples=5))
    cases = [
        (np.zeros((0, 15, 2), np.float32), nothing, Code.INPUT_INVALID),
        (np.zeros((1, 30), np.float32), windows, Code.SCHEMA_MISMATCH),
        (np.full((1, 15, 2), np.nan, np.float32), windows, Code.NOT_FINITE),
    ]
    for predicted, over, code in cases:
        with pytest.raises(Refusal) as refusal:
            evaluate(predicted, over)
        assert refusal.value.code is code
