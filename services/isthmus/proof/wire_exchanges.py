"""A connection's records taken apart into handshake, requests with their answers, and what TLS itself adds.

1. In TLS 1.3 (RFC 8446) everything after the first two messages has the type of application data. A client that shows
   a certificate sends three such records before it speaks (certificate, its proof, end), a server five (extensions,
   request for a certificate, certificate, its proof, end); no session tickets are issued. An alert that closes is the
   last record of its direction, with two bytes in it.
2. HTTP/1.1 without pipelining: a request begins with the first record from the client after an answer.
3. A record of n bytes holds n - 17 bytes of HTTP: a byte for its type and a tag of 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.proof.wire_streams import RECORD_HEADER

if TYPE_CHECKING:
    from isthmus.proof.wire_streams import Connection, Record

APPLICATION_DATA = 23
INSIDE = 17
"""Bytes of a record's length that are not the message's: content type and tag."""
AROUND = RECORD_HEADER + INSIDE
CLIENTS_RECORDS, SERVERS_RECORDS = 3, 5
CLOSING = 2 + INSIDE
MOST_HANDSHAKE = 6144
"""Most bytes of one direction's handshake: room for certificates and hybrid key exchange. More is not accounted for."""


@dataclass(slots=True)
class Seen:
    """A request and its answer as a capture shows them.

    Attributes:
        connection: on which connection.
        began_us, ended_us: first byte asked, last byte answered.
        up, down: bytes of HTTP each way.
        records_up, records_down: in how many records.
        cut: the connection ended, and the answer may not be whole.
    """

    connection: Connection
    began_us: int
    ended_us: int
    up: int = 0
    down: int = 0
    records_up: int = 0
    records_down: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a connection's records come to: bytes of handshake each way, and exchanges."""

    handshake_up: int
    handshake_down: int
    exchanges: tuple[Seen, ...]


def spoken(connection: Connection) -> Spoken:
    """Take a connection's records apart."""
    handshake = {True: 0, False: 0}
    encrypted = {True: CLIENTS_RECORDS, False: SERVERS_RECORDS}
    last = {record.from_client: place for place, record in enumerate(connection.records)}
    exchanges: list[Seen] = []
    for place, record in enumerate(connection.records):
        way = record.from_client
        shaking = record.type != APPLICATION_DATA or encrypted[way] > 0
        if shaking or (record.length == CLOSING and last[way] == place):
            handshake[way] += RECORD_HEADER + record.length
            encrypted[way] -= record.type == APPLICATION_DATA
        else:
            _add(exchanges, connection, record)
    if exchanges and connection.ended:
        exchanges[-1].cut = True
    return Spoken(handshake[True], handshake[False], tuple(exchanges))


def _add(exchanges: list[Seen], connection: Connection, record: Record) -> None:
    """Add a record to the exchange it belongs to. What a server says unasked begins one, too."""
    if not exchanges or (record.from_client and exchanges[-1].down):
        exchanges.append(Seen(connection, record.at_us, record.at_us))
    seen = exchanges[-1]
    seen.ended_us = record.at_us
    size = max(0, record.length - INSIDE)
    if record.from_client:
        seen.up, seen.records_up = seen.up + size, seen.records_up + 1
    else:
        seen.down, seen.records_down = seen.down + size, seen.records_down + 1
