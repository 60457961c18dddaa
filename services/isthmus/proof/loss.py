"""The privacy loss of one answer under Gaussian noise, in closed form: a border charges by it, a verifier checks by it.

Rules:
1. The privacy loss of a Gaussian measurement, the logarithm of how much likelier the output is with the vehicle than
   without it, is itself a Gaussian variable. Losses of the measurements of one answer, whose noise is fixed before the
   first of them, are independent and add up: the loss distribution (PLD) of the whole answer is Gaussian again, with
   mean rho and variance 2 rho, where rho x alpha is the answer's Renyi divergence at order alpha. So composition needs
   no grid, and loses nothing.
2. From the loss distribution (epsilon, delta) follows exactly (Balle and Wang 2018, "Improving the Gaussian mechanism
   for differential privacy", theorem 8; both neighbours alike, the distribution being symmetric):

       delta = P[N > epsilon/mu - mu/2] - e^epsilon P[N > epsilon/mu + mu/2],   mu^2 = 2 rho, N standard normal.

3. This holds for one answer with a fixed plan, and for nothing that was chosen after an answer: those add up as curves
   (`proof.accounting`).
4. It is about continuous noise. What discrete noise adds to it is the border's matter (`privacy.loss`).
"""

from __future__ import annotations

import math

_EXPONENT = 700.0
"""Beyond this `math.exp` overflows; less is taken away then, so delta is over-stated."""


def delta(rho: float, epsilon: float) -> float:
    """Return the delta of Gaussian noise at an epsilon.

    Args:
        rho: its Renyi divergence at order alpha, over alpha; above 0.
        epsilon: at least 0.

    >>> f"{delta(0.5, 1.0):.6f}"
    '0.126937'
    """
    mu = math.sqrt(2 * rho)
    away = math.exp(min(epsilon, _EXPONENT)) * _above(epsilon / mu + mu / 2)
    return min(1.0, max(0.0, _above(epsilon / mu - mu / 2) - away))


def _above(x: float) -> float:
    """Return the probability of a standard normal variable above `x`."""
    return math.erfc(x / math.sqrt(2)) / 2
