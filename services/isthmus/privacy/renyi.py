"""Renyi divergences of discrete noise, and the noise that an (epsilon, delta) allows.

Both are for whole numbers, exactly as they are drawn; the continuous formulas do not hold for discrete Laplace noise
(at scale 1 and a step of 1 it is randomised response, which costs more).
"""

from __future__ import annotations

import math

from isthmus.proof.accounting import ALPHAS


def gaussian(alpha: float, l2_squared: float, deviation: float) -> float:
    """Return the divergence of discrete Gaussian noise: alpha l2^2 / (2 sigma^2).

    Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy", theorem 4 with corollary 15 for
    several numbers. Infinite at order infinity.
    """
    return alpha * l2_squared / (2 * deviation**2)


def laplace(alpha: float, step: int, scale: float) -> float:
    """Return the divergence between discrete Laplace noise and itself moved by `step`, at order `alpha` > 1.

    With r = exp(-1/scale), q = exp(-(2 alpha - 1)/scale), t = step/scale, summing the three geometric series of
    P(k)^alpha P(k - step)^(1 - alpha) gives

        exp((alpha - 1) divergence) = a exp((alpha - 1) t) + (1 - a) exp(-alpha t),
        a = (1 + q (1 - r) / (1 - q)) / (1 + r).

    As a function of t the logarithm of this is convex and 0 at 0, so moving one number by s + t costs at least what
    moving two independent numbers by s and by t does: a vehicle's worst case is all of it in one number. At order
    infinity it is t.
    """
    shift = step / scale
    if math.isinf(alpha):
        return shift
    r = math.exp(-1 / scale)
    odds = 2 * alpha - 1
    share = (1 + math.exp(-odds / scale) * math.expm1(-1 / scale) / math.expm1(-odds / scale)) / (1 + r)
    # log(a e^x + (1 - a) e^-y) with the larger exponent taken out.
    tail = (1 - share) / share * math.exp(-odds * shift)
    return max(0.0, shift + (math.log(share) + math.log1p(tail)) / (alpha - 1))


def conversion(alpha: float, delta_exponent: int) -> float:
    """Return what turns a divergence at one order into epsilon at delta = 10^-delta_exponent, to be added to it.

    Canonne, Kamath and Steinke 2020, proposition 12. It may be negative; 0 at order infinity.
    """
    if math.isinf(alpha):
        return 0.0
    return math.log1p(-1 / alpha) + (delta_exponent * math.log(10) - math.log(alpha)) / (alpha - 1)


def largest_rho(epsilon: float, delta_exponent: int) -> float:
    """Return the largest rho for which divergences rho x alpha mean at most epsilon; 0 or less where there is none."""
    return max((epsilon - conversion(alpha, delta_exponent)) / alpha for alpha in ALPHAS if math.isfinite(alpha))


def deviation(l2_squared: float, rho: float) -> float:
    """Return the deviation of discrete Gaussian noise whose divergences are rho x alpha."""
    return math.sqrt(l2_squared / (2 * rho))
