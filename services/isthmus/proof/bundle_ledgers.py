"""The verifier's first room: what stands in each site's ledger, and whether the ledger is the one its peers know.

1. A key counts when it stands in the roots. A genesis counts when its digest is the root's and it is entry 0.
2. Every entry is one of the closed list in its one spelling; time never runs backwards in a log.
3. Each log's root is computed again from its entries. The own checkpoint, and every head that a peer cosigned, must
   agree with it: another root is a fork, a larger size a rollback.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import ValidationError

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.evidence import Examined, FindingCode
from isthmus.contracts.identifiers import Digest, SiteId
from isthmus.contracts.inside import Evidence
from isthmus.contracts.ledger import INTERNAL_ENTRY, CrossingEntry, GenesisEntry, InternalEntry, Log
from isthmus.proof import canonical, checkpoint, merkle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isthmus.contracts.roster import Genesis, Roots, RootSite
    from isthmus.proof.bundle_findings import Book

MAX_EVIDENCE = 1 << 30
"""Most bytes of one site's evidence."""


class Tree:
    """The Merkle tree of a log, kept so that the root at any size costs O(log^2 n)."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self._nodes: dict[tuple[int, int], bytes] = {}
        self.size = 0
        for data in leaves:
            leaf = merkle.leaf_hash(data)
            for level, index, hash_ in merkle.completed_nodes(self.size, leaf, self._node):
                self._nodes[level, index] = hash_
            self.size += 1

    def root(self, size: int) -> Digest:
        """Return the root of the first `size` leaves, at most `self.size`."""
        return Digest.from_bytes(merkle.tree_root(self._node, size))

    def _node(self, level: int, index: int) -> bytes:
        return self._nodes[level, index]


@dataclass(frozen=True, slots=True)
class Ledger:
    """One site's ledger as its evidence shows it; what is malformed is None, so that indices stay.

    Attributes:
        root: what the verifier trusts of the site.
        genesis: entry 0, where it is the one that the root names; else None.
        holders: per log, the most entries that each peer holds a head of.
    """

    root: RootSite
    evidence: Evidence
    genesis: Genesis | None
    crossings: tuple[CrossingEntry | None, ...]
    internal: tuple[InternalEntry | None, ...]
    trees: Mapping[Log, Tree]
    holders: dict[Log, dict[SiteId, int]] = field(default_factory=lambda: {log: {} for log in Log})

    @property
    def site(self) -> SiteId:
        """The site."""
        return self.root.id

    def part(self) -> str:
        """Return the site's part in the federation, nothing where the genesis does not count."""
        own = self.genesis.roster.site(self.site) if self.genesis else None
        return own.part if own else ""


def log_name(site: SiteId, log: Log) -> str:
    """Return a log's origin, which is also the key name under which its site signs and cosigns."""
    return f"isthmus/{site}/{log.value}"


def read(book: Book, files: Mapping[str, bytes], roots: Roots) -> dict[SiteId, Ledger]:
    """Read each site's file; return the ledgers of the sites that the roots name."""
    trusted = {root.id: root for root in roots.sites}
    if len(trusted) != len(roots.sites):
        book.find(FindingCode.ROOTS_REPEAT_A_SITE, "the roots name a site twice: which key counts is not said")
    ledgers: dict[SiteId, Ledger] = {}
    for name, data in sorted(files.items()):
        site = _site(name)
        root = trusted.get(site) if site else None
        if root is None or root.id in ledgers:
            book.find(FindingCode.SITE_UNKNOWN, "a file belongs to no site of the roots, or a site has two")
        elif (ledger := _ledger(book, root, data)) is not None:
            ledgers[root.id] = ledger
    for site in sorted(trusted.keys() - ledgers.keys()):
        book.find(FindingCode.SITE_MISSING, "the bundle holds no usable evidence of this site", site=site)
    return ledgers


