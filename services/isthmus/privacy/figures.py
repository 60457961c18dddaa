"""Figures of one or several zones' answers, each with a bar that covers the exact one 95 times in 100.

The exact figure is that of the bounded sums: of rows that count, clamped. What bounding left out is in no bar.

Rules:
1. Answers are merged by adding primitives up, zone by zone; errors of zones are independent, so variances add up.
2. A ratio's bar is Fieller's (1954): all ratios that the two numbers do not contradict, so it stays honest where the
   count is small, and may be the whole of the measure's bounds.
3. A zone that suppressed a cell adds nothing to its figures; how many did stands beside them.
4. Bars of Laplace noise are 2.1 standard deviations: from 94.9 % (one Laplace variable) to 96.4 % (the sum of many).
5. A bar covers 95 times in 100 before it is known whether the cell is told. Of cells that are told though they are
   nearly empty, it covers fewer: noise has lifted them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.queries import QUANTILE_BINS, FigureKind, Primitive, PrimitiveKind, primitives
from isthmus.privacy.bounds import Bounds, bounds_of
from isthmus.privacy.quantiles import Bins, Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.queries import Answer, CellAnswer, Figure, Noise, QuerySpec

MICRO = 1_000_000
Z_GAUSSIAN = 1.96
Z_LAPLACE = 2.1
COUNTS = frozenset({PrimitiveKind.ROWS, PrimitiveKind.COUNT})
ROUNDING = 1 / 12
"""Variance of rounding a count to a whole number."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % bar, in the measure's unit (its square for a variance), or a number of rows or vehicles."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FigureEstimates:
    """One figure of a cell: one estimate, or one for each bin, or for each quantile asked for."""

    figure: Figure
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class CellFigures:
    """One cell.

    Attributes:
        cell: its dimensions' values, by `QuerySpec.group_by`.
        answers: how many answers are in it.
        missing: how many answers suppressed it.
        figures: by `QuerySpec.figures`; none where all answers suppressed it.
    """

    cell: tuple[str, ...]
    answers: int
    missing: int
    figures: tuple[FigureEstimates, ...]


@dataclass(frozen=True, slots=True)
class Sums:
    """A cell's primitives, merged: numbers, and the variance of each number of a primitive; histograms zone by zone."""

    numbers: dict[Primitive, tuple[int, ...]]
    variances: dict[Primitive, float]
    z: float
    bins: dict[Primitive, tuple[Bins, ...]]

    def of(self, kind: PrimitiveKind, measure: str | None, width: int = 1) -> tuple[tuple[int, ...], float]:
        """Return a primitive's numbers and the variance of each."""
        key = Primitive(kind=kind, measure=measure, width=width)
        return self.numbers[key], self.variances[key]


def figures(spec: QuerySpec, answers: Sequence[Answer]) -> tuple[CellFigures, ...]:
    """Return every cell's figures, merged over answers of different zones to one question.

    Args:
        spec: the question.
        answers: at least one, each to this question.

    Raises:
        ValueError: there is no answer, or one is to a question of another shape.
    """
    if not answers or any(len(a.cells) != spec.domain_size() for a in answers):
        raise ValueError("figures are made of at least one answer to this question")
    return tuple(_cell(spec, cell, answers, index) for index, cell in enumerate(spec.cells()))


def figure_of(spec: QuerySpec, figure: Figure, sums: Sums) -> tuple[Estimate, ...]:
    """Return one figure's estimates from a cell's sums."""
    measure = figure.measure or ""
    match figure.kind:
        case FigureKind.ROWS | FigureKind.VEHICLES:
            numbers, variance = sums.of(PrimitiveKind(figure.kind.value), None)
            return (_count(numbers[0], variance, sums.z),)
        case FigureKind.HISTOGRAM:
            numbers, variance = sums.of(PrimitiveKind.BINS, measure, figure.bins or 1)
            return tuple(_count(number, variance, sums.z) for number in numbers)
        case FigureKind.QUANTILES:
            return _quantiles(figure, bounds_of(spec, measure), sums)
        case FigureKind.SUM:
            return (_total(bounds_of(spec, measure), _Moments.of(spec, measure, sums), sums.z),)
        case FigureKind.MEAN:
            return (_mean(bounds_of(spec, measure), _Moments.of(spec, measure, sums), sums.z),)
        case FigureKind.VARIANCE:
            squares = sums.of(PrimitiveKind.SQUARES, measure)
            return (_variance(bounds_of(spec, measure), _Moments.of(spec, measure, sums), squares, sums.z),)


