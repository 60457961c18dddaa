"""The verifier's third room: what each border decided inside, and that orders, keys and budget agree with it.

1. What was sent was drafted with the same sealed bytes and then decided to be released, once, and never rejected.
   What was decided to be released or about something that came in stands in the crossings log.
2. An order's id is the digest of its body (`bundle_terms` reads it). An order accepted is an entry of its own, within
   the genesis' quotas.
3. Keys go out for an accepted, open order alone, and to chips of the classes that the genesis permits.
4. Every charge is in an entry, of a draft or of a decision. What is charged to an order covers each release, stays
   within what it reserved, and is to the bit what its closing says.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isthmus.contracts.crossings import RELEASES, Kind
from isthmus.contracts.evidence import Examined, FindingCode
from isthmus.contracts.ledger import (
    Approved,
    Decided,
    Drafted,
    KeysReleased,
    LinkHalted,
    Log,
    OrderAccepted,
    OrderClosed,
    PeerRefused,
    PrivacySettled,
    Rejected,
    SnapshotFrozen,
)

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import CrossingId, Digest, OrderId, SiteId
    from isthmus.contracts.ledger import InternalEntry
    from isthmus.contracts.roster import Quotas
    from isthmus.proof.bundle_crossings import Crossing
    from isthmus.proof.bundle_findings import Book
    from isthmus.proof.bundle_ledgers import Ledger


@dataclass(slots=True)
class Diary:
    """One internal log, by what its entries are about. Numbers are indices in the log."""

    drafted: defaultdict[CrossingId, list[tuple[int, Drafted]]] = field(default_factory=lambda: defaultdict(list))
    decided: defaultdict[CrossingId, list[tuple[int, Decided]]] = field(default_factory=lambda: defaultdict(list))
    charges: defaultdict[OrderId, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    rejected: set[CrossingId] = field(default_factory=set)
    accepted: dict[OrderId, tuple[int, OrderAccepted]] = field(default_factory=dict)
    closed: dict[OrderId, tuple[int, OrderClosed]] = field(default_factory=dict)
    keys: list[tuple[int, KeysReleased]] = field(default_factory=list)
    approved: list[tuple[int, Approved]] = field(default_factory=list)
    frozen: dict[Digest, tuple[int, SnapshotFrozen]] = field(default_factory=dict)
    settled: dict[OrderId, tuple[int, PrivacySettled]] = field(default_factory=dict)

    def released(self, crossing: CrossingId) -> int | None:
        """Return where a crossing was decided to be released, None where that was not, or not just once."""
        found = [i for i, d in self.decided.get(crossing, ()) if d.direction == "out" and d.outcome == "release"]
        return found[0] if len(found) == 1 else None

    def paid(self, crossing: CrossingId) -> int:
        """Return what was charged for a crossing's candidates."""
        drafts = sum(d.spent_bits for _, d in self.drafted.get(crossing, ()))
        return drafts + sum(d.spent_bits for _, d in self.decided.get(crossing, ()))


def read(book: Book, ledger: Ledger) -> Diary:
    """Sort a site's internal entries; report halts and refused peers; find what stands twice."""
    diary = Diary()
    for index, entry in enumerate(ledger.internal):
        match entry:
            case OrderAccepted() | OrderClosed():
                if not _order_noted(diary, index, entry):
                    _find(book, FindingCode.ORDER_DIFFERS, ledger, index, "an order opens or closes out of turn")
            case LinkHalted():
                _find(book, FindingCode.LINK_HALTED, ledger, index, f"the link to {entry.peer}: {entry.code.value}")
            case PeerRefused():
                _find(book, FindingCode.PEER_REFUSED, ledger, index, f"from {entry.peer}: {entry.code.value}")
            case _:
                _note(diary, index, entry)
    return diary


def check_decisions(book: Book, ledger: Ledger, diary: Diary, crossings: tuple[Crossing, ...]) -> None:
    """Check that each crossing of the log was decided, and each decision to let one pass stands in the log."""
    sent = {c.id for c in crossings if c.sent}
    received = {c.id for c in crossings if not c.sent}
    orders = {id_: drafts[0][1].order for id_, drafts in diary.drafted.items()}
    orders |= {c.id: c.manifest.order for c in crossings}
    for crossing in crossings:
        book.count(Examined.DECISIONS)
        if crossing.sent:
            _check_sent(book, diary, crossing)
        else:
            _check_received(book, diary, crossing)
    for id_, entries in diary.decided.items():
        for index, decided in entries:
            unlogged = decided.outcome == "release" and id_ not in sent
            if unlogged or (decided.direction == "in" and id_ not in received):
                detail = "it was decided, and does not stand in the crossings log"
                _find(book, FindingCode.CROSSING_UNLOGGED, ledger, index, detail, id_)
            if orders.get(id_, decided.order) != decided.order:
                _find(book, FindingCode.ORDER_DIFFERS, ledger, index, "it is of another order than its crossing", id_)


