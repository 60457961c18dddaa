"""What a verifier, who has no library of accounting, makes of the curve of a private training."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.contracts.identifiers import Name
from isthmus.contracts.orders import TrainingPlan, TrainingPrivacy, Weighting
from isthmus.contracts.queries import PrivacyBudget
from isthmus.privacy.training import noise_of
from isthmus.proof import accounting

MICRO = 1_000_000
LIMITS = [(epsilon, delta) for epsilon in (1_000, MICRO, 8 * MICRO, 15 * MICRO, 100 * MICRO) for delta in (6, 15)]


def plan(epsilon_micro: int, delta_exponent: int = 6, rounds: int = 60) -> TrainingPlan:
    values: dict[str, Any] = {
        "rounds": rounds, "epochs": 1, "batch_size": 64, "learning_rate_micro": 1_000, "seed": 7,
        "weighting": Weighting.VEHICLES, "held_out_vehicles": 10, "split_salt": Name("split-1"),
        "adaptation_epochs": 0, "reference_epochs": 0,
    }  # fmt: skip
    privacy = TrainingPrivacy(
        epsilon_micro=epsilon_micro, delta_exponent=delta_exponent, vehicle_norm_micro=MICRO, vehicles=100
    )
    return TrainingPlan(privacy=privacy, **values)


@pytest.mark.parametrize(("epsilon_micro", "delta_exponent"), LIMITS)
@pytest.mark.parametrize("rounds", [1, 7, 10_000])
def test_its_epsilon_is_kept_and_hardly_more_than_kept(epsilon_micro: int, delta_exponent: int, rounds: int) -> None:
    curve = noise_of(plan(epsilon_micro, delta_exponent, rounds)).curve
    assert accounting.keeps(curve, epsilon_micro, delta_exponent)
    assert not accounting.keeps(curve, round(epsilon_micro * 0.999), delta_exponent)


def test_a_line_that_ends_before_it_says_nothing_is_no_gaussian_s() -> None:
    """Beyond some order it says nothing, and a Gaussian would still say something there."""
    curve = noise_of(plan(MICRO)).curve
    ends = accounting.ALPHAS.index(512)
    cut = (*curve[:ends], accounting.UNBOUNDED, *curve[ends + 1 :])
    assert not accounting.keeps(cut, MICRO, 6)


def test_rounds_that_are_paid_for_cost_what_each_of_them_does() -> None:
    curve = noise_of(plan(15 * MICRO, rounds=10)).curve
    part = accounting.paid(curve, 2, 10)
    for alpha, rdp, whole in zip(accounting.ALPHAS, part, curve, strict=True):
        assert rdp == accounting.UNBOUNDED if whole == accounting.UNBOUNDED else 0 <= 5 * rdp - whole < 5, alpha
    assert accounting.paid(curve, 10, 10) == curve
    assert accounting.paid(curve, 0, 10) == accounting.zero()


def test_a_round_of_gaussian_noise_never_counts_as_pure() -> None:
    """A part of what says nothing is not a part of a bound: a budget must not take it for a pure epsilon."""
    one = accounting.paid(noise_of(plan(100 * MICRO, rounds=1_000)).curve, 1, 1_000)
    budget = PrivacyBudget(epsilon_micro=16 * MICRO, delta_exponent=6)
    at_filter = accounting.ALPHAS.index(accounting.filter_order(budget))
    alone = tuple(rdp if place == at_filter else 0 for place, rdp in enumerate(one))
    assert accounting.spent_micro(one, budget) == accounting.spent_micro((*alone[:-1], accounting.UNBOUNDED), budget)
