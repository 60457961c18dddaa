"""The budget of an order: reserved when it is accepted, spent by candidates, returned when it closes.

The unit is payload bits (the only bound that holds before a border adds noise). A candidate is charged once, when its
sealed bytes are on disk, whatever becomes of it; a refused one costs what a released one costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.border.keeper import privacy, training_privacy
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import OrderId
from isthmus.contracts.ledger import OrderClosed

if TYPE_CHECKING:
    from typing import Literal

    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.identifiers import CrossingId, SiteId
    from isthmus.contracts.roster import Quotas


@dataclass(frozen=True, slots=True)
class PeerUse:
    """What a peer's orders use: those open, all ever accepted, and bits (spent, or still reserved)."""

    open_orders: int
    orders: int
    bits: int


def use_of(tx: Transaction, peer: SiteId) -> PeerUse:
    """Return what `peer` uses."""
    row = tx.row(
        "SELECT count(*), coalesce(sum(state = 'open'), 0),"
        " coalesce(sum(CASE state WHEN 'open' THEN reserved_bits ELSE spent_bits END), 0)"
        " FROM orders WHERE direction = 'in' AND peer = ?",
        peer,
    )
    return PeerUse(row[1], row[0], row[2]) if row else PeerUse(0, 0, 0)


def bits_available(quotas: Quotas, use: PeerUse) -> int:
    """Return how many bits a new order of the peer may reserve."""
    if use.open_orders >= quotas.open_orders_per_peer or use.orders >= quotas.orders_per_peer:
        return -1
    return min(quotas.information_bits_per_order, quotas.information_bits_per_peer - use.bits)


def charge(tx: Transaction, order: OrderRow, crossing: CrossingId, bits: int) -> int:
    """Charge `bits` to the order for `crossing`, once; return what was charged now.

    Raises:
        Refusal: the order has less left (`BUDGET_EXHAUSTED`), or is closed, and its closing has said what it spent
            (`ORDER_CLOSED`).
    """
    if tx.row("SELECT 1 FROM charge WHERE crossing = ?", crossing):
        return 0
    if not order.is_open:
        raise Refusal(Code.ORDER_CLOSED, f"The order is closed ({order.state}).")
    if order.spent_bits + bits > order.reserved_bits:
        raise Refusal(Code.BUDGET_EXHAUSTED, "The order has nothing left of what it reserved.")
    tx.execute("INSERT INTO charge VALUES(?, ?, ?)", crossing, order.id, bits)
    tx.execute("UPDATE orders SET spent_bits = spent_bits + ? WHERE id = ?", bits, order.id)
    return bits


def close_expired(desk: Desk, tx: Transaction, peer: SiteId) -> None:
    """Close the peer's orders whose time is over: what they reserved is free for the next one."""
    rows = tx.execute("SELECT id FROM orders WHERE direction = 'in' AND peer = ? AND state = 'open'", peer).fetchall()
    for row in rows:
        order = desk.order(tx, OrderId(row["id"]))
        if order is not None and desk.expires(order.order, desk.now(tx)):
            close(desk, tx, order, "expired")


def close(desk: Desk, tx: Transaction, order: OrderRow, reason: Literal["complete", "expired", "failed"]) -> None:
    """Close an order and return what it never used."""
    privacy.order_closed(desk, tx, order)
    training_privacy.order_closed(desk, tx, order)
    tx.execute("UPDATE orders SET state = ? WHERE id = ?", reason, order.id)
    desk.record(
        tx,
        OrderClosed(
            order=order.id,
            reason=reason,
            spent_bits=order.spent_bits,
            returned_bits=order.reserved_bits - order.spent_bits,
            at=desk.now(tx),
        ),
    )
