"""The audit of a capture: all that passed between the borders, held against both sides' ledgers, in absolute bytes.

1. The ledgers come first: an evidence bundle that is not accepted accounts for nothing.
2. Every connection is between a zone that dials and the coordinator that listens, both at addresses the auditor knows;
   every byte of it is TLS.
3. Each byte belongs to one part. What a logged crossing or a rule of the protocol accounts for is computed from ledgers
   and protocol, never taken from the capture; how often something may be seen follows from crossings and cadence. The
   rest is dark.
4. What a part's content is, a capture does not show. The parts in which something could travel are summed as room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.link import FRAME
from isthmus.contracts.wire_audit import ROOM, Part, WireFindingCode, WireReport
from isthmus.proof import bundle, bundle_crossings, bundle_ledgers, wire_sizes
from isthmus.proof.bundle_findings import Book as BundleBook
from isthmus.proof.wire_book import Book
from isthmus.proof.wire_exchanges import MOST_HANDSHAKE, spoken
from isthmus.proof.wire_link import CROSSING_ACTS, SECOND, SHAPES, Link, Queue
from isthmus.proof.wire_sizes import Crossing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.roster import Roots
    from isthmus.contracts.wire_audit import Act
    from isthmus.proof.bundle_ledgers import Ledger
    from isthmus.proof.wire_exchanges import Seen, Spoken
    from isthmus.proof.wire_streams import Capture, Connection, Endpoint, Stream

    Lines = Sequence[tuple[Connection, Spoken]]

COORDINATOR, ZONE = "coordinator", "zone"
SLOTS = 4
"""Connections that a link needs at a time: poll, uploads and heads, payloads, and one that takes over."""
IDLE_S = 60
"""Seconds after which an idle connection is given up, and another opened when one is needed."""
DIALS, PAUSE_S = 12, 10
"""Attempts of a zone to which nobody listens: at pauses that double, and then one each `PAUSE_S`."""
SKEW_US = 2 * SECOND
"""How far a ledger's clock, which has whole seconds, and the capture's may be apart."""
ARP_SIZE, SPARE_ARP = 60, 64
SMALLEST_SEGMENT = 536
"""Bytes that every TCP segment may hold (RFC 9293, section 3.7.1)."""
SPARE_PACKETS, PROBE_S = 16, 5

NOT_CLAIMED = (
    (
        "That no byte beyond the dark ones was unlogged: padding, heads and retries are ciphertext to a capture. What"
        " they could hold at most is the room. An honest receiver refuses padding that is not zero."
    ),
    "That the capture is whole: whoever took it knows where, and whether there is another way out.",
    "Anything of timing, of the order and number of packets, or of the fields of their headers.",
    "That the borders' ledgers are true where both hosts lie together.",
)
"""What a clear report does not say."""


@dataclass(frozen=True, slots=True)
class Party:
    """An address of the link and whose it is. Port 0 stands for any; several sites share one on one machine alone."""

    address: str
    port: int
    sites: tuple[SiteId, ...]


def reconcile(
    capture: Capture,
    evidence: Mapping[str, bytes],
    roots: Roots,
    parties: Sequence[Party],
    *,
    at_most: int,
    most_reconnects: int,
) -> WireReport:
    """Hold a capture against an evidence bundle.

    Args:
        capture: the packets, put together.
        evidence: the bundle's files by name, as `bundle.verify` takes them.
        roots: what to trust.
        parties: which address is whose.
        at_most: how many dark bytes pass.
        most_reconnects: how often a zone's link may come up again during the capture.

    Returns:
        The report.
    """
    book = Book()
    if not bundle.verify(evidence, roots).accepted:
        book.find(WireFindingCode.EVIDENCE_NOT_ACCEPTED, "the evidence bundle is not accepted: see `isthmus verify`")
    ledgers, crossings = _logged(evidence, roots)
    hub = next((site for site, ledger in ledgers.items() if ledger.part() == COORDINATOR), None)
    zones = tuple(site for site, ledger in ledgers.items() if ledger.part() == ZONE)
    _foreign(book, capture)
    lines: dict[SiteId, list[tuple[Connection, Spoken]]] = {zone: [] for zone in zones}
    for connection in capture.connections:
        _line(book, connection, hub, lines, parties)
    for zone, found in lines.items():
        if hub is not None:
            _link(book, capture, zone, hub, found, crossings, most_reconnects)
    return _report(book, capture, at_most)


def _logged(
    evidence: Mapping[str, bytes], roots: Roots
) -> tuple[dict[SiteId, Ledger], dict[tuple[SiteId, SiteId], list[Crossing]]]:
    """Return the ledgers, and every crossing by sender and recipient, in sequence, with what it looked like."""
    unused = BundleBook()
    ledgers = bundle_ledgers.read(unused, evidence, roots)
    found = bundle_crossings.read(unused, ledgers, roots)
    decided = {c.id: c.entry.at for entries in found.values() for c in entries if not c.sent}
    crossings: dict[tuple[SiteId, SiteId], list[Crossing]] = {}
    for site, entries in found.items():
        receipts = ledgers[site].evidence.receipts
        for c in sorted((c for c in entries if c.sent), key=lambda c: c.manifest.sequence):
            one = Crossing.of(c.manifest, c.entry.envelope, receipts.get(c.id, ""), decided.get(c.id))
            crossings.setdefault((site, c.manifest.recipient), []).append(one)
    return ledgers, crossings


def _foreign(book: Book, capture: Capture) -> None:
    """Account for frames that are no TCP segment: short ones that resolve addresses, and nothing else."""
    resolving = SPARE_ARP + (capture.ended_us - capture.began_us) // SECOND
    for frame in capture.foreign:
        resolves = not frame.source and frame.size <= ARP_SIZE and resolving > 0
        resolving -= resolves
        book.add((None, None), Part.TRANSPORT if resolves else Part.DARK, frame.size)
        if not resolves:
            detail = f"a packet of {frame.size} bytes that is no TCP segment"
            book.find(WireFindingCode.NOT_A_LINK, detail, at_us=frame.at_us, dark=frame.size)


def _line(
    book: Book,
    connection: Connection,
    hub: SiteId | None,
    lines: dict[SiteId, list[tuple[Connection, Spoken]]],
    parties: Sequence[Party],
) -> None:
    """Give a connection to the zone whose link it is; one that is nobody's is dark as a whole."""
    said = spoken(connection)
    callers, servers = _sites(connection.client, parties), _sites(connection.server, parties)
    whole = connection.from_start and hub in servers
    zones = [site for site in callers if site in lines]
    zone = _dialler(said.exchanges, zones, silent=_silent(connection)) if whole else None
    if zone is not None:
        lines[zone].append((connection, said))
        return
    code, detail = WireFindingCode.NOT_A_LINK, "a connection that is not from a zone to the coordinator"
    if not callers or not servers:
        code, detail = WireFindingCode.UNKNOWN_PARTY, "a connection with an unknown party"
    elif not connection.from_start:
        code, detail = WireFindingCode.NOT_FROM_THE_START, "a connection that was open before the capture began"
    up, down = _size(connection.up), _size(connection.down)
    book.add((_one(callers), _one(servers)), Part.DARK, up)
    book.add((_one(servers), _one(callers)), Part.DARK, down)
    book.find(code, detail, at_us=connection.began_us, site=_one(callers), dark=up + down)


