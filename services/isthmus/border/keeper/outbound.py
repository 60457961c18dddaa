"""The way out: a candidate becomes a sealed crossing, is held, or is refused.

1. The candidate is checked against its order, clipped, banded or noised, and encrypted once; the sealed bytes are
   synced. A repeat is known before noise is drawn, by the exact candidate: one noised version leaves, never two.
2. `drafted`: its row and its charge are durable.
3. Policy decides on facts from the ledger: seal, hold for officers, or refuse.
4. The manifest is signed and logged in the transaction that moves the state. Only then can it be sent, and a retry
   sends the stored bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isthmus.border.keeper import budget, payloads
from isthmus.border.keeper.desk import needs_of
from isthmus.border.keeper.drafts import Draft, Drafts
from isthmus.border.keeper.origins import Origins
from isthmus.border.keeper.outbound_facts import covering, outbound_facts
from isthmus.border.keeper.policy import Hold, Refuse, Release
from isthmus.border.keeper.states import Outbound as State
from isthmus.contracts.crossings import (
    RELEASES,
    Kind,
    Manifest,
    Notice,
)
from isthmus.contracts.errors import Code, IsthmusError, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, OrderId
from isthmus.contracts.inside import CandidateHeader, CandidateStatus, InsideRole
from isthmus.contracts.orders import Order
from isthmus.proof import canonical
from isthmus.proof.ids import crossing_id, order_id
from isthmus.proof.orders import expects

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.border.keeper.payloads import Buffer, Checked

MAY_SUBMIT: Mapping[InsideRole, frozenset[Kind]] = {
    InsideRole.COMPUTE: RELEASES,
    InsideRole.SUBMITTER: frozenset({Kind.ORDER, Kind.MODEL}),
}


class OutboundDesk:
    """Takes candidates in and moves them until they are logged."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._origins = Origins(desk)
        self._drafts = Drafts(desk, self._origins)

    def submit(self, role: InsideRole, header: CandidateHeader, payload: Buffer) -> CandidateStatus:
        """Take a candidate. The same again gives the same status; it is never drafted twice.

        Raises:
            Refusal: the role may not, the recipient is no peer, the order is unknown or closed, or the payload is not
                what the order asked for.
        """
        require_may(role, header)
        self._desk.recipient(header.recipient)
        crossing = crossing_id(header.order, header.kind, header.recipient, header.slot)
        if len(payload) != header.size:
            raise Refusal(Code.TRUNCATED, f"The candidate has {len(payload)} bytes of {header.size}.")
        with self._desk.store.reading() as tx:
            order = self.order_of(tx, header, payload)
            self._require_inputs(tx, header)
        exact = Digest.of(payload) if payloads.is_private(order, header.kind) else None
        if exact is not None and (done := self._repeated(crossing, exact)):
            return done
        checked = self._checked(order, header, crossing, payload)
        plaintext = exact or Digest.of(checked.data)
        if exact is None and (done := self._repeated(crossing, plaintext)):
            return done
        with self._desk.store.reading() as tx:
            origin = self._origins.of(tx, order, header)
        draft = self._drafts.seal_payload(order, header, crossing, checked, plaintext, origin)
        try:
            return self._drafted(crossing, draft)
        except IsthmusError:
            self._desk.drop_unless_entered(draft.manifest.payload.digest)
            raise

    def _drafted(self, crossing: CrossingId, draft: Draft) -> CandidateStatus:
        """Enter a draft and decide on it, in one transaction."""
        with self._desk.store.transaction() as tx:
            if done := self._repeated(crossing, draft.plaintext):  # the same candidate came twice at the same time
                self._desk.blobs.release(draft.manifest.payload.digest)
                return done
            self._drafts.insert(tx, draft)
            self.proceed(tx, crossing)
            return status_of(self._desk.crossing(tx, crossing))

    def proceed(self, tx: Transaction, crossing: CrossingId) -> None:
        """Decide on a drafted or held crossing, and do what was decided."""
        desk = self._desk
        row = desk.crossing(tx, crossing)
        manifest = canonical.load(Manifest, bytes(row["draft"]))
        state = State(row["state"])
        if state is State.DRAFTED:
            desk.move(tx, crossing, State.CHECKED)
        if manifest.kind is Kind.MODEL:  # what the job has taken in since it was drafted is in its lineage too
            manifest = self._origins.with_lineage(tx, manifest)
        covered = covering(desk, tx, manifest)
        decision = desk.policy.decide(outbound_facts(desk, tx, row, manifest, covered), crossing)
        match decision:
            case Release(rules=rules):
                self._drafts.decided(tx, crossing, manifest.order, "release", rules)
                if state is State.HELD:
                    desk.move(tx, crossing, State.APPROVED)
                used = tuple(sorted({g.statement for g in covered}))
                self._drafts.sign(tx, manifest.model_copy(update={"approvals": used}))
            case Hold(rules=rules, needs=needs):
                if state is not State.HELD:
                    self._drafts.decided(tx, crossing, manifest.order, "hold", rules, needs=needs)
                    tx.execute("UPDATE crossing SET needs = ? WHERE id = ?", json.dumps(needs), crossing)
                    desk.move(tx, crossing, State.HELD)
                    self.notify(tx, manifest.order, crossing, Code.APPROVAL_MISSING)
            case Refuse(rules=rules, code=code):
                self._drafts.decided(tx, crossing, manifest.order, "refuse", rules, code=code)
                self.refuse(tx, crossing, code)

    def refuse(self, tx: Transaction, crossing: CrossingId, code: Code) -> None:
        """Refuse a crossing that has not been sealed; whoever ordered it is told `not_released` and no more."""
        row = self._desk.crossing(tx, crossing)
        tx.execute("UPDATE crossing SET code = ?, needs = '[]' WHERE id = ?", code.value, crossing)
        self._desk.move(tx, crossing, State.REFUSED)
        sealed = Digest(row["sealed"])
        tx.after.append(lambda: self._desk.blobs.release(sealed))
        if Kind(row["kind"]) in RELEASES:
            self.notify(tx, OrderId(row["order_id"]), crossing, Code.NOT_RELEASED)

    def notify(self, tx: Transaction, order_id_: OrderId, about: CrossingId, code: Code) -> None:
        """Send a notice to whoever gave the order, once for each thing it says."""
        order = self._desk.order(tx, order_id_)
        if order is None or order.direction != "in":
            return
        data = canonical.dump(Notice(about=about, code=code))
        said = tx.execute(
            "SELECT plaintext FROM crossing WHERE order_id = ? AND kind = 'notice' AND direction = 'out'", order.id
        ).fetchall()
        if Digest.of(data) in {row["plaintext"] for row in said}:
            return
        header = CandidateHeader(order=order.id, kind=Kind.NOTICE, recipient=order.peer, slot=len(said), size=len(data))
        self.enter(tx, order, header, payloads.opened(order.order, Kind.NOTICE, len(said), data))

    def enter(self, tx: Transaction, order: OrderRow, header: CandidateHeader, checked: Checked) -> None:
        """Draft what the border made itself, and decide on it, in the transaction that is open."""
        crossing = crossing_id(order.id, header.kind, order.peer, header.slot)
        origin = self._origins.of(tx, order.order, header)
        digest = Digest.of(checked.data)
        self._drafts.insert(tx, self._drafts.seal_payload(order.order, header, crossing, checked, digest, origin))
        self.proceed(tx, crossing)

    def withhold(self, tx: Transaction, order: OrderRow, kind: Kind, slot: int, code: Code) -> None:
        """Refuse a release of which nothing was drafted.

        It costs what one that passes costs, and who ordered it is told `not_released` and no more.
        """
        crossing = crossing_id(order.id, kind, order.peer, slot)
        spent = budget.charge(tx, order, crossing, payloads.cost(order.order, kind))
        self._drafts.decided(tx, crossing, order.id, "refuse", (), code=code, spent=spent)
        self.notify(tx, order.id, crossing, Code.NOT_RELEASED)

    def order_of(self, tx: Transaction, header: CandidateHeader, payload: Buffer) -> Order:
        """Return the order that a candidate belongs to: its own payload, or one that stands in the ledger.

        Raises:
            Refusal: there is none that is open and asks for it.
        """
        if header.kind is Kind.ORDER:
            return self._new_order(tx, header, bytes(payload))
        row = self._desk.order(tx, header.order)
        outward = header.kind is Kind.MODEL
        if row is None or (row.direction == "out") != outward:
            raise Refusal(Code.ORDER_UNKNOWN, "No such order stands in this border's ledger.")
        if not row.is_open:
            raise Refusal(Code.ORDER_CLOSED, f"The order is closed ({row.state}).")
        if self._desk.expires(row.order, self._desk.now(tx)):
            raise Refusal(Code.EXPIRED, "The order's time is over.")
        if row.peer != header.recipient:
            raise Refusal(Code.RECIPIENT_NOT_NAMED, f"What this order asks for goes to {row.peer} alone.")
        if not expects(row.order, header.kind, header.slot):
            raise Refusal(Code.SLOT_UNEXPECTED, f"The order asks for no {header.kind} at slot {header.slot}.")
        return row.order

    def _require_inputs(self, tx: Transaction, header: CandidateHeader) -> None:
        """Hold what a candidate says it was made from to the ledger: a manifest carries no word of its maker's choice.

        Only a model has inputs, and each is a release that came in here.
        """
        for crossing in header.inputs:
            row = tx.row("SELECT kind FROM crossing WHERE id = ? AND direction = 'in' AND code IS NULL", crossing)
            if header.kind is not Kind.MODEL or row is None or Kind(row["kind"]) not in RELEASES:
                raise Refusal(Code.NOT_FOUND, "The candidate names an input that is no release taken in here.")

    def _new_order(self, tx: Transaction, header: CandidateHeader, payload: bytes) -> Order:
        order = canonical.load(Order, payload, limit=payloads.SMALL_LIMIT)
        if order_id(order) != header.order or header.slot != 0:
            raise Refusal(Code.ID_MISMATCH, "The order's id is not the digest of its body.")
        if order.issuer != self._desk.site or order.zone != header.recipient:
            raise Refusal(Code.WRONG_RECIPIENT, "The order names another issuer or zone than its crossing.")
        if order.base is not None and self._origins.job_of(tx, order.base) is None:
            raise Refusal(Code.NOT_FOUND, "The order starts from a model that never crossed this border.")
        return order

    def _checked(self, order: Order, header: CandidateHeader, crossing: CrossingId, payload: Buffer) -> Checked:
        """Check a candidate. One that fails costs what one that passes costs, and the peer hears `not_released`."""
        if header.kind not in RELEASES:
            return payloads.to_send(order, header.kind, payload)
        try:
            return payloads.to_release(order, header.kind, header.slot, payload, header.contributors)
        except Refusal as refusal:
            with self._desk.store.transaction() as tx:
                row = self._desk.order(tx, header.order)
                if row is not None and tx.row("SELECT 1 FROM crossing WHERE id = ?", crossing) is None:
                    self.withhold(tx, row, header.kind, header.slot, refusal.code)
            raise

    def _repeated(self, crossing: CrossingId, plaintext: Digest) -> CandidateStatus | None:
        """Recognise a repeat; None where this candidate is new, or takes the place of one that is not sealed yet."""
        with self._desk.store.reading() as view:
            if view.row("SELECT 1 FROM crossing WHERE id = ?", crossing) is None:
                return None
        with self._desk.store.transaction() as tx:
            row = self._desk.crossing(tx, crossing)
            if row["plaintext"] == plaintext:
                return status_of(row)
            if row["state"] in {State.DRAFTED, State.HELD}:
                return None
            self._drafts.decided(tx, crossing, OrderId(row["order_id"]), "refuse", (), code=Code.CONFLICTING_PAYLOAD)
            tx.after.append(_conflict)
            return status_of(row)


def require_may(role: InsideRole, header: CandidateHeader) -> None:
    """Refuse a candidate of a kind that `role` does not submit."""
    if header.kind not in MAY_SUBMIT.get(role, frozenset()):
        raise Refusal(Code.FORBIDDEN, f"The role {role} does not submit a {header.kind}.")


def status_of(row: sqlite3.Row) -> CandidateStatus:
    """Return where a crossing stands."""
    return CandidateStatus(
        crossing=CrossingId(row["id"]),
        state=row["state"],
        code=Code(row["code"]) if row["code"] else None,
        needs=needs_of(row),
    )


def _conflict() -> None:
    raise Refusal(Code.CONFLICTING_PAYLOAD, "Another payload already crossed under this id.", remedy="It stands.")
