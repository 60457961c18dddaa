"""What private trainings take of the vehicles' budget: reserved whole, spent round by round.

Rules:
1. An accepted order for a private training reserves what all its rounds cost, in that transaction, of the budget that
   questions draw from too (`keeper.privacy`). Whether it fits depends on orders alone.
2. What ended before its keys went out has touched no data: all of it comes back, unless compute handed something in
   all the same. A policy that asks for no budget changes nothing of that: the keeper itself holds an order to it.
3. Once keys are out, every round of which a candidate was charged is spent, released or refused, and so is the first
   one that is missing: that it is missing may depend on data. Later ones never began, and come back.
4. Why a private training fails may depend on data as well: once keys are out, who ordered it hears `not_released`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isthmus.border.keeper import privacy
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.ledger import PrivacySettled
from isthmus.privacy.training import noise_of, paid
from isthmus.proof import accounting
from isthmus.proof.ids import crossing_id

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.identifiers import OrderId
    from isthmus.contracts.orders import Order, TrainingPlan
    from isthmus.proof.accounting import Curve

RESERVED, TRAINING, SPENT, RETURNED = "reserved", "training", "spent", "returned"
"""States of a private training: nothing has touched data; keys are out; settled, with rounds paid for; or with none."""


def overdraws(desk: Desk, tx: Transaction, order: Order) -> bool:
    """Tell whether an order has a private training that cannot be paid for."""
    return _private(order) is not None and not fits(desk, tx, order)


def fits(desk: Desk, tx: Transaction, order: Order) -> bool:
    """Tell whether an order's private training can be paid for; not where the genesis has no budget."""
    plan, budget = _private(order), desk.genesis.privacy
    if plan is None or budget is None:
        return False
    return accounting.fits(privacy.used(tx), noise_of(plan).curve, budget)


def order_accepted(desk: Desk, tx: Transaction, order_id: OrderId, order: Order) -> None:
    """Enter a private training, and reserve what all its rounds cost."""
    plan = _private(order)
    if plan is None or plan.privacy is None:
        return
    curve = noise_of(plan).curve
    tx.execute("INSERT INTO training VALUES(?, ?, ?, ?)", order_id, plan.rounds, json.dumps(curve), RESERVED)
    privacy.reserve(
        desk,
        tx,
        order_id,
        epsilon_micro=plan.privacy.epsilon_micro,
        delta_exponent=plan.privacy.delta_exponent,
        curve=curve,
    )


def keys_go_out(tx: Transaction, order_id: OrderId) -> None:
    """Note that whatever comes of a private training may depend on data from now on."""
    tx.execute("UPDATE training SET state = ? WHERE order_id = ? AND state = ?", TRAINING, order_id, RESERVED)


def told(tx: Transaction, order: OrderRow, code: Code | None) -> Code | None:
    """Return the code that who ordered a training hears of its failure: rule 4."""
    row = tx.row("SELECT * FROM training WHERE order_id = ?", order.id)
    told_why = row is None or (row["state"] == RESERVED and not _charged(tx, order, row["rounds"]))
    return code if code is None or told_why else Code.NOT_RELEASED


def order_closed(desk: Desk, tx: Transaction, order: OrderRow) -> None:
    """Settle the private training of an order that ends: what it never began comes back."""
    row = tx.row("SELECT * FROM training WHERE order_id = ?", order.id)
    if row is None or row["state"] not in {RESERVED, TRAINING}:
        return
    curve: Curve = tuple(json.loads(row["curve"]))
    charged = _charged(tx, order, row["rounds"])
    touched = row["state"] == TRAINING or charged > 0
    rounds = min(row["rounds"], charged + 1) if touched else 0
    spent = paid(curve, rounds, row["rounds"])
    privacy.give_back(tx, accounting.subtract(curve, spent))
    tx.execute(
        "UPDATE training SET rounds = ?, curve = ?, state = ? WHERE order_id = ?",
        rounds,
        json.dumps(spent),
        SPENT if rounds else RETURNED,
        order.id,
    )
    desk.record(
        tx,
        PrivacySettled(
            order=order.id,
            outcome="spent" if rounds else "returned",
            question=None,
            rounds=rounds,
            at=desk.now(tx),
        ),
    )


def _charged(tx: Transaction, order: OrderRow, rounds: int) -> int:
    """Return of how many rounds a candidate was charged, whatever became of it."""
    charged = {row["crossing"] for row in tx.execute("SELECT crossing FROM charge WHERE order_id = ?", order.id)}
    slots = range(rounds) if charged else ()
    return sum(crossing_id(order.id, Kind.MODEL_UPDATE, order.peer, slot) in charged for slot in slots)


def _private(order: Order) -> TrainingPlan | None:
    return order.training if order.training is not None and order.training.privacy is not None else None
