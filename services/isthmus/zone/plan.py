"""What a zone's worker does about a delivery. Pure: a delivery and where its order stands, to a decision.

Rules:
1. Each model is answered once: slots 0 to R-1 with an update, those the order names also with an evaluation; slot R
   ends the order.
2. A repeat of what is done is recognised and answered by nothing, or by the closing that may have been lost.
3. Only an order that is open is worked on. What belongs to no order here is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING, TypeAlias

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code

if TYPE_CHECKING:
    from isthmus.contracts.crossings import Contributors
    from isthmus.contracts.inside import Delivery
    from isthmus.contracts.orders import Order

SKEW_S = 300
"""How much later than its order's end a run is dropped, in seconds."""

UNSETTLED = frozenset({"drafted", "checked", "held", "pending"})
"""States of a candidate that may still be released; sums for a question are `pending` until their slot."""


@unique
class OrderState(StrEnum):
    """Where an order stands in the zone."""

    OPEN = "open"
    FINISHING = "finishing"
    """All is computed; an evaluation may still be held for officers, or sums may wait for their slot."""
    CLOSED = "closed"


@unique
class Step(StrEnum):
    """One thing to do with a model."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    REFERENCE = "reference"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Begin:
    """Take the order in and open it."""


@dataclass(frozen=True, slots=True)
class Work:
    """Work on the model that was delivered."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """The order cannot be completed."""

    code: Code


@dataclass(frozen=True, slots=True)
class CloseAgain:
    """The order is done; the border may not know."""


@dataclass(frozen=True, slots=True)
class PassOver:
    """Nothing here depends on it."""


Decision: TypeAlias = Begin | Work | Abandon | CloseAgain | PassOver


def decide(delivery: Delivery, state: OrderState | None) -> Decision:
    """Return what to do about a delivery whose order stands at `state`, None where it is not known."""
    if delivery.event == "refused":
        lost = delivery.kind is Kind.MODEL_UPDATE and state is OrderState.OPEN
        return Abandon(delivery.code or Code.STATE_CONFLICT) if lost else PassOver()
    if delivery.kind not in {Kind.ORDER, Kind.MODEL}:
        return PassOver()
    match state:
        case None:
            return Begin() if delivery.kind is Kind.ORDER else PassOver()
        case OrderState.OPEN:
            return Begin() if delivery.kind is Kind.ORDER else Work()
        case OrderState.FINISHING:
            return PassOver()
        case OrderState.CLOSED:
            return CloseAgain()


def steps_at(order: Order, slot: int, *, reference_kept: bool) -> tuple[Step, ...]:
    """Return what is due at a slot, in order: what others wait for comes first."""
    if order.training is None or slot > order.training.rounds:
        return ()
    evaluate = (Step.EVALUATE,) if order.evaluation and slot in order.evaluation.at_slots else ()
    if slot == order.training.rounds:
        return (*evaluate, Step.FINISH)
    reference = (Step.REFERENCE,) if slot == 0 and not reference_kept else ()
    return (Step.TRAIN, *evaluate, *reference)


def cannot_evaluate(order: Order, evaluators: Contributors) -> bool:
    """Tell whether the order wants evaluations and there is nothing to make them of.

    With too few held-out vehicles they are made all the same: it is the border that refuses them and says so.
    """
    return bool(order.evaluation and order.evaluation.at_slots) and evaluators.windows == 0


def is_over(order: Order, now: int) -> bool:
    """Tell whether an order's time is over, clocks' skew allowed for."""
    return now > order.expires_at + SKEW_S
