"""What may be sent at all, and what an order asks for. One rule: a border applies it, a verifier afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import RELEASES, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.contracts.orders import Order

SENDS: Mapping[str, frozenset[Kind]] = {
    "coordinator": frozenset({Kind.ORDER, Kind.MODEL, Kind.NOTICE}),
    "zone": RELEASES | {Kind.NOTICE},
}
"""What each part of the federation may send at all."""


def expects(order: Order, kind: Kind, slot: int) -> bool:
    """Tell whether `order` has a crossing of `kind` at `slot`.

    A model comes at each slot up to the number of rounds, an update answers each but the last.
    """
    rounds = order.training.rounds if order.training else 0
    if kind is Kind.MODEL:
        return order.training is not None and slot <= rounds
    if kind is Kind.MODEL_UPDATE:
        return kind in order.outputs and slot < rounds
    if kind is Kind.AGGREGATE:
        if order.query is not None:
            return slot == 0
        return order.evaluation is not None and slot in order.evaluation.at_slots
    return kind in {Kind.ORDER, Kind.NOTICE} or kind in order.outputs
