"""Ledger entries: the two append-only logs of a border.

`crossings` holds every crossing that left or was decided here, with its whole envelope; `internal` holds what the
border decided, granted, approved and spent. An entry's leaf is the canonical bytes of one of these types.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name, OrderId, PersonId, SiteId
from isthmus.contracts.keys import HybridKey
from isthmus.contracts.raw_table import Group
from isthmus.contracts.roster import Genesis
from isthmus.contracts.wire import Count, Positive, SortedUnique, UnixSeconds, Wire


@unique
class Log(StrEnum):
    """The two logs of a border."""

    CROSSINGS = "crossings"
    INTERNAL = "internal"


class CrossingEntry(Wire):
    """A crossing sent (by its sender), or accepted or refused (by its receiver)."""

    event: Literal["crossing"] = "crossing"
    verdict: Literal["sent", "accepted", "refused"]
    code: Code | None
    envelope: Annotated[str, Field(max_length=65_536)]
    at: UnixSeconds


class GenesisEntry(Wire):
    """The first internal entry."""

    event: Literal["genesis"] = "genesis"
    genesis: Genesis


class IngestSession(Wire):
    """A key with which one run of ingest signs what it registers."""

    event: Literal["ingest_session"] = "ingest_session"
    key: HybridKey
    at: UnixSeconds


class FilesRegistered(Wire):
    """Files that ingest has sealed: the digest of the signed sidecars, in order."""

    event: Literal["files_registered"] = "files_registered"
    dataset: Name
    sidecars: Annotated[tuple[Digest, ...], Field(max_length=4096)]
    at: UnixSeconds


class SnapshotFrozen(Wire):
    """A dataset snapshot: a salted commitment to its files. The salt stays with the border."""

    event: Literal["snapshot_frozen"] = "snapshot_frozen"
    dataset: Name
    snapshot: Name
    commitment: Digest
    files: Count
    at: UnixSeconds


class OrderAccepted(Wire):
    """An order taken in, with what it reserves."""

    event: Literal["order_accepted"] = "order_accepted"
    order: OrderId
    job: JobId
    peer: SiteId
    reserved_bits: Count
    at: UnixSeconds


class OrderClosed(Wire):
    """An order that ended: what it never used comes back."""

    event: Literal["order_closed"] = "order_closed"
    order: OrderId
    reason: Literal["complete", "expired", "failed"]
    spent_bits: Count
    returned_bits: Count
    at: UnixSeconds


Curve = Annotated[tuple[Count, ...], Field(min_length=1, max_length=64)]
"""Renyi divergences at the orders of `proof.accounting.ALPHAS`, in units of 1e-9, each rounded up."""


class PrivacyReserved(Wire):
    """What the answer to a question, or the updates of a training, may cost their population of vehicles.

    Reserved when the order is accepted.
    """

    event: Literal["privacy_reserved"] = "privacy_reserved"
    order: OrderId
    epsilon_micro: Positive
    delta_exponent: Count
    curve: Curve
    at: UnixSeconds


class PrivacySettled(Wire):
    """What became of a reservation: spent when anything that depends on data was decided, else returned.

    `question` names the question and its frozen snapshot; two entries with the same one are of the same question. A
    training has none. What it spends is the part of its `rounds` that are paid for; the rest comes back.
    """

    event: Literal["privacy_settled"] = "privacy_settled"
    order: OrderId
    outcome: Literal["spent", "repeated", "returned"]
    question: Digest | None
    rounds: Count | None = None
    at: UnixSeconds

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.question is None) != (self.rounds is not None) or (self.rounds and self.outcome != "spent"):
            raise ValueError("a settlement is of a question, or of a training's rounds")
        return self


class KeysReleased(Wire):
    """Keys of the files and groups of one order, sealed to one run of compute. It cannot be taken back.

    `accelerators` are the classes of chips that compute said it runs the order on; `rules` let the keys go there.
    """

    event: Literal["keys_released"] = "keys_released"
    order: OrderId
    run: Digest
    groups: Annotated[tuple[Group, ...], SortedUnique]
    accelerators: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16), SortedUnique]
    rules: Annotated[tuple[str, ...], Field(max_length=64)]
    files: Count
    commitment: Digest
    at: UnixSeconds


class KeysRefused(Wire):
    """Policy did not let an order's keys go to the chips that compute named. None went out."""

    event: Literal["keys_refused"] = "keys_refused"
    order: OrderId
    run: Digest
    accelerators: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16), SortedUnique]
    code: Code
    rules: Annotated[tuple[str, ...], Field(max_length=64)]
    at: UnixSeconds


class Drafted(Wire):
    """A candidate whose sealed bytes are on disk, and what it costs, whatever becomes of it."""

    event: Literal["drafted"] = "drafted"
    crossing: CrossingId
    order: OrderId
    sealed: Digest
    replaces: Digest | None
    spent_bits: Count
    at: UnixSeconds


class Decided(Wire):
    """What policy said of a candidate or of an inbound crossing, and by which rules.

    `spent_bits` is what the decision itself charged to the order: a candidate that is refused before it is drafted
    costs what a drafted one costs. Elsewhere it is 0.
    """

    event: Literal["decided"] = "decided"
    crossing: CrossingId
    order: OrderId
    direction: Literal["in", "out"]
    outcome: Literal["release", "hold", "refuse", "accept"]
    code: Code | None
    rules: Annotated[tuple[str, ...], Field(max_length=64)]
    needs: Annotated[tuple[str, ...], Field(max_length=16)]
    spent_bits: Count
    at: UnixSeconds


class Approved(Wire):
    """An officer's signed approval, whole."""

    event: Literal["approved"] = "approved"
    person: PersonId
    statement: Digest
    envelope: Annotated[str, Field(max_length=65_536)]
    at: UnixSeconds


class Rejected(Wire):
    """An officer's signed rejection, whole."""

    event: Literal["rejected"] = "rejected"
    person: PersonId
    crossing: CrossingId
    envelope: Annotated[str, Field(max_length=65_536)]
    at: UnixSeconds


class PeerRefused(Wire):
    """Something a peer sent that could not become a crossing: what it was is kept as a digest."""

    event: Literal["peer_refused"] = "peer_refused"
    peer: SiteId
    code: Code
    evidence: Digest
    at: UnixSeconds


class LinkHalted(Wire):
    """The link to a peer was stopped; the evidence is kept beside the ledger."""

    event: Literal["link_halted"] = "link_halted"
    peer: SiteId
    code: Code
    evidence: Annotated[str, Field(max_length=16_384)]
    at: UnixSeconds


InternalEntry = Annotated[
    GenesisEntry
    | IngestSession
    | FilesRegistered
    | SnapshotFrozen
    | OrderAccepted
    | OrderClosed
    | PrivacyReserved
    | PrivacySettled
    | KeysReleased
    | KeysRefused
    | Drafted
    | Decided
    | Approved
    | Rejected
    | PeerRefused
    | LinkHalted,
    Field(discriminator="event"),
]
INTERNAL_ENTRY: TypeAdapter[InternalEntry] = TypeAdapter(InternalEntry)
