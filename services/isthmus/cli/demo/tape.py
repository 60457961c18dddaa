"""A tap's tape: what passed a relay, written as packets, so that whoever audits a capture can audit it.

Rules:
1. A relay sees streams and no packets. What it read at once becomes one segment, with IPv4 and TCP headers that are
   made: lengths and sequence numbers are right, checksums are left out, as where a network card fills them in.
2. A connection begins with its handshake and ends as its ends ended it: with FIN each way, or with a reset.
3. What is written is whole: a packet stands in the file before the next one is made.

Format: pcap 2.4 with microseconds, packets from the IP header on (link type 101).
"""

from __future__ import annotations

import ipaddress
import struct
import time
from typing import TYPE_CHECKING, Self

from isthmus.cli.captures import RAW
from isthmus.proof.wire_streams import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from isthmus.proof.wire_streams import Endpoint

PSH = 0x08
HEADERS = 40
MOST = 65_535 - HEADERS
"""Most bytes of one segment: an IPv4 packet's length has 16 bits."""
_FILE = struct.Struct("<IHHiIII")
_PACKET = struct.Struct("<IIII")
_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_TCP = struct.Struct(">HHIIBBHHH")
_MAGIC, _SNAPLEN = 0xA1B2C3D4, 262_144
_DO_NOT_FRAGMENT, _TIME_TO_LIVE, _PROTOCOL, _WINDOW = 0x4000, 64, 6, 65_535
_WRAP = 1 << 32


class Tape:
    """A capture that is being written.

    Args:
        path: a new file.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = path.open("xb", buffering=0)
        self._put(_FILE.pack(_MAGIC, 2, 4, 0, 0, _SNAPLEN, RAW))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()

    def end(self) -> None:
        """Write no more. What passes from now on is not on the tape. It can be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def put(self, packet: bytes) -> None:
        """Write a packet that passes now.

        Raises:
            OSError: it cannot be written whole.
        """
        seconds, rest = divmod(time.time_ns() // 1000, 1_000_000)
        self._put(_PACKET.pack(seconds, rest, len(packet), len(packet)) + packet)

    def _put(self, data: bytes) -> None:
        if self._file is not None and self._file.write(data) != len(data):
            raise OSError("the tape is full")


class Line:
    """One connection on a tape.

    Args:
        tape: where it is written.
        client: who opens it.
        server: who is dialled.
    """

    def __init__(self, tape: Tape, client: Endpoint, server: Endpoint) -> None:
        self._tape = tape
        self._ends = (client, server)
        self._next = {True: 0, False: 0}

    def asked(self) -> None:
        """Write that the client asks for a connection."""
        self._segment(SYN, up=True)

    def taken(self) -> None:
        """Write that the server takes it."""
        self._segment(SYN | ACK, up=False)
        self._segment(ACK, up=True)

    def said(self, data: bytes, *, up: bool) -> None:
        """Write what one side says, at most `MOST` bytes; `up` is from the client."""
        self._segment(PSH | ACK, data, up=up)

    def ended(self, *, up: bool) -> None:
        """Write that one side says no more."""
        self._segment(FIN | ACK, up=up)

    def reset(self, *, up: bool) -> None:
        """Write that one side gives the connection up; or, before it was taken, that the server refuses it."""
        self._segment(RST | ACK, up=up)

    def _segment(self, flags: int, data: bytes = b"", *, up: bool) -> None:
        source, target = self._ends if up else self._ends[::-1]
        heard = self._next[not up] if flags & ACK else 0
        ends = (ipaddress.IPv4Address(source.address).packed, ipaddress.IPv4Address(target.address).packed)
        size = HEADERS + len(data)
        ip = _IPV4.pack(0x45, 0, size, 0, _DO_NOT_FRAGMENT, _TIME_TO_LIVE, _PROTOCOL, 0, *ends)
        tcp = _TCP.pack(source.port, target.port, self._next[up], heard, 5 << 4, flags, _WINDOW, 0, 0)
        self._tape.put(ip + tcp + data)
        self._next[up] = (self._next[up] + len(data) + bool(flags & (SYN | FIN))) % _WRAP
