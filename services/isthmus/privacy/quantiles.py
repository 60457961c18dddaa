"""Quantiles read from a noised histogram, with a bar.

Within a bin values are taken to lie evenly, tilted by how much its neighbours differ. The bar is every value at which
the count below it is not contradicted: by noise on the bins, by where values lie within their bin (as if drawn from
it), and by how far the tilt reaches.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

STEPS = 32
"""Places within a bin at which the bar is looked at."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bins over the whole numbers [low, high], and the variance of each bin's number.

    A value v is in bin (v - low) x bins // (high - low + 1).
    """

    low: int
    high: int
    bins: tuple[int, ...]
    variance: float

    def at(self, index: int, t: float) -> float:
        """Return the value at a place within a bin: values are whole, so a narrow bin has but one."""
        span, width = self.high - self.low + 1, len(self.bins)
        first, after = (self.low - (-(index + more) * span // width) for more in (0, 1))
        return first + t * max(0, after - 1 - first)


def quantile(histogram: Histogram, share: float, z: float) -> tuple[float, float, float]:
    """Return the value below which `share` of the rows lie, and its bar, in the histogram's unit.

    Args:
        histogram: the bins.
        share: in (0, 1).
        z: half the bar's length in standard deviations.
    """
    bins, total = histogram.bins, sum(histogram.bins)
    if total <= 0:
        return (histogram.low + histogram.high) / 2, float(histogram.low), float(histogram.high)
    below = [0, *accumulate(bins)]
    wanted = share * total
    places = [(index, step / STEPS) for index in range(len(bins)) for step in range(STEPS)] + [(len(bins) - 1, 1.0)]
    counts = [below[index] + bins[index] * _part(bins, index, t) for index, t in places]
    at = min(max(bisect_left(counts, wanted), 1), len(counts) - 1)
    step = counts[at] - counts[at - 1]
    inner = (wanted - counts[at - 1]) / step if step > 0 else 0.5
    here, there = histogram.at(*places[at - 1]), histogram.at(*places[at])
    value = here + inner * (there - here)
    filled = [0, *accumulate(1 if number > 0 else 0 for number in bins)]

    def gap(place: int) -> float:
        """Return how far the count below a place is beyond what is not contradicted; negative within the bar."""
        index, t = places[place]
        # An empty bin was most likely empty: making bins consistent has taken its noise away.
        before, after = filled[index], filled[-1] - filled[index + 1]
        noise = histogram.variance * (before * (1 - share) ** 2 + (t - share) ** 2 + after * share**2)
        return abs(counts[place] - wanted) - z * math.sqrt(noise + max(0, bins[index]) * t * (1 - t))

    first, last = at - 1, at
    while first > 0 and gap(first) <= 0:
        first -= 1
    while last < len(places) - 1 and gap(last) <= 0:
        last += 1
    low = _crossing(histogram.at(*places[first]), histogram.at(*places[first + 1]), gap(first), gap(first + 1))
    high = _crossing(histogram.at(*places[last]), histogram.at(*places[last - 1]), gap(last), gap(last - 1))
    return value, min(low, value), max(high, value)


def _crossing(out: float, into: float, gap_out: float, gap_in: float) -> float:
    """Return where a bar ends, between the first value outside it and the next, inside."""
    if gap_out <= 0 or gap_in >= 0:
        return out
    return out + (into - out) * gap_out / (gap_out - gap_in)


def _slope(bins: tuple[int, ...], index: int) -> float:
    """Return how much denser the right half of a bin is than its left, from its neighbours, between -1 and 1."""
    left, right = bins[max(0, index - 1)], bins[min(len(bins) - 1, index + 1)]
    return max(-1.0, min(1.0, (right - left) / (2 * bins[index]))) if bins[index] > 0 else 0.0


def _part(bins: tuple[int, ...], index: int, t: float) -> float:
    """Return which part of a bin's rows lies below its place `t`: the integral of a density 1 + slope (t - 1/2)."""
    return t - _slope(bins, index) / 2 * t * (1 - t)
