"""Bytes that go through the demo's tap beside the protocol: the audit of the tape finds them, by who sent them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest

from isthmus.border.gate.identity import link_context
from isthmus.border.settings import BorderSettings
from isthmus.cli import bundles, federation
from isthmus.cli.demo import wire
from isthmus.cli.demo.stage import LOOKS_EVERY_S
from isthmus.cli.demo.tapped import Tap
from isthmus.cli.homes import Home
from isthmus.cli.ledger import gather
from isthmus.cli.supervisor import Supervisor
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.wire_audit import Act, Part
from isthmus.proof import bundle, canonical
from isthmus.proof.wire_sizes import heads, open_link, poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from isthmus.contracts.wire_audit import WireReport

pytestmark = pytest.mark.e2e

ROOTS = "roots.json"
COSIGNED_WITHIN_S = 60
REQUESTS = 3
SIZES = {each.act: each.up.size for ask in (open_link, heads, poll) for each in ask(SiteId("us-texas"))}
SMUGGLED = b"latitude 31.2304, longitude 121.4737; " * 1_300


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tapped") / "home"
    return path


@pytest.fixture(scope="module")
def tap(home: Path) -> Iterator[Tap]:
    """Real borders whose links have opened, through a tap."""
    federation.create(home, federation.demo_plan())
    with Tap() as between, Supervisor() as supervisor:
        between.start(home)
        supervisor.start(home)
        supervisor.wait_healthy()
        yield between


def audited(tap: Tap, home: Path) -> WireReport:
    """Export evidence once every entry is cosigned, and audit what is on the tape by then."""
    trusted = wire.verify.read_roots(home / ROOTS)
    evidence = home.parent / f"evidence-{time.monotonic_ns()}"
    deadline = time.monotonic() + COSIGNED_WITHIN_S
    while True:
        parts = asyncio.run(gather(Home.open(home).sites))
        verified = bundle.verify({part.site: canonical.dump(part) for part in parts}, trusted)
        if verified.accepted and not verified.findings:
            break
        assert time.monotonic() < deadline, verified
        time.sleep(LOOKS_EVERY_S)
    bundles.write(evidence, parts)
    capture = home.parent / "wire.pcap"
    return wire.audited(tap.captured(capture), capture, evidence, home / ROOTS).report


def dialled(home: Path, zone: str) -> tuple[str, int]:
    """Return where a zone's border dials, and so where a process beside it can."""
    dials = BorderSettings.load(home / zone).dials
    assert dials is not None
    host, _, port = dials[1].removeprefix("https://").rpartition(":")
    return host, int(port)


def acts_of(report: WireReport, zone: str) -> Mapping[Act, int]:
    (acts,) = (link.acts for link in report.links if link.zone == zone)
    return acts


def test_what_is_smuggled_through_the_tap_is_dark_and_found(tap: Tap, home: Path) -> None:
    """First nothing but the link; then a connection that is none, and requests with a border's own certificate."""
    before = audited(tap, home)
    assert (before.clear, before.findings, before.dark) == (True, (), 0)
    assert {link.zone: link.acts[Act.OPEN] for link in before.links} == {"cn-shanghai": 1, "us-texas": 1}

    with socket.create_connection(dialled(home, "cn-shanghai"), 20) as plain:
        plain.sendall(SMUGGLED)
        while plain.recv(65_536):  # until the other side has had enough
            pass
    keys = home / "us-texas" / "keys"
    context = link_context(ssl.Purpose.SERVER_AUTH, keys / "link.pem", keys / "link.key", keys / "pinned.pem")
    head = b"POST /link/heads HTTP/1.1\r\nhost: isthmus\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED)
    for _ in range(REQUESTS):
        with socket.create_connection(dialled(home, "us-texas"), 20) as raw, context.wrap_socket(raw) as stolen:
            stolen.sendall(head + SMUGGLED)
            assert stolen.recv(12).startswith(b"HTTP/1.1 4")

    after = audited(tap, home)
    assert not after.clear
    assert {finding.site for finding in after.findings} == {"cn-shanghai", "us-texas"}
    dark = {f.sender: f.parts[Part.DARK] for f in after.flows if f.receiver == "hq"}
    assert len(SMUGGLED) <= dark[SiteId("cn-shanghai")] <= len(SMUGGLED) + 4096
    # The server answers before it has all of a request, so each is two messages or three. One that stands where a
    # message of the protocol could have stood, whole or cut, is dark by what it has more than that.
    counted = {act: acts_of(after, "us-texas")[act] - acts_of(before, "us-texas")[act] for act in SIZES}
    explained = sum(count * SIZES[act] for act, count in counted.items())
    explained += sum(f.parts[Part.REPEATED] for f in after.flows if f.sender == "us-texas")
    assert len(SMUGGLED) <= REQUESTS * (len(head) + len(SMUGGLED)) - explained <= dark[SiteId("us-texas")]
