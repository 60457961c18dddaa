"""What policy is told of a crossing that came in. Read from the ledger, the order and the opened payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.border.keeper import budget, payloads, privacy, training_privacy
from isthmus.contracts.crossings import Kind, Manifest
from isthmus.contracts.facts import Action, Facts
from isthmus.proof.ids import catalogue_digest

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Desk
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.border.keeper.opening import Opened
    from isthmus.contracts.identifiers import SiteId


def inbound_facts(desk: Desk, tx: Transaction, peer: SiteId, manifest: Manifest, opened: Opened, reserve: int) -> Facts:
    """Compute what policy is told of a crossing that came in."""
    order = opened.order
    is_order = manifest.kind is Kind.ORDER
    frozen = tx.row(
        "SELECT 1 FROM snapshot WHERE dataset = ? AND snapshot = ?", order.dataset.dataset, order.dataset.snapshot
    )
    sites = frozenset(s.id for s in desk.genesis.roster.sites)
    named = {
        Kind.ORDER: sites,
        Kind.MODEL: frozenset(manifest.recipients) & frozenset(order.recipients),
        Kind.NOTICE: frozenset({desk.site}),
    }.get(manifest.kind, frozenset(order.recipients))
    stands = desk.order(tx, manifest.order)
    return Facts(
        action=Action.ACCEPT,
        kind=manifest.kind,
        sender=peer,
        recipient=desk.site,
        purpose=manifest.purpose,
        order_purpose=order.purpose,
        lineage=frozenset(manifest.lineage),
        recipients=frozenset(order.recipients) if is_order else frozenset(manifest.recipients),
        named=named,
        order_known=stands is not None,
        checks=opened.checks,
        bits=reserve if is_order else manifest.information_bits,
        bits_left=budget.bits_available(desk.genesis.quotas, budget.use_of(tx, peer)) if is_order else 0,
        groups=frozenset(order.groups),
        outputs=frozenset(order.outputs),
        algorithm_registered=order.algorithm in desk.genesis.algorithms,
        dataset_frozen=frozen is not None,
        mode=payloads.mode_of(order, manifest.kind),
        catalogue_known=order.query is not None and order.query.catalogue == catalogue_digest(),
        within_privacy_budget=is_order and (privacy.fits(desk, tx, order) or training_privacy.fits(desk, tx, order)),
        slot_s=order.query.slot_s if order.query else 0,
        minimum_slot_s=desk.genesis.minimum_slot_s,
        permitted_accelerators=frozenset(desk.genesis.accelerators),
    )
