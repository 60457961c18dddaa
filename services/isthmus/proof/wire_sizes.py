"""How large each message of the link is, computed from the protocol and from what both ledgers hold.

Every body fills whole frames (`contracts.link`); a request's head names its route, one host and its length; an answer's
head its status and its length. So a message's size follows from its route and its frames. Where a control message holds
heads beside an envelope, the proofs in them vary by some kilobytes: then it fills one of two numbers of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from isthmus.contracts.link import FRAME, HOST, LENGTH, filled
from isthmus.contracts.wire_audit import Act
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.identifiers import SiteId

LEAST_HEADS, MOST_HEADS = 64, 8192
"""Fewest and most bytes of heads beside an envelope or a receipt: two logs, each with a proof."""
BULK = "accept-encoding: identity\r\n"
FAREWELL = len("connection: close\r\n")
"""What a server that is stopping adds to the head of an answer; the connection ends with it (RFC 9112, section 9.6)."""


@dataclass(frozen=True, slots=True)
class Body:
    """One message: an HTTP head and frames.

    Attributes:
        head: bytes of the HTTP head.
        control: bytes of control frames.
        signed: of those, what is an envelope or a receipt that a ledger holds.
        padded: bytes of payload frames.
        payload: of those, the sealed payload.
    """

    head: int
    control: int = 0
    signed: int = 0
    padded: int = 0
    payload: int = 0

    @property
    def size(self) -> int:
        """Bytes in all, before TLS."""
        return self.head + self.control + self.padded

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return (self.control + self.padded) // FRAME


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer."""

    act: Act
    up: Body
    down: Body


@dataclass(frozen=True, slots=True)
class Crossing:
    """A logged crossing, with what its size on the wire follows from.

    Attributes:
        manifest: what was signed.
        envelope: bytes of the envelope.
        spelled: bytes of the envelope as a JSON string.
        receipt: bytes of the receipt, 0 where there is none yet.
        receipt_spelled: bytes of the receipt as a JSON string.
        decided_at: when the receiver logged it, seconds since 1970; None where it has not.
    """

    manifest: Manifest
    envelope: int
    spelled: int
    receipt: int
    receipt_spelled: int
    decided_at: int | None

    @classmethod
    def of(cls, manifest: Manifest, envelope: str, receipt: str, decided_at: int | None) -> Crossing:
        """Return a crossing as both ledgers hold it."""
        spelled, said = len(canonical.encode(envelope)), len(canonical.encode(receipt))
        return cls(manifest, len(envelope.encode()), spelled, len(receipt.encode()), said, decided_at)


def open_link(zone: SiteId) -> tuple[Exchange, ...]:
    """Return what opening a link looks like."""
    return (_post(Act.OPEN, zone, "open"),)


def heads(zone: SiteId) -> tuple[Exchange, ...]:
    """Return what an exchange of heads looks like."""
    return (_post(Act.HEADS, zone, "heads"),)


def poll(zone: SiteId) -> tuple[Exchange, ...]:
    """Return what a poll looks like that nothing answered."""
    return (Exchange(Act.POLL, _request("GET", zone, "next"), Body(_answer_head(204, None))),)


def next_crossing(zone: SiteId, crossing: Crossing) -> tuple[Exchange, ...]:
    """Return what a poll looks like that is answered with this crossing's envelope."""
    control = filled(LENGTH + crossing.envelope)
    answer = Body(_answer_head(200, control), control, crossing.envelope)
    return (Exchange(Act.NEXT, _request("GET", zone, "next"), answer),)


def blob(zone: SiteId, crossing: Crossing) -> tuple[Exchange, ...]:
    """Return what fetching this crossing's payload looks like."""
    payload = crossing.manifest.payload
    asked = _request("GET", zone, f"blob/{payload.digest}", more=len(BULK))
    padded = filled(payload.size)
    return (Exchange(Act.BLOB, asked, Body(_answer_head(200, padded), 0, 0, padded, payload.size)),)


def receipt(zone: SiteId, crossing: Crossing) -> tuple[Exchange, ...]:
    """Return what handing over this crossing's receipt looks like."""
    return tuple(
        Exchange(Act.RECEIPT, _request("POST", zone, "receipts", control, signed=crossing.receipt), _one_frame())
        for control in _around(crossing.receipt_spelled)
    )


def upload(zone: SiteId, crossing: Crossing) -> tuple[Exchange, ...]:
    """Return what sending this crossing to the coordinator looks like."""
    payload = crossing.manifest.payload
    return tuple(
        Exchange(
            Act.UPLOAD,
            _request(
                "PUT",
                zone,
                f"crossings/{crossing.manifest.crossing}",
                control,
                signed=crossing.envelope,
                padded=filled(payload.size),
                payload=payload.size,
            ),
            Body(_answer_head(200, answer), answer, crossing.receipt),
        )
        for control in _around(crossing.spelled)
        for answer in _around(crossing.receipt_spelled)
    )


def _around(spelled: int) -> Iterator[int]:
    """Yield the control frames that a signed message with heads beside it can fill."""
    least, most = (filled(LENGTH + spelled + heads) for heads in (LEAST_HEADS, MOST_HEADS))
    yield from range(least, most + 1, FRAME)


def _post(act: Act, zone: SiteId, verb: str) -> Exchange:
    return Exchange(act, _request("POST", zone, verb, FRAME), _one_frame())


def _one_frame() -> Body:
    return Body(_answer_head(200, FRAME), FRAME)


def _request(
    method: str, zone: SiteId, path: str, control: int = 0, *, signed: int = 0, padded: int = 0, payload: int = 0,
    more: int = 0,
) -> Body:  # fmt: skip
    length = f"content-length: {control + padded}\r\n" if control else ""
    head = f"{method} /link/{zone}/{path} HTTP/1.1\r\nhost: {HOST}\r\n{length}\r\n"
    return Body(len(head) + more, control, signed, padded, payload)


def _answer_head(status: int, size: int | None) -> int:
    length = "" if size is None else f"content-length: {size}\r\n"
    return len(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{length}\r\n")
