"""Drafts: a checked candidate becomes sealed bytes on disk, a row in the ledger's tables, and a signed manifest.

The bytes are synced before the row that names them; the charge and the entry are of the row's own transaction; the
signature is made under the next sequence number, in the transaction that logs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.border.keeper import budget, payloads
from isthmus.border.keeper.states import Outbound as State
from isthmus.contracts.crossings import CROSSING_TYPE, RELEASES, Contributors, Kind, Manifest, SealedPayload
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, OrderId
from isthmus.contracts.ledger import CrossingEntry, Decided, Drafted, Log
from isthmus.contracts.orders import Order
from isthmus.proof import canonical, sealing
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import content_context

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Desk
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.border.keeper.origins import Origin, Origins
    from isthmus.border.keeper.payloads import Checked
    from isthmus.contracts.inside import CandidateHeader


@dataclass(frozen=True, slots=True)
class Draft:
    """A candidate on its way into the ledger: what its manifest will say, and its key."""

    manifest: Manifest
    content_key: bytes
    exact: Contributors | None
    plaintext: Digest


class Drafts:
    """Makes drafts and signs them."""

    def __init__(self, desk: Desk, origins: Origins) -> None:
        self._desk = desk
        self._origins = origins

    def seal_payload(
        self,
        order: Order,
        header: CandidateHeader,
        crossing: CrossingId,
        checked: Checked,
        plaintext: Digest,
        origin: Origin,
    ) -> Draft:
        """Encrypt the payload once, sync it, and write what its manifest will say."""
        key = sealing.new_content_key()
        context = content_context(crossing)
        limit = sealing.sealed_size(payloads.largest_payload())
        digest, size = self._desk.blobs.put(sealing.seal(key, checked.data, context=context), limit=limit)
        peer = self._desk.recipient(header.recipient)
        manifest = Manifest(
            version=1,
            crossing=crossing,
            kind=header.kind,
            sender=self._desk.site,
            recipient=header.recipient,
            sequence=1,
            job=order.job,
            order=header.order,
            slot=header.slot,
            purpose=order.purpose,
            lineage=origin.lineage,
            recipients=origin.named,
            payload=SealedPayload(
                digest=digest, size=size, wrapped_key=to_base64(sealing.wrap(key, peer.sealing, context=context))
            ),
            plaintext=plaintext if header.kind in {Kind.ORDER, Kind.MODEL} else None,
            inputs=header.inputs,
            contributors=checked.contributors,
            commitments=origin.commitments,
            policy=self._desk.policy.digest,
            checks=checked.checks,
            privacy=checked.privacy,
            approvals=(),
            information_bits=8 * len(checked.data),
            issued_at=origin.now,
            expires_at=order.expires_at,
        )
        # Of a private training's update not even the zone's policy is told how many vehicles there are.
        exact = None if payloads.is_private(order, header.kind) else header.contributors
        return Draft(manifest, key, exact, plaintext)

    def insert(self, tx: Transaction, draft: Draft) -> None:
        """Make a draft durable: its row, its order's row where it is one, its charge, its entry."""
        desk, manifest = self._desk, draft.manifest
        crossing = manifest.crossing
        old = tx.row("SELECT sealed FROM crossing WHERE id = ?", crossing)
        if old is not None:
            replaced = Digest(old["sealed"])
            tx.execute("DELETE FROM crossing WHERE id = ? AND state IN ('drafted', 'held')", crossing)
            tx.after.append(lambda: desk.blobs.release(replaced))
        if manifest.kind is Kind.ORDER:
            self._open(tx, manifest, draft)
        if manifest.kind is Kind.MODEL:
            self._origins.inherit(tx, manifest.job, draft.plaintext)
        kept = sealing.wrap(draft.content_key, desk.keys.sealing.public, context=content_context(crossing))
        tx.execute(
            "INSERT INTO crossing(id, direction, state, kind, peer, job, order_id, slot, draft, sealed, size,"
            " content_key, plaintext, needs, contributors) VALUES(?,'out',?,?,?,?,?,?,?,?,?,?,?,'[]',?)",
            crossing,
            State.DRAFTED.value,
            manifest.kind.value,
            manifest.recipient,
            manifest.job,
            manifest.order,
            manifest.slot,
            canonical.dump(manifest),
            manifest.payload.digest,
            manifest.payload.size,
            kept,
            draft.plaintext,
            canonical.dump(draft.exact) if draft.exact else None,
        )
        spent = 0
        if manifest.kind in RELEASES:
            row = desk.order(tx, manifest.order)
            if row is None:
                raise Refusal(Code.ORDER_UNKNOWN, "No such order stands in this border's ledger.")
            spent = budget.charge(tx, row, crossing, payloads.cost(row.order, manifest.kind))
        desk.record(
            tx,
            Drafted(
                crossing=crossing,
                order=manifest.order,
                sealed=manifest.payload.digest,
                replaces=Digest(old["sealed"]) if old else None,
                spent_bits=spent,
                at=desk.now(tx),
            ),
        )
        desk.move(tx, crossing, State.DRAFTED, new=True)

    def _open(self, tx: Transaction, manifest: Manifest, draft: Draft) -> None:
        """Enter an order that this site gives. One order a job and zone."""
        body = self._desk.blobs.read(manifest.payload.digest)
        plain = sealing.open_sealed(draft.content_key, body, context=content_context(manifest.crossing))
        order = canonical.load(Order, bytes(plain))
        known = tx.row(
            "SELECT id FROM orders WHERE direction = 'out' AND peer = ? AND job = ?", manifest.recipient, manifest.job
        )
        if known is not None and known["id"] != manifest.order:
            raise Refusal(Code.ORDER_DUPLICATE, "This job has given this zone another order.")
        if known is None:
            tx.execute(
                "INSERT INTO orders VALUES(?, 'out', ?, ?, ?, 'open', 0, 0)",
                manifest.order,
                manifest.recipient,
                manifest.job,
                bytes(plain),
            )
        self._origins.inherit_base(tx, order)

    def sign(self, tx: Transaction, manifest: Manifest) -> None:
        """Sign the manifest under the next sequence number, and log it."""
        desk = self._desk
        last = tx.row("SELECT max(sequence) FROM crossing WHERE direction = 'out' AND peer = ?", manifest.recipient)
        now = desk.now(tx)
        final = manifest.model_copy(update={"sequence": ((last[0] if last else 0) or 0) + 1, "issued_at": now})
        envelope = desk.keys.signing.sign(CROSSING_TYPE, canonical.dump(final))
        desk.move(tx, final.crossing, State.SEALED)
        index = tx.append(Log.CROSSINGS, CrossingEntry(verdict="sent", code=None, envelope=envelope.decode(), at=now))
        tx.execute(
            "UPDATE crossing SET envelope = ?, sequence = ?, entry = ?, needs = '[]' WHERE id = ?",
            envelope,
            final.sequence,
            index,
            final.crossing,
        )
        desk.move(tx, final.crossing, State.LOGGED)

    def decided(
        self,
        tx: Transaction,
        crossing: CrossingId,
        order: OrderId,
        outcome: str,
        rules: tuple[str, ...],
        *,
        code: Code | None = None,
        needs: tuple[str, ...] = (),
        spent: int = 0,
    ) -> None:
        """Enter what was decided about a candidate."""
        self._desk.record(
            tx,
            Decided.model_validate(
                {
                    "crossing": crossing,
                    "order": order,
                    "direction": "out",
                    "outcome": outcome,
                    "code": code,
                    "rules": rules,
                    "needs": needs,
                    "spent_bits": spent,
                    "at": self._desk.now(tx),
                }
            ),
        )
