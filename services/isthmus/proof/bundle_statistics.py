"""The verifier's room for answers: what each may have cost the vehicles, and that the whole stayed within the budget.

1. A reservation is of one accepted order that asks a question under differential privacy, at its epsilon and delta,
   and its curve means no more than that epsilon at that delta: through its divergences, or, where it is the straight
   line of Gaussian noise, by the loss distribution of that noise (`proof.loss`), which is in closed form.
2. A question is settled once. What was spent had been reserved; a repeat is of a question that was answered before, in
   its mode and at its epsilon and delta; what comes back without an answer is of an order whose keys never went out.
3. What is reserved and spent, added up by the Renyi filter (`proof.accounting`), never exceeds the genesis' budget.
4. An answer left only after its question was settled, protected as its order says; one under differential privacy
   tells no number of contributors.

A verifier sees the curve that a border charged, and not the noise that it drew: that the two belong together is the
border's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Check, Kind
from isthmus.contracts.evidence import Examined, FindingCode
from isthmus.contracts.ledger import Log, PrivacyReserved, PrivacySettled
from isthmus.contracts.queries import Mode
from isthmus.proof import accounting
from isthmus.proof.ids import question_about

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.identifiers import Digest, OrderId
    from isthmus.contracts.queries import QueryPlan
    from isthmus.proof.accounting import Curve
    from isthmus.proof.bundle_crossings import Crossing
    from isthmus.proof.bundle_findings import Book
    from isthmus.proof.bundle_ledgers import Ledger
    from isthmus.proof.bundle_orders import Diary

PROTECTION: Mapping[Mode, tuple[Check, str]] = {
    Mode.DP: (Check.NOISED, "differential_privacy"),
    Mode.DISCLOSURE_CONTROLLED: (Check.DISCLOSURE_CONTROLLED, "disclosure_control"),
}
"""For each mode, the check and the privacy event of an answer."""


def check(book: Book, ledger: Ledger, diary: Diary, crossings: Iterable[Crossing]) -> None:
    """Check a site's reservations, settlements and answers."""
    _Account(book, ledger, diary).read()
    for c in crossings:
        order = ledger.orders.get(c.manifest.order)
        if c.sent and c.manifest.kind is Kind.AGGREGATE and order is not None and order.query is not None:
            _check_answer(book, diary, c, order.query)


def protected(manifest: Manifest, plan: QueryPlan) -> bool:
    """Tell whether an answer says that it was protected as its order wants it."""
    check_, mechanism = PROTECTION[plan.mode]
    done = {(event.mechanism, event.parameter, event.enforced_by) for event in manifest.privacy}
    bounded = ("contribution_bound", plan.spec.rows_per_vehicle, "zone") in done
    if plan.mode is Mode.DP:
        return bounded and check_ in manifest.checks and (mechanism, plan.epsilon_micro, "border") in done
    return bounded and check_ in manifest.checks and any(m == mechanism and by == "border" for m, _, by in done)


class _Account:
    """One population's budget, entry by entry."""

    def __init__(self, book: Book, ledger: Ledger, diary: Diary) -> None:
        self._book = book
        self._ledger = ledger
        self._diary = diary
        self._touched = {keys.order for _, keys in diary.keys}
        self._used = accounting.zero()
        self._reserved: dict[OrderId, Curve] = {}
        self._settled: set[OrderId] = set()
        self._answered: set[tuple[Digest, Mode, int, int]] = set()

    def read(self) -> None:
        for index, entry in enumerate(self._ledger.internal):
            if isinstance(entry, PrivacyReserved):
                self._reserve(index, entry)
            elif isinstance(entry, PrivacySettled):
                self._settle(index, entry)

    def _reserve(self, index: int, entry: PrivacyReserved) -> None:
        self._book.count(Examined.QUESTIONS)
        order = self._ledger.orders.get(entry.order)
        opened = self._diary.accepted.get(entry.order)
        plan = order.query if order else None
        asked = plan is not None and (plan.mode, plan.epsilon_micro, plan.delta_exponent) == (
            Mode.DP,
            entry.epsilon_micro,
            entry.delta_exponent,
        )
        if opened is None or opened[0] > index or not asked or entry.order in self._reserved:
            self._disagrees(index, "it is of no accepted order that asks this question, or of one that has reserved")
        if len(entry.curve) != len(accounting.ALPHAS) or not any(entry.curve):
            self._disagrees(index, "it does not say what the answer costs at every order of divergence")
            return
        if not accounting.keeps(entry.curve, entry.epsilon_micro, entry.delta_exponent):
            self._disagrees(index, "its curve means more than its epsilon")
        self._reserved[entry.order] = entry.curve
        self._used = accounting.add(self._used, entry.curve)
        budget = self._ledger.genesis.privacy if self._ledger.genesis else None
        if budget is None or accounting.spent_micro(self._used, budget) > budget.epsilon_micro:
            detail = "with it, answers may cost more than the genesis allows"
            self._find(FindingCode.PRIVACY_OVERSPENT, index, detail)

    def _settle(self, index: int, entry: PrivacySettled) -> None:
        order = self._ledger.orders.get(entry.order)
        if (
            order is None
            or order.query is None
            or entry.question != question_about(order)
            or entry.order in self._settled
        ):
            self._disagrees(index, "it settles no question of this ledger, or one that was settled before")
            return
        self._settled.add(entry.order)
        plan = order.query
        asked = (entry.question, plan.mode, plan.epsilon_micro, plan.delta_exponent)
        if entry.outcome == "spent":
            if plan.mode is Mode.DP and entry.order not in self._reserved:
                self._disagrees(index, "what was spent had not been reserved")
            self._answered.add(asked)
            return
        if entry.outcome == "repeated" and asked not in self._answered:
            self._disagrees(index, "it repeats an answer that was never paid for")
        if (curve := self._reserved.get(entry.order)) is not None:
            if entry.outcome == "returned" and entry.order in self._touched:
                self._disagrees(index, "what it reserved came back though its keys had gone out")
                return
            self._used = accounting.subtract(self._used, curve)

    def _disagrees(self, index: int, detail: str) -> None:
        self._find(FindingCode.PRIVACY_DISAGREES, index, detail)

    def _find(self, code: FindingCode, index: int, detail: str) -> None:
        self._book.find(code, detail, site=self._ledger.site, log=Log.INTERNAL, index=index)


def _check_answer(book: Book, diary: Diary, c: Crossing, plan: QueryPlan) -> None:
    """Check that an answer left after its question was settled, as protected as it had to be."""
    released = diary.released(c.id)
    settled = diary.settled.get(c.manifest.order)
    if settled is None or settled[1].outcome == "returned" or released is None or settled[0] > released:
        detail = "its question was not settled before it left"
        book.find(FindingCode.PRIVACY_DISAGREES, detail, site=c.ledger, log=Log.CROSSINGS, index=c.index, crossing=c.id)
    if (plan.mode is Mode.DP) != (c.manifest.contributors is None):
        detail = "it tells a number of contributors, or fails to, against its mode"
        book.find(FindingCode.CHECKS_MISSING, detail, site=c.ledger, log=Log.CROSSINGS, index=c.index, crossing=c.id)
