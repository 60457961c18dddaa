"""No vehicle moves the sum of a private training by more than its bound, or by anything but its own vector."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from isthmus.contracts.errors import Refusal
from isthmus.learning.forecaster import MODEL_SCHEMA, initial_weights
from isthmus.learning.metrics import constant_velocity, evaluate
from isthmus.learning.models import predict
from isthmus.learning.private import VehicleLesson, Vehicles, whole_steps
from isthmus.learning.sums import released
from isthmus.learning.train import Trainer
from isthmus.learning.windows import FUTURE, INPUTS, Windows, concatenate, extract, split_by_vehicle
from unit.learning.tracks import circling_fleet

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAIN = 1 << 16
LESSON = VehicleLesson(steps=3, seed=11, learning_rate=0.05, batch_size=8, norm=0.5, grain=GRAIN)
FIRST = initial_weights(3)


@pytest.fixture(scope="module")
def fleet() -> Windows:
    return extract(circling_fleet(vehicles=12, samples=101, seed=7))


def of(count: int, name: str = "x", scale: float = 1.0, seed: int = 1) -> Windows:
    """Return `count` windows of one vehicle, as large as asked."""
    draw = np.random.default_rng(seed)
    return Windows(
        inputs=(draw.standard_normal((count, INPUTS)) * scale).astype(np.float32),
        residuals=(draw.standard_normal((count, FUTURE, 2)) * scale).astype(np.float32),
        velocity=np.zeros((count, 2), np.float32),
        turn_rate=np.zeros(count, np.float32),
        vehicles=np.zeros(count, np.int32),
        vehicle_names=(name,),
        road_types=np.zeros(count, np.int8),
    )


def only(windows: Windows, rows: NDArray[np.intp]) -> Windows:
    """Return some windows, in this order; all names stay."""
    columns = ("inputs", "residuals", "velocity", "turn_rate", "vehicles", "road_types")
    return dataclasses.replace(windows, **{name: getattr(windows, name)[rows] for name in columns})


def changes(windows: Windows, lesson: VehicleLesson = LESSON) -> dict[str, NDArray[np.int64]]:
    return dict(Vehicles(windows).changes(FIRST, lesson))


def exact_square(steps: NDArray[np.int64]) -> int:
    return sum(int(number) ** 2 for number in steps.tolist())


def test_one_vehicle_more_changes_the_sum_by_exactly_its_own_vector(fleet: Windows) -> None:
    """Whoever else is there, wherever it stands among them, and in whatever order all windows come."""
    shuffled = np.random.default_rng(2).permutation(len(fleet))
    whole = Vehicles(only(fleet, shuffled)).total(FIRST, LESSON)
    for number, name in enumerate(fleet.vehicle_names):
        without = Vehicles(only(fleet, np.flatnonzero(fleet.vehicles != number))).total(FIRST, LESSON)
        alone = Vehicles(only(fleet, np.flatnonzero(fleet.vehicles == number))).total(FIRST, LESSON)
        assert (whole - without == alone).all(), name
        assert 0 < exact_square(alone) <= GRAIN**2


def test_one_vehicle_more_in_a_fleet_that_holds_some_out_is_one_vector_more_in_the_sum(fleet: Windows) -> None:
    """Where the one more is held out, another one is not any longer: it is that one's vector."""
    came = set()
    for number in range(len(fleet.vehicle_names)):
        smaller = concatenate([only(fleet, np.flatnonzero(fleet.vehicles != number))])
        smaller, _ = split_by_vehicle(
            dataclasses.replace(
                smaller,
                vehicles=smaller.vehicles - (smaller.vehicles > number),
                vehicle_names=tuple(n for n in fleet.vehicle_names if n != fleet.vehicle_names[number]),
            ),
            4,
            "salt",
        )
        larger, _ = split_by_vehicle(fleet, 4, "salt")
        (more,) = set(larger.vehicle_names) - set(smaller.vehicle_names)
        assert set(smaller.vehicle_names) < set(larger.vehicle_names)
        found = Vehicles(larger).total(FIRST, LESSON) - Vehicles(smaller).total(FIRST, LESSON)
        assert (found == changes(larger)[more]).all()
        came.add(more == fleet.vehicle_names[number])
    assert came == {True, False}