def check_geneses(book: Book, ledgers: Mapping[SiteId, Ledger], roots: Roots) -> None:
    """Check that all geneses name the same sites by the same keys, and the roots' keys."""
    trusted = {root.id: root for root in roots.sites}
    said: dict[SiteId, bytes] = {}
    for ledger in ledgers.values():
        if ledger.genesis is None:
            continue
        if ledger.genesis.roster.site(ledger.site) is None or ledger.genesis.site != ledger.site:
            book.find(FindingCode.GENESIS_DIFFERS, "the genesis is another site's", site=ledger.site)
        for site in ledger.genesis.roster.sites:
            root = trusted.get(site.id)
            if root is None:
                book.find(
                    FindingCode.SITE_WITHOUT_ROOT, f"{site.id} is in the roster and not in the roots", site=ledger.site
                )
            elif site.signing != root.signing:
                book.find(
                    FindingCode.ROOT_KEY_DIFFERS,
                    f"the roster has another key of {site.id} than the roots",
                    site=ledger.site,
                )
            if said.setdefault(site.id, canonical.dump(site)) != canonical.dump(site):
                book.find(FindingCode.GENESES_DISAGREE, f"two geneses differ on {site.id}", site=ledger.site)


def check_heads(book: Book, ledger: Ledger, roots: Roots) -> None:
    """Hold the site's logs to its own checkpoints and to the heads that peers cosigned."""
    for view in ledger.evidence.logs:
        tree, name = ledger.trees[view.log], log_name(ledger.site, view.log)
        try:
            head = checkpoint.verify_checkpoint(view.checkpoint, name, name, ledger.root.signing)
        except Refusal:
            book.find(
                FindingCode.CHECKPOINT_INVALID,
                "the site's key did not sign this checkpoint of this log",
                site=ledger.site,
                log=view.log,
            )
        else:
            stated = {(head.size, head.root), (view.size, view.root)}
            if stated != {(tree.size, tree.root(tree.size))}:
                book.find(
                    FindingCode.LOG_ALTERED,
                    f"the {tree.size} entries give another root than the checkpoint",
                    site=ledger.site,
                    log=view.log,
                )
        book.count(Examined.CHECKPOINTS)
        for note in view.cosigned:
            _check_cosigned(book, ledger, view.log, note, roots)


def check_holders(book: Book, ledger: Ledger, peers: Iterable[SiteId]) -> None:
    """Check that every peer that crossings went to or came from holds a head of both logs; report what is newer.

    A zone dials, and has each head cosigned before anything crosses: a zone without is refused. The coordinator, which
    listens, hears of its peers' cosignatures only when a link opens again: there their lack is reported.
    """
    for log in Log:
        size = ledger.trees[log].size
        for peer in sorted(peers):
            held = ledger.holders[log].get(peer, 0)
            if held == 0 and ledger.part() != "coordinator":
                book.find(FindingCode.NEVER_COSIGNED, f"{peer} holds no head of this log", site=ledger.site, log=log)
            elif held < size:
                book.find(
                    FindingCode.NOT_YET_COSIGNED,
                    f"{peer} holds no head of the newest {size - held} entries yet",
                    site=ledger.site,
                    log=log,
                )


def _site(name: str) -> SiteId | None:
    try:
        return SiteId(name.removesuffix(".json"))
    except ValueError:
        return None


def _ledger(book: Book, root: RootSite, data: bytes) -> Ledger | None:
    """Read one site's evidence."""
    try:
        evidence = canonical.load(Evidence, data, limit=MAX_EVIDENCE)
    except Refusal as refusal:
        book.find(FindingCode.EVIDENCE_MALFORMED, f"the file is no evidence ({refusal.code.value})", site=root.id)
        return None
    whole = evidence.site == root.id and set(evidence.entries) == set(Log) == {view.log for view in evidence.logs}
    if not whole or len(evidence.logs) != len(Log):
        book.find(FindingCode.EVIDENCE_MALFORMED, "the file is not both logs of this site", site=root.id)
        return None
    internal = tuple(_internal(book, root.id, i, text) for i, text in enumerate(evidence.entries[Log.INTERNAL]))
    crossings = tuple(_crossing(book, root.id, i, text) for i, text in enumerate(evidence.entries[Log.CROSSINGS]))
    _check_times(book, root.id, Log.CROSSINGS, [entry.at for entry in crossings if entry])
    _check_times(book, root.id, Log.INTERNAL, [e.at for e in internal if e and not isinstance(e, GenesisEntry)])
    book.count(Examined.ENTRIES, len(internal) + len(crossings))
    return Ledger(
        root=root,
        evidence=evidence,
        genesis=_genesis(book, root, evidence, internal),
        crossings=crossings,
        internal=internal,
        trees={log: Tree(text.encode() for text in evidence.entries[log]) for log in Log},
    )


