"""A model that overflows at one vehicle's windows alone: how a private order ends does not tell that it is there."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.orders import TrainingPrivacy
from isthmus.learning import sums, weights
from isthmus.learning.forecaster import initial_weights
from isthmus.zone.compute import InProcessCompute, RunLost
from isthmus.zone.quiet import SHORTEST_S, QuietRun, paced, quiet
from isthmus.zone.store import DirectoryStore
from servers.stored_order import an_order, circling, stored
from unit.learning.tracks import Mover, drive

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.zone.compute import Buffer, Run

PRIVACY = TrainingPrivacy(
    epsilon_micro=8_000_000, delta_exponent=6, vehicle_norm_micro=500_000, vehicles=10, vehicle_steps=1
)
PRIVATE = an_order(privacy=PRIVACY, held_out=1_000)
SPEED_NOW = 40
"""The input that is the speed along the heading."""


def trap(above: float) -> bytes:
    """Return a model of finite numbers that is finite below a speed (m/s), and infinite above it."""
    model = {name: np.zeros_like(value) for name, value in initial_weights(1).items()}
    model["layer0/weight"][SPEED_NOW, 0] = 1e30
    model["layer0/bias"][0] = -1e30 * above
    model["layer1/weight"][0, 0] = 1e30
    model["layer2/weight"][0, :] = 1.0
    return weights.encode(model)


class Instant(QuietRun):
    """A run that takes no time, and whose machine is gone when it is to adapt."""

    def __init__(self) -> None:
        """Stand nowhere."""

    def train(self, slot: int, base: Buffer) -> bytes:
        return b"sums"

    def adapt(self, final: Buffer) -> tuple[bytes, None]:
        raise RunLost("The machine is gone.")

    def close(self) -> None:
        """Hold nothing."""

    contributors = evaluators = None  # type: ignore[assignment]


def run_with(folder: Path, *, target: bool) -> Run:
    """Open the order on a slow fleet, with or without one fast vehicle."""
    table = circling(1, 6)[0]
    if target:
        fast = drive(Mover(speed=40.0, turn_rate=0.0), vehicle="fast", scene="zz", samples=101)
        table = pa.concat_tables([table, fast])
    return stored(folder, [table]).opened(InProcessCompute(DirectoryStore(folder)), PRIVATE)


def test_a_model_made_for_one_vehicle_fails_where_that_vehicle_is_and_the_order_does_not(tmp_path: Path) -> None:
    model = trap(above=30.0)
    without, with_it = run_with(tmp_path / "a", target=False), run_with(tmp_path / "b", target=True)
    assert without.evaluate(2, model) is not None
    with pytest.raises(Refusal) as told:
        with_it.evaluate(2, model)
    assert told.value.code is Code.NOT_FINITE
    for run in (quiet(PRIVATE, without), quiet(PRIVATE, with_it)):
        assert len(sums.decode(run.train(0, model), weights.MODEL_SCHEMA)) > 0
        run.reference(model)
        run.evaluate(2, model)
        adapted, _ = run.adapt(model)
        weights.decode(memoryview(adapted), weights.MODEL_SCHEMA)
    assert quiet(PRIVATE, with_it).evaluate(2, model) is None
    assert quiet(PRIVATE, with_it).adapt(model) == (model, None)


def test_an_order_that_is_not_private_fails_as_it_did(tmp_path: Path) -> None:
    run = run_with(tmp_path, target=True)
    assert quiet(an_order(), run) is run


def test_a_round_is_handed_over_when_its_time_has_come() -> None:
    began = time.monotonic()
    assert QuietRun(Instant()).train(0, b"") == b"sums"
    assert time.monotonic() - began >= SHORTEST_S


def test_a_run_that_is_closed_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.zone.quiet.SHORTEST_S", 3600.0)
    run = QuietRun(Instant())
    waiting = threading.Thread(target=run.train, args=(0, b""), daemon=True)
    waiting.start()
    run.close()
    waiting.join(60)
    assert not waiting.is_alive()


@given(took=st.floats(0, 10_000))
def test_what_shows_of_a_round_is_a_doubling(took: float) -> None:
    pace = paced(took)
    assert pace >= took
    assert pace == SHORTEST_S or pace / 2 < took
    assert math.log2(pace / SHORTEST_S).is_integer()


def test_a_run_that_is_lost_is_lost() -> None:
    with pytest.raises(RunLost):
        QuietRun(Instant()).adapt(b"")
