"""A bundle taken apart and put together again by someone who holds every site's keys.

What it builds is consistent in every signature, proof and receipt, so a test that changes one thing shows that the
rule about that one thing holds on its own, not that some signature broke.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.cli.federation import officer_key
from isthmus.contracts.crossings import CROSSING_TYPE, RECEIPT_TYPE, Manifest, Receipt
from isthmus.contracts.identifiers import CrossingId, Digest, SiteId
from isthmus.contracts.inside import Evidence, LogView
from isthmus.contracts.ledger import INTERNAL_ENTRY, CrossingEntry, GenesisEntry, Log
from isthmus.proof import canonical, checkpoint, merkle, signing
from world.pair import HQ, Pair, officers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isthmus.contracts.crossings import Kind
    from isthmus.contracts.roster import Genesis, Roots
    from isthmus.contracts.wire import Wire
    from isthmus.proof.signing import SigningKey


def manifest_of(entry: CrossingEntry) -> Manifest:
    """Return the manifest in an entry."""
    return canonical.load(Manifest, signing.parse_envelope(entry.envelope.encode()).payload)


def note(site: SiteId, log: Log, leaves: list[bytes], key: SigningKey, size: int | None = None) -> str:
    """Return a site's checkpoint over the first `size` leaves."""
    name = f"isthmus/{site}/{log.value}"
    upto = len(leaves) if size is None else size
    return checkpoint.sign_checkpoint(checkpoint.Head(name, upto, root(leaves[:upto])), name, key)


def root(leaves: list[bytes]) -> Digest:
    """Return the root over some entries."""
    return Digest.from_bytes(merkle.root([merkle.leaf_hash(leaf) for leaf in leaves]))


