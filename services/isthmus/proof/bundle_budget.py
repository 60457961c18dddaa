"""The verifier's room for the vehicles' budget: what answers and private trainings reserved, spent and gave back.

1. A reservation is of one accepted order that asks a question under differential privacy, or trains under it, at its
   epsilon and delta, and its curve means no more than that epsilon at that delta: through its divergences, or, where it
   is the straight line of Gaussian noise, by the loss distribution of that noise (`proof.loss`), in closed form.
2. A question is settled once. What was spent had been reserved; a repeat is of a question that was answered before, in
   its mode and at its epsilon and delta; what comes back without an answer is of an order whose keys never went out.
3. A private training reserves before its keys go out, and is settled when it closes. It pays for every round whose
   update was charged, and for the next one, since that it is missing may depend on data; all comes back where no keys
   went out and no update was charged.
4. What is reserved and spent, added up by the Renyi filter (`proof.accounting`), never exceeds the genesis' budget.

A verifier sees the curve that a border charged, and not the noise that it drew: that the two belong together is the
border's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Kind
from isthmus.contracts.evidence import Examined, FindingCode
from isthmus.contracts.ledger import Log, PrivacyReserved, PrivacySettled
from isthmus.contracts.queries import Mode
from isthmus.proof import accounting
from isthmus.proof.ids import crossing_id, question_about

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import Digest, OrderId
    from isthmus.contracts.orders import Order, TrainingPlan
    from isthmus.contracts.queries import QueryPlan
    from isthmus.proof.accounting import Curve
    from isthmus.proof.bundle_findings import Book
    from isthmus.proof.bundle_ledgers import Ledger
    from isthmus.proof.bundle_orders import Diary


def check(book: Book, ledger: Ledger, diary: Diary) -> None:
    """Check a site's reservations and settlements, in the order of its log."""
    account = _Account(book, ledger, diary)
    account.read()
    account.close()


def private(order: Order | None) -> TrainingPlan | None:
    """Return the plan of an order that trains under differential privacy, None where it does not."""
    training = order.training if order is not None else None
    return training if training is not None and training.privacy is not None else None


