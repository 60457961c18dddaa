"""The loss distribution of an answer: in closed form, by `dp-accounting`, and as a sum over every output."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import reduce

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_discrete_gaussian_mechanism

from isthmus.contracts.queries import FigureKind, PrivacyBudget, QueryPlan
from isthmus.contracts.tables import TABLES, TableName
from isthmus.privacy import loss, renyi
from isthmus.privacy.mechanism import curve_of, noise_of
from isthmus.proof import accounting
from isthmus.proof.loss import delta
from unit.privacy.crowd import figure, plan, question

MEASURES = [measure.name for measure in TABLES[TableName.DRIVES].measures]
MANY = tuple(figure(FigureKind.MEAN, measure) for measure in MEASURES)
BINS = tuple(figure(FigureKind.HISTOGRAM, "speed_mps", bins=bins) for bins in range(4, 12))
SMALL = (*BINS, *(figure(FigureKind.HISTOGRAM, "cut_ins", bins=bins) for bins in range(2, 10)))
"""A vehicle moves each by its rows alone: noise is a few steps."""
DELTA = 1e-6


def equal(measurements: int, epsilon: float) -> QueryPlan:
    """Return a plan that measures so many things of about one weight."""
    return plan(question(*(MANY + BINS)[:measurements]), epsilon)


def every_output(shifts: tuple[int, ...], deviations: tuple[float, ...], epsilon: float) -> float:
    """Return delta of discrete Gaussian noise on several numbers, summed over all outputs, the worse way round."""
    with_it, without = [], []
    for shift, deviation in zip(shifts, deviations, strict=True):
        reach = math.ceil(9 * deviation)
        at = np.arange(-reach, reach + shift + 1)
        for found, centre in ((with_it, shift), (without, 0)):
            density = np.exp(-((at - centre) ** 2) / (2 * deviation**2))
            found.append(density / density.sum())
    p, q = (reduce(np.multiply.outer, found) for found in (with_it, without))
    return max(
        float(np.maximum(p - math.exp(epsilon) * q, 0).sum()), float(np.maximum(q - math.exp(epsilon) * p, 0).sum())
    )


def smoothed(shifts: tuple[int, ...], deviations: tuple[float, ...], less: float = loss.SMOOTHING) -> float:
    """Return the rho by which noise on several numbers is counted."""
    return sum(s**2 / (2 * (d**2 - less)) for s, d in zip(shifts, deviations, strict=True))


@pytest.mark.parametrize("shifts_and_deviations", [
    ((1,), (1.5,)), ((3,), (1.5,)), ((1,), (2.0,)), ((2,), (3.0,)), ((7,), (5.0,)), ((10,), (40.0,)),
    ((1, 1), (2.0, 2.0)), ((2, 1), (1.6, 9.0)), ((1, 1, 1), (2.5, 2.5, 4.0)), ((3, 2, 1), (5.0, 3.0, 2.0)),
])  # fmt: skip
def test_discrete_noise_costs_no_more_than_it_is_counted(
    shifts_and_deviations: tuple[tuple[int, ...], tuple[float, ...]],
) -> None:
    shifts, deviations = shifts_and_deviations
    rho = smoothed(shifts, deviations)
    for epsilon in np.linspace(0.0, 5 * math.sqrt(2 * rho), 26):
        exact = every_output(shifts, deviations, epsilon)
        assert exact <= delta(rho, epsilon) + 1e-13  # what outputs beyond nine deviations could add, and rounding


def test_counted_as_continuous_noise_it_would_cost_more_than_is_said() -> None:
    """Why there is `SMOOTHING`: at a deviation of 2 the continuous formula is a third too low."""
    epsilons = np.linspace(0.1, 3.0, 60)
    ratios = [every_output((1,), (2.0,), e) / delta(smoothed((1,), (2.0,), 0.0), e) for e in epsilons]
    assert max(ratios) > 1.3


@pytest.mark.parametrize("deviation", [1.5, 2.0, 6.0])
def test_a_blurred_number_that_is_drawn_back_to_whole_ones_has_the_discrete_gaussian_s_probabilities(
    deviation: float,
) -> None:
    """The step of the proof, by quadrature: continuous noise, then an integer around what came of it."""
    t = math.sqrt(deviation**2 - loss.SMOOTHING)
    y, step = np.linspace(-14 * t, 14 * t, 200_001, retstep=True)
    blurred = np.exp(-(y**2) / (2 * t**2)) / (t * math.sqrt(2 * math.pi))
    reach = math.ceil(14 * t) + 12
    integers = np.arange(-reach, reach + 1)
    back = sum(np.exp(-((k - y) ** 2) / (2 * loss.SMOOTHING)) for k in integers)
    norm = np.exp(-(integers**2) / (2 * deviation**2)).sum()
    for k in range(math.ceil(6 * deviation)):
        drawn = float((blurred * np.exp(-((k - y) ** 2) / (2 * loss.SMOOTHING)) / back).sum() * step)
        assert drawn == pytest.approx(math.exp(-(k**2) / (2 * deviation**2)) / norm, rel=1e-10)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("exponent", [6, 9])
def test_the_noise_is_the_least_by_pld_composition(epsilon: float, exponent: int) -> None:
    rho = loss.largest_rho(epsilon, exponent)
    accountant = PLDAccountant(value_discretization_interval=1e-4 * epsilon)
    for part in (0.5, 0.25, 0.125, 0.125):
        accountant.compose(GaussianDpEvent(1 / math.sqrt(2 * rho * part)))
    assert 0.999 * epsilon < accountant.get_epsilon(10.0**-exponent) <= 1.001 * epsilon  # the grid of PLD rounds up


def test_more_epsilon_or_more_delta_allows_more() -> None:
    epsilons = [0.000_01, 0.001, 0.1, 1.0, 5.0, 10.0]
    assert [loss.largest_rho(e, 6) for e in epsilons] == sorted({loss.largest_rho(e, 6) for e in epsilons})
    assert loss.largest_rho(1.0, 6) > loss.largest_rho(1.0, 9) > loss.largest_rho(1.0, 15) > 0


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0, 10.0])
def test_it_allows_more_than_divergences_prove(epsilon: float) -> None:
    assert loss.largest_rho(epsilon, 6) > 1.1 * renyi.largest_rho(epsilon, 6)


def test_an_answer_of_fourteen_measurements_has_a_twentieth_less_noise_than_divergences_would_give() -> None:
    asked = equal(14, 1.0)
    noise = noise_of(asked)
    assert noise.mechanism == "discrete_gaussian"
    assert len(noise.measured) == 14
    rho = sum(m.block.l2_squared / (2 * (m.scale_micro / 1e6) ** 2) for m in noise.measured)
    assert math.sqrt(renyi.largest_rho(1.0, 6) / rho) < 0.95


def test_small_noise_is_never_more_than_divergences_would_give() -> None:
    """Where steps are as large as noise, smoothing costs more than it brings."""
    asked = plan(question(*SMALL, rows=1), 6.0)
    noise = noise_of(asked)
    assert noise.mechanism == "discrete_gaussian"
    rho = sum(m.block.l2_squared / (2 * (m.scale_micro / 1e6) ** 2) for m in noise.measured)
    assert rho >= renyi.largest_rho(6.0, 6) * (1 - 1e-5)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 5.0])
def test_bins_stay_within_epsilon_by_the_pld_of_the_discrete_distribution(rows: int, epsilon: float) -> None:
    """All of a vehicle's rows in one bin: exactly the noise that is drawn, composed on a grid that rounds up."""
    noise = noise_of(plan(question(*SMALL, rows=rows), epsilon))
    assert noise.mechanism == "discrete_gaussian"
    grid = 1e-4 * epsilon
    parts = [
        from_discrete_gaussian_mechanism(
            m.scale_micro / 1e6, sensitivity=rows, value_discretization_interval=grid, use_connect_dots=True
        )
        for m in noise.measured
    ]
    whole = reduce(lambda a, b: a.compose(b), parts)
    assert 0.9 * epsilon < whole.get_epsilon_for_delta(DELTA) <= epsilon + grid


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_laplace_noise_loses_nothing_where_it_is_chosen(epsilon: float) -> None:
    """At the most measurements for which it is: PLD would find next to nothing below pure epsilon."""
    kinds = [noise_of(equal(n, epsilon)).mechanism for n in range(1, 17)]
    last = max(i for i, kind in enumerate(kinds) if kind == "discrete_laplace") + 1
    assert 4 < last < 16
    accountant = PLDAccountant(value_discretization_interval=1e-4 * epsilon)
    for m in noise_of(equal(last, epsilon)).measured:
        accountant.compose(LaplaceDpEvent(m.scale_micro / 1e6 / m.block.l1))
    assert accountant.get_epsilon(DELTA) > 0.99 * epsilon


