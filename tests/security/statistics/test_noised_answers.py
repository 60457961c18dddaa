"""Attacks on answers under `dp`. Beside each stands what it does to peers, where that is known.

Peers: ACRO's differencing check always passes; DataSHIELD's threshold of 3 has no defence against differencing
(dsBase 250, 251); clean rooms account per analyst, so colluding analysts add up, and refresh monthly, so leakage does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dp_accounting import LaplaceDpEvent
from dp_accounting.pld import PLDAccountant

from isthmus.contracts.queries import Condition, FigureKind, PrivacyBudget, QuerySpec
from isthmus.privacy.figures import figures
from isthmus.privacy.mechanism import curve_of, noise_of
from isthmus.privacy.release import release
from isthmus.proof import accounting
from unit.privacy.crowd import Row, exact_answer, figure, fleet, partials, plan, question

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.contracts.queries import Answer, Partials

BUDGET = PrivacyBudget(epsilon_micro=10_000_000, delta_exponent=6)
RUNS = 1_500


def binomial_bound(hits: int, runs: int, *, upper: bool) -> float:
    """Return the Clopper-Pearson bound of a share at 99.9 %."""
    from scipy.stats import beta  # noqa: PLC0415

    if upper:
        return 1.0 if hits == runs else float(beta.ppf(0.999, hits + 1, runs - hits))
    return 0.0 if hits == 0 else float(beta.ppf(0.001, hits, runs - hits + 1))


def proven_epsilon(inside: Sequence[bool], outside: Sequence[bool]) -> float:
    """Return the epsilon that guesses prove, at least: guessed in where it is, and where it is not."""
    best = 0.0
    for one, other in ((inside, outside), ([not g for g in outside], [not g for g in inside])):
        low = binomial_bound(sum(one), len(one), upper=False)
        high = binomial_bound(sum(other), len(other), upper=True)
        best = max(best, math.log((low - 1e-6) / high) if low > 1e-6 else 0.0)
    return best


def guesses(spec: QuerySpec, sums: Partials, epsilon: float, guess: Callable[[Answer], bool]) -> list[bool]:
    asked = plan(spec, epsilon)
    return [guess(release(asked, sums)) for _ in range(RUNS)]


def heavy(vehicle: int, road: str = "freeway", *, drives: int = 2) -> list[Row]:
    measures = {"distance_km": 3_000, "speed_mps": 4_000, "braking_share": 1_000, "headway_s": 1_000, "cut_ins": 20}
    dimensions = {"road_type": road, "road_class": "interurban", "traffic": "dense"}
    return [Row(vehicle, dimensions, measures)] * drives


AUDITED = {
    "vehicles": question(figure(FigureKind.VEHICLES)),
    "rows": question(figure(FigureKind.ROWS)),
    "sum": question(figure(FigureKind.SUM, "distance_km"), by=["road_type"]),
    "mean and vehicles": question(figure(FigureKind.MEAN, "speed_mps"), figure(FigureKind.VEHICLES)),
    "bins": question(figure(FigureKind.HISTOGRAM, "speed_mps", bins=4)),
}


@pytest.mark.parametrize(("name", "epsilon"), [*((name, 1.0) for name in AUDITED), ("vehicles", 3.0)])
def test_an_audit_with_the_heaviest_vehicle_never_proves_more_than_the_claimed_epsilon(
    name: str, epsilon: float
) -> None:
    """The attacker knows all other vehicles and guesses by the likelihood of every told number."""
    spec = AUDITED[name]
    crowd = fleet("us", 60)
    without, with_it = partials(spec, crowd), partials(spec, crowd + heavy(10_000))
    middle = [
        [(a + b) / 2 for a, b in zip(flat(spec, without), flat(spec, with_it), strict=True)],
        [float(b - a) for a, b in zip(flat(spec, without), flat(spec, with_it), strict=True)],
    ]
    told = noise_of(plan(spec)).told
    scales = [noise.scale_micro for v, noise in zip(without.cells[0].values, told, strict=True) for _ in v]

    def guess(answer: Answer) -> bool:
        score = 0.0
        for index, cell in enumerate(answer.cells):
            if cell.suppressed:
                continue
            numbers = [n for values in cell.values for n in values]
            start = index * len(numbers)
            for place, number in enumerate(numbers):
                at = start + place
                score += np.sign(middle[1][at]) * (number - middle[0][at]) / scales[place]
        return score > 0

    found = proven_epsilon(guesses(spec, with_it, epsilon, guess), guesses(spec, without, epsilon, guess))
    assert found <= epsilon
    if name == "vehicles":
        assert found > 0.5 * epsilon  # the audit can see: it comes near where it should


def only(spec: QuerySpec, sums: Partials) -> int:
    """Return the one number of an answer at epsilon 1."""
    return release(plan(spec), sums).cells[0].values[0][0]


def flat(spec: QuerySpec, sums: Partials) -> list[int]:
    return [n for cell in exact_answer(sums).cells for values in cell.values for n in values]


def test_whether_a_cell_is_told_says_no_more_than_epsilon_allows() -> None:
    """One heavy vehicle makes or breaks a small cell. A threshold on exact counts (all peers) tells with certainty."""
    spec = question(figure(FigureKind.ROWS), rows=10, by=["road_type"], groups=1)
    crowd = [row for row in fleet("us", 40) if row.dimensions["road_type"] != "freeway"]
    place = [cell for (cell,) in spec.cells()].index("freeway")
    some = [Row(5_000 + i, heavy(0)[0].dimensions, heavy(0)[0].measures) for i in range(25)]
    without, with_it = partials(spec, crowd + some), partials(spec, crowd + some + heavy(9_000, drives=10))

    def told(answer: Answer) -> bool:
        return not answer.cells[place].suppressed

    inside, outside = guesses(spec, with_it, 1.0, told), guesses(spec, without, 1.0, told)
    assert proven_epsilon(inside, outside) <= 1.0
    assert 0 < sum(outside) < sum(inside) < RUNS  # both happen either way


def test_a_vehicle_with_a_thousand_times_the_data_adds_no_more_than_any_other() -> None:
    """Without bounding, its sums outweigh the fleet's; a peer's threshold counts rows and passes it."""
    spec = question(figure(FigureKind.SUM, "distance_km"), figure(FigureKind.ROWS))
    crowd = fleet("cn", 100)
    usual, flooded = partials(spec, crowd), partials(spec, crowd + heavy(7_000, drives=2_000))
    added = [b - a for a, b in zip(flat(spec, usual), flat(spec, flooded), strict=True)]
    assert max(abs(n) for n in added) <= spec.rows_per_vehicle * 1_500
    assert noise_of(plan(spec)).measured[0].scale_micro >= 2 * 3_000 * 1_000_000


def test_differencing_over_where_costs_both_questions_and_stays_within_them() -> None:
    """Everybody, then everybody but one: with a threshold of 10 (peers) the difference is the vehicle's own figure."""
    fast = Condition(column="speed_mps", low=None, high=3_998)
    everybody, but_one = question(figure(FigureKind.ROWS)), question(figure(FigureKind.ROWS), where=[fast])
    crowd = fleet("us", 200)
    rows = crowd + [Row(9_000, r.dimensions, {**r.measures, "speed_mps": 4_000}) for r in crowd[:2]]

    def difference(sums: tuple[Partials, Partials]) -> bool:
        first, second = release(plan(everybody, 0.5), sums[0]), release(plan(but_one, 0.5), sums[1])
        return first.cells[0].values[0][0] - second.cells[0].values[0][0] > 1

    inside = (partials(everybody, rows), partials(but_one, rows))
    outside = (partials(everybody, crowd), partials(but_one, crowd))
    found = proven_epsilon([difference(inside) for _ in range(RUNS)], [difference(outside) for _ in range(RUNS)])
    both = accounting.add(curve_of(plan(everybody, 0.5)), curve_of(plan(but_one, 0.5)))
    assert found <= accounting.epsilon_micro(both, 6) / 1e6 <= 1.0


