"""Quantiles read from zones' noised histograms, with a bar of 95 times in 100.

A quantile is where S(x) = (rows up to x) - share x (all rows) passes zero. Its bar is every x at which S = 0 is not
contradicted by what is known of S: three doubts, none of which is tuned.

1. Noise. A zone's bins are told as max(0, number + noise - level), which is the projection of `estimates.on_simplex`:
   full bins are lowered by a level, empty ones lifted. `Levelled` undoes it, from public scales and what is told.
   With m bins above zero and Z at zero, the lowering of the m is paid for by noise below the level in the Z:
       m level = Z h(level), where h(a) = E[-noise | noise <= a].
   A told bin then stands for (number + level) and has the noise's variance v; a bin at zero stands for -h and has
   v - Var[noise | noise <= level], since it is known that its noise was low. The level itself is off by
   Z Var[...] / (m - Z h')^2, in all told bins at once. (A Laplace variable has no memory: a bin at zero looks alike
   whether it was empty or had a few rows, so h needs no guess of what was there.) Where a count is known better than
   the sum of its bins, the projection took their common error away: see `Levelled.shared`.
   The bar's length follows the fourth moment too (Cornish-Fisher), as few Laplace variables have longer tails.
2. Chance within a bin: rows are taken as drawn from a density through the neighbours (a straight line in logarithms),
   so up to a place with a part p of them there are n p, give or take sqrt(n p (1 - p)). How far the slope moves p
   from an even spread is a doubt of its own: half a bar, squared and added as independent doubts are.
3. What neighbours cannot explain: rows above the line through the two bins on a side (in logarithms) may lie anywhere
   in their bin, for instance all at one value.
   Where they are more than noise and chance make, those beyond the lower neighbour are counted on neither side, so such
   a bar spans the bin and covers more than 95 times in 100: a histogram knows no better.
   Where they may be noise and chance, they are one more independent doubt: as many as there seem to be, and as noise
   may have hidden. In the bins at the two ends, where clamped values and zeros gather, it is as many as there may be.
   In a small fleet noise hides a heap; a bar must not fall short because nobody saw it.

Independent errors of zones add up. The value told is where S, made to rise, passes zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats: TypeAlias = NDArray[np.float64]

NORMAL = NormalDist()
Z = NORMAL.inv_cdf(0.975)
LONGER = (Z**3 - 3 * Z) / 24
"""How much an excess of the fourth moment lengthens a bar, in standard deviations (Cornish and Fisher 1938)."""
STEPS = 32
"""Places within a bin at which the bar is looked at."""
STEEPEST = 3.0
"""Most that the logarithm of a density changes over one bin."""
RESOLVED = 2.0
"""Most that a density grows from one bin to the next for its shape to be read from bins."""


@dataclass(frozen=True, slots=True)
class Bins:
    """One zone's bins as told: not negative, adding up to their count.

    Attributes:
        numbers: rows by bin.
        scale: of the noise on each bin, in rows: Laplace's scale, or the Gaussian's deviation; 0 without noise.
        laplace: which of the two.
        count_variance: of the count that they add up to; at most that of the sum of all noise.
    """

    numbers: tuple[int, ...]
    scale: float
    laplace: bool
    count_variance: float

    @property
    def variance(self) -> float:
        """Return the variance of the noise on one bin."""
        return self.scale**2 * (2 if self.laplace else 1)


@dataclass(frozen=True, slots=True)
class Levelled:
    """A zone's bins with the projection undone.

    Attributes:
        numbers: what each bin stands for; below zero where none are told.
        variances: of each, without what they have in common.
        fourths: the excess of the fourth moment of each.
        lift: how much each moves when the level does.
        level_variance: of the level.
        shared: what a better count takes off the variance, for each square of a sum of weighted `lift`.
    """

    numbers: Floats
    variances: Floats
    fourths: Floats
    lift: Floats
    level_variance: float
    shared: float

    @classmethod
    def of(cls, bins: Bins) -> Levelled:
        """Undo the projection of bins as they were told."""
        told = np.array(bins.numbers, dtype=np.float64)
        full = told > 0
        above, at_zero, width = int(full.sum()), int((~full).sum()), len(told)
        if bins.scale == 0 or above == 0:
            nothing = np.zeros(width)
            return cls(told, nothing, nothing, nothing, 0.0, 0.0)
        level = _level(bins, above, at_zero)
        lower, spread, slope = _below(bins, level)
        variance = bins.variance
        moving = above - at_zero * slope
        # Bins b and count c = sum(b) + d: the level takes d / moving off each, and cov(noise of a bin, d) = apart x v.
        apart = max(0.0, 1 - bins.count_variance / (width * variance))
        return cls(
            np.where(full, told + level, -lower),
            np.where(full, variance, max(0.0, variance - spread)),
            np.where(full, 3 * variance**2 if bins.laplace else 0.0, 0.0),
            np.where(full, 1.0, -slope),
            at_zero * spread / moving**2,
            apart * variance * max(0.0, 2 / moving - width / moving**2),
        )


@dataclass(frozen=True, slots=True)
class Histogram:
    """Zones' bins over the whole numbers [low, high]: a value v is in bin (v - low) x bins // (high - low + 1)."""

    low: int
    high: int
    zones: tuple[Bins, ...]

    def quantiles(self, shares: Sequence[float]) -> list[tuple[float, float, float]]:
        """Return for each share the value below which such a part of the rows lies, and its bar's ends.

        Args:
            shares: each in (0, 1).
        """
        found = [Levelled.of(zone) for zone in self.zones]
        numbers = np.sum([one.numbers for one in found], axis=0)
        if not sum(sum(zone.numbers) for zone in self.zones):
            return [((self.low + self.high) / 2, float(self.low), float(self.high))] * len(shares)
        noise = sum(zone.variance for zone in self.zones)
        within = _Within.of(np.maximum(numbers, 0.0), noise)
        counts = _flat(_summed(numbers)[:-1], numbers, within.part)
        values = self._values(len(numbers))
        return [self._quantile(share, found, within, counts, values) for share in shares]

    def _values(self, width: int) -> Floats:
        """Return the value at each place: a whole number v stands for v - 1/2 to v + 1/2, and some bins have none."""
        span = self.high - self.low + 1
        first = np.array([self.low - (-index * span // width) for index in range(width + 1)], dtype=np.float64)
        return _flat(first[:-1] - 0.5, np.diff(first), np.tile(PLACES, (width, 1)))

    def _quantile(
        self, share: float, found: Sequence[Levelled], within: _Within, counts: Floats, values: Floats
    ) -> tuple[float, float, float]:
        gap = counts - share * sum(float(one.numbers.sum()) for one in found)
        noise = _noise(found, share)
        low, high = gap - np.sqrt(noise + within.down) - within.over, gap + np.sqrt(noise + within.up) + within.under
        rising = np.maximum.accumulate(gap)
        value = min(float(self.high), max(float(self.low), float(np.interp(0.0, rising, values))))
        open_to = np.flatnonzero((low <= 0) & (high >= 0))
        if not len(open_to):
            return value, value, value
        first, last = int(open_to[0]), int(open_to[-1])
        start = _crossing(values, high, first - 1, first) if first > 0 else float(values[0])
        end = _crossing(values, low, last + 1, last) if last < len(values) - 1 else float(values[-1])
        # The exact value is whole: the bar reaches to the whole numbers that its ends stand for. Half way between two
        # it is the inner one, for rows lie apart there: a bin's edge is none of its neighbour's values.
        start, end = max(self.low, math.floor(start + 0.5)), min(self.high, math.ceil(end - 0.5))
        return value, min(start, value), max(end, value)


PLACES: Floats = np.linspace(0.0, 1.0, STEPS + 1)
"""Of a bin, both edges among them: an inner edge is a place of either bin, as their doubts differ."""


@dataclass(frozen=True, slots=True)
class _Within:
    """Where rows lie in their bins, at each place (`part`: by bin and place).

    Attributes:
        part: which part of a bin's rows lies up to a place.
        down: square of how far chance, the slope and heaps that are not certain lower the number of rows up to it.
        up: the same, for how far they raise it.
        over: rows of a certain heap that are counted and may lie above the place.
        under: rows of a certain heap that are not counted and may lie below.
    """

    part: Floats
    down: Floats
    up: Floats
    over: Floats
    under: Floats

    @classmethod
    def of(cls, numbers: Floats, noise: float) -> _Within:
        left = np.concatenate([numbers[:1], numbers[:-1]])
        right = np.concatenate([numbers[1:], numbers[-1:]])
        apart = np.full(len(numbers), 2.0)
        apart[[0, -1]] = 1.0
        floor = math.sqrt(noise) + 1  # so that noise in thin bins makes no slope
        slope = np.clip(np.log((right + floor) / (left + floor)) / apart, -STEEPEST, STEEPEST)
        slope = np.where(np.abs(slope) < 1e-6, 1e-6, slope)[:, None]  # noqa: PLR2004 - as good as even
        part = np.expm1(slope * PLACES) / np.expm1(slope)
        left[0], right[-1] = right[0], left[-1]  # at an end there is one neighbour
        lower = np.minimum(np.minimum(left, right), numbers)
        least, likely, most = np.maximum(_excess(numbers, noise), _excess(numbers[::-1], noise)[:, ::-1])
        certain = (least > 0) & (numbers > 0)
        heap = np.where(certain, numbers - lower, 0.0)[:, None]
        doubted = likely + Z * math.sqrt(noise)
        doubted[[0, -1]] = most[[0, -1]]
        doubted = np.where(certain, 0.0, np.clip(doubted, 0.0, numbers))[:, None]
        rows = numbers[:, None]
        chance = Z**2 * rows * part * (1 - part) + (rows * (part - PLACES)) ** 2
        return cls(
            part,
            (chance + (doubted * part) ** 2).ravel(),
            (chance + (doubted * (1 - part)) ** 2).ravel(),
            (heap * part).ravel(),
            (heap * (1 - part)).ravel(),
        )


def _excess(numbers: Floats, noise: float) -> Floats:
    """Return how many rows of each bin the two bins before it do not explain: at least, likely, at most.

    The logarithm of a smooth density bends down at most places, so it lies below the line through two of its points;
    and below `RESOLVED` times the nearer one, which is less in doubt. Noise and chance part the three.
    """
    floor = math.sqrt(noise) + 1
    raised = numbers + floor
    own, near, far = raised[2:], raised[1:-1], raised[:-2]
    line, top = near * np.minimum(near / far, RESOLVED), near * RESOLVED
    doubt = Z * np.sqrt(noise + line + line**2 * (4 * (noise + near) / near**2 + (noise + far) / far**2))
    above_top = own - top - Z * np.sqrt(noise + top + RESOLVED**2 * (noise + near))
    excess = np.full((3, len(numbers)), -math.inf)
    excess[:, 2:] = np.maximum(own - line - doubt, above_top), own - line, own - line + doubt
    return excess


def _flat(start: Floats, rows: Floats, part: Floats) -> Floats:
    """Return start + rows x part at every place of every bin in turn."""
    flat: Floats = (start[:, None] + rows[:, None] * part).ravel()
    return flat


def _summed(numbers: Floats) -> Floats:
    return np.concatenate([np.zeros(1), np.cumsum(numbers)])


def _noise(found: Sequence[Levelled], share: float) -> Floats:
    """Return at each place the square of half the bar that noise makes."""

    def weighed(numbers: Floats, power: int) -> Floats:
        """Weigh bins below each edge by (1 - share), above it by -share, each to a power, and add them up."""
        below = _summed(numbers)
        total: Floats = (1 - share) ** power * below + (-share) ** power * (below[-1] - below)
        return total

    variance: Floats = np.zeros(len(found[0].numbers) + 1)
    fourth: Floats = np.zeros(len(variance))
    for one in found:
        common = weighed(one.lift, 1) ** 2
        variance += np.maximum(0.0, weighed(one.variances, 2) + common * (one.level_variance - one.shared))
        fourth += weighed(one.fourths, 4)
    excess = np.divide(fourth, variance**2, out=np.zeros(len(variance)), where=variance > 0)
    edges = np.arange(len(variance))
    return np.interp((edges[:-1, None] + PLACES).ravel(), edges, variance * (Z + LONGER * excess) ** 2)


def _below(bins: Bins, level: float) -> tuple[float, float, float]:
    """Return of noise at most `level`, not negative: the mean of -noise, its variance, and the mean's derivative."""
    scale = bins.scale
    if not bins.laplace:
        x = level / scale
        ratio = NORMAL.pdf(x) / NORMAL.cdf(x)
        return scale * ratio, scale**2 * (1 - x * ratio - ratio**2), -ratio * (x + ratio)
    tail = math.exp(-level / scale) / 2
    kept = 1 - tail
    mean = tail * (level + scale) / kept
    second = (2 * scale**2 - tail * (level**2 + 2 * level * scale + 2 * scale**2)) / kept
    return mean, second - mean**2, -tail * (level + mean) / (scale * kept)


def _level(bins: Bins, above: int, at_zero: int) -> float:
    """Return the level at which what `above` bins were lowered by is what `at_zero` bins were lifted by."""
    low, high = 0.0, bins.scale * (at_zero + 1)
    for _ in range(50):
        middle = (low + high) / 2
        if above * middle < at_zero * _below(bins, middle)[0]:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _crossing(values: Floats, gaps: Floats, out: int, into: int) -> float:
    """Return where a bar ends, between the first place outside it and the next, inside."""
    step = gaps[out] - gaps[into]
    share = gaps[out] / step if step else 0.0
    return float(values[out] + (values[into] - values[out]) * share)
