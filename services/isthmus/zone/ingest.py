"""Ingest: raw drives in, sealed files in the store, registered with the border.

Rules:
1. The whole input is checked and sealed before anything is written: what is wrong with its last row leaves nothing of
   its first.
2. A file's key lives from its making to the end of the sealing of that one file; only the border can open what is kept
   of it. So ingest cannot read what it wrote, or what any earlier run wrote.
3. Objects are in the store before the border hears of them, and all are registered in one call. A crash midway leaves
   objects that nothing refers to (and perhaps files in no snapshot): ingest again; they are never read.
4. No name of a vehicle stands in an object's name, a sidecar, the catalogue or a log.
5. A file of drives has an object for each group of the raw table. Derived tables (`zone.derived`) have files of their
   own, with an object for each table: they are small, and a question reads all of them. Each object is sealed with a
   key of its own: who may count drives needs no key of what was seen in them.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, FileId, Name
from isthmus.contracts.inside import (
    SIDECAR_TYPE,
    FreezeSnapshot,
    PseudonymRequest,
    RegisterFiles,
    SessionRequest,
    Sidecar,
)
from isthmus.kit.ahead import ahead
from isthmus.proof import canonical
from isthmus.proof.ids import file_aad, file_key_context
from isthmus.proof.sealing import wrap
from isthmus.proof.signing import SigningKey
from isthmus.zone.catalogue import StoredFile, StoredGroup
from isthmus.zone.derived import derived_tables, together
from isthmus.zone.drives import batches, drives_of, group_columns, raw_bytes, vehicles_of
from isthmus.zone.validation import all_validated
from isthmus.zone.vault import new_file_key, seal_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from isthmus.client.border import BorderClient
    from isthmus.contracts.keys import HpkeKey
    from isthmus.contracts.orders import DatasetRef
    from isthmus.contracts.raw_table import Group
    from isthmus.kit.clock import Clock
    from isthmus.zone.catalogue import Catalogue
    from isthmus.zone.store import ObjectStore


PUTS_AT_ONCE = 4
SEALED_AT_ONCE = 3
TABLE_ROWS_PER_FILE = 2_000_000
"""Of a derived table. So many are counted at once (`zone.questions`); sealed they are some 40 MB."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one run brought in.

    Attributes:
        files: files made, of drives and of derived tables.
        vehicles: recording vehicles.
        drives: drives.
        rows: rows of the raw table.
        raw_bytes: size of the raw table as plain Arrow columns.
        stored_bytes: size of the sealed objects.
        commitment: of the snapshot, None where none was asked for.
    """

    files: int
    vehicles: int
    drives: int
    rows: int
    raw_bytes: int
    stored_bytes: int
    commitment: Digest | None


@dataclass(frozen=True, slots=True)
class _Session:
    """One run: the key that signs its sidecars, and the border's key to which file keys are sealed."""

    dataset: Name
    signing: SigningKey
    border: HpkeKey


@dataclass(frozen=True, slots=True)
class _SealedFile:
    """A file as it goes to the store: objects by name, signed sidecars, and what the catalogue lists."""

    listing: StoredFile
    objects: dict[str, bytes]
    envelopes: tuple[str, ...]


@dataclass(slots=True)
class _Derived:
    """Rows of derived tables that stand in no file yet, by group, and the vehicles that they are of."""

    tables: list[dict[Group, pa.Table]] = field(default_factory=list)
    vehicles: set[str] = field(default_factory=set)
    rows: int = 0

    def add(self, tables: dict[Group, pa.Table], vehicles: Iterable[str]) -> None:
        self.tables.append(tables)
        self.vehicles.update(vehicles)
        self.rows += max(table.num_rows for table in tables.values())


