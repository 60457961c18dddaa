"""The keeper: holds keys, ledger, policy and budget; seals, opens, and checks everything itself.

The gate knows it by the few calls of this class, on bytes and ids. Whatever the gate has looked at before, the keeper
looks at again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isthmus.border.halves import SealedCrossing
from isthmus.border.keeper import budget, training_privacy
from isthmus.border.keeper.desk import manifest_of
from isthmus.border.keeper.files import FilesDesk
from isthmus.border.keeper.heads import HeadsDesk
from isthmus.border.keeper.inbound import InboundDesk
from isthmus.border.keeper.outbound import OutboundDesk
from isthmus.border.keeper.review import ReviewDesk
from isthmus.border.keeper.states import FINAL
from isthmus.border.keeper.states import Outbound as State
from isthmus.border.keeper.statistics import StatisticsDesk
from isthmus.contracts.crossings import RECEIPT_TYPE, Kind, Receipt
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, OrderId, SiteId
from isthmus.contracts.inside import (
    CloseOrder,
    Delivery,
    Evidence,
    LedgerEntries,
    LedgerView,
    LogView,
    Usage,
    UsageReport,
)
from isthmus.contracts.ledger import CrossingEntry, GenesisEntry, Log
from isthmus.contracts.link import HeadsAnswer
from isthmus.proof import canonical, checkpoint, merkle, signing
from isthmus.proof.canonical import from_base64
from isthmus.proof.ids import log_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.border.keeper.desk import Desk
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.border.keeper.payloads import Buffer
    from isthmus.contracts.inside import CandidateHeader, CandidateStatus, InsideRole
    from isthmus.contracts.link import Heads, Opening

ENTRIES_AT_ONCE = 500


class Keeper:
    """One border's keeper.

    Raises (on construction):
        Fault: the ledger's first entry is not the genesis this border was given.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.outbound = OutboundDesk(desk)
        self.inbound = InboundDesk(desk)
        self.files = FilesDesk(desk)
        self.heads = HeadsDesk(desk)
        self.review = ReviewDesk(desk, self.outbound)
        self.statistics = StatisticsDesk(desk, self.outbound)
        self._begin()

    def _begin(self) -> None:
        """Write the genesis, or hold the ledger to it; end what a crash has cut short."""
        desk = self._desk
        if desk.policy.digest != desk.genesis.policy:
            raise Fault(
                Code.CONFIGURATION,
                "The policy on disk is not the one that the genesis names.",
                remedy="A change of policy is an entry signed by officers of two organisations.",
            )
        genesis = GenesisEntry(genesis=desk.genesis)
        with desk.store.transaction() as tx:
            first = tx.entries(Log.INTERNAL, 0, 1)
            if not first:
                desk.record(tx, genesis)
            elif first[0] != canonical.dump(genesis):
                raise Fault(Code.CONFIGURATION, "The ledger begins with another genesis than this border's.")
            for row in tx.execute("SELECT id FROM crossing WHERE direction = 'out' AND state = 'drafted'").fetchall():
                self.outbound.proceed(tx, CrossingId(row["id"]))
            unfinished = tx.execute(
                "SELECT sealed FROM crossing WHERE state NOT IN (SELECT value FROM json_each(?))",
                json.dumps(sorted(FINAL)),
            )
            needed = {Digest(row["sealed"]) for row in unfinished}
        desk.blobs.keep_only(needed)

    def submit(self, role: InsideRole, header: CandidateHeader, payload: Buffer) -> CandidateStatus:
        """Take a candidate: a question's sums wait for their slot, all else is decided now."""
        if header.kind is Kind.AGGREGATE and self.statistics.asks(header.order):
            return self.statistics.submit(role, header, payload)
        return self.outbound.submit(role, header, payload)

    def next_for(self, peer: SiteId) -> SealedCrossing | None:
        """Return the first crossing to `peer` that it has not receipted, marked as sent."""
        self.heads.require_open(peer)
        with self._desk.store.reading() as view:
            row = view.row(
                "SELECT * FROM crossing INDEXED BY crossing_to_send WHERE direction = 'out' AND peer = ?"
                " AND state IN ('logged', 'sent') ORDER BY sequence LIMIT 1",
                peer,
            )
        if row is None:
            return None
        crossing = CrossingId(row["id"])
        with self._desk.store.transaction() as tx:
            if self._desk.crossing(tx, crossing)["state"] == State.LOGGED:
                self._desk.move(tx, crossing, State.SENT)
        return SealedCrossing(crossing, row["sequence"], bytes(row["envelope"]), Digest(row["sealed"]), row["size"])

    def blob(self, peer: SiteId, digest: Digest, start: int = 0) -> tuple[int, Iterator[bytes]]:
        """Return the whole size of the sealed payload of a crossing to `peer`, and its bytes from `start` on.

        Raises:
            Refusal: nothing logged for this peer has it.
        """
        self.heads.require_open(peer)
        with self._desk.store.reading() as tx:
            row = tx.row(
                "SELECT size FROM crossing WHERE direction = 'out' AND peer = ? AND sealed = ?"
                " AND state IN ('logged', 'sent')",
                peer,
                digest,
            )
        if row is None:
            raise Refusal(Code.NOT_FOUND, "No crossing to this peer has such a payload.")
        return int(row["size"]), self._desk.blobs.read(digest, start)

    def receipted(self, peer: SiteId, envelope: bytes) -> None:
        """Take in the receipt for a crossing that was sent, and hold the peer to it.

        Raises:
            Refusal: it is not the peer's receipt of what was sent (`EVIDENCE_INVALID`).
        """
        desk = self._desk
        site = desk.peer(peer)
        receipt = canonical.load(Receipt, signing.verify(envelope, RECEIPT_TYPE, site.signing))
        with desk.store.transaction() as tx:
            row = desk.crossing(tx, receipt.crossing)
            sent = bytes(row["envelope"] or b"")
            if (
                row["direction"] != "out"
                or row["peer"] != peer
                or receipt.by != peer
                or Digest.of(sent) != receipt.envelope
            ):
                raise Refusal(Code.EVIDENCE_INVALID, "The receipt is not for what was sent to this peer.")
            name = log_name(peer, Log.CROSSINGS)
            head = checkpoint.verify_checkpoint(receipt.checkpoint, name, name, site.signing)
            entry = CrossingEntry(
                verdict="refused" if receipt.code else "accepted",
                code=receipt.code,
                envelope=sent.decode(),
                at=receipt.at,
            )
            path = [from_base64(step) for step in receipt.inclusion]
            leaf = merkle.leaf_hash(canonical.dump(entry))
            if not merkle.verify_inclusion(leaf, receipt.index, head.size, path, head.root.raw):
                raise Refusal(Code.EVIDENCE_INVALID, "The receipt's proof does not hold.")
            if row["state"] == State.RECEIPTED:
                return
            tx.execute(
                "UPDATE crossing SET receipt = ?, code = ? WHERE id = ?",
                envelope,
                receipt.code.value if receipt.code else None,
                receipt.crossing,
            )
            desk.move(tx, receipt.crossing, State.RECEIPTED)
            if receipt.code is not None:
                self._deliver_refusal(tx, receipt, envelope=sent)
            digest = Digest(row["sealed"])
            tx.after.append(lambda: desk.blobs.release(digest))

    def _deliver_refusal(self, tx: Transaction, receipt: Receipt, *, envelope: bytes) -> None:
        """Tell the site behind this border that a peer refused what it sent."""
        manifest = manifest_of(envelope)
        delivery = Delivery(
            ordinal=1,
            event="refused",
            crossing=receipt.crossing,
            kind=manifest.kind,
            sender=receipt.by,
            job=manifest.job,
            order=manifest.order,
            slot=manifest.slot,
            contributors=None,
            code=receipt.code,
        )
        tx.execute("INSERT INTO delivery(body) VALUES(?)", canonical.dump(delivery))

    def close_order(self, closing: CloseOrder) -> None:
        """Close an order that compute says is done, or failed; the failure's code goes back to who ordered it."""
        with self._desk.store.transaction() as tx:
            order = self._desk.order(tx, closing.order)
            if order is None or order.direction != "in":
                raise Refusal(Code.ORDER_UNKNOWN, "No accepted order has this id.")
            if not order.is_open or self.statistics.put_off(tx, order, closing.code):
                return
            told = training_privacy.told(tx, order, closing.code)
            budget.close(self._desk, tx, order, "failed" if closing.code else "complete")
            if told:
                late = order.order.query is not None and self._desk.expires(order.order, self._desk.now(tx))
                row = tx.row("SELECT id FROM crossing WHERE order_id = ? AND kind = 'order'", order.id)
                if row is not None:
                    self.outbound.notify(tx, order.id, CrossingId(row["id"]), Code.EXPIRED if late else told)

    def opening(self, peer: SiteId) -> Opening:
        """Return what this side states when the link opens."""
        return self.heads.opening(peer, self.inbound.cursor(peer))

    def acknowledged(self, peer: SiteId, receipt: bytes, theirs: Heads | HeadsAnswer) -> HeadsAnswer | None:
        """Take in a receipt and the heads that came with it, together; return own heads where they are asked for."""
        with self._desk.store.transaction():
            self.receipted(peer, receipt)
            if isinstance(theirs, HeadsAnswer):
                self.heads.answered(peer, theirs)
                return None
            return self.heads.answer(peer, theirs)

    def exchange(self, peer: SiteId, theirs: Heads) -> HeadsAnswer:
        """Cosign the peer's heads and return own ones."""
        return self.heads.answer(peer, theirs)

    def ledger(self) -> LedgerView:
        """Return both logs' heads."""
        with self._desk.store.reading() as tx:
            logs = tuple(self._log_view(tx, log) for log in Log)
        return LedgerView(site=self._desk.site, logs=logs, halted=self.heads.halted())

    def entries(self, log: Log, start: int) -> LedgerEntries:
        """Return entries of a log from `start` on."""
        with self._desk.store.reading() as tx:
            found = tx.entries(log, start, ENTRIES_AT_ONCE)
        return LedgerEntries(log=log, start=start, entries=tuple(e.decode() for e in found))

    def evidence(self) -> Evidence:
        """Return all that this border puts into an evidence bundle."""
        with self._desk.store.reading() as tx:
            return Evidence(
                site=self._desk.site,
                genesis=canonical.digest(self._desk.genesis),
                logs=tuple(self._log_view(tx, log) for log in Log),
                witnessed=tuple(
                    row["cosigned"] for row in tx.execute("SELECT cosigned FROM peer_head ORDER BY site, log")
                ),
                entries={log: tuple(e.decode() for e in tx.entries(log, 0, tx.size(log))) for log in Log},
                receipts={
                    CrossingId(r["id"]): bytes(r["receipt"]).decode()
                    for r in tx.execute(
                        "SELECT id, receipt FROM crossing WHERE direction = 'out' AND receipt IS NOT NULL"
                    )
                },
                orders={OrderId(r["id"]): bytes(r["body"]).decode() for r in tx.execute("SELECT id, body FROM orders")},
            )

    def usage(self) -> UsageReport:
        """Return what crossed, by kind and direction."""
        totals: dict[tuple[str, str], list[int]] = {}
        with self._desk.store.reading() as tx:
            rows = tx.execute("SELECT kind, direction, size, envelope FROM crossing WHERE entry IS NOT NULL").fetchall()
        for row in rows:
            total = totals.setdefault((row["kind"], row["direction"]), [0, 0, 0])
            total[0] += 1
            total[1] += row["size"]
            total[2] += manifest_of(bytes(row["envelope"])).information_bits
        return UsageReport(
            site=self._desk.site,
            usage=tuple(
                Usage.model_validate(
                    {"kind": Kind(kind), "direction": way, "count": n, "sealed_bytes": size, "information_bits": bits}
                )
                for (kind, way), (n, size, bits) in sorted(totals.items())
            ),
        )

    def _log_view(self, tx: Transaction, log: Log) -> LogView:
        snapshot = tx.snapshot(log)
        cosigned = tx.execute("SELECT cosigned FROM own_head WHERE log = ? ORDER BY site", log.value).fetchall()
        return LogView(
            log=log,
            size=snapshot.size,
            root=snapshot.root,
            checkpoint=self.heads.signed_head(tx, log),
            cosigned=tuple(row["cosigned"] for row in cosigned),
        )
