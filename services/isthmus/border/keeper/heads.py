"""Heads: what a border shows of its logs, and what it holds its peers to.

A head that does not extend the one cosigned before is a fork: the link stops and the evidence is kept. A peer that
holds a later head of ours, signed by us, shows that we were restored from an old copy: we stop, and write no entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import HeadProof
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, SiteId
from isthmus.contracts.ledger import LinkHalted, Log
from isthmus.contracts.link import Heads, HeadsAnswer, Opening
from isthmus.proof import checkpoint, merkle
from isthmus.proof.canonical import from_base64, to_base64
from isthmus.proof.ids import log_name

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Desk
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.roster import Site


class HeadsDesk:
    """Signs own heads, cosigns peers' heads, and halts a link."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def opening(self, peer: SiteId, cursor: int) -> Opening:
        """Return what this side states when a link opens."""
        self.require_open(peer)
        with self._desk.store.reading() as tx:
            rows = tx.execute("SELECT log, cosigned FROM peer_head WHERE site = ?", peer).fetchall()
            return Opening(
                version=1,
                site=self._desk.site,
                peer=peer,
                cosigned={Log(row["log"]): row["cosigned"] for row in rows},
                cursor=cursor,
                at=self._desk.now(tx),
            )

    def opened(self, peer: SiteId, theirs: Opening) -> None:
        """Compare the peer's memory of our heads with our ledger.

        Raises:
            Refusal: our ledger is behind or beside what we signed: this border stops (`LEDGER_ROLLED_BACK`); or the
                peer says it has more than was ever sent, which it cannot show: the link to it alone stops
                (`OUT_OF_SEQUENCE`).
        """
        self.require_open(peer)
        if theirs.site != peer or theirs.peer != self._desk.site:
            raise Refusal(Code.WRONG_RECIPIENT, "The opening is not between these two sites.")
        own = self._desk.genesis.roster.site(self._desk.site)
        if own is None:
            raise Refusal(Code.CONFIGURATION, "The genesis does not name this site.")
        for log, note in theirs.cosigned.items():
            name = log_name(self._desk.site, log)
            head = checkpoint.verify_checkpoint(note, name, name, own.signing)  # our own signature: it cannot be forged
            with self._desk.store.transaction() as tx:
                behind = not _is_ours(tx, log, head)
                if behind:
                    self._mark_halted(tx, peer, Code.LEDGER_ROLLED_BACK, note)
                else:
                    self._remember(tx, peer, log, head.size, note)
            if behind:
                _rolled_back(peer, log.value)
        self._require_sent(peer, theirs.cursor)

    def _require_sent(self, peer: SiteId, cursor: int) -> None:
        """Stop the link to a peer that has read further than was sent. Its word alone stops no other link."""
        with self._desk.store.transaction() as tx:
            last = tx.row("SELECT max(sequence) FROM crossing WHERE direction = 'out' AND peer = ?", peer)
            if cursor <= ((last[0] if last else 0) or 0):
                return
            self._mark_halted(tx, peer, Code.OUT_OF_SEQUENCE, f"cursor {cursor}")
        raise Refusal(Code.OUT_OF_SEQUENCE, f"{peer} says it has read {cursor} crossings, more than were sent to it.")

    def heads(self, peer: SiteId, logs: tuple[Log, ...] = (Log.CROSSINGS,)) -> Heads:
        """Return own heads with proofs from what the peer last cosigned, and what was seen of the peer's."""
        with self._desk.store.reading() as tx:
            seen = {log: self._seen(tx, peer, log) for log in logs}
            bases = {log: self._base(tx, peer, log) for log in logs}
            return Heads(heads={log: self._proof(tx, log, bases[log]) for log in logs}, seen=seen)

    def answer(self, peer: SiteId, theirs: Heads) -> HeadsAnswer:
        """Check and cosign the peer's heads; return own heads from where the peer has seen them.

        Raises:
            Refusal: a head does not extend the last one (`LEDGER_FORKED`: the link is halted), or its proof starts
                elsewhere (`HEAD_BEHIND`: open the link again).
        """
        with self._desk.store.transaction():
            cosigned = {log: self.cosign(peer, log, proof) for log, proof in theirs.heads.items()}
        with self._desk.store.reading() as tx:
            heads = {log: self._proof(tx, log, min(base, tx.size(log))) for log, base in theirs.seen.items()}
        return HeadsAnswer(cosigned=cosigned, heads=heads)

    def answered(self, peer: SiteId, answer: HeadsAnswer) -> None:
        """Take in the peer's cosignatures and heads.

        Raises:
            Refusal: a cosignature does not hold (`SIGNATURE_INVALID`), or is of no head of ours (`EVIDENCE_INVALID`); a
                head of the peer is wrong, as in `answer`.
        """
        site = self._desk.peer(peer)
        with self._desk.store.transaction() as tx:
            for log, note in answer.cosigned.items():
                head, _ = checkpoint.verify_cosignature(note, log_name(peer, log), site.signing)
                if head.origin != log_name(self._desk.site, log) or not _is_ours(tx, log, head):
                    raise Refusal(Code.EVIDENCE_INVALID, f"{peer} cosigned a head that this border does not have.")
                self._remember(tx, peer, log, head.size, note)
            for log, proof in answer.heads.items():
                self.cosign(peer, log, proof)

    def cosign(self, peer: SiteId, log: Log, proof: HeadProof) -> str:
        """Check that a peer's head extends the last one, cosign and keep it; return the cosigned note."""
        self.require_open(peer)
        site = self._desk.peer(peer)
        name = log_name(peer, log)
        head = checkpoint.verify_checkpoint(proof.checkpoint, name, name, site.signing)
        with self._desk.store.transaction() as tx:
            row = tx.row("SELECT * FROM peer_head WHERE site = ? AND log = ?", peer, log.value)
            size, root = (row["size"], Digest(row["root"])) if row else (0, Digest.from_bytes(merkle.empty_root()))
            if row is not None and (head.size, head.root) == (size, root):
                return str(row["cosigned"])
            if proof.base != size and head.size >= size:
                raise Refusal(Code.HEAD_BEHIND, "The proof starts elsewhere than at the head last cosigned.")
            path = [from_base64(step) for step in proof.consistency]
            if not merkle.verify_consistency(size, head.size, root.raw, head.root.raw, path):
                evidence = f"{row['cosigned'] if row else ''}\n{proof.checkpoint}"
                self._halt(tx, site, Code.LEDGER_FORKED, evidence)
                tx.after.append(_forked)
                return ""
            note = checkpoint.cosign(
                proof.checkpoint, log_name(self._desk.site, log), self._desk.keys.signing, self._desk.now(tx)
            )
            tx.execute(
                "INSERT INTO peer_head VALUES(?,?,?,?,?) ON CONFLICT(site, log) DO UPDATE SET"
                " size = excluded.size, root = excluded.root, cosigned = excluded.cosigned",
                peer,
                log.value,
                head.size,
                head.root,
                note,
            )
            return note

    def require_open(self, peer: SiteId) -> None:
        """Refuse to deal with a peer whose link is halted, or at all when this border was rolled back."""
        with self._desk.store.reading() as tx:
            row = tx.row("SELECT * FROM halted WHERE peer = ? OR code = ?", peer, Code.LEDGER_ROLLED_BACK.value)
        if row is not None:
            raise Refusal(
                Code.LINK_HALTED,
                f"The link to {peer} is halted ({row['code']}).",
                remedy="Officers look at the evidence: `isthmus ledger show`.",
            )

    def halted(self) -> dict[SiteId, Code]:
        """Return the links that are halted, and why."""
        with self._desk.store.reading() as tx:
            return {SiteId(r["peer"]): Code(r["code"]) for r in tx.execute("SELECT peer, code FROM halted")}

    def signed_head(self, tx: Transaction, log: Log) -> str:
        """Return the checkpoint of the log as it stands."""
        snapshot = tx.snapshot(log)
        name = log_name(self._desk.site, log)
        return checkpoint.sign_checkpoint(
            checkpoint.Head(name, snapshot.size, snapshot.root), name, self._desk.keys.signing
        )

    def _proof(self, tx: Transaction, log: Log, base: int) -> HeadProof:
        steps = merkle.consistency(tx.reader(log), base, tx.size(log))
        return HeadProof(
            checkpoint=self.signed_head(tx, log), base=base, consistency=tuple(to_base64(step) for step in steps)
        )

    def _seen(self, tx: Transaction, peer: SiteId, log: Log) -> int:
        row = tx.row("SELECT size FROM peer_head WHERE site = ? AND log = ?", peer, log.value)
        return int(row["size"]) if row else 0

    def _base(self, tx: Transaction, peer: SiteId, log: Log) -> int:
        row = tx.row("SELECT size FROM own_head WHERE site = ? AND log = ?", peer, log.value)
        return int(row["size"]) if row else 0

    def _remember(self, tx: Transaction, peer: SiteId, log: Log, size: int, note: str) -> None:
        tx.execute(
            "INSERT INTO own_head VALUES(?,?,?,?) ON CONFLICT(site, log) DO UPDATE SET"
            " size = excluded.size, cosigned = excluded.cosigned",
            peer,
            log.value,
            size,
            note,
        )

    def _halt(self, tx: Transaction, site: Site, code: Code, evidence: str) -> None:
        self._mark_halted(tx, site.id, code, evidence)
        self._desk.record(tx, LinkHalted(peer=site.id, code=code, evidence=evidence[:16_384], at=self._desk.now(tx)))

    def _mark_halted(self, tx: Transaction, peer: SiteId, code: Code, evidence: str) -> None:
        tx.execute("INSERT OR REPLACE INTO halted VALUES(?, ?, ?)", peer, code.value, evidence)


def _is_ours(tx: Transaction, log: Log, head: checkpoint.Head) -> bool:
    """Tell whether the log once had, or has, this size and root."""
    return head.size <= tx.size(log) and merkle.tree_root(tx.reader(log), head.size) == head.root.raw


def _forked() -> None:
    raise Refusal(
        Code.LEDGER_FORKED,
        "The peer shows a head that does not extend the one it showed before.",
        remedy="The link is halted and both heads are kept as evidence.",
    )


def _rolled_back(peer: SiteId, log: str) -> None:
    raise Refusal(
        Code.LEDGER_ROLLED_BACK,
        f"{peer} holds a head of this border's {log} log that the ledger no longer has.",
        why="The ledger was restored from an old copy, or changed.",
        remedy="Restore the latest copy. Nothing passes until then.",
    )
