"""The noise that one answer needs by its privacy loss distribution (PLD): discrete Gaussian noise, without a grid.

Rules:
1. The measurements of one answer are composed by their privacy losses, which for continuous Gaussian noise is exact
   and in closed form (`proof.loss`).
2. Noise is discrete, and discrete Gaussian noise can cost more than continuous noise of its deviation (at a deviation
   of 2, by a third in delta). It costs no more than continuous noise of variance less by `SMOOTHING`. Proof: let
   t^2 = s^2 - r^2. Blur an exact integer q by N(0, t^2) to y, then draw an integer x with probability proportional to
   exp(-(x - y)^2 / 2 r^2). The second step sees y alone, so x is as private as y. The product of the two densities is
   that of N(q, s^2) at x times a density in y; so x has the probability of discrete Gaussian noise of variance s^2
   around q, but for the sum over integers by which the second step divides. By Poisson summation that sum is within
   1 +- k of its mean at every y, k = 2 exp(-2 pi^2 r^2) and a hair; so each probability is that of the blurred
   mechanism within a factor of e^(2 k) and a hair. (Peikert 2010, "An efficient and parallel Gaussian sampler for
   lattices", theorem 3.1, is this for lattices.)
3. At r^2 = `SMOOTHING` = 2, k is below 2e-17. One vehicle touches fewer than 100,000 numbers (1,000 rows, two numbers a
   row and block, at most 48 blocks); those that it does not touch are alike for both neighbours. So all factors
   together move epsilon by less than 1e-11, and delta by as small a part of it: `MARGIN` and the hair that
   `mechanism` keeps of epsilon are larger by far.
4. The blurred numbers of all cells and blocks are one Gaussian mechanism, whose loss depends on what a vehicle adds
   only through the sum of l2^2 / t^2 over blocks.
"""

from __future__ import annotations

import math

from isthmus.proof import loss

SMOOTHING = 2.0
"""What the variance of discrete noise is counted less, in squared steps."""
MARGIN = 1e-6
"""The part of rho that is left: more than rounding, of double precision and of a ledger's curve, can take."""
RESOLUTION = 4e-12
"""Left of rho besides: a ledger rounds a curve up to 1e-9 at order 512, which is 2e-12 of rho."""
_DIGITS = 6
"""Significant digits of rho, rounded down, so that two machines agree."""


def largest_rho(epsilon: float, delta_exponent: int) -> float:
    """Return the largest rho at which Gaussian noise keeps (epsilon, 10^-delta_exponent); 0 or less where none does.

    >>> largest_rho(1.0, 6)
    0.0280144
    """
    most = 10.0**-delta_exponent
    low, high = 0.0, 1e4
    while low < (middle := (low + high) / 2) < high:
        if loss.delta(middle, epsilon) <= most:
            low = middle
        else:
            high = middle
    rho = low * (1 - MARGIN) - RESOLUTION
    if rho <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(rho)) + 1 - _DIGITS)
    return math.floor(rho / unit) * unit


def deviation(l2_squared: float, rho: float) -> float:
    """Return the deviation of discrete Gaussian noise at which one block's part of the whole answer's rho is `rho`.

    Args:
        l2_squared: the square of the most that one vehicle adds to the block, in Euclidean norm, in squared steps.
        rho: the part, above 0.
    """
    return math.sqrt(l2_squared / (2 * rho) + SMOOTHING)
