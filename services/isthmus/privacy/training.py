"""What the updates of a private training cost, and the noise that each of them gets: functions of the plan alone.

Rules:
1. The unit is one vehicle, added or removed. In each round what it adds to the sum is a vector of whole numbers, in
   steps of its norm bound / `GRAIN`, no longer than `GRAIN`. So the sum's sensitivity is `GRAIN` in Euclidean norm,
   exactly: no floating point is between a vehicle and the noise.
2. Each round gets discrete Gaussian noise of the same deviation, fixed before the first. Later rounds start from what
   earlier ones released; Gaussian measurements chosen so compose as if they were one (Dong, Roth and Su 2022,
   "Gaussian differential privacy", theorem 4), whose (epsilon, delta) is known in closed form (`privacy.loss`). That
   noise is discrete costs as little as there: its variance is counted less by `SMOOTHING`, which bounds what 2^26
   numbers add to epsilon below 1e-50.
3. A round is charged whether its update left or not; those that were never begun come back (`proof.accounting.paid`).
4. What happens to the sum afterwards (division, clipping, averaging, the next round) is post-processing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.orders import GRAIN
from isthmus.privacy import loss, renyi
from isthmus.proof import accounting

if TYPE_CHECKING:
    from isthmus.contracts.orders import TrainingPlan
    from isthmus.proof.accounting import Curve

__all__ = ["GRAIN", "MICRO", "SMOOTHING", "TrainingNoise", "noise_of", "paid"]

MICRO = 1_000_000
SMOOTHING = 8.0
"""What the variance of discrete noise is counted less, in squared steps (`privacy.loss`, rule 2)."""
paid = accounting.paid
"""What some rounds of a training cost: a border settles by it, a verifier checks by it."""
_HAIR = 1e-8
"""Left of epsilon: more than rounding takes."""


@dataclass(frozen=True, slots=True)
class TrainingNoise:
    """What protects a training.

    Attributes:
        deviation_micro: of the noise of one round's sum, in millionths of a step.
        curve: what all rounds cost together.
    """

    deviation_micro: int
    curve: Curve


def noise_of(plan: TrainingPlan) -> TrainingNoise:
    """Return the noise of a private training.

    Raises:
        ValueError: the plan has no privacy.
        Refusal: INPUT_INVALID, when no noise keeps its epsilon at its delta.
    """
    if plan.privacy is None:
        raise ValueError("only a private training is noised")
    return _noise_of(plan.privacy.epsilon_micro, plan.privacy.delta_exponent, plan.rounds)


@lru_cache(maxsize=64)
def _noise_of(epsilon_micro: int, delta_exponent: int, rounds: int) -> TrainingNoise:
    rho = loss.largest_rho(epsilon_micro / MICRO * (1 - _HAIR), delta_exponent)
    if rho <= 0:
        raise Refusal(Code.INPUT_INVALID, "No noise keeps so small an epsilon.", remedy="Ask for a larger epsilon.")
    deviation = math.sqrt(rounds * GRAIN**2 / (2 * rho) + SMOOTHING)
    deviation_micro = math.ceil(deviation * MICRO * (1 + accounting.SLACK))
    each = rounds * GRAIN**2
    curve = [renyi.gaussian(alpha, each, deviation_micro / MICRO) for alpha in accounting.ALPHAS]
    return TrainingNoise(deviation_micro, accounting.curve(curve))
