"""Crossings: what passes between two borders, and what each says of itself.

The kinds are closed. A manifest is signed by the sending border, logged by both, and readable by an auditor without
any key; the payload it describes is sealed to the recipient. What in a manifest derives from data is banded.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name, OrderId, SiteId
from isthmus.contracts.wire import Base64, Count, Positive, SortedUnique, UnixSeconds, Wire

CROSSING_TYPE = "application/vnd.isthmus.crossing+json"
RECEIPT_TYPE = "application/vnd.isthmus.receipt+json"


@unique
class Kind(StrEnum):
    """The closed list of what can cross."""

    ORDER = "order"
    MODEL = "model"
    MODEL_UPDATE = "model_update"
    AGGREGATE = "aggregate"
    EXTRACT = "extract"
    LICENCE = "licence"
    NOTICE = "notice"


RELEASES = frozenset({Kind.MODEL_UPDATE, Kind.AGGREGATE, Kind.EXTRACT})
"""Kinds that derive from data: they leave a zone only with approval."""

Sites = Annotated[tuple[SiteId, ...], Field(max_length=16), SortedUnique]


ProofPath = Annotated[tuple[Annotated[Base64, Field(max_length=44)], ...], Field(max_length=128)]
"""A Merkle proof: hashes of 32 bytes, base64."""


@unique
class Check(StrEnum):
    """Checks that a border has made of a payload before it was sealed."""

    SCHEMA = "schema"
    FINITE = "finite"
    CLIPPED = "clipped"
    CONTRIBUTORS = "contributors"
    BANDED = "banded"
    NOISED = "noised"
    DISCLOSURE_CONTROLLED = "disclosure_controlled"


class Contributors(Wire):
    """How much data stands behind a release. On the wire both numbers are banded (see `contracts.bands`)."""

    vehicles: Count
    windows: Count


class PrivacyEvent(Wire):
    """One protection that was applied, where, and with what parameter.

    `l2_clip`: `parameter` is the bound in millionths. `band`: the width of the band in the figure's own unit.
    `contribution_bound`: the most rows of one vehicle that count. `vehicle_clip`: the bound in millionths on the norm
    of what one vehicle changes in a round. `differential_privacy`: epsilon in millionths, at the delta that the order
    states, of an answer, or of all updates of a training together. `disclosure_control`: the fewest vehicles a cell.
    Only `differential_privacy` is that.
    """

    mechanism: Literal[
        "l2_clip", "band", "contribution_bound", "vehicle_clip", "differential_privacy", "disclosure_control"
    ]
    parameter: Positive
    enforced_by: Literal["border", "zone"]


class SealedPayload(Wire):
    """The payload as it travels: Cobblestone-256 under a content key that is wrapped by HPKE for the recipient."""

    digest: Digest
    size: Positive
    wrapped_key: Annotated[Base64, Field(max_length=2048)]


class Manifest(Wire):
    """What a crossing says of itself.

    `lineage` names every zone whose data the payload holds; `recipients` every site it may be passed on to;
    `plaintext` stands for `order` and `model` alone, so that two zones can compare what they were sent;
    `information_bits` is the payload's size in bits, an upper bound of what it can say.
    """

    version: Literal[1]
    crossing: CrossingId
    kind: Kind
    sender: SiteId
    recipient: SiteId
    sequence: Positive
    job: JobId
    order: OrderId
    slot: Count
    purpose: Name
    lineage: Sites
    recipients: Sites
    payload: SealedPayload
    plaintext: Digest | None
    inputs: Annotated[tuple[CrossingId, ...], Field(max_length=64), SortedUnique]
    contributors: Contributors | None
    commitments: Annotated[tuple[Digest, ...], Field(max_length=16), SortedUnique]
    policy: Digest
    checks: Annotated[tuple[Check, ...], Field(max_length=16), SortedUnique]
    privacy: Annotated[tuple[PrivacyEvent, ...], Field(max_length=16)]
    approvals: Annotated[tuple[Digest, ...], Field(max_length=16), SortedUnique]
    information_bits: Count
    issued_at: UnixSeconds
    expires_at: UnixSeconds

    @model_validator(mode="after")
    def _plaintext_only_of_what_comes_in(self) -> Self:
        if (self.plaintext is not None) != (self.kind in {Kind.ORDER, Kind.MODEL}):
            raise ValueError("a plaintext digest stands for an order or a model, and for nothing else")
        if self.sender == self.recipient:
            raise ValueError("a site does not send to itself")
        return self


class Notice(Wire):
    """The payload of a `notice`: something about a crossing, as one code."""

    about: CrossingId
    code: Code


class HeadProof(Wire):
    """A log's head, with the proof that it extends the head of `base` entries."""

    checkpoint: Annotated[str, Field(max_length=4096)]
    base: Count
    consistency: ProofPath


class Receipt(Wire):
    """The receiving border's signed answer: what it decided, and that this stands in its ledger.

    `inclusion` proves entry `index` in `checkpoint`. The entry holds the envelope, the verdict and `at`, so the sender
    can make its leaf itself.
    """

    version: Literal[1]
    crossing: CrossingId
    envelope: Digest
    by: SiteId
    verdict: Literal["accepted", "refused"]
    code: Code | None
    at: UnixSeconds
    index: Count
    inclusion: ProofPath
    checkpoint: Annotated[str, Field(max_length=4096)]

    @model_validator(mode="after")
    def _code_says_why(self) -> Self:
        if (self.code is not None) != (self.verdict == "refused"):
            raise ValueError("a refusal has a code, an acceptance has none")
        return self
