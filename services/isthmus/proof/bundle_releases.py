"""The verifier's fourth room: what left a zone was asked for, approved and named; what went on was allowed to.

1. A release answers an order that its zone accepted and had not closed, and goes to whoever gave it.
2. Before it was released, officers of at least two organisations of the zone's roster had signed one statement that
   covers it (`proof.approvals`). A statement of anyone who is an engineer in any genesis counts for nothing.
3. It says which frozen snapshot it was made from, its order's; what was checked of it; and whose data it holds: the
   zone's.
4. A model holds the data of every release its sender had accepted for the job, of its named inputs, and of an equal
   model sent before; it goes only where all of these may go.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.bands import VEHICLE_BAND, WINDOW_BAND
from isthmus.contracts.crossings import RELEASES, Check, Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.evidence import Examined, FindingCode
from isthmus.contracts.ledger import Log
from isthmus.contracts.queries import Mode
from isthmus.contracts.roster import PersonRole
from isthmus.proof import approvals, bundle_budget, canonical, signing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.contracts.approvals import Approval, StandingApproval
    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.identifiers import CrossingId, Digest, JobId, OrderId, OrganisationId, SiteId
    from isthmus.contracts.ledger import Approved
    from isthmus.contracts.roster import Genesis
    from isthmus.proof.bundle_crossings import Crossing
    from isthmus.proof.bundle_findings import Book
    from isthmus.proof.bundle_ledgers import Ledger
    from isthmus.proof.bundle_orders import Diary

CHECKS: Mapping[Kind, frozenset[Check]] = {
    Kind.MODEL_UPDATE: frozenset({Check.SCHEMA, Check.FINITE, Check.CLIPPED, Check.CONTRIBUTORS}),
    Kind.AGGREGATE: frozenset({Check.SCHEMA, Check.BANDED, Check.CONTRIBUTORS}),
}
"""What a release of a kind must have been checked for."""

PRIVATE = frozenset({Check.SCHEMA, Check.FINITE, Check.CLIPPED, Check.NOISED})
"""What an update of a private training must have been checked for. How many stand behind it is told to nobody."""

CONTROLLED = frozenset({Check.SCHEMA, Check.DISCLOSURE_CONTROLLED, Check.CONTRIBUTORS})
"""What an answer must have been checked for that differential privacy does not protect."""

ORGANISATIONS = 2


@dataclass(frozen=True, slots=True)
class Vote:
    """One officer's statement, verified."""

    index: int
    organisation: OrganisationId
    body: StandingApproval | Approval


Votes = defaultdict["Digest", list[Vote]]
"""Statements by digest, with everyone who signed each."""


@dataclass(frozen=True, slots=True)
class Engineers:
    """Whoever is an engineer in any genesis, by id and by key."""

    persons: frozenset[str]
    keys: frozenset[str]


def engineers(geneses: Iterable[Genesis]) -> Engineers:
    """Collect the engineers of all geneses."""
    found = [p for genesis in geneses for p in genesis.roster.persons if PersonRole.ENGINEER in p.roles]
    return Engineers(frozenset(p.id for p in found), frozenset(p.key.keyid for p in found if p.key))


def read_votes(book: Book, ledger: Ledger, diary: Diary, nobody: Engineers) -> Votes:
    """Verify every approval of a site's internal log; return those that count."""
    votes: Votes = defaultdict(list)
    for index, entry in diary.approved:
        book.count(Examined.APPROVALS)
        try:
            vote = _vote(ledger, index, entry, nobody)
        except Refusal as refusal:
            engineer = refusal.code is Code.FORBIDDEN
            code = FindingCode.APPROVAL_BY_ENGINEER if engineer else FindingCode.APPROVAL_INVALID
            detail = "an engineer signed it" if engineer else "it is not what an officer of the roster signed"
            book.find(code, detail, site=ledger.site, log=Log.INTERNAL, index=index)
        else:
            votes[entry.statement].append(vote)
    return votes


