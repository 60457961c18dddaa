"""The privacy budget of the vehicles behind this border: reserved by questions, spent by answers, never renewed.

Private trainings draw from the same one (`keeper.training_privacy`).

Rules:
1. A question reserves what its answer will cost when its order is accepted, in that transaction: the budget is the
   genesis' own, and orders are added up by a Renyi filter, which holds however the next question was chosen.
2. It is spent by the first decision that depends on data, an answer or a refusal alike.
3. What was reserved and provably touched no data comes back: an order that ended before its keys went out, a repeat.
   Once keys are out, that there is no answer may itself depend on data, and costs what an answer costs.
4. Whether a question fits depends on orders alone, so that a refusal says nothing of the vehicles.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from isthmus.contracts.crossings import RELEASES
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, OrderId
from isthmus.contracts.inside import PrivacyView
from isthmus.contracts.ledger import PrivacyReserved, PrivacySettled
from isthmus.contracts.queries import Answer, Mode
from isthmus.privacy.mechanism import curve_of
from isthmus.proof import accounting, canonical
from isthmus.proof.ids import question_about

if TYPE_CHECKING:
    import sqlite3

    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.orders import Order
    from isthmus.proof.accounting import Curve

Outcome = Literal["spent", "repeated", "returned"]
RESERVED, COUNTING, PENDING, FAILED = "reserved", "counting", "pending", "failed"
"""States of a question that is not settled: nothing has touched data; keys are out; sums wait for their slot; there
will be none, which is said at the slot."""
OPEN = (RESERVED, COUNTING, PENDING, FAILED)


def used(tx: Transaction) -> Curve:
    """Return what is spent or reserved."""
    row = tx.row("SELECT curve FROM privacy_use")
    return tuple(json.loads(row["curve"])) if row else accounting.zero()


def fits(desk: Desk, tx: Transaction, order: Order) -> bool:
    """Tell whether an order's question can be paid for: it is a repeat, or the filter lets it through."""
    plan = order.query
    if plan is None or plan.mode is not Mode.DP or earlier(tx, order) is not None:
        return plan is not None
    budget = desk.genesis.privacy
    return budget is not None and accounting.fits(used(tx), curve_of(plan), budget)


def earlier(tx: Transaction, order: Order) -> Answer | None:
    """Return the answer that was released to the same question, at the same epsilon and delta, before."""
    row = _earlier(tx, order)
    return None if row is None else _answer(row)


def earlier_order(tx: Transaction, order: Order) -> OrderId | None:
    """Return the order that the `earlier` answer was made under; None where there is none."""
    row = _earlier(tx, order)
    return None if row is None else OrderId(row["order_id"])


def _earlier(tx: Transaction, order: Order) -> sqlite3.Row | None:
    plan = order.query
    if plan is None:
        return None
    return tx.row(
        "SELECT order_id, answer FROM question WHERE about = ? AND mode = ? AND state = 'released'"
        " AND epsilon_micro = ? AND delta_exponent = ? ORDER BY accepted_at LIMIT 1",
        question_about(order),
        plan.mode.value,
        plan.epsilon_micro,
        plan.delta_exponent,
    )


def answer_of(tx: Transaction, order_id: OrderId) -> Answer | None:
    """Return what an order's question would be, or has been, answered with; None where there is no answer."""
    row = tx.row("SELECT answer FROM question WHERE order_id = ? AND answer IS NOT NULL", order_id)
    return None if row is None else _answer(row)


def elsewhere(tx: Transaction, order_id: OrderId) -> int:
    """Return how many controlled answers about other snapshots of its dataset there are beside a controlled one."""
    row = tx.row(
        "SELECT count(*) n FROM question own JOIN question other ON other.dataset = own.dataset"
        " AND other.snapshot <> own.snapshot AND other.mode = own.mode AND other.state = 'released'"
        " WHERE own.order_id = ? AND own.mode = 'disclosure_controlled'",
        order_id,
    )
    return int(row["n"]) if row else 0


def order_accepted(desk: Desk, tx: Transaction, order_id: OrderId, order: Order) -> None:
    """Enter a question, and reserve what its answer costs."""
    plan = order.query
    if plan is None:
        return
    now = desk.now(tx)
    paid = plan.mode is Mode.DP and earlier(tx, order) is None
    curve = curve_of(plan) if paid else accounting.zero()
    tx.execute(
        "INSERT INTO question(order_id, about, dataset, snapshot, mode, epsilon_micro, delta_exponent, state, curve,"
        " accepted_at) VALUES(?, ?, ?, ?, ?, ?, ?, 'reserved', ?, ?)",
        order_id,
        question_about(order),
        order.dataset.dataset,
        order.dataset.snapshot,
        plan.mode.value,
        plan.epsilon_micro,
        plan.delta_exponent,
        json.dumps(curve),
        now,
    )
    if paid:
        reserve(
            desk,
            tx,
            order_id,
            epsilon_micro=plan.epsilon_micro,
            delta_exponent=plan.delta_exponent,
            curve=curve,
        )