async def ingest(
    tables: Iterable[pa.Table],
    *,
    dataset: DatasetRef,
    store: ObjectStore,
    catalogue: Catalogue,
    border: BorderClient,
    clock: Clock,
    freeze: bool = True,
    on_file: Callable[[int], None] | None = None,
) -> IngestReport:
    """Seal drives into the vault and, where asked, freeze the dataset with them as a snapshot.

    Sealed files are held in memory until the whole input has been sealed: about a fifth of its raw size. Beside them
    stand in the clear: the drives of two files, of the one that is sealed, and of the next, which is checked meanwhile,
    with the few tables that are checked ahead of it; and the rows of derived tables, until they fill a file.

    Args:
        tables: raw tables (`contracts.raw_table`), a drive in one of them; read once, in a thread.
        dataset: the dataset to add to, and the name of the snapshot.
        store: where the sealed objects go.
        catalogue: where they are listed.
        border: the zone's border, with the token of ingest.
        clock: for the catalogue's dates.
        freeze: freeze a snapshot of all files of the dataset, earlier ones too.
        on_file: called with the number of files sealed so far.

    Raises:
        Refusal: `INPUT_INVALID` naming row and column; `ALREADY_EXISTS` where the snapshot is frozen already; what
            the border says.
        Fault: the store or the border is away or full.
    """
    if freeze:
        await _require_free(dataset, catalogue)
    signing = SigningKey.generate()
    answer = await border.start_session(SessionRequest(key=signing.verify_key))
    session = _Session(dataset.dataset, signing, answer.sealing)
    sealed, vehicles = await _seal_and_put(tables, session, border, store, on_file or _unheard)
    await border.register_files(RegisterFiles(envelopes=tuple(e for file in sealed for e in file.envelopes)))
    await asyncio.to_thread(catalogue.add_files, [file.listing for file in sealed], clock.now())
    commitment = await _freeze(dataset, catalogue, border, clock) if freeze else None
    listings = [file.listing for file in sealed]
    return IngestReport(
        files=len(listings),
        vehicles=vehicles,
        drives=sum(listing.drives for listing in listings),
        rows=sum(listing.rows for listing in listings),
        raw_bytes=sum(listing.raw_bytes for listing in listings),
        stored_bytes=sum(group.size for listing in listings for group in listing.groups),
        commitment=commitment,
    )


async def _require_free(dataset: DatasetRef, catalogue: Catalogue) -> None:
    if await asyncio.to_thread(catalogue.commitment, dataset) is not None:
        what = f"The snapshot {dataset.snapshot} of {dataset.dataset} is frozen already."
        raise Refusal(Code.ALREADY_EXISTS, what, why="A snapshot never changes.", remedy="Choose another name.")


async def _seal_and_put(
    tables: Iterable[pa.Table],
    session: _Session,
    border: BorderClient,
    store: ObjectStore,
    told: Callable[[int], None],
) -> tuple[list[_SealedFile], int]:
    """Check, seal and store the whole input; return its files and its vehicles' number.

    A file is sealed while the next is checked. When all has been checked and sealed, and not before, it is stored.
    """
    pseudonyms: dict[str, str] = {}
    sealed: list[_SealedFile] = []
    derived = _Derived()
    drives = batches(all_validated(tables))
    sealing: asyncio.Task[list[_SealedFile]] | None = None
    try:
        while (batch := await asyncio.to_thread(next, drives, None)) is not None:
            new = tuple(vehicle for vehicle in vehicles_of(batch) if vehicle not in pseudonyms)
            if new:
                answer = await border.pseudonyms(PseudonymRequest(vehicles=new))
                pseudonyms.update(zip(new, answer.pseudonyms, strict=True))
            if sealing is not None:
                sealed += await sealing
                told(len(sealed))
            of_batch = {vehicle: pseudonyms[vehicle] for vehicle in vehicles_of(batch)}
            sealing = asyncio.create_task(asyncio.to_thread(_seal, batch, of_batch, derived, session))
        if sealing is None:
            raise Refusal(Code.INPUT_INVALID, "There are no drives to ingest.")
        sealed += await sealing
        told(len(sealed))
        if last := await asyncio.to_thread(_seal_derived, derived, session):
            sealed += last
            told(len(sealed))
    finally:
        if sealing is not None:
            await asyncio.gather(sealing, return_exceptions=True)  # one thing that went wrong is told
    await asyncio.to_thread(_put_all, store, sealed)
    return sealed, len(pseudonyms)