def _genesis(
    book: Book, root: RootSite, evidence: Evidence, internal: Sequence[InternalEntry | None]
) -> Genesis | None:
    """Return the genesis, if it is entry 0 and the one that the root names."""
    book.count(Examined.GENESES)
    if any(isinstance(entry, GenesisEntry) for entry in internal[1:]):
        book.find(
            FindingCode.GENESIS_REPEATED, "a genesis stands after the first entry", site=root.id, log=Log.INTERNAL
        )
    first = internal[0] if internal else None
    found = first.genesis if isinstance(first, GenesisEntry) else None
    if found is None or evidence.genesis != root.genesis or canonical.digest(found) != root.genesis:
        book.find(
            FindingCode.GENESIS_DIFFERS,
            "the log does not begin with the genesis that the roots name",
            site=root.id,
            log=Log.INTERNAL,
        )
        return None
    return found


def _crossing(book: Book, site: SiteId, index: int, text: str) -> CrossingEntry | None:
    try:
        entry = canonical.load(CrossingEntry, text.encode())
    except (Refusal, ValueError):
        entry = None
    if entry is None or (entry.code is not None) != (entry.verdict == "refused"):
        book.find(FindingCode.ENTRY_MALFORMED, "not a crossing entry", site=site, log=Log.CROSSINGS, index=index)
        return None
    return entry


def _internal(book: Book, site: SiteId, index: int, text: str) -> InternalEntry | None:
    try:
        data = text.encode()
        canonical.decode(data)
        entry = INTERNAL_ENTRY.validate_json(data)
        if canonical.dump(entry) == data:
            return entry
    except (Refusal, ValidationError, ValueError):
        pass
    book.find(FindingCode.ENTRY_MALFORMED, "not an internal entry", site=site, log=Log.INTERNAL, index=index)
    return None


def _check_times(book: Book, site: SiteId, log: Log, times: Sequence[int]) -> None:
    if any(later < earlier for earlier, later in pairwise(times)):
        book.find(FindingCode.TIME_RUNS_BACKWARDS, "an entry is older than the one before it", site=site, log=log)


def _check_cosigned(book: Book, ledger: Ledger, log: Log, note: str, roots: Roots) -> None:
    """Check one note that peers cosigned: signatures by the roots' keys, and the head against the entries."""
    name = log_name(ledger.site, log)
    book.count(Examined.COSIGNED_HEADS)
    try:
        head = checkpoint.verify_checkpoint(note, name, name, ledger.root.signing)
        peers = [r for r in roots.sites if r.id != ledger.site and f" {log_name(r.id, log)} " in note]
        for peer in peers:
            checkpoint.verify_cosignature(note, log_name(peer.id, log), peer.signing)
        if not peers:
            raise Refusal(Code.SIGNATURE_INVALID, "no peer of the roots has signed it")  # noqa: TRY301 - found below
    except Refusal:
        detail = "a note is not signed by the site and a peer of the roots"
        book.find(FindingCode.COSIGNATURE_INVALID, detail, site=ledger.site, log=log)
        return
    if not check_head(book, ledger, log, head):
        return
    for peer in peers:
        ledger.holders[log][peer.id] = max(head.size, ledger.holders[log].get(peer.id, 0))


def check_head(book: Book, ledger: Ledger, log: Log, head: checkpoint.Head) -> bool:
    """Tell whether a head that the site signed and a peer holds is one of the log in the bundle."""
    tree = ledger.trees[log]
    if head.size > tree.size:
        book.find(
            FindingCode.LOG_ROLLED_BACK,
            f"a peer holds a head of {head.size} entries, the log has {tree.size}",
            site=ledger.site,
            log=log,
        )
        return False
    if tree.root(head.size) != head.root:
        book.find(
            FindingCode.LOG_FORKED,
            f"a peer holds another head of the first {head.size} entries",
            site=ledger.site,
            log=log,
        )
        return False
    return True
