"""Which noise an answer gets, and what it costs: a function of the plan alone, the same for whoever computes it.

Rules:
1. The unit is one vehicle, added or removed. Sensitivities follow from `bounds`: never from data.
2. What is measured is not always what is told. A measure's count and sum are told, but measured are its sums from
   both ends: of (value - low) and of (high - value). One row adds exactly `width` to the two together, so one share of
   epsilon pays for both, and count, sum and mean all follow. (This is the K-norm mechanism of Hardt and Talwar 2010
   for the pair (count, sum): the ball in this basis is the cross-polytope.)
3. Rows are not measured where a measure that every row has is: its count is the number of rows.
4. Discrete Laplace at pure epsilon, or discrete Gaussian at (epsilon, delta), whichever gives the smaller error over
   the figures; one kind in one answer. Scales are rounded up to whole millionths.
5. Gaussian noise is set by the privacy loss distribution of the whole answer (`loss`), or, where noise is so small that
   its steps count, by Renyi divergences: both hold, the smaller noise is drawn. What is charged is the noise's own
   curve of divergences (`curve_of`): on its way through them it may mean more than the answer's epsilon at its delta.
6. Epsilon is shared out so that the sum of squared relative errors is least (see `_share`), by public weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from isthmus.contracts.queries import Mode
from isthmus.privacy import loss, renyi
from isthmus.privacy.blocks import Kind, Measured, blocks
from isthmus.privacy.estimates import told
from isthmus.proof import accounting

if TYPE_CHECKING:
    from isthmus.contracts.queries import Noise, QueryPlan, QuerySpec
    from isthmus.privacy.blocks import Block
    from isthmus.proof.accounting import Curve

Mechanism = Literal["discrete_laplace", "discrete_gaussian"]
MICRO = 1_000_000
NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """What a `dp` answer is made of.

    Attributes:
        mechanism: the kind of noise.
        measured: what is measured.
        told: for each primitive of the question, the scale that its error has in the answer (see `estimates`).
    """

    mechanism: Mechanism
    measured: tuple[Measured, ...]
    told: tuple[Noise, ...]


def noise_of(plan: QueryPlan) -> NoisePlan:
    """Return the noise of an answer under `dp`.

    Raises:
        ValueError: the plan is not of that mode.
        Refusal: INPUT_INVALID, when its epsilon is too small for any noise that an answer can state.
    """
    if plan.mode is not Mode.DP:
        raise ValueError("only an answer under dp is noised")
    return _noise_of(plan.spec, plan.epsilon_micro, plan.delta_exponent)


def curve_of(plan: QueryPlan) -> Curve:
    """Return what an answer costs, which is what a border charges; nothing under the other mode."""
    if plan.mode is not Mode.DP:
        return accounting.zero()
    noise = noise_of(plan)
    return accounting.curve([_divergence(noise, plan.spec, alpha) for alpha in accounting.ALPHAS])


@lru_cache(maxsize=256)
def _noise_of(spec: QuerySpec, epsilon_micro: int, delta_exponent: int) -> NoisePlan:
    found = blocks(spec)
    pure = _pure(found, epsilon_micro)
    bell = _bell(found, epsilon_micro, delta_exponent)
    mechanism: Mechanism = "discrete_laplace"
    measured = pure
    if bell and _error(found, bell) < 2 * _error(
        found, pure
    ):  # a Laplace variable's variance is twice its scale's square
        mechanism, measured = "discrete_gaussian", bell
    return NoisePlan(mechanism, measured, told(spec, mechanism, measured))


def _shares(parts: list[float]) -> list[float]:
    return [part / sum(parts) for part in parts]


def _pure(found: tuple[Block, ...], epsilon_micro: int) -> tuple[Measured, ...]:
    """Scale Laplace noise so that the sum over blocks of l1 / scale is at most epsilon, in whole numbers."""
    nano = _kept(epsilon_micro)
    # Errors are weight / share: the sum of their squares is least with shares as weight^(2/3).
    shares = _shares([block.weight ** (2 / 3) for block in found])
    parts = [max(1, math.floor(nano * share)) for share in shares]
    parts[parts.index(max(parts))] -= max(0, sum(parts) - nano)
    return tuple(Measured(b, _ceil_div(b.l1 * MICRO * NANO, part)) for b, part in zip(found, parts, strict=True))


def _kept(epsilon_micro: int) -> int:
    """Return epsilon in units of 1e-9, less a hair, so that what a ledger rounds up twice still is no more."""
    nano = epsilon_micro * 1_000
    return nano - 3 - nano // 100_000_000


def _bell(found: tuple[Block, ...], epsilon_micro: int, delta_exponent: int) -> tuple[Measured, ...]:
    """Return the smallest Gaussian noise that (epsilon, delta) allows; nothing where it allows none."""
    epsilon = _kept(epsilon_micro) / NANO
    # Errors are weight / sqrt(share): the sum of their squares is least with shares as weights.
    shares = _shares([block.weight * math.sqrt(block.l2_squared) / block.l1 for block in found])
    ways: list[tuple[Measured, ...]] = []
    for rho, deviation in (
        (loss.largest_rho(epsilon, delta_exponent), loss.deviation),
        (renyi.largest_rho(epsilon, delta_exponent), renyi.deviation),
    ):
        if rho > 0:
            scales = [deviation(b.l2_squared, rho * part) for b, part in zip(found, shares, strict=True)]
            ways.append(tuple(Measured(b, _up(scale)) for b, scale in zip(found, scales, strict=True)))
    return min(ways, key=lambda way: _error(found, way), default=())


def _up(scale: float) -> int:
    return math.ceil(scale * MICRO * (1 + accounting.SLACK))


def _error(found: tuple[Block, ...], measured: tuple[Measured, ...]) -> float:
    """Return the sum of squared errors relative to usual figures, for noise whose variance is its scale squared."""
    return sum((m.scale_micro * b.weight / b.l1 / MICRO) ** 2 for m, b in zip(measured, found, strict=True))


def _divergence(noise: NoisePlan, spec: QuerySpec, alpha: float) -> float:
    """Return the whole answer's Renyi divergence at one order: blocks add up."""
    total = 0.0
    for measured in noise.measured:
        scale = measured.scale_micro / MICRO
        block = measured.block
        if noise.mechanism == "discrete_gaussian":
            total += renyi.gaussian(alpha, block.l2_squared, scale)
        elif (
            block.kind is Kind.VEHICLES
        ):  # at most one in each of `groups_per_vehicle` cells, and cells are independent
            total += spec.groups_per_vehicle * renyi.laplace(alpha, 1, scale)
        else:  # the divergence grows faster than its argument: all in one number is the worst (see `renyi.laplace`)
            total += renyi.laplace(alpha, block.l1, scale)
    return total


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