def _unheard(_: int) -> None:
    """Nobody asked how far it is."""


def _seal(batch: pa.Table, pseudonyms: Mapping[str, str], derived: _Derived, session: _Session) -> list[_SealedFile]:
    """Seal a file of drives; and one of derived tables, where with theirs there are rows enough."""

    def groups() -> Iterator[tuple[Group, pa.Table]]:
        yield from group_columns(batch, pseudonyms).items()
        derived.add(derived_tables(batch, pseudonyms), pseudonyms.values())  # counted up while the drives are sealed

    file = _seal_file(
        groups(),
        session,
        pseudonyms=pseudonyms.values(),
        drives=drives_of(batch),
        rows=batch.num_rows,
        raw_bytes=raw_bytes(batch),
    )
    return [file, *(_seal_derived(derived, session) if derived.rows >= TABLE_ROWS_PER_FILE else [])]


def _seal_derived(derived: _Derived, session: _Session) -> list[_SealedFile]:
    """Seal what stands in no file yet, as one file."""
    if not derived.tables:
        return []
    parts, vehicles = derived.tables, derived.vehicles
    derived.tables, derived.vehicles, derived.rows = [], set(), 0
    groups = ((group, together([tables.pop(group) for tables in parts])) for group in tuple(parts[0]))
    return [_seal_file(groups, session, pseudonyms=vehicles, drives=0, rows=0, raw_bytes=0)]


def _seal_file(
    tables: Iterable[tuple[Group, pa.Table]], session: _Session, *, pseudonyms: Iterable[str], **holds: int
) -> _SealedFile:
    file = FileId(f"file-{secrets.token_hex(16)}")
    groups: list[StoredGroup] = []
    envelopes: list[str] = []
    objects: dict[str, bytes] = {}
    for stored, envelope, data in ahead(lambda item: _seal_one(file, *item, session), tables, SEALED_AT_ONCE):
        groups.append(stored)
        envelopes.append(envelope)
        objects[stored.object_name] = data
    listing = StoredFile(file, session.dataset, tuple(groups), tuple(sorted(pseudonyms)), **holds)
    return _SealedFile(listing, objects, tuple(envelopes))


def _seal_one(file: FileId, group: Group, columns: pa.Table, session: _Session) -> tuple[StoredGroup, str, bytes]:
    """Seal one group. The key is gone when this returns: what is left of it opens at the border alone."""
    key = new_file_key()
    data = seal_group(columns, key, file_aad(session.dataset, file, group))
    stored = StoredGroup(group, f"files/{file}/{group.value}.parquet", Digest.of(data), len(data))
    wrapped = wrap(key, session.border, context=file_key_context(session.dataset, file, group, stored.digest))
    sidecar = Sidecar(
        version=1,
        dataset=session.dataset,
        file=file,
        group=group,
        object_name=stored.object_name,
        digest=stored.digest,
        size=stored.size,
        rows=columns.num_rows,
        wrapped_key=base64.b64encode(wrapped).decode(),
    )
    return stored, session.signing.sign(SIDECAR_TYPE, canonical.dump(sidecar)).decode(), data


def _put_all(store: ObjectStore, sealed: Sequence[_SealedFile]) -> None:
    """Store every object, a few at a time: over a network each waits more than it works. The first failure ends it."""
    objects = (item for file in sealed for item in file.objects.items())
    for _ in ahead(lambda item: store.put(*item), objects, PUTS_AT_ONCE):
        pass


async def _freeze(dataset: DatasetRef, catalogue: Catalogue, border: BorderClient, clock: Clock) -> Digest:
    files = await asyncio.to_thread(catalogue.files, dataset.dataset)
    answer = await border.freeze(FreezeSnapshot(dataset=dataset, files=files))
    await asyncio.to_thread(catalogue.freeze, dataset, files, answer.commitment, clock.now())
    return answer.commitment
