"""The audit of a capture: an honest one is clear to the byte, and whoever sends more than was logged shows in bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isthmus.cli import captures
from isthmus.cli.demo.stage import Captured
from isthmus.cli.demo.wire import WireAudit
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.roster import Roots
from isthmus.contracts.wire_audit import Part, WireFindingCode, WireReport
from isthmus.proof import canonical, wire
from isthmus.proof.wire_streams import Capture
from security.wire_stage import (
    ADDRESSES,
    CN,
    FIN,
    FRAME,
    HQ,
    PARTIES,
    PORT,
    RST,
    SYN,
    US,
    Line,
    Link,
    Wire,
    framed,
    honest,
)
from world.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

F = WireFindingCode
NOBODYS = Captured(PARTIES, "taken by a test")
KIB = 1024


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, bytes], Roots]:
    """Evidence of a whole job of two zones, and the roots."""
    home = tmp_path_factory.mktemp("wire") / "sites"
    pair = Pair(home, (CN, US))
    pair.prepare()
    pair.work(rounds=2)
    evidence = dict(pair.evidence())
    pair.close()
    return evidence, canonical.load(Roots, (home / "roots.json").read_bytes())


def audited(bundle: tuple[Mapping[str, bytes], Roots], tap: Wire, folder: Path, *, reconnects: int = 2) -> WireReport:
    capture = Capture()
    for packet in captures.read(tap.write(folder / "wire.pcap")):
        capture.take(packet)
    return wire.reconcile(capture, *bundle, PARTIES, at_most=16 * KIB, most_reconnects=reconnects)


def codes(report: WireReport) -> set[WireFindingCode]:
    return {finding.code for finding in report.findings}


def adds_up(report: WireReport, tap: Wire) -> bool:
    sizes = sum(len(frame) for _, frame in tap.frames)
    return report.total == sizes == sum(report.parts.values()) == sum(flow.total for flow in report.flows)


def test_all_that_honest_borders_send_is_accounted_for(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    tap = Wire(bundle[0])
    honest(tap)
    report = audited(bundle, tap, tmp_path)
    assert (report.findings, report.dark, report.clear) == ((), 0, True)
    assert adds_up(report, tap)
    logged = [c for found in tap.crossed.values() for c in found]
    assert report.parts[Part.PAYLOAD] == sum(c.manifest.payload.size for c in logged)
    assert report.parts[Part.SIGNED] == sum(len(c.envelope) + len(c.receipt) for c in logged)
    assert report.room == report.total - sum(
        report.parts[part] for part in (Part.PAYLOAD, Part.SIGNED, Part.TLS, Part.TRANSPORT)
    )


def test_what_the_network_loses_and_sends_again_is_no_finding(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    """Segments come twice, out of order and overlapping; the bytes that came twice are counted apart."""
    tap = Wire(bundle[0])
    honest(tap)
    frames = tap.frames
    doubled = [entry for entry in frames if len(entry[1]) > 1400][:40]
    again = [(at + 1, frame) for at, frame in doubled]
    swapped = sorted([*frames, *again], key=lambda entry: entry[0])
    place = next(i for i in range(300, len(swapped)) if len(swapped[i][1]) == len(swapped[i + 1][1]) > 1400)
    swapped[place], swapped[place + 1] = (
        (swapped[place][0], swapped[place + 1][1]),
        (swapped[place + 1][0], swapped[place][1]),
    )
    tap.frames = swapped
    report = audited(bundle, tap, tmp_path)
    assert (report.findings, report.dark, report.clear) == ((), 0, True)
    assert report.parts[Part.REPEATED] == sum(len(frame) - 54 for _, frame in doubled)
    assert adds_up(report, tap)


def test_what_lies_before_and_after_a_capture_is_counted_and_a_demo_needs_it_to_the_end(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    """Such a capture is clear, for nothing in it is dark. It must not pass for one that shows every crossing."""
    everything = len([c for found in Wire(bundle[0]).crossed.values() for c in found])
    for minutes, before, after in ((-1, 0, everything), (60, everything, 0)):
        tap = Wire(bundle[0])
        tap.wait(60 * minutes)
        for zone in (CN, US):
            tap.link(zone).open()
        report = audited(bundle, tap, tmp_path)
        assert (report.clear, report.before, report.after) == (True, before, after)
        assert WireAudit(NOBODYS, report).holds is not bool(after)
    nothing = audited(bundle, Wire(bundle[0]), tmp_path)
    assert (nothing.total, nothing.after, WireAudit(NOBODYS, nothing).holds) == (0, everything, False)
    tap = Wire(bundle[0])
    honest(tap)
    whole = audited(bundle, tap, tmp_path)
    assert (whole.before, whole.after, WireAudit(NOBODYS, whole).holds) == (0, 0, True)


def test_a_link_that_is_cut_in_mid_upload_comes_up_again(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    tap = Wire(bundle[0])
    link = tap.link(CN)
    link.open()
    for c in link.down():
        link.fetch(c)
    first, *others = link.up()
    link.upload(first, cut=True)
    for line in (link.talk, link.poll, link.bulk):
        line.segment(b"", up=True, flags=RST)
    tap.wait(0.2)
    link.dial()
    link.open()
    for c in (first, *others):
        link.upload(c)
    other = tap.link(US)
    other.open()
    for c in other.down():
        other.fetch(c)
    for c in other.up():
        other.upload(c)
    report = audited(bundle, tap, tmp_path)
    assert (report.findings, report.dark, report.clear) == ((), 0, True)
    assert [k.reconnects for k in report.links] == [1, 0]
    assert adds_up(report, tap)
    unforgiving = audited(bundle, tap, tmp_path, reconnects=0)
    assert not unforgiving.clear, "how often a link may come up again is the auditor's to say"


@pytest.mark.parametrize(("polls", "ends", "found"), [(1, True, 0), (2, True, 1), (1, False, 1), (3, False, 3)])
def test_one_poll_may_be_let_go_with_its_connection_and_none_on_one_that_stands(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path, *, polls: int, ends: bool, found: int
) -> None:
    tap = Wire(bundle[0])
    links = honest(tap)
    for _ in range(polls):
        links[CN].idle(3.0)
    if ends:
        links[CN].close()
    tap.wait(60)
    links[US].control("heads")
    report = audited(bundle, tap, tmp_path)
    assert [finding.code for finding in report.findings] == [F.TOO_OFTEN] * found
    assert bool(report.dark) is bool(found)


@pytest.mark.parametrize(
    ("says", "ends", "dark"),
    [
        ("connection: close\r\n", True, 0),
        ("connection: close\r\n", False, 19),
        ("connection: closed\r\n", True, 20),
        ("x: y\r\n", True, 6),
    ],
)
def test_a_server_that_stops_may_say_so_where_the_connection_ends_and_say_nothing_else(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path, *, says: str, ends: bool, dark: int
) -> None:
    tap = Wire(bundle[0])
    links = honest(tap)
    links[CN].idle(says=says)
    if ends:
        links[CN].close()
    tap.wait(60)
    links[US].control("heads")
    report = audited(bundle, tap, tmp_path)
    assert [finding.code for finding in report.findings] == [F.OVER_SIZE] * bool(dark)
    assert report.dark == dark
    assert adds_up(report, tap)


# ---- whoever sends more than was logged


def extra_blob(tap: Wire, links: dict[str, Link]) -> None:
    links[CN].blob("sha256:" + "0" * 64, 64 * KIB)


def extra_upload(tap: Wire, links: dict[str, Link]) -> None:
    links[CN].talk.ask((200, 64 * KIB), links[CN].answered(FRAME))


def a_logged_upload_twice(tap: Wire, links: dict[str, Link]) -> None:
    links[US].upload(links[US].up()[-1])


def extra_connection_elsewhere(tap: Wire, links: dict[str, Link]) -> None:
    tap.line(ADDRESSES[CN], "203.0.113.9", 443).ask((64 * KIB,), (100,))


def extra_connection_to_the_other_zone(tap: Wire, links: dict[str, Link]) -> None:
    tap.line(ADDRESSES[CN], ADDRESSES[US]).ask((64 * KIB,), (100,))


def extra_connection_on_another_port(tap: Wire, links: dict[str, Link]) -> None:
    tap.line(ADDRESSES[CN], ADDRESSES[HQ], 9000).ask((64 * KIB,), (100,))


def extra_connection_on_the_link(tap: Wire, links: dict[str, Link]) -> None:
    tap.line(ADDRESSES[CN], ADDRESSES[HQ]).ask((64 * KIB,), (100,))


def large_handshakes(tap: Wire, links: dict[str, Link]) -> None:
    for _ in range(8):
        tap.line(ADDRESSES[CN], ADDRESSES[HQ], handshake=15_000)


def drip_in_heads(tap: Wire, links: dict[str, Link]) -> None:
    for _ in range(8):
        tap.wait(1)
        links[CN].control("heads")


def drip_in_openings(tap: Wire, links: dict[str, Link]) -> None:
    for _ in range(8):
        tap.wait(1)
        links[CN].control("open")


def drip_in_polls(tap: Wire, links: dict[str, Link]) -> None:
    """Nothing but when and how often: hundreds of polls that nobody held."""
    for _ in range(600):
        links[CN].idle(0.01)


def drip_in_records(tap: Wire, links: dict[str, Link]) -> None:
    """The right bytes, in records of one: where they begin and end could say something."""
    tap.wait(5)
    link = links[CN]
    link.talk.records([18] * (link.asked("POST", "heads", FRAME) + FRAME), up=True)
    link.talk.say(*link.answered(FRAME), up=False)


def plain_text(tap: Wire, links: dict[str, Link]) -> None:
    links[CN].talk.send(b"in the clear " * 6000, up=True)


def datagrams(tap: Wire, links: dict[str, Link]) -> None:
    for _ in range(64):
        tap.udp(ADDRESSES[CN], ADDRESSES[HQ], bytes(KIB))


def drip_in_cuts(tap: Wire, links: dict[str, Link]) -> None:
    """Uploads of nothing, each cut in the middle of a record before its answer would be due."""
    for _ in range(6):
        tap.wait(60)
        line = tap.line(ADDRESSES[CN], ADDRESSES[HQ])
        line.send(b"\x17\x03\x03\x40\x11" + bytes(16_000), up=True)
        line.segment(b"", up=True, flags=RST)


def drip_in_headers(tap: Wire, links: dict[str, Link]) -> None:
    """Packets that carry nothing, whose headers could."""
    for _ in range(2000):
        links[CN].talk.segment(b"", up=True)


def flood_of_address_resolution(tap: Wire, links: dict[str, Link]) -> None:
    for _ in range(1000):
        tap.put(bytes(12) + b"\x08\x06" + bytes(28))


ATTACKS = [
    (drip_in_cuts, F.UNACCOUNTED, None),
    (drip_in_headers, F.OVER_SIZE, None),
    (flood_of_address_resolution, F.NOT_A_LINK, None),
    (extra_blob, F.OVER_SIZE, F.UNACCOUNTED),
    (extra_upload, F.OVER_SIZE, F.UNACCOUNTED),
    (a_logged_upload_twice, F.OVER_SIZE, F.UNACCOUNTED),
    (extra_connection_elsewhere, F.UNKNOWN_PARTY, None),
    (extra_connection_to_the_other_zone, F.NOT_A_LINK, None),
    (extra_connection_on_another_port, F.UNKNOWN_PARTY, None),
    (extra_connection_on_the_link, F.OVER_SIZE, F.UNACCOUNTED),
    (large_handshakes, F.OVER_SIZE, F.TOO_MANY_CONNECTIONS),
    (drip_in_heads, F.TOO_OFTEN, None),
    (drip_in_openings, F.TOO_OFTEN, None),
    (drip_in_polls, F.TOO_OFTEN, None),
    (drip_in_records, F.OVER_SIZE, None),
    (plain_text, F.NOT_TLS, None),
    (datagrams, F.NOT_A_LINK, None),
]


@pytest.mark.parametrize(("attack", "code", "other"), ATTACKS, ids=[a[0].__name__ for a in ATTACKS])
def test_whoever_sends_more_than_was_logged_shows_in_bytes(
    bundle: tuple[Mapping[str, bytes], Roots],
    tmp_path: Path,
    attack: Callable[[Wire, dict[str, Link]], None],
    code: F,
    other: F | None,
) -> None:
    tap = Wire(bundle[0])
    links = honest(tap)
    before = sum(len(frame) for _, frame in tap.frames)
    attack(tap, links)
    sent = sum(len(frame) for _, frame in tap.frames) - before
    report = audited(bundle, tap, tmp_path)
    assert not report.clear
    assert codes(report) & {code, other}
    assert report.dark > 16 * KIB
    assert report.dark <= sent
    assert adds_up(report, tap)


@pytest.mark.parametrize(("header", "frames", "dark"), [(1, 0, 1), (700, 0, 700), (0, 1, FRAME), (0, 4, 4 * FRAME)])
def test_a_larger_message_is_dark_by_what_is_more(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path, header: int, frames: int, dark: int
) -> None:
    """A longer head or more frames in an upload that was logged: even one byte, far under the bound, is a finding."""
    tap = Wire(bundle[0])
    link, other = tap.link(CN), tap.link(US)
    for each in (link, other):
        each.open()
        for c in each.down():
            each.fetch(c)
    more = frames * FRAME
    for place, c in enumerate(link.up()):
        size = framed(len(c.envelope) + 2000) + framed(c.manifest.payload.size)
        wider = len(str(size + more)) - len(str(size))
        link.upload(c, header=0 if place else header - wider, frames=0 if place else frames)
    for c in other.up():
        other.upload(c)
    report = audited(bundle, tap, tmp_path)
    assert (report.dark, codes(report), report.clear) == (dark, {F.OVER_SIZE}, False)


def dialled_in_vain(tap: Wire, times: int) -> None:
    """A zone dials while the coordinator does not listen yet: each SYN is answered with a reset."""
    for port in range(times):
        line = Line(tap, ADDRESSES[CN], 30_000 + port, ADDRESSES[HQ], PORT)
        line.segment(b"", up=True, flags=SYN)
        line.segment(b"", up=False, flags=RST)


@pytest.mark.parametrize(("times", "codes"), [(9, set()), (200, {F.TOO_MANY_CONNECTIONS})])
def test_dialling_in_vain_is_lawful_until_it_is_too_often(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path, times: int, codes: set[F]
) -> None:
    tap = Wire(bundle[0])
    dialled_in_vain(tap, times)
    honest(tap)
    report = audited(bundle, tap, tmp_path)
    assert {finding.code for finding in report.findings} == codes
    assert adds_up(report, tap)


def test_many_connections_are_a_finding_though_each_is_small(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    tap = Wire(bundle[0])
    honest(tap)
    for _ in range(10):
        tap.line(ADDRESSES[CN], ADDRESSES[HQ]).close()
    report = audited(bundle, tap, tmp_path)
    assert codes(report) == {F.TOO_MANY_CONNECTIONS}


def test_what_was_logged_and_did_not_pass_went_another_way(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    tap = Wire(bundle[0])
    honest(tap, skip=tap.crossed[CN, HQ][-1])
    report = audited(bundle, tap, tmp_path)
    assert codes(report) == {F.CROSSING_NOT_SEEN}


def test_what_is_sent_again_must_be_what_was_sent(bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path) -> None:
    tap = Wire(bundle[0])
    links = honest(tap)
    line = links[CN].talk
    line.segment(b"other bytes than before" * 40, up=True, at=line.next[True] - 920)
    report = audited(bundle, tap, tmp_path)
    assert codes(report) == {F.SENT_AGAIN_DIFFERENTLY}
    assert report.parts[Part.REPEATED] == 920


def test_a_capture_that_begins_late_accounts_for_nothing(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    tap = Wire(bundle[0])
    honest(tap)
    del tap.frames[:3]
    report = audited(bundle, tap, tmp_path)
    assert F.NOT_FROM_THE_START in codes(report)
    assert report.dark > 16 * KIB


def test_a_hole_in_the_capture_is_found(bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path) -> None:
    tap = Wire(bundle[0])
    honest(tap)
    large = [place for place, (_, frame) in enumerate(tap.frames) if len(frame) > 1400]
    del tap.frames[large[10]]
    report = audited(bundle, tap, tmp_path)
    assert F.CAPTURE_INCOMPLETE in codes(report)
    assert adds_up(report, tap)


def test_ledgers_that_are_not_accepted_account_for_nothing(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path
) -> None:
    evidence, roots = bundle
    tap = Wire(evidence)
    honest(tap)
    name = f"{CN}.json" if f"{CN}.json" in evidence else CN
    report = audited(({k: v for k, v in evidence.items() if k != name}, roots), tap, tmp_path)
    assert F.EVIDENCE_NOT_ACCEPTED in codes(report)
    assert not report.clear


@pytest.mark.parametrize("cut", [3, 23, 30, 60])
def test_a_file_that_is_no_whole_capture_is_refused(
    bundle: tuple[Mapping[str, bytes], Roots], tmp_path: Path, cut: int
) -> None:
    tap = Wire(bundle[0])
    tap.link(CN).talk.segment(b"", up=True, flags=FIN)
    path = tap.write(tmp_path / "wire.pcap")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Refusal) as refused:
        list(captures.read(path))
    assert refused.value.code is Code.MALFORMED