def _link(
    book: Book,
    capture: Capture,
    zone: SiteId,
    hub: SiteId,
    found: list[tuple[Connection, Spoken]],
    crossings: Mapping[tuple[SiteId, SiteId], Sequence[Crossing]],
    most_reconnects: int,
) -> None:
    """Account for one zone's link."""
    book.connections[zone] += len(found)
    for connection, said in found:
        for way, stream, handshake in (
            ((zone, hub), connection.up, said.handshake_up),
            ((hub, zone), connection.down, said.handshake_down),
        ):
            _stream(book, connection, way, stream, handshake)
    since = capture.began_us - SKEW_US
    down, up = crossings.get((hub, zone), ()), crossings.get((zone, hub), ())
    link = Link(
        zone=zone,
        hub=hub,
        book=book,
        down=Queue(_after(book, down, since), tuple(a for a in SHAPES if a in DOWN)),
        up=Queue(_after(book, up, since), tuple(CROSSING_ACTS - DOWN)),
        most_reconnects=most_reconnects,
        ends_us=sorted(connection.ended_us for connection, _ in found if connection.ended),
        capture_ended_us=capture.ended_us,
    )
    link.read(seen for _, said in found for seen in said.exchanges)
    for connection, _ in found:
        _unread(book, link, connection)
    _too_many(book, capture, zone, found)