# ---- what a curve means


def test_a_gaussian_answer_keeps_its_epsilon_though_its_divergences_alone_do_not_show_it() -> None:
    asked = equal(14, 1.0)
    curve = curve_of(asked)
    assert accounting.epsilon_micro(curve, 6) > asked.epsilon_micro
    assert accounting.keeps(curve, asked.epsilon_micro, 6)
    assert not accounting.keeps(curve, asked.epsilon_micro * 995 // 1_000, 6)
    assert not accounting.keeps(curve, asked.epsilon_micro, 7)


def test_a_budget_counts_the_curve_and_not_what_the_answer_states() -> None:
    """Where answers choose the questions, losses of Gaussian noise do not help: one that states all does not fit."""
    curve = curve_of(equal(14, 1.0))
    whole = PrivacyBudget(epsilon_micro=1_000_000, delta_exponent=6)
    assert not accounting.fits(accounting.zero(), curve, whole)
    assert 1_000_000 < accounting.spent_micro(curve, whole) < 1_100_000
    assert accounting.fits(accounting.zero(), curve, PrivacyBudget(epsilon_micro=1_100_000, delta_exponent=6))


def test_a_curve_that_is_no_straight_line_means_what_its_divergences_do() -> None:
    curve = list(curve_of(equal(14, 1.0)))
    for place, change in ((0, -2), (-2, 600), (10, 200), (-1, -1)):
        bent = curve.copy()
        bent[place] += change
        assert not accounting.keeps(tuple(bent), 1_000_000, 6)


def test_a_curve_without_bounds_means_nothing() -> None:
    hidden = (1, *[accounting.UNBOUNDED] * (len(accounting.ALPHAS) - 1))
    assert not accounting.keeps(hidden, 10_000_000, 6)
    assert not accounting.keeps((accounting.UNBOUNDED,) * len(accounting.ALPHAS), 10_000_000, 6)


def test_no_answer_loads_a_library_of_accounting() -> None:
    """Weight is a wall: `dp-accounting` takes seconds and 100 MB, and a border has no use for it."""
    program = (
        "import sys; from isthmus.privacy import loss; from isthmus.proof import accounting; "
        "assert loss.largest_rho(1.0, 6) > 0; from isthmus.privacy.mechanism import curve_of, noise_of; "
        "from isthmus.contracts.queries import QueryPlan; plan = QueryPlan.model_validate_json(sys.argv[1]); "
        "assert noise_of(plan).mechanism == 'discrete_gaussian' and any(curve_of(plan)); "
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & {'dp_accounting', 'scipy', 'numpy', 'opendp'}))"
    )
    asked = equal(14, 1.0).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", program, asked], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
