"""Answers: compute's exact sums wait for their slot, and become a protected answer in one transaction.

1. Compute hands in exact, bounded sums. They wait, and nobody outside can tell that they are there.
2. At the order's next slot, in one transaction: the answer released to the same question before, or noise (or, in the
   other mode, disclosure control); the budget; the draft, the decision and the entry.
3. A refusal that depends on data leaves at that slot too, costs what an answer costs, and is the one notice
   `not_released`. Counting that fails once keys are out is such a refusal: why it failed stays in this ledger.
4. Sums are kept where a later question must be held against them (`disclosure_controlled`), else dropped.
5. What one answer raises stops no other. A machine that says no (`Fault`) is asked again soon; anything else is put off
   to the order's next slot, and with the last one ends as not released, paid for.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from isthmus.border.keeper import budget, payloads, privacy, questions
from isthmus.border.keeper.desk import parse_order
from isthmus.border.keeper.key_facts import note_repeat
from isthmus.border.keeper.outbound import require_may, status_of
from isthmus.border.keeper.states import Outbound
from isthmus.contracts.bands import VEHICLE_BAND, band_contributors
from isthmus.contracts.crossings import Check, Contributors, Kind, PrivacyEvent
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.identifiers import Digest, OrderId
from isthmus.contracts.inside import CandidateHeader, CandidateStatus
from isthmus.contracts.queries import Answer, Mode
from isthmus.kit.bell import Bell
from isthmus.privacy.disclosure import Past, Withheld, control
from isthmus.privacy.release import release
from isthmus.proof import canonical
from isthmus.proof.ids import crossing_id

if TYPE_CHECKING:
    import sqlite3

    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.border.keeper.outbound import OutboundDesk
    from isthmus.border.keeper.payloads import Buffer
    from isthmus.contracts.identifiers import CrossingId
    from isthmus.contracts.inside import InsideRole, PrivacyView
    from isthmus.contracts.orders import Order
    from isthmus.contracts.queries import QueryPlan

PENDING, FAILED = privacy.PENDING, privacy.FAILED
"""`pending` is also what compute is told of sums that wait for their slot."""

LATER_S = 60
"""Seconds until an answer is tried again whose order cannot even be read, so that it has no slots."""

log = structlog.get_logger(__name__)


class StatisticsDesk:
    """Takes sums in, and lets answers out at their slots."""

    def __init__(self, desk: Desk, outbound: OutboundDesk) -> None:
        self._desk = desk
        self._outbound = outbound
        self.bell = Bell()
        """Rings when sums have come in."""

    def asks(self, order: OrderId) -> bool:
        """Tell whether an accepted order asks a question."""
        with self._desk.store.reading() as tx:
            return tx.row("SELECT 1 FROM question WHERE order_id = ?", order) is not None

    def submit(self, role: InsideRole, header: CandidateHeader, payload: Buffer) -> CandidateStatus:
        """Take compute's sums for a question. The same again gives the same status.

        Raises:
            Refusal: the role may not; they are not sums for the order's question (`SCHEMA_MISMATCH`), or not those
                that were handed in before (`CONFLICTING_PAYLOAD`): what was taken stands, whatever it says.
        """
        require_may(role, header)
        data = bytes(payload)
        if len(data) != header.size:
            raise Refusal(Code.TRUNCATED, f"The sums have {len(data)} bytes of {header.size}.")
        with self._desk.store.transaction() as tx:
            row = self._row(tx, header.order)
            if row["candidate"] is None:
                return self._take(tx, row, header, data)
            if row["candidate"] != Digest.of(data):
                what = "Other sums were handed in for this order."
                raise Refusal(Code.CONFLICTING_PAYLOAD, what, remedy="They stand.")
            return self._status(tx, row, crossing_id(header.order, header.kind, header.recipient, header.slot))

    def _take(self, tx: Transaction, row: sqlite3.Row, header: CandidateHeader, data: bytes) -> CandidateStatus:
        order = self._outbound.order_of(tx, header, data)
        plan = _plan(order)
        if row["state"] == FAILED:
            raise Refusal(Code.ORDER_CLOSED, "Compute has given this question up.")
        if header.contributors is None:
            raise Refusal(Code.TOO_FEW_CONTRIBUTORS, "Sums say how many vehicles stand behind them.")
        questions.read_partials(plan, data)
        tx.execute(
            "UPDATE question SET state = 'pending', candidate = ?, contributors = ?, partials = ?, due = ?"
            " WHERE order_id = ?",
            Digest.of(data),
            canonical.dump(header.contributors),
            data,
            self._slot(tx, row, order),
            header.order,
        )
        tx.after.append(self.bell.ring)
        crossing = crossing_id(header.order, header.kind, header.recipient, header.slot)
        return CandidateStatus(crossing=crossing, state=PENDING, code=None)

    def put_off(self, tx: Transaction, order: OrderRow, code: Code | None) -> bool:
        """Tell whether an order that compute gives up ends only at its question's next slot: its keys were out.

        Args:
            tx: the transaction in which it would be closed.
            order: the order, which is open.
            code: why compute gives it up. It goes into this border's ledger and no further.
        """
        row = tx.row("SELECT * FROM question WHERE order_id = ?", order.id)
        if row is None or row["state"] not in {privacy.COUNTING, PENDING, FAILED}:
            return False
        if self._desk.expires(order.order, self._desk.now(tx)):
            return False
        if row["state"] != FAILED:
            tx.execute(
                "UPDATE question SET state = 'failed', code = ?, partials = NULL, due = ? WHERE order_id = ?",
                (code or Code.NOT_RELEASED).value,
                self._slot(tx, row, order.order),
                order.id,
            )
            tx.after.append(self.bell.ring)
        return True

    def release_due(self) -> int | None:
        """Let out every answer whose slot has come; return when the next is due (Unix seconds), None where none is.

        Raises:
            Fault: the machine let one of them not out. It stays where it is; the others have left.
        """
        with self._desk.store.reading() as tx:
            due = tx.execute(
                "SELECT order_id FROM question WHERE state IN ('pending', 'failed') AND due <= ?"
                " ORDER BY due, order_id",
                self._desk.now(tx),
            ).fetchall()
        faults = []
        for row in due:
            try:
                self._let_out(OrderId(row["order_id"]))
            except Fault as fault:
                log.warning("answer_waits", order=row["order_id"], code=fault.code.value)
                faults.append(fault)
        if faults:
            raise faults[0]
        with self._desk.store.reading() as tx:
            row = tx.row("SELECT min(due) due FROM question WHERE state IN ('pending', 'failed')")
        return None if row is None else row["due"]

    def _let_out(self, order_id: OrderId) -> None:
        """Let one answer out; put it off where that raises anything but the machine's no."""
        try:
            with self._desk.store.transaction() as tx:
                self._decide(tx, order_id)
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001 -- rule 5
            log.error("answer_put_off", order=order_id, **_trace(error))  # noqa: TRY400 -- see `_trace`
            self._put_off(order_id)

    def _put_off(self, order_id: OrderId) -> None:
        """Wait for the order's next slot; with the last one, say that there is no answer."""
        try:
            with self._desk.store.transaction() as tx:
                row, order = self._row(tx, order_id), self._order(tx, order_id)
                if row["state"] not in {PENDING, FAILED}:  # it has left: what failed came after
                    return
                slot = self._slot(tx, row, order.order)
                if slot > order.order.expires_at:
                    self._give_up(tx, order, Code.NOT_RELEASED)
                else:
                    tx.execute("UPDATE question SET due = ? WHERE order_id = ?", slot, order_id)
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001 -- rule 5
            log.error("answer_put_off_blindly", order=order_id, **_trace(error))  # noqa: TRY400
            with self._desk.store.transaction() as tx:
                later = self._desk.now(tx) + LATER_S
                tx.execute("UPDATE question SET due = ? WHERE order_id = ? AND due IS NOT NULL", later, order_id)

    def _give_up(self, tx: Transaction, order: OrderRow, code: Code) -> None:
        """End an order without an answer: it costs what an answer costs."""
        self._outbound.withhold(tx, order, Kind.AGGREGATE, 0, code)
        budget.close(self._desk, tx, self._order(tx, order.id), "failed")

    def view(self) -> PrivacyView:
        """Return what the vehicles' budget is, and what is gone of it."""
        with self._desk.store.reading() as tx:
            return privacy.view(self._desk, tx)

    def _decide(self, tx: Transaction, order_id: OrderId) -> None:
        """Make an answer of sums that are due, and let it out or say that there is none."""
        row, order = self._row(tx, order_id), self._order(tx, order_id)
        if row["state"] not in {PENDING, FAILED}:
            return
        if self._desk.expires(order.order, self._desk.now(tx)):
            budget.close(self._desk, tx, order, "expired")
            return
        if row["state"] == FAILED:
            self._give_up(tx, order, Code(row["code"]))
            return
        plan = _plan(order.order)
        partials = questions.read_partials(plan, bytes(row["partials"]))
        earlier, source = privacy.earlier(tx, order.order), privacy.earlier_order(tx, order.order)
        if earlier is not None and source is not None:
            note_repeat(tx, order_id, source)
            outcome: Answer | Withheld = earlier.model_copy(update={"repeated": True, "epsilon_micro": 0})
            state = "repeated"
        elif plan.mode is Mode.DP:
            outcome, state = release(plan, partials), "released"
        else:
            outcome = control(plan, partials, self._history(tx, row))
            state = "withheld" if isinstance(outcome, Withheld) else "released"
        privacy.settle(self._desk, tx, order_id, "repeated" if earlier is not None else "spent")
        kept = isinstance(outcome, Answer) and plan.mode is Mode.DISCLOSURE_CONTROLLED and earlier is None
        tx.execute(
            "UPDATE question SET state = ?, answer = ?, partials = ?, due = NULL WHERE order_id = ?",
            state,
            canonical.dump(outcome) if isinstance(outcome, Answer) else None,
            row["partials"] if kept else None,
            order_id,
        )
        if isinstance(outcome, Answer):
            exact = canonical.load(Contributors, bytes(row["contributors"]))
            checked = _checked(plan, outcome, exact)
            self._outbound.enter(tx, order, _header(order, checked, exact), checked)
            self._end(tx, order)
        else:
            self._outbound.withhold(tx, order, Kind.AGGREGATE, 0, Code.NOT_RELEASED)

    def _end(self, tx: Transaction, order: OrderRow) -> None:
        """Close an order whose answer waits for nobody: when compute comes to say so depends on how long it counted."""
        crossing = crossing_id(order.id, Kind.AGGREGATE, order.peer, 0)
        if self._desk.crossing(tx, crossing)["state"] != Outbound.HELD:
            budget.close(self._desk, tx, self._order(tx, order.id), "complete")

    def _history(self, tx: Transaction, row: sqlite3.Row) -> tuple[Past, ...]:
        """Return the controlled answers that were released about the same frozen snapshot."""
        found = tx.execute(
            "SELECT q.partials, q.answer, o.body FROM question q JOIN orders o ON o.id = q.order_id"
            " WHERE q.dataset = ? AND q.snapshot = ? AND q.mode = 'disclosure_controlled' AND q.state = 'released'",
            row["dataset"],
            row["snapshot"],
        ).fetchall()
        return tuple(_past(earlier) for earlier in found)

    def _slot(self, tx: Transaction, row: sqlite3.Row, order: Order) -> int:
        return questions.slot_after(row["accepted_at"], _plan(order).slot_s, self._desk.now(tx), order.expires_at)

    def _order(self, tx: Transaction, order_id: OrderId) -> OrderRow:
        order = self._desk.order(tx, order_id)
        if order is None:
            raise Refusal(Code.ORDER_UNKNOWN, "No such order stands in this border's ledger.")
        return order

    def _row(self, tx: Transaction, order_id: OrderId) -> sqlite3.Row:
        row = tx.row("SELECT * FROM question WHERE order_id = ?", order_id)
        if row is None:
            raise Refusal(Code.ORDER_UNKNOWN, "No accepted order of this id asks a question.")
        return row

    def _status(self, tx: Transaction, row: sqlite3.Row, crossing: CrossingId) -> CandidateStatus:
        """Return where sums stand that were handed in before."""
        if row["state"] == PENDING:
            return CandidateStatus(crossing=crossing, state=PENDING, code=None)
        entered = tx.row("SELECT * FROM crossing WHERE id = ?", crossing)
        if entered is not None:
            return status_of(entered)
        return CandidateStatus(crossing=crossing, state="refused", code=Code.NOT_RELEASED)


