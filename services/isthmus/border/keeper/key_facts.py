"""What policy is told of an order whose keys are asked for, and on which chips it has run. Read from the ledger.

Which chips they are is compute's own word: a border sees no machine of its site. What it was told stands in the ledger
before any key goes out, and what the order then brings forth is judged by that, never by what a candidate says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.border.keeper import payloads
from isthmus.contracts.crossings import Kind
from isthmus.contracts.facts import UNKNOWN_ACCELERATOR, Action, Facts
from isthmus.proof.ids import catalogue_digest

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.identifiers import OrderId
    from isthmus.contracts.inside import KeyRequest


def key_facts(desk: Desk, tx: Transaction, row: OrderRow, request: KeyRequest) -> Facts:
    """Compute what policy is told of an accepted order that is to run on the machines of a request."""
    order = row.order
    frozen = tx.row(
        "SELECT 1 FROM snapshot WHERE dataset = ? AND snapshot = ?", order.dataset.dataset, order.dataset.snapshot
    )
    return Facts(
        action=Action.COMPUTE,
        kind=Kind.ORDER,
        sender=row.peer,
        recipient=desk.site,
        purpose=order.purpose,
        order_purpose=order.purpose,
        lineage=frozenset({desk.site}),
        recipients=frozenset(order.recipients),
        named=frozenset(s.id for s in desk.genesis.roster.sites),
        order_known=row.is_open and not desk.expires(order, desk.now(tx)),
        bits=row.reserved_bits,
        bits_left=row.reserved_bits - row.spent_bits,
        groups=frozenset(request.groups),
        outputs=frozenset(order.outputs),
        algorithm_registered=order.algorithm in desk.genesis.algorithms,
        dataset_frozen=frozen is not None,
        mode=payloads.mode_of(order, Kind.ORDER),
        catalogue_known=order.query is not None and order.query.catalogue == catalogue_digest(),
        slot_s=order.query.slot_s if order.query else 0,
        minimum_slot_s=desk.genesis.minimum_slot_s,
        accelerators=frozenset(request.accelerators),
        permitted_accelerators=frozenset(desk.genesis.accelerators),
    )


def note_accelerators(tx: Transaction, order: OrderId, request: KeyRequest) -> None:
    """Note the classes of the machines to which an order's keys go."""
    for accelerator in request.accelerators:
        tx.execute("INSERT OR IGNORE INTO computed_on VALUES(?, ?)", order, accelerator)


def note_repeat(tx: Transaction, order: OrderId, of: OrderId) -> None:
    """Note that what an order brings forth is what another one did: it was computed where that one was, as well."""
    for accelerator in accelerators_of(tx, of):
        tx.execute("INSERT OR IGNORE INTO computed_on VALUES(?, ?)", order, accelerator)


def accelerators_of(tx: Transaction, order: OrderId) -> frozenset[str]:
    """Return the classes on which what an order brings forth was computed; `UNKNOWN_ACCELERATOR` where none is said."""
    rows = tx.execute("SELECT accelerator FROM computed_on WHERE order_id = ?", order).fetchall()
    return frozenset(row["accelerator"] for row in rows) or frozenset({UNKNOWN_ACCELERATOR})