class Forge:
    """All parts of a bundle, as lists and dicts to change; `build` signs everything anew.

    Attributes:
        entries: each site's logs, parsed.
        raw: entries to put in place of what would be built, by site, log and index: text.
        uncosigned: logs whose heads no peer holds.
        unwitnessed: sites' logs whose heads are left out of what their peers witnessed.
        unreceipted: crossings whose receipt is left out.
        receipt_changes: what a receipt says otherwise than its receiver's log.
        orders: each site's bodies of orders.
        roots: what the verifier trusts.
    """

    def __init__(self, pair: Pair) -> None:
        self.keys = {site: FileKeyStore(pair.home / site / "keys").load().signing for site in pair.borders}
        self.officers = {zone: [officer_key(pair.home, person) for person in officers(zone)] for zone in pair.zones}
        evidence = {site: pair.keeper(site).evidence() for site in pair.borders}
        self.entries: dict[SiteId, dict[Log, list[Any]]] = {
            site: {
                Log.CROSSINGS: [canonical.load(CrossingEntry, e.encode()) for e in one.entries[Log.CROSSINGS]],
                Log.INTERNAL: [INTERNAL_ENTRY.validate_json(e) for e in one.entries[Log.INTERNAL]],
            }
            for site, one in evidence.items()
        }
        self.orders = {site: dict(one.orders) for site, one in evidence.items()}
        self.roots: Roots = pair.roots
        self.raw: dict[tuple[SiteId, Log, int], str] = {}
        self.uncosigned: set[tuple[SiteId, Log]] = set()
        self.unwitnessed: set[tuple[SiteId, Log]] = set()
        self.unreceipted: set[CrossingId] = set()
        self.receipt_changes: dict[CrossingId, dict[str, Any]] = {}

    def copy(self) -> Forge:
        """Return another one to change."""
        other = object.__new__(Forge)
        other.keys, other.officers, other.roots = dict(self.keys), self.officers, self.roots
        other.entries = {s: {log: list(found) for log, found in logs.items()} for s, logs in self.entries.items()}
        other.orders = {site: dict(bodies) for site, bodies in self.orders.items()}
        other.raw, other.uncosigned, other.unwitnessed = dict(self.raw), set(self.uncosigned), set(self.unwitnessed)
        other.unreceipted, other.receipt_changes = set(self.unreceipted), dict(self.receipt_changes)
        return other

    # ---- finding and changing

    def internal(self, site: SiteId, type_: type[Wire], place: int = 0) -> int:
        """Return the index of the internal entry of a type, the `place`th of them."""
        return [i for i, e in enumerate(self.entries[site][Log.INTERNAL]) if isinstance(e, type_)][place]

    def about(self, site: SiteId, crossing: CrossingId, type_: type[Wire], **said: object) -> int:
        """Return the index of the last internal entry of a type about a crossing, with these fields."""
        return [
            i
            for i, e in enumerate(self.entries[site][Log.INTERNAL])
            if isinstance(e, type_)
            and getattr(e, "crossing", None) == crossing
            and all(getattr(e, name) == value for name, value in said.items())
        ][-1]

    def edit(self, site: SiteId, index: int, log: Log = Log.INTERNAL, **update: object) -> None:
        """Change fields of an entry."""
        found = self.entries[site][log]
        found[index] = found[index].model_copy(update=update)

    def drop(self, site: SiteId, index: int, log: Log = Log.INTERNAL) -> None:
        """Take an entry out."""
        del self.entries[site][log][index]

    def sent(self, site: SiteId, kind: Kind, place: int = 0) -> Manifest:
        """Return the manifest of the `place`th crossing of a kind that a site sent."""
        return self.all_sent(site, kind)[place]

    def all_sent(self, site: SiteId, kind: Kind) -> list[Manifest]:
        """Return the manifests of all crossings of a kind that a site sent."""
        manifests = [manifest_of(e) for e in self.entries[site][Log.CROSSINGS] if e.verdict == "sent"]
        return [m for m in manifests if m.kind is kind]

    def index(self, site: SiteId, crossing: CrossingId) -> int:
        """Return where a crossing stands in a site's crossings log."""
        return next(i for i, e in enumerate(self.entries[site][Log.CROSSINGS]) if manifest_of(e).crossing == crossing)

    def change(self, manifest: Manifest, key: SigningKey | None = None, **update: object) -> Manifest:
        """Sign a crossing anew with changed fields, in every ledger that holds it; its decisions follow its id."""
        changed = manifest.model_copy(update=update)
        envelope = self.sign(changed, key or self.keys[manifest.sender])
        for logs in self.entries.values():
            for i, entry in enumerate(logs[Log.CROSSINGS]):
                if manifest_of(entry).crossing == manifest.crossing:
                    logs[Log.CROSSINGS][i] = entry.model_copy(update={"envelope": envelope})
            for i, entry in enumerate(logs[Log.INTERNAL]):
                if getattr(entry, "crossing", None) == manifest.crossing:
                    logs[Log.INTERNAL][i] = entry.model_copy(update={"crossing": changed.crossing})
        return changed

    def sign(self, manifest: Manifest, key: SigningKey) -> str:
        """Return the envelope of a manifest."""
        return key.sign(CROSSING_TYPE, canonical.dump(manifest)).decode()

    def genesis(self, site: SiteId) -> Genesis:
        """Return a site's genesis."""
        first = self.entries[site][Log.INTERNAL][0]
        assert isinstance(first, GenesisEntry)
        return first.genesis

    def replace_genesis(self, change: Callable[[Genesis], Genesis], *sites: SiteId, trusted: bool = True) -> None:
        """Put another genesis in place; the roots name it if it is `trusted`."""
        for site in sites or tuple(self.entries):
            new = change(self.genesis(site))
            self.entries[site][Log.INTERNAL][0] = GenesisEntry(genesis=new)
            if trusted:
                digest = canonical.digest(new)
                self.roots = self.roots.model_copy(
                    update={
                        "sites": tuple(
                            r.model_copy(update={"genesis": digest}) if r.id == site else r for r in self.roots.sites
                        )
                    }
                )

    # ---- putting together

    def leaves(self, site: SiteId, log: Log) -> list[bytes]:
        """Return a log's entries as bytes."""
        found = [canonical.dump(e) for e in self.entries[site][log]]
        for (at, of, index), text in self.raw.items():
            if (at, of) == (site, log):
                found[index] = text.encode()
        return found

    def evidence(self) -> dict[SiteId, Evidence]:
        """Return each site's evidence, everything signed anew."""
        return {site: self._evidence(site) for site in self.entries}

    def build(self) -> dict[str, bytes]:
        """Return the bundle."""
        return {f"{site}.json": canonical.dump(one) for site, one in self.evidence().items()}

    def _evidence(self, site: SiteId) -> Evidence:
        leaves = {log: self.leaves(site, log) for log in Log}
        first = self.entries[site][Log.INTERNAL][0]
        return Evidence(
            site=site,
            genesis=canonical.digest(first.genesis) if isinstance(first, GenesisEntry) else Digest.of(b""),
            logs=tuple(self._view(site, log, leaves[log]) for log in Log),
            witnessed=tuple(self._witnessed(site)),
            entries={log: tuple(leaf.decode() for leaf in leaves[log]) for log in Log},
            receipts=self._receipts(site),
            orders=self.orders[site],
        )

    def _view(self, site: SiteId, log: Log, leaves: list[bytes]) -> LogView:
        signed = note(site, log, leaves, self.keys[site])
        cosigned = tuple(self.cosign(signed, peer, log) for peer in self._peers(site))
        return LogView(
            log=log,
            size=len(leaves),
            root=root(leaves),
            checkpoint=signed,
            cosigned=() if (site, log) in self.uncosigned else cosigned,
        )

    def _witnessed(self, site: SiteId) -> Iterator[str]:
        """Yield the heads of its peers' logs that a site cosigned."""
        for peer in self._peers(site):
            for log in Log:
                if (peer, log) not in self.uncosigned | self.unwitnessed:
                    yield self.cosign(note(peer, log, self.leaves(peer, log), self.keys[peer]), site, log)

    def _peers(self, site: SiteId) -> list[SiteId]:
        return [s for s in self.entries if s != site and HQ in {s, site}]

    def cosign(self, signed: str, peer: SiteId, log: Log) -> str:
        """Return a note with a peer's cosignature."""
        return checkpoint.cosign(signed, f"isthmus/{peer}/{log.value}", self.keys[peer], 1_800_000_100)

    def _receipts(self, site: SiteId) -> dict[CrossingId, str]:
        receipts = {}
        for entry in self.entries[site][Log.CROSSINGS]:
            manifest = manifest_of(entry)
            if entry.verdict != "sent" or manifest.crossing in self.unreceipted:
                continue
            answer = self._receipt(manifest, entry.envelope)
            if answer is not None:
                receipts[manifest.crossing] = answer
        return receipts

    def _receipt(self, manifest: Manifest, envelope: str) -> str | None:
        """Return the receiver's receipt for what stands in its log, None where nothing does."""
        by = manifest.recipient
        log = self.entries.get(by, {}).get(Log.CROSSINGS, [])
        at = next((i for i, e in enumerate(log) if e.verdict != "sent" and e.envelope == envelope), None)
        if at is None:
            return None
        hashes = [merkle.leaf_hash(leaf) for leaf in self.leaves(by, Log.CROSSINGS)]

        def node(level: int, index: int) -> bytes:
            return merkle.root(hashes[index << level : (index + 1) << level])

        receipt = Receipt(
            version=1,
            crossing=manifest.crossing,
            envelope=Digest.of(envelope.encode()),
            by=by,
            verdict=log[at].verdict,
            code=log[at].code,
            at=log[at].at,
            index=at,
            inclusion=tuple(canonical.to_base64(step) for step in merkle.inclusion(node, at, at + 1)),
            checkpoint=note(by, Log.CROSSINGS, self.leaves(by, Log.CROSSINGS), self.keys[by], at + 1),
        )
        changed = receipt.model_copy(update=self.receipt_changes.get(manifest.crossing, {}))
        return self.keys[by].sign(RECEIPT_TYPE, canonical.dump(changed)).decode()