def _trace(error: Exception) -> dict[str, object]:
    """Return what failed and where, for the log; not its words, which may quote sums."""
    code = error.code.value if isinstance(error, IsthmusError) else None
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return {"error": type(error).__name__, "code": code, "at": frames}


def _plan(order: Order) -> QueryPlan:
    if order.query is None:
        raise Refusal(Code.SLOT_UNEXPECTED, "The order asks no question.")
    return order.query


def _header(order: OrderRow, checked: payloads.Checked, exact: Contributors) -> CandidateHeader:
    """Return an answer's header; without the exact number of vehicles where no number of them may be told."""
    return CandidateHeader(
        order=order.id,
        kind=Kind.AGGREGATE,
        recipient=order.peer,
        slot=0,
        size=len(checked.data),
        contributors=exact if checked.contributors else None,
    )


def _checked(plan: QueryPlan, answer: Answer, exact: Contributors) -> payloads.Checked:
    """Return an answer as it may cross, with what was done to it."""
    data = canonical.dump(answer)
    bounded = PrivacyEvent(mechanism="contribution_bound", parameter=plan.spec.rows_per_vehicle, enforced_by="zone")
    checks = questions.require_answer(plan, data)
    if plan.mode is Mode.DP:
        # No number of contributors: even a banded one would be a release that nobody paid for.
        spent = PrivacyEvent(mechanism="differential_privacy", parameter=plan.epsilon_micro, enforced_by="border")
        return payloads.Checked(data, checks, (bounded, spent), None)
    controlled = PrivacyEvent(mechanism="disclosure_control", parameter=VEHICLE_BAND, enforced_by="border")
    banded = band_contributors(exact)
    return payloads.Checked(data, tuple(sorted((*checks, Check.CONTRIBUTORS))), (bounded, controlled), banded)


def _past(row: sqlite3.Row) -> Past:
    """Return an earlier answer with what it was made from."""
    plan = parse_order(bytes(row["body"])).query
    if plan is None:
        raise Refusal(Code.ORDER_UNKNOWN, "An answered order asks no question.")
    return Past(plan.spec, questions.read_partials(plan, bytes(row["partials"])), _answer(row))


def _answer(row: sqlite3.Row) -> Answer:
    data = bytes(row["answer"])
    return canonical.load(Answer, data, limit=len(data))
