"""Approvals: officers' signatures over one release, or over a class of releases of one job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isthmus.contracts.crossings import Kind, Sites
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name, OrderId, SiteId
from isthmus.contracts.orders import Algorithm, DatasetRef
from isthmus.contracts.raw_table import Group
from isthmus.contracts.wire import Positive, SortedUnique, UnixSeconds, Wire

STANDING_APPROVAL_TYPE = "application/vnd.isthmus.standing-approval+json"
APPROVAL_TYPE = "application/vnd.isthmus.approval+json"
REJECTION_TYPE = "application/vnd.isthmus.rejection+json"


class Bounds(Wire):
    """What a release may not exceed to fall under a standing approval."""

    clip_norm_micro: Positive
    information_bits_per_release: Positive
    releases: Positive


class StandingApproval(Wire):
    """A class of releases of one job, signed by two officers of the zone from two organisations."""

    version: Literal[1]
    zone: SiteId
    job: JobId
    order: OrderId
    kind: Kind
    algorithm: Algorithm
    dataset: DatasetRef
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=5), SortedUnique]
    recipients: Sites
    purpose: Name
    policy: Digest
    bounds: Bounds
    expires_at: UnixSeconds


class Approval(Wire):
    """One release, by the digest of its sealed bytes."""

    version: Literal[1]
    zone: SiteId
    crossing: CrossingId
    sealed: Digest
    recipients: Sites
    purpose: Name
    policy: Digest
    expires_at: UnixSeconds


class Rejection(Wire):
    """One officer's no to one held release: one is enough."""

    version: Literal[1]
    zone: SiteId
    crossing: CrossingId
    sealed: Digest
