"""The life of a crossing, as two tables. Every move in the border goes through `advance`.

Outbound, a candidate's sealed bytes are on disk before it is `drafted`; it may be replaced (back to `drafted`) only
before it is `sealed`. Inbound, nothing is decided before it is `verified`.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import TYPE_CHECKING, TypeVar

from isthmus.contracts.errors import Code, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping


@unique
class Outbound(StrEnum):
    """States of a crossing on its way out."""

    DRAFTED = "drafted"
    CHECKED = "checked"
    HELD = "held"
    APPROVED = "approved"
    SEALED = "sealed"
    LOGGED = "logged"
    SENT = "sent"
    RECEIPTED = "receipted"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@unique
class Inbound(StrEnum):
    """States of a crossing on its way in."""

    RECEIVED = "received"
    VERIFIED = "verified"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    DELIVERED = "delivered"


OUTBOUND: Mapping[Outbound | None, frozenset[Outbound]] = {
    None: frozenset({Outbound.DRAFTED, Outbound.REFUSED}),
    Outbound.DRAFTED: frozenset({Outbound.DRAFTED, Outbound.CHECKED, Outbound.REFUSED, Outbound.EXPIRED}),
    Outbound.CHECKED: frozenset({Outbound.HELD, Outbound.SEALED, Outbound.REFUSED}),
    Outbound.HELD: frozenset(
        {Outbound.DRAFTED, Outbound.APPROVED, Outbound.REFUSED, Outbound.WITHDRAWN, Outbound.EXPIRED}
    ),
    Outbound.APPROVED: frozenset({Outbound.SEALED, Outbound.REFUSED, Outbound.EXPIRED}),
    Outbound.SEALED: frozenset({Outbound.LOGGED}),
    Outbound.LOGGED: frozenset({Outbound.SENT}),
    Outbound.SENT: frozenset({Outbound.RECEIPTED}),
    Outbound.RECEIPTED: frozenset(),
    Outbound.REFUSED: frozenset(),
    Outbound.WITHDRAWN: frozenset(),
    Outbound.EXPIRED: frozenset(),
}

INBOUND: Mapping[Inbound | None, frozenset[Inbound]] = {
    None: frozenset({Inbound.RECEIVED}),
    Inbound.RECEIVED: frozenset({Inbound.VERIFIED, Inbound.REFUSED}),
    Inbound.VERIFIED: frozenset({Inbound.ACCEPTED, Inbound.REFUSED}),
    Inbound.ACCEPTED: frozenset({Inbound.DELIVERED}),
    Inbound.REFUSED: frozenset(),
    Inbound.DELIVERED: frozenset(),
}

FINAL: frozenset[str] = frozenset(
    state.value for table in (OUTBOUND, INBOUND) for state, to in table.items() if state is not None and not to
)
"""States after which a sealed payload is needed no more."""

State = TypeVar("State", Outbound, Inbound)


def advance(table: Mapping[State | None, frozenset[State]], current: State | None, to: State) -> State:
    """Return `to`, if the table allows the move.

    Raises:
        Fault: it does not (`STATE_CONFLICT`).
    """
    if to not in table[current]:
        raise Fault(Code.STATE_CONFLICT, f"A crossing cannot go from {current or 'nothing'} to {to}.")
    return to
