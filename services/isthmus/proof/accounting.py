"""Adding privacy up, in whole numbers: a border does it before it answers, a verifier afterwards.

Rules:
1. An answer's cost is its curve: an upper bound of its Renyi divergence at each order of `ALPHAS`, in units of 1e-9,
   rounded up. Curves of answers add up, however each question was chosen after the answers before it
   (Feldman and Zrnic 2021, "Individual privacy accounting via a Renyi filter", for orders fixed beforehand).
2. A curve means (epsilon, delta) by Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy",
   proposition 12: epsilon = rdp + log((a - 1) / a) - (log(delta) + log(a)) / (a - 1), at the best order a.
3. The filter lets a question through while the sum fits the budget at the one finite order that the budget itself
   picks, or at order infinity (pure epsilons added up). Both are fixed before the first question: "some order of many"
   would let questions that follow answers pick the order, and cost a share of delta each. Infinity costs none: where
   the pure sum holds, the loss is never more. All is rounded against whoever asks.
4. One answer whose curve is a straight line through nothing, rho at every order, is of Gaussian noise, and so is one
   training, whose rounds have one noise that was fixed before the first. Then the loss distribution is known, and what
   it means at its own delta is less than by rule 2 (`proof.loss`). The filter makes no use of this: where answers
   choose the questions, only curves add up.
5. At order infinity the Gaussian has no bound: `UNBOUNDED` stands for it, and whatever reaches that means nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isthmus.proof import loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.queries import PrivacyBudget

ALPHAS: tuple[float, ...] = (
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 14.0, 16.0),
    *(20.0, 24.0, 28.0, 32.0, 40.0, 48.0, 56.0, 64.0, 80.0, 96.0, 128.0, 192.0, 256.0, 512.0),
    math.inf,
)
"""Orders of the divergence, fixed for every ledger. The last is the largest loss there can be: pure epsilon."""

UNBOUNDED = 1 << 40
"""A divergence that says nothing, in units of 1e-9: an epsilon of 1,099."""

NANO = 1_000_000_000
MICRO = 1_000_000
SLACK = 1e-9
"""Added before rounding up: more than double precision loses on the way."""

Curve = tuple[int, ...]


def zero() -> Curve:
    """Return what nothing costs."""
    return (0,) * len(ALPHAS)


def curve(divergences: Sequence[float]) -> Curve:
    """Return divergences at `ALPHAS` in units of 1e-9, rounded up."""
    if len(divergences) != len(ALPHAS) or any(not d >= 0 for d in divergences):
        raise ValueError("a curve has one divergence, not negative, for each order")
    return tuple(math.ceil(d * NANO * (1 + SLACK)) if d * NANO < UNBOUNDED else UNBOUNDED for d in divergences)


def add(first: Curve, second: Curve) -> Curve:
    """Return what two answers cost together."""
    return tuple(a + b for a, b in zip(first, second, strict=True))


def subtract(whole: Curve, part: Curve) -> Curve:
    """Return what is left of `whole` when `part`, which is in it, is given back.

    Raises:
        ValueError: it is not in it.
    """
    left = tuple(a - b for a, b in zip(whole, part, strict=True))
    if min(left) < 0:
        raise ValueError("more was given back than had been taken")
    return left


def paid(whole: Curve, rounds: int, of: int) -> Curve:
    """Return what some rounds of a training cost, `of` which cost `whole`, rounded up.

    A divergence that says nothing for all rounds says nothing for one of them.

    >>> paid((10, UNBOUNDED), 1, 3) == (4, UNBOUNDED)
    True
    >>> paid((10, UNBOUNDED), 0, 3)
    (0, 0)
    """
    return tuple(UNBOUNDED if rounds and each >= UNBOUNDED else -(-each * rounds // of) for each in whole)


def epsilon_micro(spent: Curve, delta_exponent: int) -> int:
    """Return the smallest epsilon, in millionths and rounded up, that `spent` means at delta = 10^-delta_exponent.

    >>> epsilon_micro(zero(), 6)
    0
    """
    if not any(spent):
        return 0
    best = min(_epsilon(rdp, alpha, delta_exponent) for rdp, alpha in zip(spent, ALPHAS, strict=True))
    return math.ceil(max(0.0, best) * MICRO * (1 + SLACK))


def keeps(answer: Curve, most_micro: int, delta_exponent: int) -> bool:
    """Tell whether one answer's curve means at most an epsilon at delta = 10^-delta_exponent: by rule 2, or by rule 4.

    >>> keeps(zero(), 1, 6)
    True
    """
    if epsilon_micro(answer, delta_exponent) <= most_micro:
        return True
    rho = _gaussian_rho(answer)
    return rho is not None and loss.delta(rho, most_micro / MICRO) <= 10.0**-delta_exponent


def fits(spent: Curve, more: Curve, budget: PrivacyBudget) -> bool:
    """Tell whether `more` may be spent on top of `spent`: the Renyi filter."""
    return spent_micro(add(spent, more), budget) <= budget.epsilon_micro


def spent_micro(spent: Curve, budget: PrivacyBudget) -> int:
    """Return the epsilon, in millionths and rounded up, that a budget's filter holds against it.

    It is `epsilon_micro` at the orders that the budget fixes (rule 3), so it holds however questions were chosen.
    """
    if not any(spent):
        return 0
    fixed = (filter_order(budget), math.inf)
    best = min(_epsilon(spent[ALPHAS.index(alpha)], alpha, budget.delta_exponent) for alpha in fixed)
    return UNBOUNDED if math.isinf(best) else math.ceil(max(0.0, best) * MICRO * (1 + SLACK))


def filter_order(budget: PrivacyBudget) -> float:
    """Return the finite order at which a budget holds most: the most small answers, or Gaussian ones, fit there."""

    def room(alpha: float) -> float:
        return (budget.epsilon_micro / MICRO - _epsilon(0, alpha, budget.delta_exponent)) / alpha

    return max(ALPHAS[:-1], key=room)


def _gaussian_rho(answer: Curve) -> float | None:
    """Return the slope of a curve that is a straight line, as `curve` rounds and ends it; None where it is none."""
    finite = [(rdp, alpha) for rdp, alpha in zip(answer, ALPHAS, strict=True) if rdp < UNBOUNDED]
    ended = [alpha for rdp, alpha in zip(answer, ALPHAS, strict=True) if rdp == UNBOUNDED]
    if not finite or math.inf not in ended or len(finite) + len(ended) < len(ALPHAS) or min(finite)[0] <= 0:
        return None
    least = max((rdp - 1) / alpha for rdp, alpha in finite)
    most = min(rdp / alpha for rdp, alpha in finite)
    straight = least <= most * (1 + SLACK) and min(ended) * most * (1 + SLACK) >= UNBOUNDED
    return most / NANO if straight else None


def _epsilon(rdp_nano: int, alpha: float, delta_exponent: int) -> float:
    if math.isinf(alpha):
        return rdp_nano / NANO if rdp_nano < UNBOUNDED else math.inf
    log_delta = -delta_exponent * math.log(10)
    return rdp_nano / NANO + math.log1p(-1 / alpha) - (log_delta + math.log(alpha)) / (alpha - 1)