DOWN: frozenset[Act] = frozenset(act for act in SHAPES if SHAPES[act] is not wire_sizes.upload)


def _stream(book: Book, connection: Connection, way: tuple[SiteId, SiteId], stream: Stream, handshake: int) -> None:
    """Write down what one direction of a connection has beside its messages."""
    site, at_us = way[0], connection.began_us
    sliced = _sliced(connection, stream)
    book.add(way, Part.TRANSPORT, stream.headers - sliced)
    book.add(way, Part.DARK, sliced)
    if sliced:
        detail = "more packets than what they carry and acknowledge needs"
        book.find(WireFindingCode.OVER_SIZE, detail, site=site, at_us=at_us, dark=sliced)
    book.add(way, Part.REPEATED, stream.repeated)
    book.add(way, Part.HANDSHAKE, min(handshake, MOST_HANDSHAKE))
    over = max(0, handshake - MOST_HANDSHAKE)
    late = sum(len(data) for data in stream.waiting.values())
    book.add(way, Part.DARK, over + stream.not_tls + late)
    if over:
        book.find(
            WireFindingCode.OVER_SIZE,
            "a handshake is larger than any that certificates need",
            site=site,
            at_us=at_us,
            dark=over,
        )
    if stream.not_tls:
        detail = "bytes that are no TLS record"
        book.find(WireFindingCode.NOT_TLS, detail, site=site, at_us=at_us, dark=stream.not_tls)
    if stream.missing:
        book.find(
            WireFindingCode.CAPTURE_INCOMPLETE,
            "bytes before these were not captured",
            site=site,
            at_us=at_us,
            dark=late,
        )
    if stream.differs:
        detail = "what was sent again is not what was sent before, or came too late to be compared"
        book.find(WireFindingCode.SENT_AGAIN_DIFFERENTLY, detail, site=site, at_us=at_us)


def _sliced(connection: Connection, stream: Stream) -> int:
    """Return the header bytes of packets beyond those that an honest host sends: headers can carry something, too."""
    other = connection.down if stream is connection.up else connection.up
    carried = stream.fresh + stream.repeated + sum(len(data) for data in stream.waiting.values())
    most = SPARE_PACKETS + carried // SMALLEST_SEGMENT + 2 * len(connection.records)
    most += SPARE_PACKETS + 2 * other.full + (connection.ended_us - connection.began_us) // (SECOND * PROBE_S)
    packets = stream.full + stream.empty
    return stream.headers * max(0, packets - most) // packets if packets else 0


def _unread(book: Book, link: Link, connection: Connection) -> None:
    """Write down a record that is not whole: something that was cut, as often as something may be."""
    for way, stream in (((link.zone, link.hub), connection.up), ((link.hub, link.zone), connection.down)):
        if not stream.buffer:
            continue
        size = len(stream.buffer)
        lawful = link.cut()
        book.add(way, Part.REPEATED if lawful else Part.DARK, size)
        if not lawful:
            detail = "a record that never became whole"
            book.find(WireFindingCode.UNACCOUNTED, detail, site=way[0], at_us=connection.ended_us, dark=size)