def check_releases(book: Book, ledger: Ledger, diary: Diary, votes: Votes, crossings: tuple[Crossing, ...]) -> None:
    """Check every release of a site."""
    earlier: defaultdict[tuple[OrderId, Kind], int] = defaultdict(int)
    for c in crossings:
        kind = c.manifest.kind
        if not c.sent or kind not in RELEASES:
            continue
        book.count(Examined.RELEASES)
        _check_asked_for(book, diary, c)
        _check_told(book, ledger, diary, c)
        _check_approved(book, ledger, diary, votes, c, earlier[c.manifest.order, kind])
        earlier[c.manifest.order, kind] += 1


def check_models(book: Book, crossings: tuple[Crossing, ...]) -> None:
    """Check the lineage and the recipients of every model a site sent, in the order of its ledger."""
    by_job: defaultdict[JobId, Origin] = defaultdict(Origin)
    by_id: dict[CrossingId, Manifest] = {}
    by_model: defaultdict[Digest, Origin] = defaultdict(Origin)
    for c in crossings:
        manifest = c.manifest
        if c.entry.verdict == "accepted" and manifest.kind in RELEASES:
            by_job[manifest.job].add(manifest)
            by_id[c.id] = manifest
        elif c.sent and manifest.kind is Kind.MODEL and manifest.plaintext is not None:
            book.count(Examined.MODELS)
            _check_model(book, c, by_id, (by_job[manifest.job], by_model[manifest.plaintext]))
            by_model[manifest.plaintext].add(manifest)


class Origin:
    """Whose data something holds, and where all of its contributors let it go."""

    def __init__(self) -> None:
        self.lineage: set[SiteId] = set()
        self.named: set[SiteId] | None = None

    def add(self, manifest: Manifest) -> None:
        """Add what a crossing brings in. One without lineage holds nobody's data and binds nothing."""
        if manifest.lineage:
            self.lineage |= set(manifest.lineage)
            self.named = set(manifest.recipients) if self.named is None else self.named & set(manifest.recipients)


def _check_model(book: Book, c: Crossing, releases: Mapping[CrossingId, Manifest], origins: Iterable[Origin]) -> None:
    whole = Origin()
    for origin in origins:
        whole.lineage |= origin.lineage
        if origin.named is not None:
            whole.named = origin.named if whole.named is None else whole.named & origin.named
    for crossing in c.manifest.inputs:
        if crossing not in releases:
            _at(book, FindingCode.LINEAGE_INCOMPLETE, c, "it names an input that its sender had not accepted")
        else:
            whole.add(releases[crossing])
    if not whole.lineage <= set(c.manifest.lineage):
        missing = ", ".join(sorted(whole.lineage - set(c.manifest.lineage))[:8])
        _at(book, FindingCode.LINEAGE_INCOMPLETE, c, f"it holds data of {missing} and does not say so")
    if whole.named is not None and not set(c.manifest.recipients) | {c.manifest.recipient} <= whole.named:
        _at(book, FindingCode.RECIPIENT_NOT_NAMED, c, "it may go where a release in it was not to go")


def _vote(ledger: Ledger, index: int, entry: Approved, nobody: Engineers) -> Vote:
    """Verify one approval.

    Raises:
        Refusal: it does not count; `FORBIDDEN` where an engineer signed it.
    """
    envelope = entry.envelope.encode()
    if entry.person in nobody.persons or signing.parse_envelope(envelope).keyid in nobody.keys:
        raise Refusal(Code.FORBIDDEN, "Whoever submits jobs approves nothing.")
    if ledger.genesis is None:
        raise Refusal(Code.APPROVAL_INVALID, "Without a genesis nobody is an officer.")
    person, payload_type, payload = approvals.signer(envelope, ledger.genesis.roster)
    body = approvals.statement(payload_type, payload)
    if person.id != entry.person or canonical.digest(body) != entry.statement:
        raise Refusal(Code.APPROVAL_INVALID, "The entry names another person or statement than was signed.")
    return Vote(index, person.organisation, body)