def test_differencing_over_time_pays_for_every_snapshot() -> None:
    """A growing fleet asked daily: each snapshot's answer is another question's price, so the days are numbered."""
    spec = question(figure(FigureKind.VEHICLES))
    days, spent = 0, accounting.zero()
    while accounting.fits(spent, curve_of(plan(spec)), BUDGET):
        spent, days = accounting.add(spent, curve_of(plan(spec))), days + 1
    assert days == 10
    before, after = partials(spec, fleet("cn", 100)), partials(spec, fleet("cn", 100) + heavy(9_000))
    steps = [only(spec, after) - only(spec, before) for _ in range(400)]
    assert np.std(steps) > 1.5  # the one who came is lost in it


def test_a_zone_that_subtracts_itself_from_the_whole_learns_only_the_others_noised_answer() -> None:
    """With secure aggregation of two (NVFlare 3878) it would learn the other zone exactly."""
    spec = question(figure(FigureKind.VEHICLES))
    mine, theirs = partials(spec, fleet("cn", 100)), partials(spec, fleet("us", 150))
    seen = []
    for _ in range(400):
        own, other = release(plan(spec), mine), release(plan(spec), theirs)
        (whole,) = figures(spec, [own, other])
        seen.append(whole.figures[0].estimates[0].value - own.cells[0].values[0][0])
    assert abs(np.mean(seen) - 150) < 1
    assert np.std(seen) > 1.0  # a Laplace variable of scale 1: the other zone's own noise stands


