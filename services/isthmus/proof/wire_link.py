"""One zone's link: what was seen on it, held against what both ledgers and the protocol's cadence account for.

1. Crossings pass in the order of their sequence: down as poll, fetch and receipt; up as one upload.
2. Heads are exchanged once when a link opens and then at least `CADENCE_S` apart. A poll that brings nothing lasts
   `POLL_S`, or ends with its connection. A link opens once, and again only after a connection of it has ended; how
   often that counts is bounded by whoever audits.
3. What fits in size and in rule is accounted for, to the byte. What is larger than it should be is dark by what is
   more; what fits nothing is dark as a whole.
4. A server that stops says so in the last answer of a connection: one line of its head, which ends there.
5. Two messages may be cut each time a link ends, and are sent again once it has come up again. What is under way when
   the capture ends is cut, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isthmus.contracts.link import CADENCE_S, POLL_S
from isthmus.contracts.wire_audit import Act, Part, WireFindingCode
from isthmus.proof import wire_sizes
from isthmus.proof.wire_exchanges import AROUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from isthmus.contracts.identifiers import SiteId
    from isthmus.proof.wire_book import Book
    from isthmus.proof.wire_exchanges import Seen
    from isthmus.proof.wire_sizes import Body, Crossing, Exchange

SECOND = 1_000_000
EARLY_US = SECOND // 20
"""How much earlier than its cadence something may be seen: clocks are not one."""
CUT_AT_ONCE = 2
ENDS_WITHIN_US = 2 * SECOND
CROSSING_ACTS = frozenset({Act.NEXT, Act.BLOB, Act.RECEIPT, Act.UPLOAD})


@dataclass(slots=True)
class Queue:
    """Crossings of one direction that are still to be seen, and what each is seen as, step by step."""

    crossings: Sequence[Crossing]
    steps: tuple[Act, ...]
    place: int = 0
    step: int = 0

    def current(self, zone: SiteId) -> tuple[Exchange, ...]:
        """Return what comes next, in every size that it can have."""
        return self._as(zone, self.place, self.steps[self.step]) if self.place < len(self.crossings) else ()

    def before(self, zone: SiteId) -> tuple[Exchange, ...]:
        """Return what may come again after a cut: steps of the crossing before, or earlier ones of this."""
        again = [(self.place, act) for act in self.steps[: self.step]]
        again += [(self.place - 1, act) for act in self.steps] if self.place and not self.step else []
        return tuple(each for place, act in again if place < len(self.crossings) for each in self._as(zone, place, act))

    def advance(self) -> None:
        """Go on to the next step."""
        self.step = (self.step + 1) % len(self.steps)
        self.place += self.step == 0

    def _as(self, zone: SiteId, place: int, act: Act) -> tuple[Exchange, ...]:
        return SHAPES[act](zone, self.crossings[place])


SHAPES = {
    Act.NEXT: wire_sizes.next_crossing,
    Act.BLOB: wire_sizes.blob,
    Act.RECEIPT: wire_sizes.receipt,
    Act.UPLOAD: wire_sizes.upload,
}


@dataclass(slots=True)
class Link:
    """One zone's link, read from its first exchange to its last."""

    zone: SiteId
    hub: SiteId
    book: Book
    down: Queue
    up: Queue
    most_reconnects: int
    ends_us: Sequence[int]
    """When connections of this link ended."""
    capture_ended_us: int
    opens: int = 0
    opened_us: int = 0
    greeted: bool = True
    heads_us: int | None = None
    again: int = field(default=0)
    """How many messages may still come again after a cut."""
    early: int = 1
    """How many polls may still end with their connection."""
    cuts: int = 0
    """How many messages were cut, with their connection or by the end of the capture."""
    under_way: set[int] = field(default_factory=set)
    """What was said last on each connection that stands when the capture ends: its answer may still be on its way."""

    def read(self, exchanges: Iterable[Seen]) -> None:
        """Account for all exchanges of this link."""
        ordered = sorted(exchanges, key=lambda each: each.began_us)
        last = {id(seen.connection): seen for seen in ordered}
        self.under_way = {id(seen) for seen in last.values() if not seen.connection.ended}
        for seen in ordered:
            self._account(seen)
        self._missed(self.down, "to")
        self._missed(self.up, "from")

    def _account(self, seen: Seen) -> None:
        if not self._fits(seen) and self._ends_with_its_connection(seen):
            without = replace(seen, down=seen.down - wire_sizes.FAREWELL)
            if self._fits(without):
                self.book.add((self.hub, self.zone), Part.HTTP, wire_sizes.FAREWELL)
                seen = without
        fitting = [each for each in self._possible(seen) if _excess(seen, each) is not None]
        exact = [each for each in fitting if _excess(seen, each) == 0]
        lawful = [each for each in exact if self._in_time(seen, each.act)]
        if lawful:
            self._take(seen, lawful[0])
        elif exact:
            self._dark(seen, WireFindingCode.TOO_OFTEN, f"{exact[0].act.value} came earlier or more often than it may")
        elif seen.up == wire_sizes.poll(self.zone)[0].up.size and not seen.down:
            self._take_asked(seen)
        elif (seen.cut or id(seen) in self.under_way) and self._was_cut(seen):
            self._repeat(seen)
        elif within := [each for each in fitting if self._in_time(seen, each.act)]:
            self._take(seen, min(within, key=lambda each: _excess(seen, each) or 0))
        else:
            self._dark(
                seen, WireFindingCode.UNACCOUNTED, "no logged crossing and no rule of the protocol accounts for it"
            )

    def _fits(self, seen: Seen) -> bool:
        """Tell whether this is, to the byte, something that may be seen now."""
        return any(_excess(seen, each) == 0 for each in self._possible(seen))

    def _possible(self, seen: Seen) -> list[Exchange]:
        """Return what may be seen now, what is expected first."""
        found = [*self.down.current(self.zone), *self.up.current(self.zone)]
        found += wire_sizes.open_link(self.zone) + wire_sizes.heads(self.zone) + wire_sizes.poll(self.zone)
        if self.again and seen.began_us > self.opened_us:
            found += [*self.down.before(self.zone), *self.up.before(self.zone)]
        return found

    def _in_time(self, seen: Seen, act: Act) -> bool:
        """Tell whether this may be seen now, by the cadence."""
        if act is Act.OPEN:
            ended = any(self.opened_us < end <= seen.began_us for end in self.ends_us)
            return not self.opens or (ended and self.opens <= self.most_reconnects)
        if act is Act.HEADS:
            due = self.heads_us is None or seen.began_us - self.heads_us >= CADENCE_S * SECOND - EARLY_US
            return due or not self.greeted
        if act is Act.POLL:
            held = seen.ended_us - seen.began_us >= POLL_S * SECOND - EARLY_US
            return held or (self.early > 0 and self._ends_with_its_connection(seen))
        return True

    def _ends_with_its_connection(self, seen: Seen) -> bool:
        end = seen.connection.ended_us if seen.connection.ended else self.capture_ended_us
        return seen.cut or end - seen.ended_us <= ENDS_WITHIN_US

    def _take(self, seen: Seen, exchange: Exchange) -> None:
        """Write an exchange down as what it is."""
        self.book.acts[self.zone][exchange.act] += 1
        if exchange.act is Act.OPEN:
            self._opened(seen)
        elif exchange.act is Act.HEADS:
            self.heads_us, self.greeted = seen.began_us, True
        elif exchange.act is Act.POLL:
            self.early -= seen.ended_us - seen.began_us < POLL_S * SECOND - EARLY_US
        elif exchange in self.down.current(self.zone):
            self.down.advance()
        elif exchange in self.up.current(self.zone):
            self.up.advance()
        else:
            self.again -= 1
            self._repeat(seen)
            return
        excess = _excess(seen, exchange) or 0
        for way, body, came, records in self._both(seen, exchange):
            for part, size in _parts(body).items():
                self.book.add(way, part, size)
            self.book.add(way, Part.DARK, came - body.size)
            self._add_tls(way, records, body.frames)
        if excess:
            detail = f"{exchange.act.value} is {excess} bytes larger than logged crossings and protocol make it"
            self.book.find(WireFindingCode.OVER_SIZE, detail, site=self.zone, at_us=seen.began_us, dark=excess)

    def _opened(self, seen: Seen) -> None:
        if self.opens:
            self.book.reconnects[self.zone] += 1
            self.again += len(CROSSING_ACTS)
            self.early += 1
        self.opens, self.opened_us, self.greeted = self.opens + 1, seen.began_us, False

    def _both(self, seen: Seen, exchange: Exchange) -> tuple[tuple[tuple[SiteId, SiteId], Body, int, int], ...]:
        return (
            ((self.zone, self.hub), exchange.up, seen.up, seen.records_up),
            ((self.hub, self.zone), exchange.down, seen.down, seen.records_down),
        )

    def _add_tls(self, way: tuple[SiteId, SiteId], records: int, frames: int) -> None:
        """Write down what TLS adds; more records than an honest writer makes of so many frames are dark."""
        most = 3 + 2 * frames
        self.book.add(way, Part.TLS, AROUND * min(records, most))
        self.book.add(way, Part.DARK, AROUND * max(0, records - most))
        if records > most:
            detail = f"{records} records where {most} are enough"
            dark = AROUND * (records - most)
            self.book.find(WireFindingCode.OVER_SIZE, detail, site=self.zone, at_us=0, dark=dark)

    def _was_cut(self, seen: Seen) -> bool:
        """Tell whether this is the beginning of something that may be seen now, cut with its connection."""
        ahead = [each for each in self._possible(seen) if seen.up <= each.up.size and seen.down <= each.down.size]
        asked_first = any(seen.up == each.up.size or not seen.down for each in ahead)
        return asked_first and self.cut()

    def cut(self) -> bool:
        """Tell whether one more message may be cut: what is sent and what is fetched, each time a link ends."""
        self.cuts += 1
        return self.cuts <= CUT_AT_ONCE * self.opens

    def _take_asked(self, seen: Seen) -> None:
        """Write down a poll that is still held when the capture or its connection ends."""
        way = (self.zone, self.hub)
        self.book.add(way, Part.HTTP, seen.up)
        self._add_tls(way, seen.records_up, 0)

    def _repeat(self, seen: Seen) -> None:
        for way, came, records in (
            ((self.zone, self.hub), seen.up, seen.records_up),
            ((self.hub, self.zone), seen.down, seen.records_down),
        ):
            self.book.add(way, Part.REPEATED, came + AROUND * records)

    def _dark(self, seen: Seen, code: WireFindingCode, why: str) -> None:
        """Write an exchange down as dark, as a whole."""
        up, down = seen.up + AROUND * seen.records_up, seen.down + AROUND * seen.records_down
        self.book.add((self.zone, self.hub), Part.DARK, up)
        self.book.add((self.hub, self.zone), Part.DARK, down)
        detail = f"{why}: {seen.up} bytes up, {seen.down} down"
        self.book.find(code, detail, site=self.zone, at_us=seen.began_us, dark=up + down)

    def _missed(self, queue: Queue, way: str) -> None:
        """Find crossings that were decided while the capture ran and that it does not show; count later ones."""
        for crossing in queue.crossings[queue.place :]:
            if crossing.decided_at is not None and crossing.decided_at * SECOND > self.capture_ended_us:
                self.book.after += 1
            elif crossing.decided_at is not None:
                what = f"{crossing.manifest.kind.value} {crossing.manifest.sequence}"
                detail = f"{what} {way} {self.zone} was logged, and the capture does not show it"
                self.book.find(WireFindingCode.CROSSING_NOT_SEEN, detail, site=self.zone)


def _excess(seen: Seen, exchange: Exchange) -> int | None:
    """Return how many bytes more were seen than this exchange has; None where it was fewer."""
    if seen.up < exchange.up.size or seen.down < exchange.down.size:
        return None
    return seen.up - exchange.up.size + seen.down - exchange.down.size


def _parts(body: Body) -> dict[Part, int]:
    """Return where a message's bytes belong."""
    return {
        Part.HTTP: body.head,
        Part.SIGNED: min(body.signed, body.control),
        Part.CONTROL: max(0, body.control - body.signed),
        Part.PAYLOAD: body.payload,
        Part.PADDING: body.padded - body.payload,
    }
