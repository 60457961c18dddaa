"""Numbers in, numbers out: the processor's share of a round, run in threads.

The same updates in any order give the same bytes: sums run in the order of the zones' names. So a round that was cut
short is averaged again, and what was already handed to the border is handed over again unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.identifiers import Digest
from isthmus.contracts.orders import Weighting
from isthmus.learning import weights
from isthmus.learning.aggregate import federated_average

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.contracts.crossings import Contributors
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.tensors import TensorSpec
    from isthmus.learning.weights import Weights


@dataclass(frozen=True, slots=True)
class Model:
    """A model as bytes, under their digest, and as numbers."""

    digest: Digest
    payload: bytes
    weights: Weights


@dataclass(frozen=True, slots=True)
class Update:
    """An update as numbers."""

    delta: Weights


def made_of(numbers: Weights) -> Model:
    """Return `numbers` as a model."""
    payload = weights.encode(numbers)
    return Model(Digest.of(payload), payload, numbers)


def read_model(payload: bytes, digest: Digest, schema: tuple[TensorSpec, ...]) -> Model:
    """Read a model from the registry.

    Raises:
        Refusal: it is not of this schema.
    """
    return Model(digest, payload, weights.decode(payload, schema))


def read_update(payload: bytearray, schema: tuple[TensorSpec, ...]) -> Update:
    """Read an update that has crossed.

    Raises:
        Refusal: it is not of this schema, or not finite.
    """
    return Update(weights.decode(memoryview(payload), schema))


def average(
    base: Model, updates: Mapping[SiteId, Update], behind: Mapping[SiteId, Contributors], weighting: Weighting
) -> Model:
    """Return the next model: `base` moved by the mean of the updates, weighted by what stands behind them.

    Raises:
        Refusal: nothing stands behind an update, or the result is not finite.
    """
    by_vehicles = weighting is Weighting.VEHICLES
    counts: dict[str, int] = {zone: c.vehicles if by_vehicles else c.windows for zone, c in behind.items()}
    deltas: dict[str, Weights] = {zone: update.delta for zone, update in updates.items()}
    return made_of(federated_average(base.weights, deltas, counts))
