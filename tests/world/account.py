"""What must hold between the ledgers of a federation when a job is over, whatever died meanwhile.

Read from what borders give an auditor; nothing of their memory is used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.contracts.crossings import RECEIPT_TYPE, RELEASES, Manifest, Receipt
from isthmus.contracts.identifiers import Digest, SiteId
from isthmus.contracts.ledger import (
    INTERNAL_ENTRY,
    CrossingEntry,
    Decided,
    Drafted,
    LinkHalted,
    Log,
    OrderAccepted,
    OrderClosed,
    PeerRefused,
)
from isthmus.proof import canonical, checkpoint, merkle, signing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.contracts.inside import Evidence
    from isthmus.contracts.roster import Roots


@dataclass(frozen=True, slots=True)
class Logged:
    """A crossing as one ledger holds it."""

    manifest: Manifest
    envelope: str
    verdict: str


def check(evidence: Mapping[SiteId, Evidence], roots: Roots, *, refused: bool = False) -> None:
    """Hold the ledgers to each other and to the rules; `refused` where crossings or releases were."""
    logged = {site: _logged(part) for site, part in evidence.items()}
    for site, part in evidence.items():
        _one_effect_each(logged[site])
        _receipts(logged[site], part, roots)
        _decisions(site, logged[site], _internal(part))
        _heads(part, roots)
        if not refused:
            assert {each.verdict for each in logged[site]} <= {"sent", "accepted"}
            _budgets(_internal(part))
    for sender in evidence:
        for receiver in evidence:
            _stands_in_both(sender, receiver, logged)


def _logged(evidence: Evidence) -> list[Logged]:
    found = []
    for text in evidence.entries[Log.CROSSINGS]:
        entry = canonical.load(CrossingEntry, text.encode())
        payload = signing.parse_envelope(entry.envelope.encode()).payload
        found.append(Logged(canonical.load(Manifest, payload), entry.envelope, entry.verdict))
    return found


def _internal(evidence: Evidence) -> list[Any]:
    return [INTERNAL_ENTRY.validate_json(text) for text in evidence.entries[Log.INTERNAL]]


def _one_effect_each(logged: list[Logged]) -> None:
    times = Counter(each.manifest.crossing for each in logged)
    assert set(times.values()) <= {1}, f"a crossing stands twice: {times}"


def _stands_in_both(sender: SiteId, receiver: SiteId, logged: Mapping[SiteId, list[Logged]]) -> None:
    """What one sent the other took, in the same order, under sequence numbers without a gap."""
    sent = [e for e in logged[sender] if e.manifest.sender == sender and e.manifest.recipient == receiver]
    taken = [e for e in logged[receiver] if e.manifest.sender == sender and e.manifest.recipient == receiver]
    assert [e.manifest.sequence for e in sent] == list(range(1, len(sent) + 1))
    assert [e.envelope for e in sent] == [e.envelope for e in taken]
    assert {e.verdict for e in sent} <= {"sent"}
    assert {e.verdict for e in taken} <= {"accepted", "refused"}


def _receipts(logged: list[Logged], evidence: Evidence, roots: Roots) -> None:
    """Each crossing that was sent is receipted by the site it was sent to."""
    keys = {root.id: root.signing for root in roots.sites}
    sent = {e.manifest.crossing: e for e in logged if e.manifest.sender == evidence.site}
    assert evidence.receipts.keys() == sent.keys()
    for crossing, envelope in evidence.receipts.items():
        to = sent[crossing].manifest.recipient
        receipt = canonical.load(Receipt, signing.verify(envelope.encode(), RECEIPT_TYPE, keys[to]))
        assert receipt.envelope == Digest.of(sent[crossing].envelope.encode())


def _decisions(site: SiteId, logged: list[Logged], internal: list[Any]) -> None:
    """What left was drafted; each release was let go by one decision; nobody was turned away or halted."""
    assert not [e for e in internal if isinstance(e, LinkHalted | PeerRefused)]
    mine = [e.manifest for e in logged if e.manifest.sender == site]
    assert {m.crossing for m in mine} <= {e.crossing for e in internal if isinstance(e, Drafted)}
    released = Counter(e.crossing for e in internal if isinstance(e, Decided) and e.outcome == "release")
    assert {released[m.crossing] for m in mine if m.kind in RELEASES} <= {1}


def _budgets(internal: list[Any]) -> None:
    """Each order is accepted once and closed once; what it spent is what its candidates were charged."""
    spent: defaultdict[str, int] = defaultdict(int)
    for entry in internal:
        if isinstance(entry, Drafted):
            spent[entry.order] += entry.spent_bits
    accepted = _once(e for e in internal if isinstance(e, OrderAccepted))
    closed = _once(e for e in internal if isinstance(e, OrderClosed))
    assert accepted.keys() == closed.keys()
    for order, end in closed.items():
        assert end.reason == "complete"
        assert end.spent_bits == spent[order]
        assert end.spent_bits + end.returned_bits == accepted[order].reserved_bits


def _once(entries: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        assert entry.order not in found, f"an order stands twice: {entry}"
        found[entry.order] = entry
    return found


def _heads(evidence: Evidence, roots: Roots) -> None:
    """The signed head is that of the entries; every head that a peer cosigned is one that the log has had."""
    keys = {root.id: root.signing for root in roots.sites}
    for view in evidence.logs:
        leaves = [merkle.leaf_hash(text.encode()) for text in evidence.entries[view.log]]
        name = f"isthmus/{evidence.site}/{view.log.value}"
        head = checkpoint.verify_checkpoint(view.checkpoint, name, name, keys[evidence.site])
        assert (head.size, head.root) == (view.size, view.root)
        assert head.root.raw == merkle.root(leaves)
        peers = {note.splitlines()[-1].split(" ")[1].split("/")[1]: note for note in view.cosigned}
        assert peers, "no peer has cosigned"
        for peer, note in peers.items():
            seen, _ = checkpoint.verify_cosignature(note, f"isthmus/{peer}/{view.log.value}", keys[SiteId(peer)])
            assert seen.root.raw == merkle.root(leaves[: seen.size])
