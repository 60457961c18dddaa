"""A capture made by hand: packets of a link as a tap between the borders would see them, written as a pcap file.

What crossed is taken from an evidence bundle; sizes are spelled out here a second time, from the wire format's page.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isthmus.contracts.crossings import Manifest
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.inside import Evidence
from isthmus.contracts.ledger import CrossingEntry, Log
from isthmus.proof import canonical, signing
from isthmus.proof.wire import Party

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FRAME = 16_384
HQ, CN, US = SiteId("hq"), SiteId("cn-shanghai"), SiteId("us-texas")
ADDRESSES = {HQ: "10.9.0.2", CN: "10.9.0.3", US: "10.9.0.4"}
PORT = 8443
PARTIES = [Party(ADDRESSES[HQ], PORT, (HQ,)), *(Party(ADDRESSES[zone], 0, (zone,)) for zone in (CN, US))]
SYN, ACK, FIN, RST = 2, 16, 1, 4
MSS = 1448


def framed(size: int) -> int:
    return (size + FRAME - 1) // FRAME * FRAME


@dataclass
class Crossed:
    """A crossing as both ledgers have it."""

    manifest: Manifest
    envelope: str
    receipt: str


def crossed(evidence: Mapping[str, bytes]) -> dict[tuple[str, str], list[Crossed]]:
    """Return what a bundle says crossed, by sender and recipient."""
    found: dict[tuple[str, str], list[Crossed]] = {}
    for data in evidence.values():
        one = canonical.load(Evidence, data, limit=1 << 30)
        for text in one.entries[Log.CROSSINGS]:
            entry = canonical.load(CrossingEntry, text.encode(), limit=1 << 20)
            if entry.verdict == "sent":
                manifest = canonical.load(Manifest, signing.parse_envelope(entry.envelope.encode()).payload)
                each = Crossed(manifest, entry.envelope, one.receipts[manifest.crossing])
                found.setdefault((manifest.sender, manifest.recipient), []).append(each)
    return found


def began_at(evidence: Mapping[str, bytes]) -> int:
    """Return when to begin, so that all that was logged is in the capture, microseconds."""
    times = []
    for data in evidence.values():
        entries = json.loads(data)["entries"]["crossings"]
        times += [json.loads(text)["at"] for text in entries]
    return (min(times) - 2) * 1_000_000


class Wire:
    """A tap: what passes it, in order."""

    def __init__(self, evidence: Mapping[str, bytes]) -> None:
        self.crossed = crossed(evidence)
        self.now = began_at(evidence)
        self.frames: list[tuple[int, bytes]] = []
        self._port = 40_000

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1_000_000)

    def put(self, frame: bytes) -> None:
        self.now += 10
        self.frames.append((self.now, frame))

    def line(self, source: str, target: str, port: int = PORT, *, handshake: int = 344) -> Line:
        """Open a connection: TCP's and TLS's handshakes."""
        self._port += 1
        line = Line(self, source, self._port, target, port)
        line.segment(b"", up=True, flags=SYN)
        line.segment(b"", up=False, flags=SYN | ACK)
        line.records([235], up=True, kind=22)
        line.records([122], up=False, kind=22)
        for kind, lengths, up in ((20, [1], False), (23, [23, 62, 332, 95, 69], False), (20, [1], True)):
            line.records(lengths, up=up, kind=kind)
        line.records([handshake, 95, 69], up=True)
        return line

    def link(self, zone: str) -> Link:
        return Link(self, zone)

    def udp(self, source: str, target: str, data: bytes) -> None:
        body = struct.pack(">HHHH", 53, 53, 8 + len(data), 0) + data
        self.put(ethernet(source, target, 17, body))

    def write(self, path: Path) -> Path:
        """Write a pcap file (Ethernet, microseconds)."""
        out = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        for at, frame in self.frames:
            out += struct.pack("<IIII", at // 1_000_000, at % 1_000_000, len(frame), len(frame)) + frame
        path.write_bytes(out)
        return path


def ethernet(source: str, target: str, protocol: int, body: bytes) -> bytes:
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0) + ends
    return bytes(12) + b"\x08\x00" + header + body


@dataclass
class Line:
    """One connection."""

    wire: Wire
    source: str
    source_port: int
    target: str
    target_port: int
    next: dict[bool, int] = field(default_factory=lambda: {True: 4_294_960_000, False: 7_000})

    def segment(self, data: bytes, *, up: bool, flags: int = ACK, at: int | None = None) -> None:
        """Send one segment; at another sequence number than the next where `at` is given."""
        ends = [(self.source, self.source_port), (self.target, self.target_port)]
        (source, sport), (target, tport) = ends if up else ends[::-1]
        sequence = (self.next[up] if at is None else at) % 2**32
        head = struct.pack(">HHIIBBHHH", sport, tport, sequence, 0, 5 << 4, flags, 65_535, 0, 0)
        self.wire.put(ethernet(source, target, 6, head + data))
        if at is None:
            self.next[up] += len(data) + bool(flags & (SYN | FIN))

    def send(self, data: bytes, *, up: bool) -> None:
        for start in range(0, len(data), MSS):
            self.segment(data[start : start + MSS], up=up)

    def records(self, lengths: Iterable[int], *, up: bool, kind: int = 23) -> None:
        parts = (bytes([kind, 3, 3]) + length.to_bytes(2, "big") + bytes(length) for length in lengths)
        self.send(b"".join(parts), up=up)

    def say(self, *sizes: int, up: bool) -> None:
        """Send messages of these sizes, each in as few records as hold it."""
        lengths = [part + 17 for size in sizes for part in (*[FRAME] * (size // FRAME), size % FRAME) if part]
        self.records(lengths, up=up)

    def ask(self, up: tuple[int, ...], down: tuple[int, ...], held: float = 0.001) -> None:
        self.say(*up, up=True)
        self.wire.wait(held)
        self.say(*down, up=False)
        self.wire.wait(0.001)

    def close(self) -> None:
        self.records([19], up=True)
        self.segment(b"", up=True, flags=FIN | ACK)
        self.segment(b"", up=False, flags=FIN | ACK)


class Link:
    """An honest zone: what its dialer says, on the three connections that it uses."""

    def __init__(self, wire: Wire, zone: str) -> None:
        self.wire, self.zone = wire, zone
        self.dial()

    def dial(self) -> None:
        ends = (ADDRESSES[SiteId(self.zone)], ADDRESSES[HQ])
        self.talk, self.poll, self.bulk = (self.wire.line(*ends) for _ in range(3))

    def asked(self, method: str, path: str, size: int = 0, more: str = "") -> int:
        length = f"content-length: {size}\r\n" if size else ""
        return len(f"{method} /link/{self.zone}/{path} HTTP/1.1\r\nhost: isthmus\r\n{length}{more}\r\n")

    def answered(self, size: int) -> tuple[int, ...]:
        return (len(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n"), size)

    def control(self, verb: str, *, more: int = 0) -> None:
        head = self.asked("POST", verb, FRAME) + more
        self.talk.ask((head, FRAME), self.answered(FRAME))

    def open(self) -> None:
        self.control("open")
        self.control("heads")

    def idle(self, seconds: float = 25.0, *, says: str = "") -> None:
        """A poll that brings nothing; `says` is one more line of the answer's head."""
        answer = f"HTTP/1.1 204 No Content\r\n{says}\r\n"
        self.poll.ask((self.asked("GET", "next"),), (len(answer),), seconds)

    def fetch(self, c: Crossed, *, more: int = 0) -> None:
        """Everything by which one crossing comes down; `more` bytes beside its payload."""
        envelope, payload = framed(4 + len(c.envelope)), framed(c.manifest.payload.size)
        self.poll.ask((self.asked("GET", "next"),), self.answered(envelope))
        self.blob(c.manifest.payload.digest, payload + more)
        receipt = framed(len(c.receipt) + 2000)
        self.talk.ask((self.asked("POST", "receipts", receipt), receipt), self.answered(FRAME))

    def blob(self, digest: str, size: int) -> None:
        head = self.asked("GET", f"blob/{digest}", more="accept-encoding: identity\r\n")
        self.bulk.ask((head,), self.answered(size))

    def upload(self, c: Crossed, *, header: int = 0, frames: int = 0, cut: bool = False) -> None:
        """Everything by which one crossing goes up; with a longer head, or more frames, or cut in the middle."""
        size = framed(len(c.envelope) + 2000) + framed(c.manifest.payload.size) + frames * FRAME
        head = self.asked("PUT", f"crossings/{c.manifest.crossing}", size) + header
        if cut:
            self.talk.say(head, size // 2, up=True)
        else:
            self.talk.ask((head, size), self.answered(FRAME))

    def close(self) -> None:
        for line in (self.talk, self.poll, self.bulk):
            line.close()

    def down(self) -> list[Crossed]:
        return self.wire.crossed[HQ, self.zone]

    def up(self) -> list[Crossed]:
        return self.wire.crossed[self.zone, HQ]


def honest(wire: Wire, *, skip: Any = None) -> dict[str, Link]:
    """Let all that the bundle holds pass, as two honest zones do it; leave out the crossing `skip`."""
    links = {zone: wire.link(zone) for zone in (CN, US)}
    for link in links.values():
        link.open()
        for c in link.down():
            if c is not skip:
                link.fetch(c)
        for c in link.up():
            if c is not skip:
                link.upload(c)
    wire.wait(5)
    for link in links.values():
        link.control("heads")
        link.idle()
    return links