def check_orders(book: Book, ledger: Ledger, diary: Diary, crossings: tuple[Crossing, ...]) -> None:
    """Check orders, and the keys released under them."""
    known: dict[OrderId, Crossing] = {}
    for c in crossings:
        if c.manifest.kind is Kind.ORDER:
            _check_order(book, diary, c)
            known.setdefault(c.manifest.order, c)
        else:
            _check_belongs(book, known.get(c.manifest.order), c)
    taken = {o for o, c in known.items() if c.entry.verdict == "accepted"}
    for order in diary.accepted.keys() - taken:
        index = diary.accepted[order][0]
        _find(book, FindingCode.ORDER_NOT_ACCEPTED, ledger, index, "an order was entered that no crossing brought")
    for index, keys in diary.keys:
        book.count(Examined.KEY_RELEASES)
        opened, closed = diary.accepted.get(keys.order), diary.closed.get(keys.order)
        if opened is None or opened[0] > index or (closed is not None and closed[0] < index):
            _find(book, FindingCode.KEYS_WITHOUT_ORDER, ledger, index, "keys went out without an open order")
        if ledger.genesis is not None and not set(keys.accelerators) <= set(ledger.genesis.accelerators):
            detail = "keys went to chips of a class that the genesis does not permit"
            _find(book, FindingCode.ACCELERATOR_NOT_PERMITTED, ledger, index, detail)


def check_budgets(book: Book, ledger: Ledger, diary: Diary, crossings: tuple[Crossing, ...]) -> None:
    """Check what was reserved for orders and charged to them, and that it pays for every release."""
    for c in crossings:
        if c.sent and c.manifest.kind in RELEASES and diary.paid(c.id) < c.manifest.information_bits:
            _at(book, FindingCode.BUDGET_DISAGREES, c, "it says more bits than it was charged")
    for order in diary.accepted:
        _check_budget(book, ledger, diary, order)
    for order in diary.charges.keys() - diary.accepted.keys():
        index = diary.charges[order][0][0]
        _find(book, FindingCode.BUDGET_DISAGREES, ledger, index, "it is charged to no order of this ledger")
    if ledger.genesis is not None:
        _check_quotas(book, ledger, diary, ledger.genesis.quotas)


def _order_noted(diary: Diary, index: int, entry: OrderAccepted | OrderClosed) -> bool:
    """Note that an order opens or closes; False where it has done so, or closes before it opens."""
    if isinstance(entry, OrderAccepted):
        return diary.accepted.setdefault(entry.order, (index, entry))[0] == index
    return entry.order in diary.accepted and diary.closed.setdefault(entry.order, (index, entry))[0] == index


def _note(diary: Diary, index: int, entry: InternalEntry | None) -> None:
    match entry:
        case Drafted():
            diary.drafted[entry.crossing].append((index, entry))
            _charge(diary, index, entry)
        case Decided():
            diary.decided[entry.crossing].append((index, entry))
            _charge(diary, index, entry)
        case Rejected():
            diary.rejected.add(entry.crossing)
        case KeysReleased():
            diary.keys.append((index, entry))
        case Approved():
            diary.approved.append((index, entry))
        case PrivacySettled():
            diary.settled.setdefault(entry.order, (index, entry))
        case SnapshotFrozen():
            diary.frozen.setdefault(entry.commitment, (index, entry))
        case _:
            pass


def _charge(diary: Diary, index: int, entry: Drafted | Decided) -> None:
    if entry.spent_bits:
        diary.charges[entry.order].append((index, entry.spent_bits))


def _check_sent(book: Book, diary: Diary, c: Crossing) -> None:
    """Check that a crossing was drafted with these bytes, then released, and not refused in between."""
    drafts, released = diary.drafted.get(c.id), diary.released(c.id)
    if not drafts or drafts[-1][1].sealed != c.manifest.payload.digest or drafts[-1][1].order != c.manifest.order:
        _at(book, FindingCode.DRAFT_MISSING, c, "no last draft has these sealed bytes and this order")
        return
    refused = [i for i, d in diary.decided.get(c.id, ()) if d.outcome == "refuse" and d.direction == "out"]
    if released is None or released < drafts[-1][0] or any(drafts[-1][0] < i < released for i in refused):
        _at(book, FindingCode.DECISION_MISSING, c, "its last draft was not followed by one decision to release it")
    if c.id in diary.rejected:
        _at(book, FindingCode.RELEASED_AFTER_REJECTION, c, "an officer rejected it")


