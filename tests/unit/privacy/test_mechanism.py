"""The noise of an answer: what it costs, by its own distribution, by Renyi divergences and by PLD."""

from __future__ import annotations

import math

import pytest
from dp_accounting import LaplaceDpEvent
from dp_accounting.pld import PLDAccountant

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.queries import FigureKind, Mode, PrivacyBudget, QuerySpec
from isthmus.privacy import loss, renyi
from isthmus.privacy.blocks import blocks
from isthmus.privacy.mechanism import curve_of, noise_of
from isthmus.privacy.renyi import gaussian, laplace
from isthmus.proof import accounting
from unit.privacy.crowd import figure, plan, question

MANY = [figure(FigureKind.MEAN, m) for m in ("speed_mps", "distance_km", "braking_share", "cut_ins", "headway_s")]
QUESTIONS = {
    "vehicles": question(figure(FigureKind.VEHICLES)),
    "kilometres": question(figure(FigureKind.SUM, "distance_km"), by=["road_type"]),
    "rows and mean": question(figure(FigureKind.ROWS), figure(FigureKind.MEAN, "speed_mps"), by=["traffic"]),
    "variance": question(figure(FigureKind.VARIANCE, "speed_mps"), figure(FigureKind.VEHICLES)),
    "quantiles": question(figure(FigureKind.QUANTILES, "headway_s", at=[500_000])),
    "many": question(*MANY, *(figure(FigureKind.HISTOGRAM, "speed_mps", bins=b) for b in range(4, 12))),
}


def divergence_by_hand(alpha: float, step: int, scale: float) -> float:
    """Add up P(k)^a P(k - step)^(1 - a) of the discrete Laplace distribution, term by term."""
    reach = math.ceil(60 * scale) + step
    norm = (1 - math.exp(-1 / scale)) / (1 + math.exp(-1 / scale))
    total = sum(
        norm * math.exp((-alpha * abs(k) - (1 - alpha) * abs(k - step)) / scale) for k in range(-reach, reach + 1)
    )
    return math.log(total) / (alpha - 1)


@pytest.mark.parametrize(("step", "scale"), [(1, 1.0), (2, 2.0), (7, 3.5), (40, 13.0)])
@pytest.mark.parametrize("alpha", [1.25, 2.0, 8.0, 40.0])
def test_the_closed_form_is_the_sum_over_the_distribution(alpha: float, step: int, scale: float) -> None:
    assert laplace(alpha, step, scale) == pytest.approx(divergence_by_hand(alpha, step, scale), rel=1e-9)


def test_all_of_a_vehicle_in_one_number_costs_the_most() -> None:
    for alpha in accounting.ALPHAS:
        assert laplace(alpha, 3, 2.0) + laplace(alpha, 4, 2.0) <= laplace(alpha, 7, 2.0) + 1e-12


@pytest.mark.parametrize("spec", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("epsilon", [0.005, 0.1, 1.0, 3.0, 10.0])
def test_an_answer_costs_at_most_its_epsilon(spec: QuerySpec, epsilon: float) -> None:
    asked = plan(spec, epsilon)
    assert any(curve_of(asked))
    assert accounting.keeps(curve_of(asked), asked.epsilon_micro, asked.delta_exponent)


def test_an_epsilon_too_small_for_any_number_that_crosses_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        curve_of(plan(QUESTIONS["variance"], 0.000_01))
    assert refused.value.code is Code.INPUT_INVALID


def test_laplace_noise_in_one_answer_stays_within_its_epsilon_by_pld_composition() -> None:
    asked = plan(question(*MANY[:3], figure(FigureKind.VEHICLES)), 1.0)
    noise = noise_of(asked)
    assert noise.mechanism == "discrete_laplace"
    accountant = PLDAccountant()
    for one in noise.measured:
        accountant.compose(LaplaceDpEvent(one.scale_micro / 1e6 / one.block.l1))
    assert 0.8 < accountant.get_epsilon(1e-6) <= 1.0 + 1e-4  # the grid of PLD rounds up


def test_gaussian_noise_is_chosen_for_many_figures_and_stays_within_its_epsilon_by_pld() -> None:
    from dp_accounting import GaussianDpEvent  # noqa: PLC0415

    asked = plan(QUESTIONS["many"], 0.5)
    noise = noise_of(asked)
    assert noise.mechanism == "discrete_gaussian"
    accountant = PLDAccountant()
    for one in noise.measured:
        accountant.compose(GaussianDpEvent(one.scale_micro / 1e6 / math.sqrt(one.block.l2_squared)))
    assert 0.498 < accountant.get_epsilon(1e-6) <= 0.5


def test_rows_are_not_paid_for_twice() -> None:
    kinds = [b.kind.value for b in blocks(QUESTIONS["rows and mean"])]
    assert kinds == ["ends"]


def test_a_question_that_narrows_a_measure_gets_less_noise() -> None:
    from isthmus.contracts.queries import Condition  # noqa: PLC0415

    short = Condition(column="distance_km", low=None, high=1_500)
    wide, narrow = (
        noise_of(plan(question(figure(FigureKind.SUM, "distance_km"), where=where))).measured[0].scale_micro
        for where in ((), (short,))
    )
    assert narrow * 2 == pytest.approx(wide, rel=1e-5)


def test_the_other_mode_costs_nothing_and_gets_no_noise() -> None:
    controlled = plan(QUESTIONS["vehicles"], mode=Mode.DISCLOSURE_CONTROLLED)
    assert curve_of(controlled) == accounting.zero()
    with pytest.raises(ValueError, match="dp"):
        noise_of(controlled)


def test_the_filter_lets_a_pure_budget_be_spent_to_the_end_and_no_further() -> None:
    budget = PrivacyBudget(epsilon_micro=10_000_000, delta_exponent=6)
    cost = curve_of(plan(QUESTIONS["vehicles"], 1.0))
    spent, answered = accounting.zero(), 0
    while accounting.fits(spent, cost, budget):
        spent, answered = accounting.add(spent, cost), answered + 1
    assert answered == 10
    assert accounting.spent_micro(spent, budget) <= budget.epsilon_micro


def test_many_small_answers_fit_where_pure_epsilons_would_not() -> None:
    budget = PrivacyBudget(epsilon_micro=10_000_000, delta_exponent=6)
    cost = curve_of(plan(QUESTIONS["vehicles"], 0.1))
    spent, answered = accounting.zero(), 0
    while accounting.fits(spent, cost, budget):
        spent, answered = accounting.add(spent, cost), answered + 1
    assert answered > 250


def test_gaussian_answers_never_count_as_pure() -> None:
    budget = PrivacyBudget(epsilon_micro=1_000_000, delta_exponent=6)
    bell = accounting.curve([gaussian(alpha, 1.0, 0.5) for alpha in accounting.ALPHAS])
    assert bell[-1] == accounting.UNBOUNDED
    assert not accounting.fits(accounting.zero(), bell, budget)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_the_gaussian_is_close_to_the_best_there_is(epsilon: float) -> None:
    """Balle and Wang 2018, theorem 8, is exact; Renyi divergences come within an eighth of it, losses within a hair."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    def delta(s: float) -> float:
        return normal(0.5 / s - epsilon * s) - math.exp(epsilon) * normal(-0.5 / s - epsilon * s)

    through_divergences = 1 / math.sqrt(2 * renyi.largest_rho(epsilon, 6))
    by_loss = 1 / math.sqrt(2 * loss.largest_rho(epsilon, 6))
    assert delta(through_divergences) <= 1e-6 < delta(through_divergences / 1.12)
    assert delta(by_loss) <= 1e-6 < delta(by_loss / 1.000_01)
