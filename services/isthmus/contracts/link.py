"""The link between two borders: what travels beside crossings, over mutual TLS with pinned certificates.

A request that carries a head says from which size its proof starts; the answer's proof starts where the asker says it
has `seen` the other's log. Nothing here is data of a zone.

How a message looks from outside is fixed here too: every body fills whole frames, the heads of requests and answers
hold nothing that varies, and what is sent without a crossing goes at a fixed cadence. `isthmus audit wire` computes
from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isthmus.contracts.crossings import HeadProof
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.ledger import Log
from isthmus.contracts.wire import Count, UnixSeconds, Wire

FRAME = 16 * 1024
"""Bytes of a frame. Every body on the link is a whole number of them."""
LENGTH = 4
"""Bytes before a control message that say how long it is."""
HOST = "isthmus"
"""What every request on the link names as its host: the certificate, not the name, says who it is."""
CADENCE_S = 5.0
"""Seconds between two exchanges of both logs' heads."""
POLL_S = 25.0
"""Seconds for which a poll is held that nothing answers."""

Note = Annotated[str, Field(max_length=8192)]


class Opening(Wire):
    """What each side states when a link opens: the other's heads that it last cosigned, and how far it has read."""

    version: Literal[1]
    site: SiteId
    peer: SiteId
    cosigned: dict[Log, Note]
    cursor: Count
    at: UnixSeconds


class Heads(Wire):
    """A side's heads, each with a proof from what the other last cosigned; and what it has seen of the other's."""

    heads: dict[Log, HeadProof]
    seen: dict[Log, Count]


class HeadsAnswer(Wire):
    """The asker's heads as cosigned, and the own heads from where the asker has seen them."""

    cosigned: dict[Log, Note]
    heads: dict[Log, HeadProof]


class Parcel(Wire):
    """A crossing on its way: the envelope, and the sender's head that covers it. The sealed payload follows."""

    envelope: Annotated[str, Field(max_length=65_536)]
    heads: Heads


class ParcelAnswer(Wire):
    """The signed receipt, and the heads."""

    receipt: Annotated[str, Field(max_length=65_536)]
    heads: HeadsAnswer


class ReceiptParcel(Wire):
    """A receipt for a crossing that was fetched."""

    receipt: Annotated[str, Field(max_length=65_536)]
    heads: Heads


class LinkProblem(Wire):
    """The only error text between sites: one code."""

    code: Code


def filled(size: int) -> int:
    """Return the bytes of the frames that `size` bytes fill.

    >>> filled(0), filled(1), filled(16384), filled(16385)
    (0, 16384, 16384, 32768)
    """
    return -(-size // FRAME) * FRAME
