"""Bars of quantiles: honest over fleets of any size and shape, no longer than the histogram and the noise make them.

Where values lie within a bin is part of the doubt, so each run has a fleet of its own.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import numpy as np
import pytest

from isthmus.contracts.queries import QUANTILE_BINS, CellPartial, FigureKind, Partials, PrimitiveKind, primitives
from isthmus.contracts.tables import TABLES, TableName
from isthmus.privacy.estimates import on_simplex
from isthmus.privacy.figures import figures
from isthmus.privacy.mechanism import noise_of
from isthmus.privacy.quantiles import Bins, Histogram
from isthmus.privacy.release import release
from isthmus.proof.ids import question_digest
from unit.privacy.coverage import require_coverage
from unit.privacy.crowd import BRAKING, MIX, SPEED, figure, plan, question

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.contracts.queries import QuerySpec

    Draw = Callable[[np.random.Generator, str, int], np.ndarray]

AT = (100_000, 250_000, 500_000, 750_000, 900_000)


def speeds(rng: np.random.Generator, zone: str, rows: int) -> np.ndarray:
    usual = np.array(SPEED)[rng.choice(4, size=rows, p=MIX[zone])]
    return 100 * rng.normal(usual, 0.3 * usual)


def braking(rng: np.random.Generator, zone: str, rows: int) -> np.ndarray:
    """Skewed: most rows in the first bins, and most bins empty."""
    return 10_000 * rng.exponential(BRAKING[zone], size=rows)


def narrow(rng: np.random.Generator, _: str, rows: int) -> np.ndarray:
    return 100 * rng.normal(12, 0.8, size=rows)


def apart(rng: np.random.Generator, _: str, rows: int) -> np.ndarray:
    """Two groups with empty bins between."""
    slow = rng.random(rows) < 0.5
    return 100 * np.where(slow, rng.normal(5, 1, size=rows), rng.normal(30, 2, size=rows))


def one_value(rng: np.random.Generator, _: str, rows: int) -> np.ndarray:
    return np.asarray(rng.normal(1_230, 3, size=rows))


def still(rng: np.random.Generator, zone: str, rows: int) -> np.ndarray:
    """Seven rows in ten are exactly zero."""
    return np.where(rng.random(rows) < 0.7, 0, braking(rng, zone, rows))


def some_still(rng: np.random.Generator, zone: str, rows: int) -> np.ndarray:
    """Three rows in ten are exactly zero, and many others share their bin: the heap that is hardest to see."""
    return np.where(rng.random(rows) < 0.3, 0, braking(rng, zone, rows))


def both_ends(rng: np.random.Generator, _: str, rows: int) -> np.ndarray:
    """Seven rows in ten are clamped: at the lowest value or at the highest."""
    return np.clip(rng.uniform(-1_200, 2_200, size=rows), 0, 1_000)


def limits(rng: np.random.Generator, _: str, rows: int) -> np.ndarray:
    """Four values, at the first or the last that a bin holds, so that a quantile lies between two of them."""
    return rng.choice([626, 1_251, 1_875, 2_500], size=rows)


def sums(spec: QuerySpec, measure: str, values: np.ndarray, vehicles: int) -> Partials:
    """Return exact sums of one cell of rows with these values."""
    found = TABLES[spec.table].measure(measure)
    assert found is not None
    centre = (found.low + found.high) // 2
    bins = np.bincount((values - found.low) * QUANTILE_BINS // (found.high - found.low + 1), minlength=QUANTILE_BINS)
    made = {
        PrimitiveKind.BINS: tuple(bins.tolist()),
        PrimitiveKind.SUM: (int((values - centre).sum()),),
        PrimitiveKind.COUNT: (len(values),),
        PrimitiveKind.ROWS: (len(values),),
    }
    numbers = tuple(made[p.kind] for p in primitives(spec))
    cell = CellPartial(vehicles=vehicles, values=numbers, largest=((0, 0),) * len(numbers))
    return Partials(version=1, question=question_digest(spec), vehicles=vehicles, cells=(cell,))


class Asking:
    """Asks fresh fleets for quantiles, two rows a vehicle, and says which bars cover."""

    def __init__(self, spec: QuerySpec, measure: str, draw: Draw, epsilon: float) -> None:
        found = TABLES[spec.table].measure(measure)
        assert found is not None
        self.spec, self.measure, self.draw, self.found = spec, measure, draw, found
        self.plan, self.rng = plan(spec, epsilon), np.random.default_rng()
        self.lengths: list[float] = []

    def run(self, zones: tuple[str, ...], vehicles: int) -> list[bool]:
        fleets = [
            np.clip(np.rint(self.draw(self.rng, zone, 2 * vehicles)), self.found.low, self.found.high).astype(int)
            for zone in zones
        ]
        (told,) = figures(
            self.spec, [release(self.plan, sums(self.spec, self.measure, rows, vehicles)) for rows in fleets]
        )
        if told.answers < len(zones):
            return []
        values = np.sort(np.concatenate(fleets))
        exact = [values[-(-ppm * len(values) // 1_000_000) - 1] / self.found.steps_per_unit for ppm in AT]
        estimates = next(f for f in told.figures if f.figure.kind is FigureKind.QUANTILES).estimates
        self.lengths += [e.high - e.low for e in estimates]
        return [e.low <= v <= e.high for e, v in zip(estimates, exact, strict=True)]


def quantiles_of(measure: str) -> QuerySpec:
    return question(figure(FigureKind.QUANTILES, measure, at=AT))


ZONES = pytest.mark.parametrize("zones", [("cn",), ("cn", "us")], ids=["one zone", "two zones"])


@pytest.mark.parametrize(
    ("measure", "draw", "vehicles", "epsilon"),
    [
        ("speed_mps", speeds, 30, 3.0),
        ("speed_mps", speeds, 200, 1.0),
        ("speed_mps", speeds, 2_000, 1.0),
        ("braking_share", braking, 100, 1.0),
        ("speed_mps", narrow, 100, 1.0),
        ("speed_mps", apart, 200, 1.0),
    ],
    ids=["small", "middling", "large", "skewed", "narrow", "empty between"],
)
@ZONES
def test_bars_cover_19_times_in_20_over_fleets(
    measure: str, draw: Draw, vehicles: int, epsilon: float, zones: tuple[str, ...]
) -> None:
    asking = Asking(quantiles_of(measure), measure, draw, epsilon)
    require_coverage(lambda: asking.run(zones, vehicles))


@pytest.mark.parametrize(
    ("measure", "draw"),
    [("braking_share", braking), ("speed_mps", narrow), ("speed_mps", one_value), ("braking_share", still)],
    ids=["skewed", "narrow", "one value", "most at zero"],
)
@ZONES
def test_where_bins_are_too_wide_to_tell_bars_span_them_and_little_more(
    measure: str, draw: Draw, zones: tuple[str, ...]
) -> None:
    asking = Asking(quantiles_of(measure), measure, draw, 1.0)
    require_coverage(lambda: asking.run(zones, 2_000), high=1.0)
    found = asking.found
    one_bin = (found.high - found.low + 1) / QUANTILE_BINS / found.steps_per_unit
    assert statistics.median(asking.lengths) <= 1.5 * one_bin


@pytest.mark.parametrize(
    ("measure", "draw"),
    [("braking_share", still), ("braking_share", some_still), ("braking_share", both_ends), ("speed_mps", limits)],
    ids=["most at zero", "some at zero", "both ends", "four values"],
)
@pytest.mark.parametrize(("vehicles", "epsilon"), [(30, 3.0), (30, 1.0), (200, 1.0)], ids=["30", "30 noisy", "200"])
@ZONES
def test_bars_cover_heaps_that_noise_may_hide(
    measure: str, draw: Draw, vehicles: int, epsilon: float, zones: tuple[str, ...]
) -> None:
    asking = Asking(quantiles_of(measure), measure, draw, epsilon)
    require_coverage(lambda: asking.run(zones, vehicles), high=1.0)


def test_a_bar_stays_within_a_bin_of_one_value() -> None:
    """Eleven whole numbers over 64 bins: what is sure to be nought is not told as nought to one."""
    told = [0] * QUANTILE_BINS
    told[0], told[1 * QUANTILE_BINS // 11] = 3_900, 100
    histogram = Histogram(0, 10, (Bins(tuple(told), 2.0, laplace=True, count_variance=8.0 * QUANTILE_BINS),))
    assert all(-0.5 <= low <= high < 0.5 for _, low, high in histogram.quantiles((0.1, 0.5, 0.9)))


@pytest.mark.parametrize("at", [0, QUANTILE_BINS // 2, QUANTILE_BINS - 1], ids=["first", "inner", "last"])
def test_a_bar_reaches_to_both_edges_of_a_bin_that_holds_all_rows(at: int) -> None:
    """Each bin holds ten values, and all rows may be at any one of them."""
    told = [0] * QUANTILE_BINS
    told[at] = 500
    histogram = Histogram(0, 10 * QUANTILE_BINS - 1, (Bins(tuple(told), 0.0, laplace=True, count_variance=0.0),))
    assert [bar[1:] for bar in histogram.quantiles((0.1, 0.5, 0.9))] == [(10 * at, 10 * at + 9)] * 3


def test_a_better_count_makes_bars_shorter_and_they_still_cover() -> None:
    alone = Asking(quantiles_of("speed_mps"), "speed_mps", speeds, 1.0)
    more = question(figure(FigureKind.QUANTILES, "speed_mps", at=AT), figure(FigureKind.MEAN, "speed_mps"))
    counted = Asking(more, "speed_mps", speeds, 2.0)  # about as much noise on a bin: half is spent on the mean
    require_coverage(lambda: counted.run(("cn",), 200))
    for _ in range(200):
        alone.run(("cn",), 200)
    scale = [noise_of(one.plan).told[0].scale_micro for one in (alone, counted)]
    assert scale[1] < 1.5 * scale[0]
    assert statistics.mean(counted.lengths) < statistics.mean(alone.lengths)


def test_rounding_moves_no_rows_from_one_end_to_the_other() -> None:
    told = on_simplex([11] * 32, 11 * 32 - 16)  # each is lowered by a half
    assert abs(sum(told[:16]) - sum(told[16:])) <= 1


def test_tables_have_the_two_rows_a_vehicle_that_fleets_have_here() -> None:
    assert TABLES[TableName.DRIVES].rows_per_vehicle == 2
