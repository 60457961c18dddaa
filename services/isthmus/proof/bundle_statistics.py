"""The verifier's room for what differential privacy protects: answers, and the updates of private trainings.

1. An answer left only after its question was settled, protected as its order says; one under differential privacy
   tells no number of contributors.
2. An update of a private training says that each vehicle was clipped in the zone, the sum noised at the border, at the
   norm and the epsilon of its order; it tells no number of contributors. An update of any other order says no such
   thing.

What each cost, and that the whole stayed within the budget, is another room's (`bundle_budget`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Check, Kind
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.ledger import Log
from isthmus.contracts.queries import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.orders import TrainingPlan
    from isthmus.contracts.queries import QueryPlan
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
    """Check a site's answers."""
    for c in crossings:
        order = ledger.orders.get(c.manifest.order)
        if c.sent and c.manifest.kind is Kind.AGGREGATE and order is not None and order.query is not None:
            _check_answer(book, diary, c, order.query)


def protected(manifest: Manifest, plan: QueryPlan) -> bool:
    """Tell whether an answer says that it was protected as its order wants it."""
    check_, mechanism = PROTECTION[plan.mode]
    done = _done(manifest)
    bounded = ("contribution_bound", plan.spec.rows_per_vehicle, "zone") in done
    if plan.mode is Mode.DP:
        return bounded and check_ in manifest.checks and (mechanism, plan.epsilon_micro, "border") in done
    return bounded and check_ in manifest.checks and any(m == mechanism and by == "border" for m, _, by in done)


def update_protected(manifest: Manifest, plan: TrainingPlan | None) -> bool:
    """Tell whether an update says that its vehicles were protected as its order wants it, and claims nothing else."""
    done = _done(manifest)
    if plan is None or plan.privacy is None:
        claimed = {mechanism for mechanism, _, _ in done} & {"differential_privacy", "vehicle_clip"}
        return not claimed and Check.NOISED not in manifest.checks
    wanted = {
        ("vehicle_clip", plan.privacy.vehicle_norm_micro, "zone"),
        ("differential_privacy", plan.privacy.epsilon_micro, "border"),
    }
    return wanted <= done and Check.NOISED in manifest.checks


def _done(manifest: Manifest) -> set[tuple[str, int, str]]:
    return {(event.mechanism, event.parameter, event.enforced_by) for event in manifest.privacy}


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
