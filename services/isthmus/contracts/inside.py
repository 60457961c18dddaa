"""The inside face: what a border's own site may ask of it. Nothing here crosses.

A route belongs to a role (`InsideRole`); each role has one bearer token, kept in a file that only its holder reads.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Literal

from pydantic import Field

from isthmus.contracts.approvals import Approval, StandingApproval
from isthmus.contracts.crossings import Contributors, Kind, Manifest
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, Digest, FileId, JobId, Name, OrderId, SiteId
from isthmus.contracts.keys import HpkeKey, HybridKey
from isthmus.contracts.ledger import Log
from isthmus.contracts.orders import DatasetRef, TrainingPrivacy
from isthmus.contracts.queries import Answer, PrivacyBudget, QueryPlan
from isthmus.contracts.raw_table import Group
from isthmus.contracts.wire import Base64, Count, Positive, SortedUnique, Wire

SIDECAR_TYPE = "application/vnd.isthmus.sidecar+json"


@unique
class InsideRole(StrEnum):
    """Who may ask a border what. One token each."""

    SUBMITTER = "submitter"
    COMPUTE = "compute"
    INGEST = "ingest"
    OFFICER = "officer"
    AUDITOR = "auditor"


class CandidateHeader(Wire):
    """What a candidate says of itself. The border takes none of it on trust.

    `size` is that of the payload that follows, in bytes. `contributors` are exact. `inputs` are the releases that a
    model was made from.
    """

    order: OrderId
    kind: Kind
    recipient: SiteId
    slot: Count
    size: Positive
    contributors: Contributors | None = None
    inputs: Annotated[tuple[CrossingId, ...], Field(max_length=64), SortedUnique] = ()


class CandidateStatus(Wire):
    """Where a candidate stands. `needs` names the approvals that are missing."""

    crossing: CrossingId
    state: str
    code: Code | None
    needs: tuple[str, ...] = ()


class Delivery(Wire):
    """Something for the site behind the border: an accepted crossing, or a peer's refusal of one it sent.

    A notice comes with its `code` and the crossing it is `about`.
    """

    ordinal: Positive
    event: Literal["crossing", "refused"]
    crossing: CrossingId
    kind: Kind
    sender: SiteId
    job: JobId
    order: OrderId
    slot: Count
    contributors: Contributors | None
    code: Code | None
    about: CrossingId | None = None


class Deliveries(Wire):
    """Answer to a long poll: what came after the ordinal asked for; empty when the wait is over."""

    items: tuple[Delivery, ...]


class KeyRequest(Wire):
    """Ask for the keys of an order's files, sealed to a key made for this run.

    `accelerators` are the classes of all machines that the order is about to run on: compute's own word.
    """

    order: OrderId
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=5), SortedUnique]
    accelerators: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16), SortedUnique]
    run_key: HpkeKey


class FileGrant(Wire):
    """One file of one group: where it is, what it must hash to, and its key sealed to the run."""

    file: FileId
    group: Group
    dataset: Name
    object_name: str
    digest: Digest
    size: Positive
    wrapped_key: Base64


class KeyGrant(Wire):
    """The files and groups of one order, exactly."""

    order: OrderId
    files: tuple[FileGrant, ...]


class SessionRequest(Wire):
    """The signing key of one run of ingest."""

    key: HybridKey


class SessionAnswer(Wire):
    """The public key to which ingest seals file keys."""

    sealing: HpkeKey


class PseudonymRequest(Wire):
    """Vehicles to be given their pseudonyms."""

    vehicles: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=10_000)]


class PseudonymAnswer(Wire):
    """Pseudonyms in the order asked for: a keyed hash that never leaves the zone's border as a key."""

    pseudonyms: tuple[str, ...]


class Sidecar(Wire):
    """What ingest says of one sealed file. `object_name` is made of the file's id and group alone.

    `wrapped_key` is the file's key sealed to the border, in the context of dataset, file, group and digest.
    """

    version: Literal[1]
    dataset: Name
    file: FileId
    group: Group
    object_name: Annotated[str, Field(pattern=r"^[a-z0-9/_.-]{1,200}$")]
    digest: Digest
    size: Positive
    rows: Positive
    wrapped_key: Annotated[Base64, Field(max_length=2048)]