def deviation(noise: Noise) -> float:
    """Return the standard deviation of noise, in steps."""
    scale = noise.scale_micro / MICRO
    return scale * math.sqrt(2) if noise.mechanism == "discrete_laplace" else scale


@dataclass(frozen=True, slots=True)
class _Moments:
    """A measure's count, and its sum about the middle of its bounds: their errors are uncorrelated (see `estimates`).

    Attributes:
        count: rows with a value.
        total: their values about the middle, in steps.
        count_variance: of the count.
        total_variance: of the total.
    """

    count: int
    total: float
    count_variance: float
    total_variance: float

    @classmethod
    def of(cls, spec: QuerySpec, measure: str, sums: Sums) -> _Moments:
        counts, count_variance = sums.of(PrimitiveKind.COUNT, measure)
        totals, total_variance = sums.of(PrimitiveKind.SUM, measure)
        count = counts[0]
        return cls(count, totals[0] - bounds_of(spec, measure).tilt * count, count_variance, total_variance)


def _cell(spec: QuerySpec, cell: tuple[str, ...], answers: Sequence[Answer], index: int) -> CellFigures:
    told = [(a.cells[index], a.noise) for a in answers if not a.cells[index].suppressed]
    if not told:
        return CellFigures(cell, 0, len(answers), ())
    sums = _merged(spec, told)
    found = tuple(FigureEstimates(figure, figure_of(spec, figure, sums)) for figure in spec.figures)
    return CellFigures(cell, len(told), len(answers) - len(told), found)


def _merged(spec: QuerySpec, told: Sequence[tuple[CellAnswer, tuple[Noise, ...]]]) -> Sums:
    numbers: dict[Primitive, tuple[int, ...]] = {}
    variances: dict[Primitive, float] = {}
    for place, primitive in enumerate(primitives(spec)):
        columns = zip(*(cell.values[place] for cell, _ in told), strict=True)
        numbers[primitive] = tuple(sum(column) for column in columns)
        variances[primitive] = sum(_spread(primitive, noise[place]) for _, noise in told)
    laplace = any(n.mechanism == "discrete_laplace" for _, noise in told for n in noise)
    bins = {
        primitive: tuple(_bins(spec, place, cell.values[place], noise) for cell, noise in told)
        for place, primitive in enumerate(primitives(spec))
        if primitive.kind is PrimitiveKind.BINS
    }
    return Sums(numbers, variances, Z_LAPLACE if laplace else Z_GAUSSIAN, bins)


def _bins(spec: QuerySpec, place: int, numbers: tuple[int, ...], noise: tuple[Noise, ...]) -> Bins:
    """Return one zone's histogram with the variance of the count that it adds up to (see `estimates`)."""
    needed = primitives(spec)
    mine = _group(spec, needed[place].measure)
    sources = [(p, n) for p, n in zip(needed, noise, strict=True) if _group(spec, p.measure) == mine]
    counts = [deviation(n) ** 2 for p, n in sources if p.kind in COUNTS]
    # Without a count of its own, the count is all its histograms' totals, each by the inverse of its variance.
    parts = [1 / (p.width * deviation(n) ** 2) for p, n in sources if p.kind is PrimitiveKind.BINS and n.scale_micro]
    variance = min(counts) if counts else 1 / sum(parts) if parts else 0.0
    own = noise[place]
    return Bins(numbers, own.scale_micro / MICRO, own.mechanism == "discrete_laplace", variance)


def _group(spec: QuerySpec, measure: str | None) -> str | None:
    """Return whose count a primitive shares: None for all rows."""
    return None if measure is None or bounds_of(spec, measure).always else measure