@settings(max_examples=40, deadline=None)
@given(
    count=st.sampled_from([1, 2, 7, 8, 9, 40]),
    scale=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e3, 1e9, 1e19, 3e37]),
    rate=st.sampled_from([1e-6, 0.05, 1.0]),
    norm=st.sampled_from([1e-3, 0.5, 1000.0]),
    seed=st.integers(0, 2**32),
)
def test_no_vehicle_is_longer_than_the_bound_whatever_its_data(
    count: int, scale: float, rate: float, norm: float, seed: int
) -> None:
    lesson = dataclasses.replace(LESSON, learning_rate=rate, norm=norm)
    (steps,) = changes(of(count, scale=scale, seed=seed), lesson).values()
    assert steps.shape == (sum(spec.elements for spec in MODEL_SCHEMA),)
    assert exact_square(steps) <= GRAIN**2


@given(
    arrays(np.float64, st.integers(1, 40), elements=st.floats(width=32)),
    st.floats(1e-3, 1e3),
    st.sampled_from([1, 2, 1000, GRAIN, 1 << 30]),
)
def test_a_vector_is_cut_to_the_bound_in_whole_steps(change: NDArray[np.float64], norm: float, grain: int) -> None:
    steps = whole_steps(change, norm, grain)
    assert exact_square(steps) <= grain**2
    if not np.isfinite(change).all():
        assert not steps.any()
        return
    scale = grain / max(norm, float(np.sqrt(np.square(change).sum())))
    np.testing.assert_allclose(steps, change * scale, rtol=1e-9, atol=1)
    assert (np.abs(steps) <= np.abs(change * scale)).all()


def test_a_vector_that_rounding_leaves_too_long_is_shortened() -> None:
    """Its length is the root of 2^60 + 1, which double precision takes for 2^30, the bound."""
    grain = 1 << 30
    steps = whole_steps(np.array([float(grain), 1.0]), norm=float(grain), grain=grain)
    assert exact_square(steps) <= grain**2
    assert steps.tolist() == [grain - 1, 0]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["inputs", "residuals"])
def test_a_vehicle_whose_steps_are_not_finite_adds_nothing_and_harms_no_other(
    fleet: Windows, column: str, wrong: float
) -> None:
    broken = of(3, name="broken")
    getattr(broken, column)[1] = wrong
    together = changes(concatenate([fleet, broken]))
    assert not together.pop("broken").any()
    assert {name: found.tobytes() for name, found in together.items()} == {
        name: found.tobytes() for name, found in changes(fleet).items()
    }


def test_a_thousand_times_the_windows_weigh_no_more() -> None:
    few, many = of(2, "few"), of(2000, "many")
    lesson = dataclasses.replace(LESSON, learning_rate=1.0, norm=0.01)
    both = changes(concatenate([few, many]), lesson)
    lengths = {name: exact_square(found) for name, found in both.items()}
    assert max(lengths.values()) <= GRAIN**2
    assert min(lengths.values()) > 0.99 * GRAIN**2
    # repeats of the same windows change nothing but what rounding does: a step takes the mean of what it draws
    twice = concatenate([few, few, few, few])
    (once,), (again,) = changes(few).values(), changes(twice).values()
    assert np.linalg.norm(again - once) < 0.001 * np.linalg.norm(once)


def test_a_vehicle_draws_by_its_own_name_and_the_rounds_seed() -> None:
    windows = of(40, "one")
    (one,) = changes(windows).values()
    (other,) = changes(dataclasses.replace(windows, vehicle_names=("other",))).values()
    (later,) = changes(windows, dataclasses.replace(LESSON, seed=12)).values()
    assert (one != other).any()
    assert (one != later).any()
    all_drawn = dataclasses.replace(LESSON, batch_size=40)
    drawn = [changes(dataclasses.replace(windows, vehicle_names=(name,)), all_drawn)[name] for name in "ab"]
    assert np.linalg.norm(drawn[0] - drawn[1]) < 0.001 * np.linalg.norm(drawn[0])


