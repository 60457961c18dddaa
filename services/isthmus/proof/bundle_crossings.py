"""The verifier's second room: every crossing, as its sender signed it, in both ledgers, with its receipt.

1. An envelope counts when the sender's root key signed it. Its id is that of its order, kind, recipient and slot.
2. Between two sites, sequence numbers run 1, 2, 3 in both ledgers. No id stands twice in a ledger.
3. What its sender logged, its recipient decided, and the other way round: the same bytes. Only the newest of a
   sequence may still be on their way.
4. A receipt is the recipient's signature over what its ledger says, with a proof that holds in that ledger.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.crossings import CROSSING_TYPE, RECEIPT_TYPE, Kind, Manifest, Receipt
from isthmus.contracts.errors import Refusal
from isthmus.contracts.evidence import Examined, FindingCode
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.ledger import Log
from isthmus.proof import canonical, checkpoint, merkle, sealing, signing
from isthmus.proof.bundle_ledgers import check_head
from isthmus.proof.ids import crossing_id, log_name
from isthmus.proof.orders import SENDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isthmus.contracts.identifiers import CrossingId, SiteId
    from isthmus.contracts.keys import HybridKey
    from isthmus.contracts.ledger import CrossingEntry
    from isthmus.contracts.roster import Roots
    from isthmus.proof.bundle_findings import Book
    from isthmus.proof.bundle_ledgers import Ledger


@dataclass(frozen=True, slots=True)
class Crossing:
    """A crossing as it stands in one ledger, its envelope verified."""

    ledger: SiteId
    index: int
    entry: CrossingEntry
    manifest: Manifest

    @property
    def id(self) -> CrossingId:
        """Its id."""
        return self.manifest.crossing

    @property
    def sent(self) -> bool:
        """True in its sender's ledger."""
        return self.entry.verdict == "sent"


Crossings = dict["SiteId", tuple[Crossing, ...]]
"""Each ledger's crossings, in its order."""


class Envelopes:
    """Verifies envelopes by the roots' keys, each once, however often it stands in the bundle."""

    def __init__(self, roots: Roots) -> None:
        self._keys: dict[SiteId, HybridKey] = {root.id: root.signing for root in roots.sites}
        self._known: dict[str, Manifest | FindingCode] = {}

    def manifest(self, envelope: str) -> Manifest | FindingCode:
        """Return the manifest, or what is wrong."""
        if envelope not in self._known:
            self._known[envelope] = self._verified(envelope.encode())
        return self._known[envelope]

    def __len__(self) -> int:
        """Return how many different envelopes were seen."""
        return len(self._known)

    def _verified(self, envelope: bytes) -> Manifest | FindingCode:
        try:
            claimed = canonical.load(Manifest, signing.parse_envelope(envelope).payload)
            key = self._keys.get(claimed.sender)
            if key is None:
                return FindingCode.SENDER_UNKNOWN
            return canonical.load(Manifest, signing.verify(envelope, CROSSING_TYPE, key))
        except Refusal:
            return FindingCode.ENVELOPE_INVALID


def read(book: Book, ledgers: Mapping[SiteId, Ledger], roots: Roots) -> Crossings:
    """Verify every crossing of every ledger on its own."""
    envelopes = Envelopes(roots)
    found = {site: _crossings(book, ledger, envelopes) for site, ledger in ledgers.items()}
    book.count(Examined.ENVELOPES, len(envelopes))
    return found


def check_ledgers(book: Book, ledgers: Mapping[SiteId, Ledger], crossings: Crossings) -> None:
    """Compare each pair of ledgers, and hold each receipt to its receiver's ledger."""
    for site in ledgers:
        _check_repeats(book, site, crossings[site])
        for way in (True, False):
            _check_sequences(book, site, [c for c in crossings[site] if c.sent is way])
    for sender in ledgers:
        for receiver in ledgers.keys() - {sender}:
            _check_pair(book, ledgers[sender], ledgers[receiver], crossings)


def _crossings(book: Book, ledger: Ledger, envelopes: Envelopes) -> tuple[Crossing, ...]:
    found = []
    for index, entry in enumerate(ledger.crossings):
        if entry is None:
            continue
        manifest = envelopes.manifest(entry.envelope)
        if isinstance(manifest, FindingCode):
            detail = "the envelope is not signed by a sender of the roots"
            book.find(manifest, detail, site=ledger.site, log=Log.CROSSINGS, index=index)
            continue
        crossing = Crossing(ledger.site, index, entry, manifest)
        found.append(crossing)
        _check_alone(book, ledger, crossing)
    return tuple(found)