def _spread(primitive: Primitive, noise: Noise) -> float:
    if noise.mechanism == "none":
        return 0.0
    rounded = ROUNDING if primitive.kind in {PrimitiveKind.ROWS, PrimitiveKind.COUNT} else 0.0
    return deviation(noise) ** 2 + rounded


def _count(number: int, variance: float, z: float) -> Estimate:
    half = max(0, math.ceil(z * math.sqrt(variance) - 0.5))  # counts are whole: the bar ends half way to the next one
    return Estimate(float(number), max(0.0, number - half), number + half)


def _total(bounds: Bounds, moments: _Moments, z: float) -> Estimate:
    middle = bounds.centre + bounds.tilt
    value = moments.total + middle * moments.count
    half = z * math.sqrt(moments.total_variance + middle**2 * moments.count_variance)
    low = max(0.0, value - half) if bounds.low >= 0 else value - half
    # A sum is told as no more than its count allows: near there, noise of the upper end may have been cut off it.
    end = z * math.sqrt(2 * moments.total_variance)
    cut = min(end, max(0.0, end - ((bounds.high - middle) * moments.count - moments.total)))
    unit = bounds.steps_per_unit
    return Estimate(value / unit, low / unit, (value + math.hypot(half, cut)) / unit)


def _mean(bounds: Bounds, moments: _Moments, z: float) -> Estimate:
    """Return the mean with Fieller's bar: every m with (total - m count)^2 <= z^2 (var total + m^2 var count)."""
    middle, unit = bounds.centre + bounds.tilt, bounds.steps_per_unit
    whole = Estimate(middle / unit, bounds.low / unit, bounds.high / unit)
    if moments.count <= 0:
        return whole
    value = moments.total / moments.count
    a = moments.count**2 - z**2 * moments.count_variance
    b = moments.total * moments.count
    c = moments.total**2 - z**2 * moments.total_variance
    root = b * b - a * c
    if a <= 0:  # the count may be zero: no mean is ruled out
        return Estimate(_inside(bounds, middle + value) / unit, whole.low, whole.high)
    half = math.sqrt(max(0.0, root))
    ends = ((b - half) / a, (b + half) / a)
    low, high = (_inside(bounds, middle + end) for end in ends)
    return Estimate(_inside(bounds, middle + value) / unit, low / unit, high / unit)


def _variance(bounds: Bounds, moments: _Moments, squares: tuple[tuple[int, ...], float], z: float) -> Estimate:
    """Return squares / count - mean^2 about the centre, with the bar of its linear approximation."""
    unit, most = bounds.steps_per_unit**2, float(bounds.width**2) / 4
    if moments.count <= z * math.sqrt(moments.count_variance):
        return Estimate(most / 2 / unit, 0.0, most / unit)
    numbers, variance = squares
    count, offset = moments.count, bounds.tilt
    second, first = numbers[0] / count, moments.total / count + offset
    value = second - first**2
    # d value = dQ / n - 2 first dS / n - (second - 2 first (first - offset)) dn / n, where S is about the middle.
    by_count = second - 2 * first * (first - offset)
    half = z * math.sqrt(variance + (2 * first) ** 2 * moments.total_variance + by_count**2 * moments.count_variance)
    half /= count
    told = min(most, max(0.0, value))
    return Estimate(told / unit, min(told, max(0.0, value - half)) / unit, max(told, min(most, value + half)) / unit)


def _quantiles(figure: Figure, bounds: Bounds, sums: Sums) -> tuple[Estimate, ...]:
    key = Primitive(kind=PrimitiveKind.BINS, measure=figure.measure, width=QUANTILE_BINS)
    histogram = Histogram(bounds.floor, bounds.ceiling, sums.bins[key])
    unit = bounds.steps_per_unit
    found = histogram.quantiles([ppm / MICRO for ppm in figure.quantiles_ppm])
    return tuple(Estimate(value / unit, low / unit, high / unit) for value, low, high in found)


def _inside(bounds: Bounds, value: float) -> float:
    return min(float(bounds.high), max(float(bounds.low), value))