def test_the_steps_are_those_of_gradient_descent_on_all_windows(fleet: Windows) -> None:
    """One step at a small rate, not cut, is the same as the mean gradient's: taken here from small differences."""
    windows = only(fleet, np.flatnonzero(fleet.vehicles == 0))
    lesson = dataclasses.replace(
        LESSON, steps=1, batch_size=len(windows), learning_rate=0.01, norm=100.0, grain=1 << 30
    )
    generator = np.random.default_rng(0)
    start = {s.name: generator.normal(0, 0.2, s.shape).astype(np.float32) for s in MODEL_SCHEMA}
    ((_, steps),) = Vehicles(windows).changes(start, lesson)
    change = released(steps.tolist(), MODEL_SCHEMA, lesson.norm, lesson.grain, 1)

    def loss(model: dict[str, NDArray[np.float32]]) -> float:
        return evaluate(predict(model, windows.inputs), windows).ade_m

    gradient_square = sum(float(np.square(value / 0.01).sum()) for value in change.values())
    shorter = {name: start[name] + value * np.float32(0.1) for name, value in change.items()}
    assert loss(start) - loss(shorter) == pytest.approx(0.001 * gradient_square, rel=0.05)


def test_many_steps_and_large_batches_are_done_in_pieces_alike(fleet: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = changes(fleet, dataclasses.replace(LESSON, steps=5))
    monkeypatch.setattr("isthmus.learning.private._AT_ONCE", 2 * LESSON.batch_size)
    found = changes(fleet, dataclasses.replace(LESSON, steps=5))
    for name, steps in expected.items():
        assert np.linalg.norm(found[name] - steps) < 0.001 * np.linalg.norm(steps)


def test_rounds_of_it_learn(fleet: Windows) -> None:
    train, test = split_by_vehicle(fleet, 3, "test")
    vehicles, model = Vehicles(train), initial_weights(0)
    for slot in range(40):
        lesson = dataclasses.replace(LESSON, seed=slot, steps=4)
        total = vehicles.total(model, lesson)
        update = released(total.tolist(), MODEL_SCHEMA, lesson.norm, GRAIN, len(train.vehicle_names))
        model = {name: value + update[name] for name, value in model.items()}
    assert evaluate(predict(model, test.inputs), test).ade_m < 0.8 * constant_velocity(test).ade_m


def test_names_without_windows_take_no_part(fleet: Windows) -> None:
    some = only(fleet, np.flatnonzero(fleet.vehicles % 2 == 0))
    assert list(changes(some)) == list(fleet.vehicle_names[::2])


def test_the_sum_of_no_vehicle_is_zeros() -> None:
    """That there is none is not told."""
    for none in (of(0), dataclasses.replace(of(0), vehicle_names=())):
        total = Vehicles(none).total(FIRST, LESSON)
        assert (len(total), np.any(total)) == (sum(spec.elements for spec in MODEL_SCHEMA), False)
    with pytest.raises(Refusal):
        Trainer(of(0))


SUM = """
import hashlib
from isthmus.learning.forecaster import initial_weights
from isthmus.learning.private import VehicleLesson, Vehicles
from isthmus.learning.windows import extract
from unit.learning.tracks import circling_fleet

fleet = extract(circling_fleet(vehicles=3, samples=101, seed=7))
total = Vehicles(fleet).total(
    initial_weights(3),
    VehicleLesson(steps=2, seed=1, learning_rate=0.05, batch_size=300, norm=0.5, grain=1 << 16),
)
print(hashlib.sha256(total.tobytes()).hexdigest())
"""


def test_more_cores_give_the_same_bytes() -> None:
    found = set()
    for cores in ("1", "8"):
        environment = {**os.environ, "PJRT_NPROC": cores, "NPROC": cores, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-c", SUM], env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert ran.returncode == 0, ran.stderr
        found.add(ran.stdout)
    assert len(found) == 1