def reserve(
    desk: Desk, tx: Transaction, order_id: OrderId, *, epsilon_micro: int, delta_exponent: int, curve: Curve
) -> None:
    """Take what an accepted order may cost out of the budget, and enter it."""
    _use(tx, accounting.add(used(tx), curve))
    desk.record(
        tx,
        PrivacyReserved(
            order=order_id,
            epsilon_micro=epsilon_micro,
            delta_exponent=delta_exponent,
            curve=curve,
            at=desk.now(tx),
        ),
    )


def give_back(tx: Transaction, curve: Curve) -> None:
    """Put back what was reserved and is not spent."""
    _use(tx, accounting.subtract(used(tx), curve))


def settle(desk: Desk, tx: Transaction, order_id: OrderId, outcome: Outcome) -> None:
    """Say what became of a question; what was not spent is free again."""
    row = tx.row("SELECT * FROM question WHERE order_id = ?", order_id)
    if row is None:
        return
    curve: Curve = tuple(json.loads(row["curve"]))
    if outcome != "spent":
        give_back(tx, curve)
        tx.execute("UPDATE question SET curve = ? WHERE order_id = ?", json.dumps(accounting.zero()), order_id)
    desk.record(tx, PrivacySettled(order=order_id, outcome=outcome, question=Digest(row["about"]), at=desk.now(tx)))


def keys_go_out(tx: Transaction, order_id: OrderId) -> None:
    """Note that whatever comes of an order's question may depend on data from now on.

    Raises:
        Refusal: `ORDER_CLOSED`: its question has failed, and only waits for its slot to say so.
    """
    row = tx.row("SELECT state FROM question WHERE order_id = ?", order_id)
    if row is not None and row["state"] == FAILED:
        raise Refusal(Code.ORDER_CLOSED, "The question of this order has failed.")
    tx.execute("UPDATE question SET state = 'counting' WHERE order_id = ? AND state = 'reserved'", order_id)


def order_closed(desk: Desk, tx: Transaction, order: OrderRow) -> None:
    """Settle the question of an order that ends without an answer: what has touched no data comes back."""
    row = tx.row("SELECT state, curve FROM question WHERE order_id = ?", order.id)
    if row is None or row["state"] not in OPEN:
        return
    touched = row["state"] != RESERVED
    settle(desk, tx, order.id, "spent" if touched and any(json.loads(row["curve"])) else "returned")
    tx.execute(
        "UPDATE question SET state = ?, partials = NULL, due = NULL WHERE order_id = ?",
        "withheld" if touched else "returned",
        order.id,
    )


def view(desk: Desk, tx: Transaction) -> PrivacyView:
    """Return what the budget is, and what is gone of it."""
    budget = desk.genesis.privacy
    states = {row["state"]: row["n"] for row in tx.execute("SELECT state, count(*) n FROM question GROUP BY state")}
    repeated = tx.row("SELECT count(*) n FROM question WHERE state = 'repeated'")
    unprotected = tx.row(
        "SELECT count(*) n FROM crossing WHERE direction = 'out' AND entry IS NOT NULL"
        " AND kind IN (SELECT value FROM json_each(?))"
        " AND order_id NOT IN (SELECT order_id FROM question WHERE mode = 'dp')"
        " AND NOT (kind = 'model_update' AND order_id IN (SELECT order_id FROM training))",
        json.dumps(sorted(RELEASES)),
    )
    trainings = tx.row("SELECT count(*) n FROM training WHERE state <> 'returned'")
    spent = used(tx)
    return PrivacyView(
        budget=budget,
        epsilon_micro=accounting.spent_micro(spent, budget) if budget else 0,
        answered=states.get("released", 0) + states.get("withheld", 0),
        repeated=repeated["n"] if repeated else 0,
        open=sum(states.get(state, 0) for state in OPEN),
        unprotected=unprotected["n"] if unprotected else 0,
        trainings=trainings["n"] if trainings else 0,
    )


def _answer(row: sqlite3.Row) -> Answer:
    return canonical.load(Answer, bytes(row["answer"]), limit=len(row["answer"]))


def _use(tx: Transaction, curve: Curve) -> None:
    tx.execute(
        "INSERT INTO privacy_use VALUES(1, ?) ON CONFLICT(one) DO UPDATE SET curve = excluded.curve", json.dumps(curve)
    )
