"""What the audit of a capture says: where every byte on the wire belongs, and what nothing accounts for.

Bytes are absolute: whole captured frames, from the link layer's header on. The parts of a flow add up to its total.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated

from pydantic import Field

from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.wire import Count, Wire


@unique
class Part(StrEnum):
    """Where a byte on the wire belongs. `docs/reference/wire-format.md` says how each is computed."""

    PAYLOAD = "payload"
    SIGNED = "signed"
    CONTROL = "control"
    PADDING = "padding"
    HTTP = "http"
    TLS = "tls"
    HANDSHAKE = "handshake"
    TRANSPORT = "transport"
    REPEATED = "repeated"
    DARK = "dark"


ROOM = (Part.CONTROL, Part.PADDING, Part.HTTP, Part.HANDSHAKE, Part.REPEATED)
"""Parts whose size follows from rules and whose content a capture does not show."""


@unique
class Act(StrEnum):
    """One request with its answer, as the link knows them."""

    OPEN = "open"
    HEADS = "heads"
    POLL = "poll"
    NEXT = "next"
    BLOB = "blob"
    RECEIPT = "receipt"
    UPLOAD = "upload"


@unique
class WireFindingCode(StrEnum):
    """The closed list of what speaks against a capture. Each fails the audit."""

    EVIDENCE_NOT_ACCEPTED = "evidence_not_accepted"
    CAPTURE_INCOMPLETE = "capture_incomplete"
    UNKNOWN_PARTY = "unknown_party"
    NOT_A_LINK = "not_a_link"
    NOT_TLS = "not_tls"
    NOT_FROM_THE_START = "not_from_the_start"
    SENT_AGAIN_DIFFERENTLY = "sent_again_differently"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    OVER_SIZE = "over_size"
    TOO_OFTEN = "too_often"
    UNACCOUNTED = "unaccounted"
    CROSSING_NOT_SEEN = "crossing_not_seen"


class WireFinding(Wire):
    """One finding, in the auditor's own words; `dark` of its bytes are in the total."""

    code: WireFindingCode
    site: SiteId | None
    at_us: Count
    dark: Count
    detail: Annotated[str, Field(max_length=256)]


class Flow(Wire):
    """What went from one party to another. A party that is not known is null."""

    sender: SiteId | None
    receiver: SiteId | None
    total: Count
    parts: dict[Part, Count]


class LinkCount(Wire):
    """How often a zone and the coordinator did what, and how often the link came up again."""

    zone: SiteId
    connections: Count
    reconnects: Count
    acts: dict[Act, Count]


class WireReport(Wire):
    """The audit's answer.

    Attributes:
        clear: no finding stands, and no more than `at_most` bytes are dark.
        at_most: the bound that was asked for.
        began_us, ended_us: the capture's first and last packet, microseconds since 1970.
        total: all bytes of the capture.
        parts: the same, by part.
        dark: bytes for which no logged crossing and no rule of the protocol accounts.
        room: bytes that rules account for and whose content nobody outside can see.
        flows: by direction and peer.
        links: what happened on each zone's link.
        before, after: logged crossings that were decided before the capture began, and after it ended and that it does
            not show: a clear report says nothing of them.
        findings: the first thousand.
        findings_left_out: how many more there are.
        not_claimed: what a clear report does not mean.
    """

    clear: bool
    at_most: Count
    began_us: Count
    ended_us: Count
    total: Count
    parts: dict[Part, Count]
    dark: Count
    room: Count
    flows: tuple[Flow, ...]
    links: tuple[LinkCount, ...]
    before: Count
    after: Count
    findings: tuple[WireFinding, ...]
    findings_left_out: Count
    not_claimed: tuple[str, ...]