def _check_alone(book: Book, ledger: Ledger, crossing: Crossing) -> None:
    """Check what one entry says of itself."""
    manifest = crossing.manifest

    def find(code: FindingCode, detail: str) -> None:
        book.find(code, detail, site=ledger.site, log=Log.CROSSINGS, index=crossing.index, crossing=manifest.crossing)

    here = manifest.sender if crossing.sent else manifest.recipient
    if here != ledger.site:
        find(FindingCode.MISDIRECTED, f"it goes from {manifest.sender} to {manifest.recipient}")
    if manifest.crossing != crossing_id(manifest.order, manifest.kind, manifest.recipient, manifest.slot):
        find(FindingCode.ID_MISMATCH, "its id is not that of its order, kind, recipient and slot")
    if manifest.payload.size != sealing.sealed_size(manifest.information_bits // 8):
        find(FindingCode.SIZE_MISSTATED, "its sealed size does not fit the information it states")
    if manifest.recipient not in manifest.recipients:
        find(FindingCode.RECIPIENT_NOT_NAMED, f"{manifest.recipient} is not among its recipients")
    if not crossing.sent or ledger.genesis is None:
        return
    if manifest.kind not in SENDS.get(ledger.part(), frozenset()):
        find(FindingCode.KIND_NOT_ALLOWED, f"a {ledger.part()} does not send a {manifest.kind.value}")
    if manifest.kind is Kind.EXTRACT:
        find(FindingCode.EXTRACT_WITHOUT_PERMIT, "rows left, and no ledger holds a permit")
    if manifest.policy != ledger.genesis.policy:
        find(FindingCode.POLICY_DIFFERS, "it was decided under another policy than the genesis names")


def _check_repeats(book: Book, site: SiteId, crossings: Sequence[Crossing]) -> None:
    seen: set[CrossingId] = set()
    for c in crossings:
        if c.id in seen:
            detail = "its id stands in this ledger before"
            book.find(FindingCode.CROSSING_TWICE, detail, site=site, log=Log.CROSSINGS, index=c.index, crossing=c.id)
        seen.add(c.id)


def _check_sequences(book: Book, site: SiteId, crossings: Sequence[Crossing]) -> None:
    """Hold one direction of a ledger to 1, 2, 3 with each peer."""
    expected: defaultdict[SiteId, int] = defaultdict(lambda: 1)
    for c in crossings:
        peer = c.manifest.recipient if c.sent else c.manifest.sender
        if c.manifest.sequence != expected[peer]:
            detail = f"its number with {peer} is {c.manifest.sequence}, {expected[peer]} was next"
            book.find(FindingCode.SEQUENCE_BROKEN, detail, site=site, log=Log.CROSSINGS, index=c.index, crossing=c.id)
        expected[peer] = c.manifest.sequence + 1


def _check_pair(book: Book, sender: Ledger, receiver: Ledger, crossings: Crossings) -> None:
    """Check all that `sender` says it sent to `receiver` against what `receiver` says it decided."""
    sent = [c for c in crossings[sender.site] if c.sent and c.manifest.recipient == receiver.site]
    decided = {c.id: c for c in crossings[receiver.site] if not c.sent and c.manifest.sender == sender.site}
    receipts = sender.evidence.receipts
    last_decided = max((i for i, c in enumerate(sent) if c.id in decided), default=-1)
    last_receipted = max((i for i, c in enumerate(sent) if c.id in receipts), default=-1)
    for place, c in enumerate(sent):
        answer = decided.pop(c.id, None)
        if answer is None:
            lost = place < max(last_decided, last_receipted) or c.id in receipts
            code = FindingCode.NOT_IN_RECEIVERS_LEDGER if lost else FindingCode.IN_FLIGHT
            _find(book, code, c, f"{receiver.site} has not decided it")
            continue
        if answer.entry.envelope != c.entry.envelope:
            _find(book, FindingCode.ENVELOPES_DIFFER, c, f"{receiver.site} has another envelope under this id")
        if c.id in receipts:
            _check_receipt(book, receiver, c, answer, receipts[c.id])
        else:
            # A border sends the next one when it has the receipt of the last.
            newest = place == last_decided > last_receipted
            code = FindingCode.RECEIPT_AWAITED if newest else FindingCode.RECEIPT_MISSING
            _find(book, code, c, f"{receiver.site} decided it; its receipt is not here")
    for c in decided.values():
        _find(book, FindingCode.NOT_IN_SENDERS_LEDGER, c, f"{sender.site} has no entry of it")


def check_receipts_known(book: Book, ledgers: Mapping[SiteId, Ledger], crossings: Crossings) -> None:
    """Check that each receipt is for something its holder sent."""
    for site, ledger in ledgers.items():
        sent = {c.id for c in crossings[site] if c.sent}
        for crossing in sorted(ledger.evidence.receipts.keys() - sent):
            book.find(FindingCode.RECEIPT_UNKNOWN, "a receipt for what was not sent", site=site, crossing=crossing)


def _check_receipt(book: Book, receiver: Ledger, crossing: Crossing, answer: Crossing, envelope: str) -> None:
    """Check a receipt by the receiver's root key, and what it says against the receiver's ledger."""
    book.count(Examined.RECEIPTS)
    name = log_name(receiver.site, Log.CROSSINGS)
    try:
        payload = signing.verify(envelope.encode(), RECEIPT_TYPE, receiver.root.signing)
        receipt = canonical.load(Receipt, payload)
        head = checkpoint.verify_checkpoint(receipt.checkpoint, name, name, receiver.root.signing)
        path = [canonical.from_base64(step) for step in receipt.inclusion]
    except (Refusal, ValueError):
        _find(book, FindingCode.RECEIPT_INVALID, crossing, f"it is no receipt that {receiver.site} signed")
        return
    entry = answer.entry
    said = (receipt.crossing, receipt.by, receipt.envelope, receipt.index, receipt.verdict, receipt.code, receipt.at)
    logged = (
        crossing.id,
        receiver.site,
        Digest.of(entry.envelope.encode()),
        answer.index,
        entry.verdict,
        entry.code,
        entry.at,
    )
    leaf = merkle.leaf_hash(canonical.dump(entry))
    if said != logged:
        _find(book, FindingCode.RECEIPT_DIFFERS, crossing, f"it says another thing than {receiver.site}'s ledger")
    if not merkle.verify_inclusion(leaf, answer.index, head.size, path, head.root.raw):
        _find(book, FindingCode.RECEIPT_INVALID, crossing, "its proof does not show the entry in its checkpoint")
    if check_head(book, receiver, Log.CROSSINGS, head):
        receiver.held(Log.CROSSINGS, crossing.ledger, head.size)


def _find(book: Book, code: FindingCode, c: Crossing, detail: str) -> None:
    book.find(code, detail, site=c.ledger, log=Log.CROSSINGS, index=c.index, crossing=c.id)
