"""Reading a capture: a pcap file as tcpdump writes it, packet by packet.

Rules: what is read may be hostile, so every length is held against what is there; a packet that was cut short when it
was captured ends the reading, for an audit of half of what passed is worth nothing. Ethernet, Linux's cooked captures,
BSD loopback and raw IP are understood; IPv4 and IPv6. What is no TCP segment is passed on as foreign, never left out.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.proof.wire_streams import Endpoint, Foreign, Packet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1), b"\xa1\xb2\xc3\xd4": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1000), b"\xa1\xb2\x3c\x4d": (">", 1000),
}  # fmt: skip
"""A pcap file's first four bytes: byte order, and how many of its units of time are a microsecond."""
FILE_HEADER, PACKET_HEADER = 24, 16
LARGEST = 1 << 20
NULL, ETHERNET, RAW, COOKED, COOKED_2 = 0, 1, 101, 113, 276
IPV4, IPV6, VLAN = 0x0800, 0x86DD, 0x8100
TCP = 6
HOP_BY_HOP, DESTINATION, ROUTING = 0, 60, 43
SHORTEST_ETHERNET = 60


@dataclass(frozen=True, slots=True)
class _Segment:
    """What an IP packet says: addresses, and where a TCP segment begins and ends in it; no TCP where start is None."""

    source: str
    target: str
    start: int | None
    end: int


def read(path: Path) -> Iterator[Packet | Foreign]:
    """Yield the packets of a capture.

    Raises:
        Refusal: `MALFORMED`: it is no pcap file that can be read whole.
        Fault: `STORAGE_FAILED`: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _packets(file)
    except OSError as error:
        raise Fault(Code.STORAGE_FAILED, f"The capture {path} cannot be read.", why=error.strerror or "") from error


def copy(source: Path, target: Path) -> None:
    """Copy a capture that is still being written: every packet that stands in it whole.

    Raises:
        Refusal: `MALFORMED`: it is no pcap file.
        Fault: `STORAGE_FAILED`: it cannot be read, or the copy not be written.
    """
    try:
        with source.open("rb") as file, target.open("wb") as copied:
            head, order, _ = _begun(file)
            copied.write(head)
            while len(header := file.read(PACKET_HEADER)) == PACKET_HEADER:
                kept = struct.unpack(order + "IIII", header)[2]
                if kept > LARGEST:
                    raise _unusable("a packet in it is larger than any")
                data = file.read(kept)
                if len(data) < kept:
                    break
                copied.write(header + data)
    except OSError as error:
        what = f"The capture {source} cannot be copied to {target}."
        raise Fault(Code.STORAGE_FAILED, what, why=error.strerror or "") from error


def _begun(file: BinaryIO) -> tuple[bytes, str, int]:
    """Read a capture's header; return it, its byte order, and how many of its units of time are a microsecond."""
    head = file.read(FILE_HEADER)
    if len(head) < FILE_HEADER or head[:4] not in MAGICS:
        raise _unusable("it is not in the pcap format")
    return head, *MAGICS[head[:4]]


def _packets(file: BinaryIO) -> Iterator[Packet | Foreign]:
    head, order, units = _begun(file)
    link = struct.unpack_from(order + "I", head, 20)[0] & 0xFFFF
    if link not in {NULL, ETHERNET, RAW, COOKED, COOKED_2}:
        raise _unusable(f"its link type {link} is not known")
    while header := file.read(PACKET_HEADER):
        if len(header) < PACKET_HEADER:
            raise _unusable("it ends in the middle of a packet")
        seconds, fraction, kept, size = struct.unpack(order + "IIII", header)
        if kept != size or size > LARGEST:
            raise _unusable("a packet in it was cut short")
        data = file.read(kept)
        if len(data) < kept:
            raise _unusable("it ends in the middle of a packet")
        yield _parsed(link, data, seconds * 1_000_000 + fraction // units)


def _parsed(link: int, data: bytes, at_us: int) -> Packet | Foreign:
    """Return a frame as a TCP segment, or as what is none."""
    start = _network(link, data)
    found = _segment(data, start) if start is not None else None
    if found is None:
        return Foreign(at_us, len(data), "", "")
    if found.start is None or found.end - found.start < 20:  # noqa: PLR2004 - a TCP header
        return Foreign(at_us, len(data), found.source, found.target)
    source_port, target_port, sequence = struct.unpack_from(">HHI", data, found.start)
    body = found.start + 4 * (data[found.start + 12] >> 4)
    trailer = len(data) - found.end
    if body < found.start + 20 or body > found.end or (trailer and len(data) > SHORTEST_ETHERNET):
        return Foreign(at_us, len(data), found.source, found.target)
    return Packet(
        at_us=at_us,
        source=Endpoint(found.source, source_port),
        target=Endpoint(found.target, target_port),
        sequence=sequence,
        flags=data[found.start + 13],
        data=data[body : found.end],
        size=len(data),
    )


def _network(link: int, data: bytes) -> int | None:
    """Return where the IP packet begins; None where there is none."""
    if link == RAW:
        return 0
    if link == NULL:
        return 4
    place, start = {ETHERNET: (12, 14), COOKED: (14, 16), COOKED_2: (0, 20)}[link]
    if len(data) < start + 4:
        return None
    kind = struct.unpack_from(">H", data, place)[0]
    if link == ETHERNET and kind == VLAN:
        kind, start = struct.unpack_from(">H", data, 16)[0], 18
    return start if kind in {IPV4, IPV6} else None


def _segment(data: bytes, start: int) -> _Segment | None:
    """Return what an IP packet holds; None where it is none. A fragment holds no segment that can be read."""
    version = data[start] >> 4 if len(data) > start else 0
    if version == 4 and len(data) >= start + 20:  # noqa: PLR2004
        header, total = 4 * (data[start] & 15), struct.unpack_from(">H", data, start + 2)[0]
        fragment = struct.unpack_from(">H", data, start + 6)[0] & 0x3FFF
        end = start + (total or len(data) - start)  # 0 where the network card cuts segments itself
        source, target = (str(ipaddress.IPv4Address(data[start + at : start + at + 4])) for at in (12, 16))
        whole = data[start + 9] == TCP and not fragment and start + header <= end <= len(data)
        return _Segment(source, target, start + header if whole else None, end)
    if version == 6 and len(data) >= start + 40:  # noqa: PLR2004
        length, following = struct.unpack_from(">HB", data, start + 4)
        end = start + 40 + length if length else len(data)
        source, target = (str(ipaddress.IPv6Address(data[start + at : start + at + 16])) for at in (8, 24))
        at = start + 40
        while following in {HOP_BY_HOP, DESTINATION, ROUTING} and at + 8 <= len(data):
            following, at = data[at], at + 8 * (data[at + 1] + 1)
        whole = following == TCP and at <= end <= len(data)
        return _Segment(source, target, at if whole else None, end)
    return None


def _unusable(why: str) -> Refusal:
    return Refusal(
        Code.MALFORMED,
        "The capture cannot be audited.",
        why=why,
        remedy="Capture whole packets: `tcpdump -s 0 -w FILE`, from before the first border starts.",
    )
