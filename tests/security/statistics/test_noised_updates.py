"""Attacks on updates of private trainings: whoever reads all of them guesses whether one vehicle was among the fleet.

False alarms of these tests are one in a million runs each; noise has no seed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import beta, chi2, kstest

from isthmus.border.keeper import payloads
from isthmus.contracts.crossings import Kind
from isthmus.contracts.orders import GRAIN
from isthmus.learning import sums, weights
from isthmus.privacy.training import noise_of
from security.private_training import NORM_MICRO, NUMBERS, VEHICLES, private_order
from security.scene import TENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.contracts.orders import Order, TrainingPlan

FALSE_ALARM = 1e-6
DELTA = 1e-6
DRAWS = 300
GUESSES = 1_000
WIDE = 10**12
"""A bound of the order that clips nothing: what the attacker sees is all that ever crosses."""
CROWD = np.random.default_rng(7).integers(-20 * GRAIN, 20 * GRAIN, NUMBERS)


def plan_of(order: Order) -> TrainingPlan:
    assert order.training is not None
    return order.training


def seen(order: Order, exact: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what crosses of a sum, as the numbers that were noised."""
    checked = payloads.to_release(order, Kind.MODEL_UPDATE, 0, sums.encode(exact), None)
    update = weights.decode(memoryview(checked.data), TENSORS)
    flat = np.concatenate([update[spec.name].reshape(-1) for spec in TENSORS]).astype(np.float64)
    return flat * VEHICLES * GRAIN / (NORM_MICRO / 1e6)


def test_noise_has_the_deviation_that_the_budget_counts() -> None:
    order = private_order(1, rounds=2, epsilon_micro=1_000_000, clip_norm_micro=WIDE)
    deviation = noise_of(plan_of(order)).deviation_micro / 1e6
    drawn = np.concatenate([seen(order, CROWD) - CROWD for _ in range(DRAWS)]) / deviation
    squares = float(drawn @ drawn)
    assert chi2.ppf(FALSE_ALARM / 2, drawn.size) < squares < chi2.isf(FALSE_ALARM / 2, drawn.size)
    assert kstest(drawn, "norm").pvalue > FALSE_ALARM
    steps = drawn.reshape(DRAWS, NUMBERS)
    assert abs(float(np.mean(steps[1:] * steps[:-1]))) < 5 / math.sqrt(steps[1:].size), "each draw is a new one"


def test_the_same_sum_is_never_noised_alike() -> None:
    order = private_order(1, clip_norm_micro=WIDE)
    first, second = (seen(order, CROWD) for _ in range(2))
    assert not np.any(first == second)


def test_what_the_order_clips_afterwards_stays_within_its_bound() -> None:
    order = private_order(1, epsilon_micro=10_000, clip_norm_micro=1_000)
    checked = payloads.to_release(order, Kind.MODEL_UPDATE, 0, sums.encode(CROWD), None)
    assert weights.l2_norm(weights.decode(memoryview(checked.data), TENSORS)) <= 0.001


def share(hits: int, runs: int, *, upper: bool) -> float:
    """Return the Clopper-Pearson bound of a share."""
    if upper:
        return 1.0 if hits == runs else float(beta.isf(FALSE_ALARM, hits + 1, runs - hits))
    return 0.0 if hits == 0 else float(beta.ppf(FALSE_ALARM, hits, runs - hits + 1))


def proven(inside: NDArray[np.float64], outside: NDArray[np.float64], thresholds: list[float]) -> float:
    """Return the largest epsilon that scores prove at any of the thresholds, either way round."""
    best = 0.0
    for threshold in thresholds:
        for one, other in ((inside > threshold, outside > threshold), (outside <= threshold, inside <= threshold)):
            low = share(int(one.sum()), one.size, upper=False) - DELTA
            high = share(int(other.sum()), other.size, upper=True)
            best = max(best, math.log(low / high) if low > 0 else 0.0)
    return best


def scores(order: Order, fleet: NDArray[np.int64], direction: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return, run by run, how likely all rounds of a training make it that the vehicle was there (log, up to a scale).

    The attacker knows all others and what the vehicle would have changed.
    """
    rounds = plan_of(order).rounds
    return np.array(
        [sum(float((seen(order, fleet) - CROWD) @ direction) for _ in range(rounds)) for _ in range(GUESSES)]
    )


@pytest.mark.parametrize(("epsilon_micro", "rounds"), [(500_000, 1), (2_000_000, 1), (2_000_000, 3)])
@pytest.mark.parametrize("spread", [False, True])
def test_an_audit_with_the_longest_vehicle_never_proves_more_than_the_claimed_epsilon(
    epsilon_micro: int, rounds: int, *, spread: bool
) -> None:
    order = private_order(1, rounds=rounds, epsilon_micro=epsilon_micro, clip_norm_micro=WIDE)
    vehicle = np.zeros(NUMBERS, np.int64)
    vehicle[:] = math.isqrt(GRAIN**2 // NUMBERS) if spread else 0
    vehicle[0] = vehicle[0] if spread else GRAIN
    assert int(vehicle @ vehicle) <= GRAIN**2
    inside, outside = scores(order, CROWD + vehicle, vehicle), scores(order, CROWD, vehicle)
    middle = rounds * float(vehicle @ vehicle) / 2
    assert proven(inside, outside, [0.0, middle, 2 * middle, 3 * middle]) <= epsilon_micro / 1e6


def test_the_audit_finds_a_vehicle_that_was_not_cut() -> None:
    """Ten times as long as it may be, as compute that does not bound a vehicle would let it be."""
    order = private_order(1, rounds=1, epsilon_micro=2_000_000, clip_norm_micro=WIDE)
    vehicle = np.zeros(NUMBERS, np.int64)
    vehicle[0] = 10 * GRAIN
    inside, outside = scores(order, CROWD + vehicle, vehicle), scores(order, CROWD, vehicle)
    assert proven(inside, outside, [float(vehicle @ vehicle) / 2]) > 2.0
