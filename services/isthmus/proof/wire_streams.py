"""Captured packets put together: TCP connections, and the TLS records in them with their types, lengths and order.

1. A connection counts from its first packet (SYN) on: records cannot be found in the middle of a stream.
2. A byte counts once, when it is new. What is sent again is counted apart, and compared with what it repeats.
3. A stream is TLS records from its first byte to its last (RFC 8446, section 5.1); from the first byte that is none,
   the rest of it is not TLS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

SYN, FIN, RST, ACK = 0x02, 0x01, 0x04, 0x10
RECORD_HEADER = 5
LARGEST_RECORD = 16_384 + 256
RECORD_TYPES = range(20, 24)
RECORD_VERSIONS = (b"\x03\x01", b"\x03\x03")
REMEMBERED = 1 << 20
"""Bytes of each stream that are kept, to compare what is sent again."""
_WRAP = 1 << 32


class Endpoint(NamedTuple):
    """An address and a TCP port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured TCP segment.

    Attributes:
        at_us: when, microseconds since 1970.
        source, target: from where to where.
        sequence: TCP's sequence number of the first byte.
        flags: TCP's flags.
        data: what it carries.
        size: bytes of the whole frame on the wire.
    """

    at_us: int
    source: Endpoint
    target: Endpoint
    sequence: int
    flags: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Foreign:
    """A captured frame that is no TCP segment."""

    at_us: int
    size: int
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Record:
    """One TLS record: when its last byte came, which way it went, its type, and the length its header states."""

    at_us: int
    from_client: bool
    type: int
    length: int


@dataclass(slots=True)
class Stream:
    """One direction of a connection.

    Attributes:
        headers: bytes of frames that are not TCP payload.
        full, empty: packets that carry payload, and packets that carry none.
        fresh: payload bytes that were new.
        repeated: payload bytes that had come before.
        not_tls: of the fresh ones, those that are in no record.
        missing: a hole was never filled.
        differs: what was sent again is not what was sent, or can no longer be compared.
        ended: it was closed or reset.
    """

    headers: int = 0
    full: int = 0
    empty: int = 0
    fresh: int = 0
    repeated: int = 0
    not_tls: int = 0
    differs: bool = False
    ended: bool = False
    next: int | None = None
    waiting: dict[int, bytes] = field(default_factory=dict)
    buffer: bytearray = field(default_factory=bytearray)
    recent: bytearray = field(default_factory=bytearray)

    @property
    def missing(self) -> bool:
        """True where bytes came whose predecessors never did."""
        return bool(self.waiting)

    def take(self, sequence: int, data: bytes) -> bytes:
        """Take in a segment's bytes; return those that are new and in order."""
        if self.next is None or not data:
            return b""
        ahead = _signed(sequence - self.next)
        if ahead > 0:
            kept = self.waiting.get(sequence, b"")
            self.repeated += min(len(kept), len(data))
            if len(data) > len(kept):
                self.waiting[sequence] = data
            return b""
        known = min(-ahead, len(data))
        self._compare(-ahead, data[:known])
        found = bytearray(data[known:])
        self._advance(found)
        while ready := [s for s in self.waiting if _signed(s - self.next) <= 0]:
            late = self.waiting.pop(ready[0])
            known = min(-_signed(ready[0] - self.next), len(late))
            self.repeated += known
            self._advance(late[known:])
            found += late[known:]
        return bytes(found)

    def _advance(self, data: bytes | bytearray) -> None:
        self.fresh += len(data)
        self.next = ((self.next or 0) + len(data)) % _WRAP
        self.recent += data
        del self.recent[: max(0, len(self.recent) - REMEMBERED)]

    def _compare(self, back: int, again: bytes) -> None:
        """Compare what is sent again, `back` bytes before what is next, with what was sent."""
        self.repeated += len(again)
        start = len(self.recent) - back
        if again and (start < 0 or self.recent[start : start + len(again)] != again):
            # A keep-alive probe repeats one byte, and which one it is, is free (RFC 9293, section 3.8.4).
            self.differs = self.differs or len(again) > 1


@dataclass(slots=True)
class Connection:
    """One TCP connection as captured.

    Attributes:
        client: who opened it.
        server: who took it.
        from_start: its SYN was captured.
        records: all records of both directions, in the order in which they were whole.
    """

    client: Endpoint
    server: Endpoint
    began_us: int
    ended_us: int
    from_start: bool
    up: Stream = field(default_factory=Stream)
    down: Stream = field(default_factory=Stream)
    records: list[Record] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """True where either side closed or reset it."""
        return self.up.ended or self.down.ended

    def take(self, packet: Packet) -> None:
        """Take in one packet of this connection."""
        mine = packet.source == self.client
        stream = self.up if mine else self.down
        self.ended_us = max(self.ended_us, packet.at_us)
        stream.headers += packet.size - len(packet.data)
        stream.full += bool(packet.data)
        stream.empty += not packet.data
        if packet.flags & SYN:
            stream.next = (packet.sequence + 1) % _WRAP
            stream.not_tls += len(packet.data)
            stream.fresh += len(packet.data)
        elif stream.next is None:
            stream.fresh += len(packet.data)
            stream.not_tls += len(packet.data)
        else:
            self._walk(stream, stream.take(packet.sequence, packet.data), packet.at_us, from_client=mine)
        stream.ended = stream.ended or bool(packet.flags & (FIN | RST))

    def _walk(self, stream: Stream, data: bytes, at_us: int, *, from_client: bool) -> None:
        """Cut new bytes into records."""
        if stream.not_tls:
            stream.not_tls += len(data)
            return
        buffer = stream.buffer
        buffer += data
        start = 0
        while len(buffer) - start >= RECORD_HEADER:
            length = int.from_bytes(buffer[start + 3 : start + 5], "big")
            version = bytes(buffer[start + 1 : start + 3])
            if buffer[start] not in RECORD_TYPES or version not in RECORD_VERSIONS or length > LARGEST_RECORD:
                stream.not_tls += len(buffer) - start
                start = len(buffer)
                break
            if len(buffer) - start < RECORD_HEADER + length:
                break
            self.records.append(Record(at_us, from_client, buffer[start], length))
            start += RECORD_HEADER + length
        del buffer[:start]


class Capture:
    """Puts packets together, one after the other, as they were captured."""

    def __init__(self) -> None:
        self._open: dict[tuple[Endpoint, Endpoint], Connection] = {}
        self.connections: list[Connection] = []
        self.foreign: list[Foreign] = []
        self.total = 0
        self.began_us = self.ended_us = 0

    def take(self, packet: Packet | Foreign) -> None:
        """Take in the next packet."""
        self.total += packet.size
        self.began_us = min(self.began_us or packet.at_us, packet.at_us)
        self.ended_us = max(self.ended_us, packet.at_us)
        if isinstance(packet, Foreign):
            self.foreign.append(packet)
            return
        first = bool(packet.flags & SYN) and not packet.flags & ACK
        found = self._open.get((packet.source, packet.target)) or self._open.get((packet.target, packet.source))
        if found is None or (first and found.ended):
            found = Connection(packet.source, packet.target, packet.at_us, packet.at_us, from_start=first)
            self._open.pop((packet.target, packet.source), None)
            self._open[packet.source, packet.target] = found
            self.connections.append(found)
        found.take(packet)


def _signed(distance: int) -> int:
    """Return a distance of sequence numbers, which wrap, as a number around zero."""
    return (distance + _WRAP // 2) % _WRAP - _WRAP // 2
