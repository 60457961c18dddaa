"""Private trainings on the stage of the attacks: orders for them, and compute that hands exact sums in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.contracts.crossings import Kind
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.orders import GRAIN, TrainingPrivacy
from isthmus.learning import sums
from isthmus.proof.ids import order_id
from security.scene import CN, TENSORS, Scene, grant_of, order_for

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import CandidateStatus
    from isthmus.contracts.orders import Order

NUMBERS = sum(spec.elements for spec in TENSORS)
VEHICLES = 20
"""What an order's updates are divided by."""
NORM_MICRO = 500_000


def private_order(
    number: int, *, rounds: int = 2, epsilon_micro: int = 2_000_000, zone: SiteId = CN, **changes: Any
) -> Order:
    """Return the order of the `number`th private training: updates at each round, figures of the first model."""
    order = order_for(zone, job=JobId(f"job-{number:016x}"))
    privacy = TrainingPrivacy(
        epsilon_micro=epsilon_micro, delta_exponent=6, vehicle_norm_micro=NORM_MICRO, vehicles=VEHICLES
    )
    assert order.training is not None
    assert order.evaluation is not None
    training = order.training.model_copy(update={"rounds": rounds, "privacy": privacy})
    evaluation = order.evaluation.model_copy(update={"at_slots": (0,)})
    return order.model_copy(update={"training": training, "evaluation": evaluation, **changes})


def exact_sum(vehicles: int = 24) -> bytes:
    """Return the exact sum of as many vehicles, each of which moves the first number by its whole norm."""
    numbers = np.zeros(NUMBERS, np.int64)
    numbers[0] = vehicles * GRAIN
    return sums.encode(numbers)


def begin(scene: Scene, order: Order) -> None:
    """Have the coordinator give an order."""
    scene.give(order)
    scene.carry()


def take_keys(scene: Scene, order: Order) -> None:
    """Have the order's keys go out to compute."""
    grant_of(scene, order.zone, order_id(order))


def hand_in(scene: Scene, order: Order, slot: int = 0, payload: bytes | None = None, **changes: Any) -> CandidateStatus:
    """Have the zone's compute hand in the sum of a round."""
    return scene.release(order, Kind.MODEL_UPDATE, slot, exact_sum() if payload is None else payload, **changes)
