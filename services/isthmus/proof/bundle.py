"""The verifier of an evidence bundle: the bytes of each site's evidence in, a report out. No network, disk or clock.

It trusts the roots alone, which came by another way: a bundle's own keys prove nothing until the genesis they stand in
has the digest that the roots name. It never raises on what a bundle holds: what cannot be read is a finding.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from isthmus.contracts.crossings import RELEASES, Kind
from isthmus.contracts.evidence import KindTotal, LogVerdict, Report, SiteVerdict
from isthmus.contracts.ledger import Log
from isthmus.contracts.wire import MAX_INTEGER
from isthmus.proof import (
    bundle_budget,
    bundle_crossings,
    bundle_ledgers,
    bundle_orders,
    bundle_releases,
    bundle_statistics,
    bundle_terms,
)
from isthmus.proof.bundle_findings import Book

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.roster import Roots
    from isthmus.proof.bundle_crossings import Crossing, Crossings
    from isthmus.proof.bundle_ledgers import Ledger

NOT_CLAIMED = (
    "That nothing else crossed: how many unlogged bytes there can have been, an independent capture alone can say.",
    "That the bundle is the newest: entries that no peer holds a head of yet could still be rewritten by their border.",
    "Less than the information bound: it is payload bits. Timing, counts, refusals and notices are not in it.",
    "Differential privacy of evaluations, or of updates whose order states no epsilon: those are disclosure control.",
    "That noise is the one its charge stands for, or that compute bounded each vehicle: borders say so.",
    "That an order ran on the chips that its keys were released to: compute says so.",
    "That algorithms and plans are fit: payloads and programs are not in a bundle; policy is not decided again.",
    "That a border's host was honest: its root can read what passed and feed policy wrong facts.",
)
"""What an accepted bundle does not say."""


def verify(evidence: Mapping[str, bytes], roots: Roots) -> Report:
    """Verify a bundle.

    Args:
        evidence: the files by name, each site's as `<site>.json`: canonical bytes of `contracts.inside.Evidence`.
        roots: signing key and genesis digest of every site, obtained by another way than the bundle.

    Returns:
        The report. It is accepted only where nothing failed; evidence of every site of the roots must be there.
    """
    book = Book()
    ledgers = bundle_ledgers.read(book, evidence, roots)
    bundle_ledgers.check_geneses(book, ledgers, roots)
    bundle_ledgers.check_heads(book, ledgers, roots)
    crossings = bundle_crossings.read(book, ledgers, roots)
    bundle_crossings.check_ledgers(book, ledgers, crossings)
    bundle_crossings.check_receipts_known(book, ledgers, crossings)
    nobody = bundle_releases.engineers(ledger.genesis for ledger in ledgers.values() if ledger.genesis)
    for site, ledger in ledgers.items():
        found = crossings[site]
        bundle_ledgers.check_holders(book, ledger, _peers(found))
        diary = bundle_orders.read(book, ledger)
        bundle_orders.check_decisions(book, ledger, diary, found)
        bundle_orders.check_orders(book, ledger, diary, found)
        bundle_orders.check_budgets(book, ledger, diary, found)
        bundle_terms.check(book, ledger, diary, found)
        bundle_budget.check(book, ledger, diary)
        bundle_statistics.check(book, ledger, diary, found)
        votes = bundle_releases.read_votes(book, ledger, diary, nobody)
        bundle_releases.check_releases(book, ledger, diary, votes, found)
        bundle_releases.check_models(book, found)
    return _report(book, ledgers, crossings)


def _peers(crossings: Iterable[Crossing]) -> set[SiteId]:
    """Return the sites that crossings went to or came from."""
    return {c.manifest.recipient if c.sent else c.manifest.sender for c in crossings}


def _report(book: Book, ledgers: Mapping[SiteId, Ledger], crossings: Crossings) -> Report:
    findings, left_out = book.findings()
    totals = _totals(crossings)
    return Report(
        accepted=book.accepted,
        findings=findings,
        findings_left_out=left_out,
        examined=book.examined(),
        sites=tuple(
            SiteVerdict(site=site, logs=tuple(_log(ledger, log) for log in Log), verified=book.clean(site))
            for site, ledger in sorted(ledgers.items())
        ),
        crossings=totals,
        information_bound_bits=_capped(t.information_bits for t in totals if t.kind in RELEASES),
        not_claimed=NOT_CLAIMED,
    )


def _log(ledger: Ledger, log: Log) -> LogVerdict:
    tree = ledger.trees[log]
    held = max(ledger.holders[log].values(), default=0)
    return LogVerdict(log=log, size=tree.size, root=tree.root(tree.size), uncosigned=tree.size - held)


def _totals(crossings: Crossings) -> tuple[KindTotal, ...]:
    """Count what each site logged as sent, by kind."""
    refused = {c.id for found in crossings.values() for c in found if c.entry.verdict == "refused"}
    sent: defaultdict[Kind, list[Crossing]] = defaultdict(list)
    for found in crossings.values():
        for c in found:
            if c.sent:
                sent[c.manifest.kind].append(c)
    return tuple(
        KindTotal(
            kind=kind,
            count=len(sent[kind]),
            refused=sum(c.id in refused for c in sent[kind]),
            sealed_bytes=_capped(c.manifest.payload.size for c in sent[kind]),
            information_bits=_capped(c.manifest.information_bits for c in sent[kind]),
        )
        for kind in Kind
        if sent[kind]
    )


def _capped(numbers: Iterable[int]) -> int:
    """Return the sum, 2^53 at most: no honest bundle comes near it."""
    return min(sum(numbers), MAX_INTEGER)
