"""The way in: an envelope and its sealed payload become an accepted or a refused crossing, once.

What cannot be a crossing of the peer it comes from (signature, id, sequence, bytes) is turned away and noted in the
internal log; nothing else changes. What is one stands in the ledger, accepted or refused, and is answered with a
signed receipt. The same envelope again brings the same receipt.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isthmus.border.keeper import budget, payloads, privacy, training_privacy
from isthmus.border.keeper.desk import manifest_of, verified_manifest
from isthmus.border.keeper.inbound_facts import inbound_facts
from isthmus.border.keeper.opening import Opened, open_payload, plain_of
from isthmus.border.keeper.policy import Hold, Refuse
from isthmus.border.keeper.states import Inbound as State
from isthmus.contracts.crossings import RECEIPT_TYPE, RELEASES, Kind, Manifest, Receipt
from isthmus.contracts.errors import Code, IsthmusError, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, SiteId
from isthmus.contracts.inside import CandidateStatus, Deliveries, Delivery
from isthmus.contracts.ledger import CrossingEntry, Decided, Log, OrderAccepted, PeerRefused
from isthmus.proof import canonical, checkpoint, merkle, sealing
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import crossing_id, log_name
from isthmus.proof.orders import SENDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from isthmus.border.keeper.desk import Desk
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.proof.sealing import Buffer

MAX_ENVELOPE = 64 * 1024
MAX_DELIVERIES = 64
KEPT_OPEN = 2
"""Payloads that stay open in memory until they are delivered; any other is opened again."""


class InboundDesk:
    """Takes crossings in and moves them until the site behind the border has them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._plain_of: dict[CrossingId, bytearray] = {}

    def cursor(self, peer: SiteId) -> int:
        """Return the last sequence number taken in from `peer`."""
        with self._desk.store.reading() as tx:
            return self._last_sequence(tx, peer)

    def examine(self, peer: SiteId, envelope: bytes) -> tuple[Manifest, bytes | None]:
        """Check all that can be checked before the payload is fetched.

        Returns:
            The manifest; and the receipt, where this very envelope was decided before.

        Raises:
            Refusal: it is not the next crossing of this peer. That is noted in the internal log.
        """
        try:
            if len(envelope) > MAX_ENVELOPE:
                raise Refusal(Code.TOO_LARGE, "An envelope is too large.")  # noqa: TRY301 - one place notes them all
            manifest = verified_manifest(envelope, self._desk.peer(peer))
            with self._desk.store.reading() as tx:
                row = tx.row("SELECT * FROM crossing WHERE id = ?", manifest.crossing)
                if row is not None and row["envelope"] == envelope and row["receipt"] is not None:
                    return manifest, bytes(row["receipt"])
                self._fits(tx, peer, manifest, row, envelope)
        except Refusal as refusal:
            self.turn_away(peer, refusal.code, Digest.of(envelope))
            raise
        return manifest, None

    def turn_away(self, peer: SiteId, code: Code, evidence: Digest) -> None:
        """Note what a peer sent that could not become a crossing."""
        with self._desk.store.transaction() as tx:
            self._desk.record(tx, PeerRefused(peer=peer, code=code, evidence=evidence, at=self._desk.now(tx)))

    def receive(self, peer: SiteId, envelope: bytes, pieces: Iterable[Buffer]) -> bytes:
        """Take in a crossing that `examine` let through, with its sealed payload; return the signed receipt.

        Raises:
            Refusal: the payload is not the one that the manifest names. Nothing has been decided.
        """
        manifest, known = self.examine(peer, envelope)
        if known is not None:
            return known
        try:
            sealed = tuple(pieces)
            self._desk.blobs.put(sealed, limit=manifest.payload.size, expected=manifest.payload.digest)
        except Refusal as refusal:
            self.turn_away(peer, refusal.code, Digest.of(envelope))
            raise
        try:
            opened = open_payload(self._desk, peer, manifest, sealed)
            with self._desk.store.transaction() as tx:
                row = tx.row("SELECT * FROM crossing WHERE id = ?", manifest.crossing)
                self._fits(tx, peer, manifest, row, envelope)
                self._enter(tx, peer, manifest, envelope)
                return self._decide(tx, peer, manifest, envelope, opened)
        except IsthmusError:
            self._desk.drop_unless_entered(manifest.payload.digest)
            raise

    def deliveries(self, after: int) -> Deliveries:
        """Return what came after ordinal `after`."""
        with self._desk.store.reading() as tx:
            rows = tx.execute(
                "SELECT ordinal, body FROM delivery WHERE ordinal > ? ORDER BY ordinal LIMIT ?", after, MAX_DELIVERIES
            ).fetchall()
        return Deliveries(
            items=tuple(
                canonical.load(Delivery, bytes(r["body"])).model_copy(update={"ordinal": r["ordinal"]}) for r in rows
            )
        )

    def payload(self, crossing: CrossingId) -> bytearray:
        """Return the plaintext of an accepted crossing."""
        with self._desk.store.reading() as tx:
            row = self._desk.crossing(tx, crossing)
            if row["direction"] != "in" or row["state"] not in {State.ACCEPTED, State.DELIVERED}:
                raise Refusal(Code.NOT_FOUND, "No accepted crossing of this id came in.")
            order = self._desk.order(tx, row["order_id"]) if row["kind"] == Kind.ORDER else None
        if order is not None:
            return bytearray(canonical.dump(order.order))
        if (plain := self._plain_of.get(crossing)) is not None:
            return plain
        manifest = manifest_of(bytes(row["envelope"]))
        if not self._desk.blobs.has(manifest.payload.digest):
            raise Refusal(Code.NOT_FOUND, "The payload was delivered and let go.")
        return plain_of(self._desk, manifest, self._desk.blobs.read(manifest.payload.digest))

    def delivered(self, crossing: CrossingId) -> CandidateStatus:
        """Note that a delivery's effect is durable on the other side, and let the sealed bytes go."""
        with self._desk.store.transaction() as tx:
            row = self._desk.crossing(tx, crossing)
            if row["direction"] == "in" and row["state"] == State.ACCEPTED:
                self._desk.move(tx, crossing, State.DELIVERED)
                self._plain_of.pop(crossing, None)
                digest = Digest(row["sealed"])
                tx.after.append(lambda: self._desk.blobs.release(digest))
        return CandidateStatus(crossing=crossing, state=State.DELIVERED.value, code=None)

    def _fits(
        self, tx: Transaction, peer: SiteId, manifest: Manifest, row: sqlite3.Row | None, envelope: bytes
    ) -> None:
        """Check that a manifest is the next one of this peer, for this site, under its own id."""
        site = self._desk.peer(peer)
        if manifest.sender != peer:
            raise Refusal(Code.SENDER_UNKNOWN, f"{peer} sent a crossing of {manifest.sender}.")
        if manifest.recipient != self._desk.site:
            raise Refusal(Code.WRONG_RECIPIENT, f"The crossing is for {manifest.recipient}.")
        if manifest.kind not in SENDS[site.part]:
            raise Refusal(Code.UNKNOWN_KIND, f"A {site.part} does not send a {manifest.kind}.")
        if manifest.crossing != crossing_id(manifest.order, manifest.kind, manifest.recipient, manifest.slot):
            raise Refusal(Code.ID_MISMATCH, "The crossing's id is not that of its order, kind, recipient and slot.")
        if row is None:
            self._is_next(tx, peer, manifest)
        elif row["envelope"] != envelope:
            same = manifest.payload.digest == row["sealed"]
            raise Refusal(
                Code.REPLAYED if same else Code.CONFLICTING_PAYLOAD, "A crossing of this id was taken in before."
            )
        order = self._desk.order(tx, manifest.order)
        if site.part == "zone" and (order is None or order.peer != peer):
            # Not even a refused entry: it would take the id of what the order's own zone will send.
            raise Refusal(Code.ORDER_UNKNOWN, "A zone answers the orders that it was given.")
        limit = payloads.payload_limit(manifest.kind, order.order if order else None)
        if manifest.payload.size > sealing.sealed_size(limit):
            raise Refusal(Code.TOO_LARGE, "The payload is larger than its kind and its order allow.")
        if not payloads.is_banded(manifest.contributors):
            raise Refusal(Code.MALFORMED, "The numbers of contributors are not banded.")

    def _is_next(self, tx: Transaction, peer: SiteId, manifest: Manifest) -> None:
        """Check that a crossing that is not known yet is the next one of this peer, with bytes of its own."""
        if tx.row("SELECT 1 FROM crossing WHERE sealed = ?", manifest.payload.digest):
            raise Refusal(Code.REPLAYED, "The sealed payload came with another crossing.")
        last = self._last_sequence(tx, peer)
        if manifest.sequence <= last:
            raise Refusal(Code.REPLAYED, "The crossing's sequence number was used before.")
        if manifest.sequence > last + 1:
            raise Refusal(Code.OUT_OF_SEQUENCE, f"Crossing {last + 1} of {peer} is missing.")

    def _enter(self, tx: Transaction, peer: SiteId, manifest: Manifest, envelope: bytes) -> None:
        """Make the crossing's row durable: from here on, a repeat is recognised."""
        if tx.row("SELECT 1 FROM crossing WHERE id = ?", manifest.crossing):
            return
        tx.execute(
            "INSERT INTO crossing(id, direction, state, kind, peer, job, order_id, slot, sequence, envelope, sealed,"
            " size, plaintext, needs) VALUES(?,'in',?,?,?,?,?,?,?,?,?,?,?,'[]')",
            manifest.crossing,
            State.RECEIVED.value,
            manifest.kind.value,
            peer,
            manifest.job,
            manifest.order,
            manifest.slot,
            manifest.sequence,
            envelope,
            manifest.payload.digest,
            manifest.payload.size,
            manifest.plaintext,
        )
        self._desk.move(tx, manifest.crossing, State.RECEIVED, new=True)

    def _decide(
        self, tx: Transaction, peer: SiteId, manifest: Manifest, envelope: bytes, opened: Opened | Code
    ) -> bytes:
        """Decide, log, make the delivery and the receipt: one transaction."""
        desk = self._desk
        code: Code | None = None
        rules: tuple[str, ...] = ()
        if isinstance(opened, Code):
            code = opened
        else:
            if desk.crossing(tx, manifest.crossing)["state"] == State.RECEIVED:
                desk.move(tx, manifest.crossing, State.VERIFIED)
            code, rules = self._judge(tx, peer, manifest, opened)
        self._decided(tx, manifest, code, rules)
        now = desk.now(tx)
        index = tx.append(
            Log.CROSSINGS,
            CrossingEntry(verdict="refused" if code else "accepted", code=code, envelope=envelope.decode(), at=now),
        )
        desk.move(tx, manifest.crossing, State.REFUSED if code else State.ACCEPTED)
        receipt = self._receipt(tx, manifest, envelope, code, now, index)
        tx.execute(
            "UPDATE crossing SET code = ?, receipt = ?, entry = ? WHERE id = ?",
            code.value if code else None,
            receipt,
            index,
            manifest.crossing,
        )
        if code is None and not isinstance(opened, Code):
            self._deliver(tx, manifest, opened)
        else:
            sealed = manifest.payload.digest
            tx.after.append(lambda: desk.blobs.release(sealed))
        return receipt

    def _judge(
        self, tx: Transaction, peer: SiteId, manifest: Manifest, opened: Opened
    ) -> tuple[Code | None, tuple[str, ...]]:
        """Ask policy; enter an accepted order and its reservation."""
        desk, order = self._desk, opened.order
        reserve = payloads.reserved_bits(order)
        if manifest.kind is Kind.ORDER:
            budget.close_expired(desk, tx, peer)
        if manifest.kind is Kind.ORDER and tx.row(
            "SELECT 1 FROM orders WHERE direction = 'in' AND peer = ? AND job = ?", peer, order.job
        ):
            return Code.ORDER_DUPLICATE, ()
        decision = desk.policy.decide(inbound_facts(desk, tx, peer, manifest, opened, reserve), manifest.crossing)
        if isinstance(decision, Refuse):
            return decision.code, decision.rules
        if isinstance(decision, Hold):  # nothing that comes in waits for officers yet
            return Code.POLICY_DENIED, decision.rules
        if manifest.kind is Kind.ORDER and training_privacy.overdraws(desk, tx, order):  # whatever packs there are
            return Code.BUDGET_EXHAUSTED, decision.rules
        if manifest.kind is Kind.ORDER:
            tx.execute(
                "INSERT INTO orders VALUES(?, 'in', ?, ?, ?, 'open', ?, 0)",
                manifest.order,
                peer,
                order.job,
                canonical.dump(order),
                reserve,
            )
            desk.record(
                tx,
                OrderAccepted(order=manifest.order, job=order.job, peer=peer, reserved_bits=reserve, at=desk.now(tx)),
            )
            privacy.order_accepted(desk, tx, manifest.order, order)
            training_privacy.order_accepted(desk, tx, manifest.order, order)
        if manifest.kind in RELEASES:
            named = json.dumps(list(manifest.recipients))
            for site in manifest.lineage:
                tx.execute("INSERT OR IGNORE INTO taint VALUES(?, ?, ?)", manifest.job, site, named)
        return None, decision.rules

    def _decided(self, tx: Transaction, manifest: Manifest, code: Code | None, rules: tuple[str, ...]) -> None:
        self._desk.record(
            tx,
            Decided(
                crossing=manifest.crossing,
                order=manifest.order,
                direction="in",
                outcome="refuse" if code else "accept",
                code=code,
                rules=rules,
                needs=(),
                spent_bits=0,
                at=self._desk.now(tx),
            ),
        )

    def _receipt(
        self, tx: Transaction, manifest: Manifest, envelope: bytes, code: Code | None, at: int, index: int
    ) -> bytes:
        """Sign what was decided, with the proof that it stands in the ledger."""
        desk = self._desk
        size = index + 1
        reader = tx.reader(Log.CROSSINGS)
        name = log_name(desk.site, Log.CROSSINGS)
        head = checkpoint.Head(name, size, Digest.from_bytes(merkle.tree_root(reader, size)))
        receipt = Receipt(
            version=1,
            crossing=manifest.crossing,
            envelope=Digest.of(envelope),
            by=desk.site,
            verdict="refused" if code else "accepted",
            code=code,
            at=at,
            index=index,
            inclusion=tuple(to_base64(step) for step in merkle.inclusion(reader, index, size)),
            checkpoint=checkpoint.sign_checkpoint(head, name, desk.keys.signing),
        )
        return desk.keys.signing.sign(RECEIPT_TYPE, canonical.dump(receipt))

    def _deliver(self, tx: Transaction, manifest: Manifest, opened: Opened) -> None:
        notice = opened.notice
        self._keep(manifest.crossing, opened.plain)
        delivery = Delivery(
            ordinal=1,
            event="crossing",
            crossing=manifest.crossing,
            kind=manifest.kind,
            sender=manifest.sender,
            job=manifest.job,
            order=manifest.order,
            slot=manifest.slot,
            contributors=manifest.contributors,
            code=notice.code if notice else None,
            about=notice.about if notice else None,
        )
        tx.execute("INSERT INTO delivery(body) VALUES(?)", canonical.dump(delivery))
        tx.after.append(self._desk.bell.ring)

    def _keep(self, crossing: CrossingId, plain: bytearray) -> None:
        """Keep a payload open for the site that will ask for it next; the oldest goes when there are several."""
        self._plain_of[crossing] = plain
        while len(self._plain_of) > KEPT_OPEN:
            self._plain_of.pop(next(iter(self._plain_of)))

    def _last_sequence(self, tx: Transaction, peer: SiteId) -> int:
        """Return the last sequence number that stands in the ledger; one that is only received does not count."""
        row = tx.row(
            "SELECT sequence FROM crossing WHERE direction = 'in' AND peer = ? AND receipt IS NOT NULL"
            " ORDER BY sequence DESC LIMIT 1",
            peer,
        )
        return (row[0] if row else 0) or 0
