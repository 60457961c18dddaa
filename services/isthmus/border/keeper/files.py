"""Stored files and their keys: ingest registers, compute is granted, each entry logged.

Ingest seals a file's key to this border and cannot read it back. A grant covers exactly the files of the snapshot and
the groups of one accepted order, sealed to the key of one run; it cannot be taken back. Before any key goes out, policy
is asked whether it may go to the chips that compute says it runs on; that it may not is an entry too.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

from isthmus.border.keeper import privacy, training_privacy
from isthmus.border.keeper.key_facts import key_facts, note_accelerators
from isthmus.border.keeper.policy import Refuse, Release
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.inside import (
    SIDECAR_TYPE,
    FileGrant,
    FreezeSnapshot,
    KeyGrant,
    KeyRequest,
    PseudonymAnswer,
    PseudonymRequest,
    RegisterFiles,
    SessionAnswer,
    SessionRequest,
    Sidecar,
    SnapshotAnswer,
)
from isthmus.contracts.keys import HybridKey
from isthmus.contracts.ledger import FilesRegistered, IngestSession, KeysRefused, KeysReleased, SnapshotFrozen
from isthmus.proof import canonical, sealing, signing
from isthmus.proof.canonical import from_base64, to_base64
from isthmus.proof.ids import crossing_id, file_key_context

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Desk, OrderRow
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.orders import DatasetRef

FILE_KEY = 32
PSEUDONYM_DIGITS = 24


class FilesDesk:
    """Registers files and grants their keys."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def start_session(self, request: SessionRequest) -> SessionAnswer:
        """Take the signing key of one run of ingest."""
        desk = self._desk
        with desk.store.transaction() as tx:
            if tx.row("SELECT 1 FROM session WHERE keyid = ?", request.key.keyid):
                raise Refusal(Code.ALREADY_EXISTS, "This session's key is registered already.")
            tx.execute("INSERT INTO session VALUES(?, ?)", request.key.keyid, canonical.dump(request.key))
            desk.record(tx, IngestSession(key=request.key, at=desk.now(tx)))
        return SessionAnswer(sealing=desk.keys.sealing.public)

    def pseudonyms(self, request: PseudonymRequest) -> PseudonymAnswer:
        """Return a keyed hash for each vehicle (HMAC-SHA-256, 96 bits)."""
        key = self._desk.keys.pseudonym
        return PseudonymAnswer(
            pseudonyms=tuple(
                hmac.digest(key, vehicle.encode(), "sha256").hex()[:PSEUDONYM_DIGITS] for vehicle in request.vehicles
            )
        )

    def register(self, request: RegisterFiles) -> None:
        """Register sealed files, all or none.

        Raises:
            Refusal: a sidecar is not signed by a session, its key does not open in its context, or it is known.
        """
        desk = self._desk
        with desk.store.transaction() as tx:
            sidecars = [self._sidecar(tx, envelope.encode()) for envelope in request.envelopes]
            if len({s.dataset for s in sidecars}) != 1:
                raise Refusal(Code.INPUT_INVALID, "Files of several datasets are registered one dataset at a time.")
            for sidecar, envelope in zip(sidecars, request.envelopes, strict=True):
                if tx.row("SELECT 1 FROM file WHERE id = ? AND grp = ?", sidecar.file, sidecar.group.value):
                    raise Refusal(
                        Code.ALREADY_EXISTS, f"{sidecar.file} has a registered group {sidecar.group} already."
                    )
                tx.execute(
                    "INSERT INTO file VALUES(?, ?, ?, ?)",
                    sidecar.file,
                    sidecar.group.value,
                    sidecar.dataset,
                    envelope.encode(),
                )
            desk.record(
                tx,
                FilesRegistered(
                    dataset=sidecars[0].dataset,
                    sidecars=tuple(Digest.of(e.encode()) for e in request.envelopes),
                    at=desk.now(tx),
                ),
            )

    def freeze(self, request: FreezeSnapshot) -> SnapshotAnswer:
        """Freeze a snapshot, and commit to it with a salt that stays here."""
        desk, ref = self._desk, request.dataset
        with desk.store.transaction() as tx:
            if tx.row("SELECT 1 FROM snapshot WHERE dataset = ? AND snapshot = ?", ref.dataset, ref.snapshot):
                raise Refusal(Code.ALREADY_EXISTS, f"The snapshot {ref.dataset}/{ref.snapshot} is frozen already.")
            for file in request.files:
                if not tx.row("SELECT 1 FROM file WHERE id = ? AND dataset = ?", file, ref.dataset):
                    raise Refusal(Code.FILE_UNREGISTERED, f"{file} is not registered in {ref.dataset}.")
                tx.execute("INSERT INTO snapshot_file VALUES(?, ?, ?)", ref.dataset, ref.snapshot, file)
            salt = secrets.token_bytes(32)
            commitment = _commitment(salt, [s.digest for s in self._files(tx, ref)])
            tx.execute("INSERT INTO snapshot VALUES(?, ?, ?, ?)", ref.dataset, ref.snapshot, salt, commitment)
            desk.record(
                tx,
                SnapshotFrozen(
                    dataset=ref.dataset,
                    snapshot=ref.snapshot,
                    commitment=commitment,
                    files=len(request.files),
                    at=desk.now(tx),
                ),
            )
        return SnapshotAnswer(commitment=commitment)

    def grant(self, request: KeyRequest) -> KeyGrant:
        """Grant the keys of an order's files to one run of compute.

        Raises:
            Refusal: no open order of the ledger, or a group that the order does not name; or policy does not let the
                keys go to these chips, which is noted.
        """
        desk = self._desk
        with desk.store.transaction() as tx:
            order = self._order(tx, request)
            decision = desk.policy.decide(
                key_facts(desk, tx, order, request), crossing_id(order.id, Kind.ORDER, desk.site, 0)
            )
            if isinstance(decision, Release):
                return self._release(tx, order, request, decision)
            code = decision.code if isinstance(decision, Refuse) else Code.POLICY_DENIED  # a key waits for no officer
            desk.record(
                tx,
                KeysRefused(
                    order=order.id,
                    run=canonical.digest(request.run_key),
                    accelerators=request.accelerators,
                    code=code,
                    rules=decision.rules,
                    at=desk.now(tx),
                ),
            )
        raise Refusal(
            code,
            f"The order's keys may not go to {', '.join(request.accelerators)}.",
            why=f"Rules: {', '.join(decision.rules) or 'none permits it'}.",
            remedy="Run it on chips of a class that this border's genesis and packs permit.",
        )

    def _order(self, tx: Transaction, request: KeyRequest) -> OrderRow:
        """Return the open order whose keys are asked for.

        Raises:
            Refusal: there is none, or it does not name all the groups.
        """
        desk = self._desk
        order = desk.order(tx, request.order)
        if order is None or order.direction != "in":
            raise Refusal(Code.ORDER_UNKNOWN, "No accepted order has this id.", remedy="No key without an order.")
        if not order.is_open:
            raise Refusal(Code.ORDER_CLOSED, f"The order is closed ({order.state}).")
        if desk.expires(order.order, desk.now(tx)):
            raise Refusal(Code.EXPIRED, "The order's time is over.")
        if outside := sorted(set(request.groups) - set(order.order.groups)):
            raise Refusal(
                Code.GROUP_NOT_IN_ORDER,
                f"The order does not name the column group {outside[0]}.",
                remedy="Keys cover exactly the groups of the accepted order.",
            )
        return order

    def _release(self, tx: Transaction, order: OrderRow, request: KeyRequest, decision: Release) -> KeyGrant:
        """Seal the keys to the run, and log it with what compute said of its chips."""
        desk = self._desk
        privacy.keys_go_out(tx, order.id)
        training_privacy.keys_go_out(tx, order.id)
        files = [s for s in self._files(tx, order.order.dataset) if s.group in request.groups]
        grants = tuple(self._grant(sidecar, request) for sidecar in files)
        note_accelerators(tx, order.id, request)
        desk.record(
            tx,
            KeysReleased(
                order=order.id,
                run=canonical.digest(request.run_key),
                groups=request.groups,
                accelerators=request.accelerators,
                rules=decision.rules,
                files=len(grants),
                commitment=_commitment(secrets.token_bytes(32), [g.digest for g in grants]),
                at=desk.now(tx),
            ),
        )
        return KeyGrant(order=request.order, files=grants)

    def _sidecar(self, tx: Transaction, envelope: bytes) -> Sidecar:
        """Verify a sidecar by its session's key, and that the file key in it opens here and in its context alone."""
        keyid = signing.parse_envelope(envelope).keyid
        row = tx.row("SELECT key FROM session WHERE keyid = ?", keyid)
        if row is None:
            raise Refusal(
                Code.FILE_UNREGISTERED,
                "A sidecar is signed by no session of ingest.",
                remedy="Files come in through ingest alone.",
            )
        key = canonical.load(HybridKey, bytes(row["key"]))
        sidecar = canonical.load(Sidecar, signing.verify(envelope, SIDECAR_TYPE, key))
        if len(self._file_key(sidecar)) != FILE_KEY:
            raise Refusal(Code.INPUT_INVALID, f"The key of {sidecar.file} is not one of 256 bits.")
        return sidecar

    def _file_key(self, sidecar: Sidecar) -> bytes:
        context = file_key_context(sidecar.dataset, sidecar.file, sidecar.group, sidecar.digest)
        return self._desk.keys.sealing.open(from_base64(sidecar.wrapped_key), context=context)

    def _grant(self, sidecar: Sidecar, request: KeyRequest) -> FileGrant:
        context = file_key_context(sidecar.dataset, sidecar.file, sidecar.group, sidecar.digest)
        return FileGrant(
            file=sidecar.file,
            group=sidecar.group,
            dataset=sidecar.dataset,
            object_name=sidecar.object_name,
            digest=sidecar.digest,
            size=sidecar.size,
            wrapped_key=to_base64(sealing.wrap(self._file_key(sidecar), request.run_key, context=context)),
        )

    def _files(self, tx: Transaction, ref: DatasetRef) -> list[Sidecar]:
        """Return the sidecars of a snapshot's files, in one order."""
        rows = tx.execute(
            "SELECT f.sidecar FROM file f JOIN snapshot_file s ON s.file = f.id AND s.dataset = f.dataset"
            " WHERE s.dataset = ? AND s.snapshot = ? ORDER BY f.id, f.grp",
            ref.dataset,
            ref.snapshot,
        )
        return [canonical.load(Sidecar, signing.parse_envelope(bytes(row["sidecar"])).payload) for row in rows]


def _commitment(salt: bytes, digests: list[Digest]) -> Digest:
    return Digest.of(salt + canonical.encode([str(d) for d in digests]))