class _Account:
    """One population's budget, entry by entry."""

    def __init__(self, book: Book, ledger: Ledger, diary: Diary) -> None:
        self._book = book
        self._ledger = ledger
        self._diary = diary
        self._touched: dict[OrderId, int] = {}
        for index, keys in diary.keys:
            self._touched.setdefault(keys.order, index)
        self._used = accounting.zero()
        self._reserved: dict[OrderId, Curve] = {}
        self._settled: set[OrderId] = set()
        self._answered: set[tuple[Digest, Mode, int, int]] = set()

    def read(self) -> None:
        """Go through the log."""
        for index, entry in enumerate(self._ledger.internal):
            if isinstance(entry, PrivacyReserved):
                self._reserve(index, entry)
            elif isinstance(entry, PrivacySettled):
                self._settle(index, entry)

    def close(self) -> None:
        """Hold each private training that was accepted to a reservation, and each that was closed to a settlement."""
        for id_, (index, _) in self._diary.accepted.items():
            if private(self._ledger.orders.get(id_)) is None:
                continue
            if id_ not in self._reserved:
                self._disagrees(index, "it trains under differential privacy, and reserved nothing for that")
            if id_ in self._diary.closed and id_ not in self._settled:
                self._disagrees(self._diary.closed[id_][0], "it closed, and what its updates cost was not settled")

    def _reserve(self, index: int, entry: PrivacyReserved) -> None:
        order = self._ledger.orders.get(entry.order)
        self._book.count(Examined.QUESTIONS if private(order) is None else Examined.TRAININGS)
        opened = self._diary.accepted.get(entry.order)
        asked = _promise(order) == (entry.epsilon_micro, entry.delta_exponent)
        if opened is None or opened[0] > index or not asked or entry.order in self._reserved:
            detail = "it is of no accepted order that asks or trains for this, or of one that has reserved"
            self._disagrees(index, detail)
        if private(order) is not None and self._touched.get(entry.order, index) < index:
            self._disagrees(index, "keys of this training had gone out before")
        if len(entry.curve) != len(accounting.ALPHAS) or not any(entry.curve):
            self._disagrees(index, "it does not say what it costs at every order of divergence")
            return
        if not accounting.keeps(entry.curve, entry.epsilon_micro, entry.delta_exponent):
            self._disagrees(index, "its curve means more than its epsilon")
        self._reserved[entry.order] = entry.curve
        self._used = accounting.add(self._used, entry.curve)
        budget = self._ledger.genesis.privacy if self._ledger.genesis else None
        if budget is None or accounting.spent_micro(self._used, budget) > budget.epsilon_micro:
            detail = "with it, answers and trainings may cost more than the genesis allows"
            self._find(FindingCode.PRIVACY_OVERSPENT, index, detail)

    def _settle(self, index: int, entry: PrivacySettled) -> None:
        order = self._ledger.orders.get(entry.order)
        if order is None or entry.order in self._settled:
            self._disagrees(index, "it settles nothing of this ledger, or what was settled before")
            return
        training = private(order)
        if training is not None and entry.rounds is not None:
            self._settled.add(entry.order)
            self._settle_training(index, entry, order, entry.rounds)
        elif order.query is not None and entry.question == question_about(order):
            self._settled.add(entry.order)
            self._settle_question(index, entry, entry.question, order.query)
        else:
            self._disagrees(index, "it settles another thing than its order asks for")

    def _settle_question(self, index: int, entry: PrivacySettled, question: Digest, plan: QueryPlan) -> None:
        asked = (question, plan.mode, plan.epsilon_micro, plan.delta_exponent)
        if entry.outcome == "spent":
            if plan.mode is Mode.DP and entry.order not in self._reserved:
                self._disagrees(index, "what was spent had not been reserved")
            self._answered.add(asked)
            return
        if entry.outcome == "repeated" and asked not in self._answered:
            self._disagrees(index, "it repeats an answer that was never paid for")
        self._give_back(index, entry)

    def _settle_training(self, index: int, entry: PrivacySettled, order: Order, rounds: int) -> None:
        curve = self._reserved.get(entry.order)
        if curve is None or order.training is None or entry.outcome == "repeated":
            self._disagrees(index, "a training that reserved nothing is settled, or as a repeat")
            return
        planned, charged = order.training.rounds, self._charged(entry.order, order)
        if entry.outcome == "returned" and not charged:
            self._give_back(index, entry)
            return
        least = min(planned, charged + 1) if charged or entry.order in self._touched else 0
        if not least <= rounds <= planned:
            self._disagrees(index, f"{rounds} of {planned} rounds are paid for, and at least {least} have to be")
            return
        self._used = accounting.subtract(
            self._used, accounting.subtract(curve, accounting.paid(curve, rounds, planned))
        )

    def _charged(self, id_: OrderId, order: Order) -> int:
        """Return how many of an order's updates were charged: drafted, or refused for what they were."""
        rounds = order.training.rounds if order.training else 0
        slots = (crossing_id(id_, Kind.MODEL_UPDATE, order.issuer, slot) for slot in range(rounds))
        return sum(crossing in self._diary.drafted or self._diary.paid(crossing) > 0 for crossing in slots)

    def _give_back(self, index: int, entry: PrivacySettled) -> None:
        if (curve := self._reserved.get(entry.order)) is None:
            return
        if entry.outcome == "returned" and entry.order in self._touched:
            self._disagrees(index, "what it reserved came back though its keys had gone out")
            return
        self._used = accounting.subtract(self._used, curve)

    def _disagrees(self, index: int, detail: str) -> None:
        self._find(FindingCode.PRIVACY_DISAGREES, index, detail)

    def _find(self, code: FindingCode, index: int, detail: str) -> None:
        self._book.find(code, detail, site=self._ledger.site, log=Log.INTERNAL, index=index)


def _promise(order: Order | None) -> tuple[int, int] | None:
    """Return the epsilon and the delta that an order's answer or updates may cost, None where nothing is promised."""
    training = private(order)
    if training is not None and training.privacy is not None:
        return training.privacy.epsilon_micro, training.privacy.delta_exponent
    plan = order.query if order is not None else None
    return (plan.epsilon_micro, plan.delta_exponent) if plan is not None and plan.mode is Mode.DP else None