def test_averaging_different_but_equivalent_questions_is_paid_for_each_time() -> None:
    """Sticky noise, as peers have it, is averaged out by rewriting the question; here each rewriting is paid for."""
    spellings = [
        question(figure(FigureKind.VEHICLES), where=[Condition(column="distance_km", low=low, high=None)])
        for low in range(1, 400)
    ]
    sums = partials(question(figure(FigureKind.VEHICLES)), fleet("cn", 200))
    spent, told = accounting.zero(), []
    for spec in spellings:
        asked = plan(spec, 0.5)
        if accounting.fits(spent, curve_of(asked), BUDGET):
            spent = accounting.add(spent, curve_of(asked))
            told.append(release(asked, sums).cells[0].values[0][0])
    assert len(told) < 30
    accountant = PLDAccountant()
    for _ in told:
        accountant.compose(LaplaceDpEvent(noise_of(plan(spellings[0], 0.5)).measured[0].scale_micro / 1e6))
    assert accountant.get_epsilon(1e-6) <= BUDGET.epsilon_micro / 1e6 + 1e-3


@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_reconstruction_of_200_vehicles_from_500_questions_is_no_better_than_guessing(epsilon: float) -> None:
    """Dinur and Nissim 2003: random subset counts, least squares. Thresholded exact answers give every bit.

    Each vehicle has one secret bit. The attacker may choose any subset; answers come while the filter lets them.
    """
    rng = np.random.default_rng(4)
    secret = rng.integers(0, 2, 200)
    subsets = rng.integers(0, 2, (500, 200))
    spec = question(figure(FigureKind.VEHICLES))
    asked = plan(spec, epsilon)
    noise = noise_of(asked)
    template = partials(spec, fleet("cn", 20))
    spent, used, told = accounting.zero(), [], []
    for subset in subsets:
        if not accounting.fits(spent, curve_of(asked), BUDGET):
            break
        spent = accounting.add(spent, curve_of(asked))
        exact = int(subset @ secret)
        cell = template.cells[0].model_copy(update={"vehicles": exact, "values": ((exact,),)})
        answer = release(asked, template.model_copy(update={"cells": (cell,)}))
        used.append(subset)
        told.append(answer.cells[0].values[0][0] if answer.cells[0].values else 50)
    assert noise.mechanism == "discrete_laplace"

    def right(numbers: Sequence[float], weight: float) -> float:
        design = np.array(used, dtype=float)
        # Ridge towards one half: the attacker's best linear guess, knowing how large the noise is.
        centred = np.array(numbers) - design.sum(axis=1) / 2
        solved = design.T @ np.linalg.solve(design @ design.T + weight * np.eye(len(design)), centred) + 0.5
        return float(((solved > 0.5) == secret).mean())

    assert len(used) < (30 if epsilon == 1.0 else 501)
    assert right(told, 8 * (noise.measured[0].scale_micro / 1e6) ** 2) < 0.72
    if len(used) == 500:
        exact_sums = [float(subset @ secret) for subset in used]
        assert right(exact_sums, 1e-3) > 0.95  # the attack works where there is no noise