def _check_asked_for(book: Book, diary: Diary, c: Crossing) -> None:
    """Check a release against the order that its zone accepted."""
    manifest, released = c.manifest, diary.released(c.id)
    opened, order = diary.accepted.get(manifest.order, (0, None))
    closed = diary.closed.get(manifest.order)
    drafts = diary.drafted.get(c.id)
    if order is None or order.job != manifest.job or (drafts and drafts[0][0] < opened):
        _at(book, FindingCode.ORDER_UNKNOWN, c, "its zone had accepted no such order before it was drafted")
        return
    if manifest.recipient != order.peer:
        _at(book, FindingCode.RECIPIENT_NOT_NAMED, c, f"it goes to {manifest.recipient}, {order.peer} asked for it")
    late = closed is not None and released is not None and closed[0] < released
    if late or max(manifest.issued_at, c.entry.at) > manifest.expires_at:
        _at(book, FindingCode.ORDER_OVER, c, "it was released after its order was closed or had expired")


def _check_told(book: Book, ledger: Ledger, diary: Diary, c: Crossing) -> None:
    """Check what a release says of its data: snapshot, checks, contributors, lineage."""
    manifest, drafts = c.manifest, diary.drafted.get(c.id)
    frozen = [diary.frozen.get(commitment) for commitment in manifest.commitments]
    order = ledger.orders.get(manifest.order)
    named = (order.dataset.dataset, order.dataset.snapshot) if order else None
    if not frozen or any(
        f is None or (drafts and f[0] > drafts[0][0]) or (f[1].dataset, f[1].snapshot) != named for f in frozen
    ):
        _at(book, FindingCode.DATASET_NOT_FROZEN, c, "it was not made from its order's snapshot, frozen before")
    if manifest.lineage != (c.ledger,):
        _at(book, FindingCode.LINEAGE_INCOMPLETE, c, "its lineage is not its zone")
    if order is not None and order.query is not None and order.query.mode is Mode.DP:
        return  # its protection is noise (`bundle_terms`, `bundle_statistics`)
    if manifest.kind is Kind.MODEL_UPDATE and bundle_budget.private(order) is not None:
        if manifest.contributors is not None or not set(manifest.checks) >= PRIVATE:
            _at(book, FindingCode.CHECKS_MISSING, c, "checks are missing, or it tells a number of contributors")
        return
    contributors = manifest.contributors
    banded = (
        contributors is not None
        and contributors.vehicles >= VEHICLE_BAND
        and contributors.vehicles % VEHICLE_BAND == 0
        and contributors.windows >= WINDOW_BAND
        and contributors.windows % WINDOW_BAND == 0
    )
    wanted = CHECKS.get(manifest.kind, frozenset())
    if order is not None and order.query is not None:
        wanted = CONTROLLED
    if not banded or not wanted <= set(manifest.checks):
        _at(book, FindingCode.CHECKS_MISSING, c, "checks are missing, or its contributors are not banded")


def _check_approved(book: Book, ledger: Ledger, diary: Diary, votes: Votes, c: Crossing, earlier: int) -> None:
    """Check that two organisations had signed one statement that covers a release, before it was released."""
    released, order = diary.released(c.id), ledger.orders.get(c.manifest.order)
    if order is not None and order.query is not None and order.query.mode is Mode.DP:
        return  # what it may cost was agreed on in the genesis
    now = max(c.manifest.issued_at, c.entry.at)
    organisations = 0
    for statement in c.manifest.approvals:
        signed = [v for v in votes.get(statement, ()) if released is not None and v.index < released]
        if not signed:
            _at(book, FindingCode.APPROVAL_MISSING, c, "it names an approval that nobody had given before")
            continue
        if order is None or not approvals.covers(signed[0].body, c.manifest, order, earlier, now):
            _at(book, FindingCode.APPROVAL_NOT_COVERING, c, "an approval that it names does not cover it")
            continue
        organisations = max(organisations, len({v.organisation for v in signed}))
    if organisations < ORGANISATIONS:
        detail = f"officers of {organisations} organisations approved it, {ORGANISATIONS} are needed"
        _at(book, FindingCode.TOO_FEW_ORGANISATIONS, c, detail)


def _at(book: Book, code: FindingCode, c: Crossing, detail: str) -> None:
    book.find(code, detail, site=c.ledger, log=Log.CROSSINGS, index=c.index, crossing=c.id)
