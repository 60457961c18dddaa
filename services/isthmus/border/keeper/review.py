"""Review: what waits for officers, and what their signatures do. It happens inside the zone.

Two officers of two organisations sign the same statement: over a class of releases of one job (standing), or over one
release. One rejection ends a held release.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from isthmus.border.keeper import approvals, privacy
from isthmus.border.keeper.desk import needs_of
from isthmus.border.keeper.outbound import status_of
from isthmus.border.keeper.outbound_facts import given
from isthmus.border.keeper.states import Outbound as State
from isthmus.contracts.approvals import REJECTION_TYPE, Approval, Rejection
from isthmus.contracts.crossings import Kind, Manifest
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId
from isthmus.contracts.inside import CandidateStatus, Review, ReviewItem, SignedStatement
from isthmus.contracts.ledger import Approved, Rejected
from isthmus.proof import canonical

if TYPE_CHECKING:
    import sqlite3

    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.border.keeper.outbound import OutboundDesk
    from isthmus.contracts.approvals import StandingApproval
    from isthmus.contracts.orders import TrainingPrivacy


class ReviewDesk:
    """Shows held releases and takes officers' statements."""

    def __init__(self, desk: Desk, outbound: OutboundDesk) -> None:
        self._desk = desk
        self._outbound = outbound

    def waiting(self) -> Review:
        """Return what waits; what waited too long expires."""
        desk = self._desk
        with desk.store.transaction() as tx:
            now = desk.now(tx)
            items = []
            for row in self._held(tx):
                manifest = canonical.load(Manifest, bytes(row["draft"]))
                if now > manifest.expires_at:
                    desk.move(tx, manifest.crossing, State.EXPIRED)
                    tx.after.append(partial(desk.blobs.release, manifest.payload.digest))
                    continue
                items.append(self._item(tx, row, manifest))
        return Review(items=tuple(items))

    def approve(self, signed: SignedStatement) -> CandidateStatus:
        """Take an officer's approval; whatever it lets pass is sealed and logged at once.

        Raises:
            Refusal: the signer is no officer here, or the statement is not what waits (`APPROVAL_INVALID`).
        """
        desk, envelope = self._desk, signed.envelope.encode()
        person, payload_type, payload = approvals.signer(envelope, desk.genesis.roster)
        body = approvals.statement(payload_type, payload)
        statement = canonical.digest(body)
        with desk.store.transaction() as tx:
            approvals.admissible(body, desk.site, desk.policy.digest, desk.now(tx))
            crossing = self._addressed(tx, body)
            if tx.row("SELECT 1 FROM approval WHERE statement = ? AND person = ?", statement, person.id) is None:
                tx.execute(
                    "INSERT INTO approval VALUES(?, ?, ?, ?, ?)",
                    statement,
                    person.id,
                    person.organisation,
                    payload_type,
                    payload,
                )
                desk.record(
                    tx,
                    Approved(person=person.id, statement=statement, envelope=signed.envelope, at=desk.now(tx)),
                )
            for row in self._held(tx):
                self._outbound.proceed(tx, CrossingId(row["id"]))
            return status_of(desk.crossing(tx, crossing))

    def reject(self, signed: SignedStatement) -> CandidateStatus:
        """Take an officer's rejection of a held release.

        Raises:
            Refusal: the signer is no officer here, or nothing of this digest is held.
        """
        desk, envelope = self._desk, signed.envelope.encode()
        person, payload_type, payload = approvals.signer(envelope, desk.genesis.roster)
        if payload_type != REJECTION_TYPE:
            raise Refusal(Code.APPROVAL_INVALID, "This is not a rejection.")
        body = canonical.load(Rejection, payload)
        with desk.store.transaction() as tx:
            row = desk.crossing(tx, body.crossing)
            if body.zone != desk.site or row["state"] != State.HELD or row["sealed"] != body.sealed:
                raise Refusal(Code.STATE_CONFLICT, "No release of this digest is held.")
            desk.record(
                tx,
                Rejected(person=person.id, crossing=body.crossing, envelope=signed.envelope, at=desk.now(tx)),
            )
            self._outbound.refuse(tx, body.crossing, Code.NOT_RELEASED)
            return status_of(desk.crossing(tx, body.crossing))

    def _held(self, tx: Transaction) -> list[sqlite3.Row]:
        return tx.execute("SELECT * FROM crossing WHERE direction = 'out' AND state = 'held' ORDER BY rowid").fetchall()

    def _item(self, tx: Transaction, row: sqlite3.Row, manifest: Manifest) -> ReviewItem:
        order = self._order(tx, manifest)
        standing = self._standing(order, manifest.kind, manifest.information_bits)
        single = approvals.single_for(manifest)
        wanted = {canonical.digest(standing), canonical.digest(single)}
        return ReviewItem(
            manifest=manifest,
            state=row["state"],
            needs=needs_of(row),
            standing=standing,
            single=single,
            signed_by=tuple(sorted({g.person for g in given(tx) if g.statement in wanted})),
            query=order.order.query,
            answer=privacy.answer_of(tx, order.id),
            elsewhere=privacy.elsewhere(tx, order.id),
            training=self._privacy_of(order, manifest.kind),
        )

    def _privacy_of(self, order: OrderRow, kind: Kind) -> TrainingPrivacy | None:
        plan = order.order.training
        return plan.privacy if plan and kind is Kind.MODEL_UPDATE else None

    def _standing(self, order: OrderRow, kind: Kind, bits: int) -> StandingApproval:
        plan, evaluation = order.order.training, order.order.evaluation
        releases = plan.rounds if plan and kind is Kind.MODEL_UPDATE else 1
        if kind is Kind.AGGREGATE and evaluation:
            releases, bits = len(evaluation.at_slots), 8 * 4096
        return approvals.standing_for(order.order, order.id, kind, self._desk.policy.digest, bits, releases)

    def _addressed(self, tx: Transaction, body: StandingApproval | Approval) -> CrossingId:
        """Return the held release that a statement is about: an approval in advance of anything is not taken."""
        for row in self._held(tx):
            manifest = canonical.load(Manifest, bytes(row["draft"]))
            order = self._order(tx, manifest)
            if approvals.covers(body, manifest, order.order, 0, self._desk.now(tx)):
                return manifest.crossing
        raise Refusal(
            Code.APPROVAL_INVALID,
            "The approval covers nothing that is held.",
            why="The release, its policy or its recipients differ from what was signed.",
            remedy="Look again: `isthmus review list`.",
        )

    def _order(self, tx: Transaction, manifest: Manifest) -> OrderRow:
        order = self._desk.order(tx, manifest.order)
        if order is None:
            raise Refusal(Code.ORDER_UNKNOWN, "A held release belongs to no order.")
        return order
