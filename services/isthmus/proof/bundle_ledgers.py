"""The verifier's first room: what stands in each site's ledger, and whether the ledger is the one its peers know.

1. A key counts when it stands in the roots. A genesis counts when its digest is the root's and it is entry 0.
2. Every entry is one of the closed list in its one spelling; time never runs backwards in a log.
3. Each log's root is computed again from its entries. The own checkpoint, and every head that a peer cosigned, as the
   site shows it or the peer, must agree with it: another root is a fork, a larger size a rollback.
4. A peer shows heads at least as new as those that it is seen to have cosigned: nobody chooses what is compared.
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
from isthmus.proof import bundle_terms, canonical, checkpoint, merkle
from isthmus.proof.ids import log_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isthmus.contracts.identifiers import OrderId
    from isthmus.contracts.orders import Order
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
        orders: bodies that are what their id says.
        holders: per log, the most entries that each peer holds a head of.
        witnessed: per peer and log, the most entries that this site shows a cosigned head of.
    """

    root: RootSite
    evidence: Evidence
    genesis: Genesis | None
    crossings: tuple[CrossingEntry | None, ...]
    internal: tuple[InternalEntry | None, ...]
    trees: Mapping[Log, Tree]
    orders: Mapping[OrderId, Order]
    holders: dict[Log, dict[SiteId, int]] = field(default_factory=lambda: {log: {} for log in Log})
    witnessed: dict[tuple[SiteId, Log], int] = field(default_factory=dict)

    @property
    def site(self) -> SiteId:
        """The site."""
        return self.root.id

    def part(self) -> str:
        """Return the site's part in the federation, nothing where the genesis does not count."""
        own = self.genesis.roster.site(self.site) if self.genesis else None
        return own.part if own else ""

    def held(self, log: Log, peer: SiteId, size: int) -> None:
        """Note that a peer holds a head of `size` entries."""
        self.holders[log][peer] = max(size, self.holders[log].get(peer, 0))


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


def check_heads(book: Book, ledgers: Mapping[SiteId, Ledger], roots: Roots) -> None:
    """Hold each site's logs to its own checkpoints and to every head of them that a peer cosigned, whoever shows it."""
    logs = {log_name(root.id, log): (root, log) for root in roots.sites for log in Log}
    for witness in ledgers.values():
        for note in witness.evidence.witnessed:
            _check_witnessed(book, ledgers, witness, note, logs)
    for ledger in ledgers.values():
        _check_own_heads(book, ledgers, ledger, roots)


def _check_own_heads(book: Book, ledgers: Mapping[SiteId, Ledger], ledger: Ledger, roots: Roots) -> None:
    """Check what a site shows of its own logs: checkpoints, and the notes that peers cosigned."""
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
            _check_cosigned(book, ledgers, ledger, view.log, note, roots)


def check_holders(book: Book, ledger: Ledger, peers: Iterable[SiteId]) -> None:
    """Check that every peer that crossings went to or came from holds a head of both logs; report what is newer.

    Heads are exchanged both ways whenever a link opens, before anything crosses.
    """
    for log in Log:
        size = ledger.trees[log].size
        for peer in sorted(peers):
            held = ledger.holders[log].get(peer, 0)
            if held == 0:
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
        orders=bundle_terms.read(book, root.id, evidence.orders),
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


def _check_witnessed(
    book: Book,
    ledgers: Mapping[SiteId, Ledger],
    witness: Ledger,
    note: str,
    logs: Mapping[str, tuple[RootSite, Log]],
) -> None:
    """Check one note that a site cosigned of a peer: both signatures, and the head against the peer's entries."""
    book.count(Examined.WITNESSED_HEADS)
    name = note.partition("\n")[0]
    root, log = logs.get(name, (witness.root, Log.CROSSINGS))
    try:
        if root.id == witness.site:
            raise Refusal(Code.SIGNATURE_INVALID, "nobody witnesses its own log")  # noqa: TRY301 - found below
        head = checkpoint.verify_checkpoint(note, name, name, root.signing)
        checkpoint.verify_cosignature(note, log_name(witness.site, log), witness.root.signing)
    except Refusal:
        detail = "a head that it witnessed is not signed by a peer of the roots and itself"
        book.find(FindingCode.COSIGNATURE_INVALID, detail, site=witness.site)
        return
    witness.witnessed[root.id, log] = max(head.size, witness.witnessed.get((root.id, log), 0))
    if root.id in ledgers and check_head(book, ledgers[root.id], log, head):
        ledgers[root.id].held(log, witness.site, head.size)


def _check_cosigned(
    book: Book, ledgers: Mapping[SiteId, Ledger], ledger: Ledger, log: Log, note: str, roots: Roots
) -> None:
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
    right = check_head(book, ledger, log, head)
    for peer in peers:
        if right:
            ledger.held(log, peer.id, head.size)
        if peer.id in ledgers and ledgers[peer.id].witnessed.get((ledger.site, log), 0) < head.size:
            detail = f"it cosigned {head.size} entries of the {log.value} log of {ledger.site}, and shows no such head"
            book.find(FindingCode.WITNESS_MISSING, detail, site=peer.id)


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