def _too_many(book: Book, capture: Capture, zone: SiteId, found: Lines) -> None:
    """Find more connections than a link needs: each brings a handshake that nobody can look into.

    Silent ones bring none, and are as many as a dialler may try for (`DIALS` at short pauses, then one in `PAUSE_S`).
    """
    seconds = (capture.ended_us - capture.began_us) // SECOND
    tried = [connection for connection, _ in found if _silent(connection)]
    stood = [connection for connection, _ in found if not _silent(connection)]
    for connections, most in (
        (stood, SLOTS * (1 + book.reconnects[zone] + seconds // IDLE_S)),
        (tried, DIALS * (1 + book.reconnects[zone]) + seconds // PAUSE_S),
    ):
        if len(connections) > most:
            detail = f"{len(connections)} connections where {most} are enough"
            book.find(WireFindingCode.TOO_MANY_CONNECTIONS, detail, site=zone, at_us=connections[-1].began_us)


def _after(book: Book, crossings: Sequence[Crossing], since_us: int) -> Sequence[Crossing]:
    """Leave out crossings that were decided before the capture began, and count them."""
    found = [c for c in crossings if c.decided_at is None or (c.decided_at + 1) * SECOND > since_us]
    book.before += len(crossings) - len(found)
    return found


def _sites(endpoint: Endpoint, parties: Iterable[Party]) -> tuple[SiteId, ...]:
    """Return whose address this is; a party with a port comes before one without."""
    fitting = [p for p in parties if p.address == endpoint.address and p.port in {0, endpoint.port}]
    return max(fitting, key=lambda p: p.port, default=Party("", 0, ())).sites


def _silent(connection: Connection) -> bool:
    """Tell whether a connection never carried a byte: the coordinator did not listen yet, or not any more."""
    return not any(s.fresh or s.repeated or s.waiting or s.missing for s in (connection.up, connection.down))


def _dialler(exchanges: Sequence[Seen], zones: Sequence[SiteId], *, silent: bool) -> SiteId | None:
    """Return which zone a connection is of; by its name's length in the requests where several share an address.

    A silent one has no name in it: it counts against the first of them.
    """
    if len(zones) <= 1 or silent:
        return zones[0] if zones else None
    asked = {seen.up % FRAME for seen in exchanges if not seen.cut}
    by_name = {zone: len(asked & _heads_of(zone)) for zone in zones}
    best = max(by_name.values())
    fitting = [zone for zone, count in by_name.items() if count == best]
    return fitting[0] if best and len(fitting) == 1 else None


def _heads_of(zone: SiteId) -> set[int]:
    """Return how long the heads of this zone's requests are that hold no number that varies."""
    fixed = (*wire_sizes.open_link(zone), *wire_sizes.heads(zone), *wire_sizes.poll(zone))
    digest = "sha256:" + 64 * "0"
    asked = len(f"GET /link/{zone}/blob/{digest} HTTP/1.1\r\nhost: isthmus\r\n\r\n{wire_sizes.BULK}")
    return {each.up.head for each in fixed} | {asked}


def _one(sites: Sequence[SiteId]) -> SiteId | None:
    return sites[0] if len(sites) == 1 else None


def _size(stream: Stream) -> int:
    waiting = sum(len(data) for data in stream.waiting.values())
    return stream.headers + stream.fresh + stream.repeated + waiting


def _report(book: Book, capture: Capture, at_most: int) -> WireReport:
    parts = book.parts()
    findings, left_out = book.findings()
    return WireReport(
        clear=not findings and parts[Part.DARK] <= at_most,
        at_most=at_most,
        began_us=capture.began_us,
        ended_us=capture.ended_us,
        total=capture.total,
        parts=parts,
        dark=parts[Part.DARK],
        room=sum(parts[part] for part in ROOM),
        flows=book.flows(),
        links=book.links(),
        before=book.before,
        after=book.after,
        findings=findings,
        findings_left_out=left_out,
        not_claimed=NOT_CLAIMED,
    )