def _check_received(book: Book, diary: Diary, c: Crossing) -> None:
    """Check that what came in was decided once, as the entry says."""
    decided = [(d.outcome, d.code) for _, d in diary.decided.get(c.id, ()) if d.direction == "in"]
    outcome = "accept" if c.entry.verdict == "accepted" else "refuse"
    if decided != [(outcome, c.entry.code)]:
        _at(book, FindingCode.DECISION_MISSING, c, "the internal log does not hold this one decision")


def _check_order(book: Book, diary: Diary, c: Crossing) -> None:
    """Check an order crossing: its id, and in the ledger that accepted it, its own entry."""
    book.count(Examined.ORDERS)
    manifest = c.manifest
    if manifest.plaintext != str(manifest.order) or manifest.slot != 0:
        _at(book, FindingCode.ORDER_ID_MISMATCH, c, "its id is not the digest of its body")
    if c.entry.verdict != "accepted":
        return
    _, accepted = diary.accepted.get(manifest.order, (0, None))
    if accepted is None or (accepted.job, accepted.peer) != (manifest.job, manifest.sender):
        _at(book, FindingCode.ORDER_NOT_ACCEPTED, c, "the internal log has no such order of this job and peer")


def _check_belongs(book: Book, order: Crossing | None, c: Crossing) -> None:
    """Check that a crossing belongs to an order that stands earlier in the same ledger, between the same sites.

    What the receiver refused may belong to none: that is a reason to refuse.
    """
    if c.entry.verdict == "refused":
        return
    manifest = c.manifest
    if order is None or order.entry.verdict == "refused":
        _at(book, FindingCode.ORDER_UNKNOWN, c, "no order of this ledger asks for it")
        return
    asked = order.manifest
    same = (manifest.job, manifest.purpose, {manifest.sender, manifest.recipient}) == (
        asked.job,
        asked.purpose,
        {asked.sender, asked.recipient},
    )
    downward = manifest.kind is Kind.MODEL
    if not same or (downward and manifest.sender != asked.sender) or manifest.expires_at > asked.expires_at:
        _at(book, FindingCode.ORDER_DIFFERS, c, "job, purpose, sites or expiry are not those of its order")


def _check_budget(book: Book, ledger: Ledger, diary: Diary, order: OrderId) -> None:
    """Check an order's charges against its reservation and its closing."""
    opened, accepted = diary.accepted[order]
    charges = diary.charges.get(order, [])
    spent = sum(bits for _, bits in charges)
    if spent > accepted.reserved_bits:
        detail = f"{spent} bits were charged, {accepted.reserved_bits} were reserved"
        _find(book, FindingCode.BUDGET_OVERSPENT, ledger, opened, detail)
    if order not in diary.closed:
        return
    closing, closed = diary.closed[order]
    stated = (closed.spent_bits, closed.spent_bits + closed.returned_bits)
    if stated != (spent, accepted.reserved_bits) or any(i > closing for i, _ in charges):
        detail = "the closing does not agree with the charges and the reservation"
        _find(book, FindingCode.BUDGET_DISAGREES, ledger, closing, detail)


def _check_quotas(book: Book, ledger: Ledger, diary: Diary, quotas: Quotas) -> None:
    """Go through openings and closings in order, and hold each peer to what the genesis lets it ask for."""
    steps = [(i, a.peer, 1, 1, a.reserved_bits, a.reserved_bits) for i, a in diary.accepted.values()]
    steps += [
        (i, diary.accepted[order][1].peer, -1, 0, c.spent_bits - diary.accepted[order][1].reserved_bits, 0)
        for order, (i, c) in diary.closed.items()
    ]
    use: defaultdict[SiteId, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for index, peer, is_open, order, bits, reserved in sorted(steps):
        opened, orders, total = use[peer]
        use[peer] = (opened, orders, total) = (opened + is_open, orders + order, total + bits)
        if (
            opened > quotas.open_orders_per_peer
            or orders > quotas.orders_per_peer
            or reserved > quotas.information_bits_per_order
            or total > quotas.information_bits_per_peer
        ):
            _find(book, FindingCode.QUOTA_EXCEEDED, ledger, index, f"{peer} asked for more than the genesis allows")


def _find(
    book: Book, code: FindingCode, ledger: Ledger, index: int, detail: str, crossing: CrossingId | None = None
) -> None:
    book.find(code, detail, site=ledger.site, log=Log.INTERNAL, index=index, crossing=crossing)


def _at(book: Book, code: FindingCode, c: Crossing, detail: str) -> None:
    book.find(code, detail, site=c.ledger, log=Log.CROSSINGS, index=c.index, crossing=c.id)
