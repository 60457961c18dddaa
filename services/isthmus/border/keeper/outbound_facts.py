"""What policy is told of a crossing on its way out, and which approvals cover it. Read from the ledger alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from isthmus.border.keeper import approvals, payloads
from isthmus.border.keeper.key_facts import accelerators_of
from isthmus.contracts.crossings import RELEASES, Contributors, Kind, Manifest
from isthmus.contracts.facts import UNKNOWN_ACCELERATOR, Action, Facts
from isthmus.contracts.identifiers import Digest
from isthmus.proof import canonical
from isthmus.proof.orders import expects

if TYPE_CHECKING:
    import sqlite3

    from isthmus.border.keeper.desk import Desk
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.approvals import Approval, StandingApproval


def outbound_facts(
    desk: Desk, tx: Transaction, row: sqlite3.Row, manifest: Manifest, covering: tuple[approvals.Given, ...]
) -> Facts:
    """Compute what policy is told."""
    order = desk.order(tx, manifest.order)
    known = order is not None and expects(order.order, manifest.kind, manifest.slot)
    release = manifest.kind in RELEASES
    exact = canonical.load(Contributors, bytes(row["contributors"])) if row["contributors"] else None
    named = frozenset(manifest.recipients)
    recipients = named
    if order and manifest.kind is Kind.ORDER:
        named, recipients = frozenset(s.id for s in desk.genesis.roster.sites), frozenset(order.order.recipients)
    charged = tx.row("SELECT bits FROM charge WHERE crossing = ?", manifest.crossing)
    return Facts(
        action=Action.RELEASE if release else Action.SEND,
        kind=manifest.kind,
        sender=desk.site,
        recipient=manifest.recipient,
        purpose=manifest.purpose,
        order_purpose=order.order.purpose if order else "",
        lineage=frozenset(manifest.lineage),
        recipients=recipients,
        named=named,
        order_known=known
        and order is not None
        and (manifest.kind is Kind.NOTICE or (order.is_open and not desk.expires(order.order, desk.now(tx)))),
        checks=frozenset(manifest.checks),
        approving_organisations=len({g.organisation for g in covering}),
        vehicles=exact.vehicles if exact else 0,
        minimum_vehicles=payloads.minimum_vehicles(order.order, manifest.kind) if order else 2**53,
        bits=manifest.information_bits,
        bits_left=int(charged["bits"]) if charged else 0,
        mode=payloads.mode_of(order.order, manifest.kind) if order else "",
        slot_s=order.order.query.slot_s if order and order.order.query else 0,
        minimum_slot_s=desk.genesis.minimum_slot_s,
        accelerators=accelerators_of(tx, manifest.order) if release else frozenset({UNKNOWN_ACCELERATOR}),
        permitted_accelerators=frozenset(desk.genesis.accelerators),
    )


def covering(desk: Desk, tx: Transaction, manifest: Manifest) -> tuple[approvals.Given, ...]:
    """Return the approvals that cover a release."""
    if manifest.kind not in RELEASES:
        return ()
    order = desk.order(tx, manifest.order)
    if order is None:
        return ()
    earlier = tx.row(
        "SELECT count(*) FROM crossing WHERE order_id = ? AND kind = ? AND direction = 'out' AND sequence IS NOT NULL",
        manifest.order,
        manifest.kind.value,
    )
    return approvals.covering(
        given(tx),
        desk.genesis.roster,
        manifest,
        order.order,
        earlier[0] if earlier else 0,
        desk.now(tx),
    )


def given(tx: Transaction) -> tuple[approvals.Given, ...]:
    """Return every approval in the ledger."""
    return tuple(
        approvals.Given(
            Digest(row["statement"]),
            row["person"],
            row["organisation"],
            _statement(row["type"], bytes(row["body"])),
        )
        for row in tx.execute("SELECT * FROM approval")
    )


@lru_cache(maxsize=256)
def _statement(payload_type: str, payload: bytes) -> StandingApproval | Approval:
    """Parse an approval; the few that are in force are kept parsed."""
    return approvals.statement(payload_type, payload)