class RegisterFiles(Wire):
    """Signed sidecars (DSSE, `SIDECAR_TYPE`), registered together or not at all."""

    envelopes: Annotated[tuple[Annotated[str, Field(max_length=16_384)], ...], Field(min_length=1, max_length=4096)]


class FreezeSnapshot(Wire):
    """Freeze these files, all of them registered, under a name."""

    dataset: DatasetRef
    files: Annotated[tuple[FileId, ...], Field(min_length=1, max_length=100_000), SortedUnique]


class SnapshotAnswer(Wire):
    """The salted commitment that releases made from the snapshot carry."""

    commitment: Digest


class PrivacyView(Wire):
    """What the population's budget is, and what is gone of it.

    Attributes:
        budget: what all answers and private trainings together may cost; None where this border has none.
        epsilon_micro: what is spent or reserved, as the one epsilon that the budget's filter holds against it.
        answered: answers that were paid for.
        repeated: answers that were given again, for nothing.
        open: questions that are reserved for and not answered yet.
        unprotected: releases that carry no differential privacy (updates of trainings that are not private, banded
            evaluations, controlled answers).
        trainings: private trainings that reserve of the budget or have spent of it.
    """

    budget: PrivacyBudget | None
    epsilon_micro: Count
    answered: Count
    repeated: Count
    open: Count
    unprotected: Count
    trainings: Count


class CloseOrder(Wire):
    """Compute says that an order is done, or that it failed and with which code."""

    order: OrderId
    code: Code | None = None


class ReviewItem(Wire):
    """A release that waits for officers, and the statements that would let it pass.

    The answer to a question comes with the question and with every number that would cross: it never left the zone.
    `elsewhere` is, for one that is disclosure-controlled, how many there are about other snapshots of its dataset: it
    was not held against those, and the same vehicles may stand behind them. An update of a private training comes with
    what its training promises: it is noised already, and the exact sum is not shown.
    """

    manifest: Manifest
    state: str
    needs: tuple[str, ...]
    standing: StandingApproval
    single: Approval
    signed_by: tuple[str, ...]
    query: QueryPlan | None = None
    answer: Answer | None = None
    elsewhere: Count = 0
    training: TrainingPrivacy | None = None


class Review(Wire):
    """All that waits for officers."""

    items: tuple[ReviewItem, ...]


class SignedStatement(Wire):
    """An officer's signed approval or rejection (DSSE)."""

    envelope: Annotated[str, Field(max_length=65_536)]


class LogView(Wire):
    """One log: its size, root and latest checkpoint, with the peers' cosignatures."""

    log: Log
    size: Count
    root: Digest
    checkpoint: str
    cosigned: tuple[str, ...]


class LedgerView(Wire):
    """Both logs, and whether the border operates."""

    site: SiteId
    logs: tuple[LogView, ...]
    halted: dict[SiteId, Code]


class LedgerEntries(Wire):
    """Entries of one log from `start` on, as their canonical bytes' text."""

    log: Log
    start: Count
    entries: tuple[str, ...]


class Evidence(Wire):
    """What one border contributes to an evidence bundle.

    Attributes:
        site: whose evidence it is.
        genesis: digest of its genesis.
        logs: both logs' heads, with the newest note of each that every peer cosigned.
        witnessed: the newest head of each peer's logs, as this border cosigned it.
        entries: both logs' entries as canonical bytes' text.
        receipts: what it sent, by id: the receiver's signed receipt.
        orders: canonical bodies of the orders it gave or took, as text. An id is the digest of its body.
    """

    site: SiteId
    genesis: Digest
    logs: tuple[LogView, ...]
    witnessed: tuple[str, ...]
    entries: dict[Log, tuple[str, ...]]
    receipts: dict[CrossingId, str]
    orders: dict[OrderId, str]


class Usage(Wire):
    """What crossed, by kind and direction, and what it could have said at most."""

    kind: Kind
    direction: Literal["in", "out"]
    count: Count
    sealed_bytes: Count
    information_bits: Count


class UsageReport(Wire):
    """Everything that crossed this border."""

    site: SiteId
    usage: tuple[Usage, ...]


class Problem(Wire):
    """The answer of every refused request inside a site (and of the jobs API)."""

    code: Code
    what: str
    why: str = ""
    remedy: str = ""
