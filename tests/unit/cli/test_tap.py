"""The demo's tap: what passes it comes out as it went in, and stands on the tape as an auditor reads it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.cli import captures, federation
from isthmus.cli.demo import tap
from isthmus.cli.demo.tap import ENOUGH, HUB, WRITTEN
from isthmus.cli.demo.tape import MOST, Tape
from isthmus.cli.demo.tapped import Tap
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.proof.wire_streams import FIN, RST, SYN, Capture, Packet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ZONE = "192.0.2.2"
WITHIN_S = 20
Speaks = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@dataclass
class Tapped:
    """A tap that runs in this process, between a port to dial and a server."""

    port: int
    file: Path
    tape: Tape

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def packets(self) -> list[Packet]:
        self.tape.end()
        found = list(captures.read(self.file))
        assert all(isinstance(packet, Packet) for packet in found)
        return [packet for packet in found if isinstance(packet, Packet)]


@contextlib.asynccontextmanager
async def tapped(folder: Path, hub: tuple[str, int]) -> AsyncIterator[Tapped]:
    file = folder / "tape.pcap"
    with socket.create_server(("127.0.0.1", 0)) as listener, Tape(file) as tape:
        listener.setblocking(False)  # noqa: FBT003 - the name that sockets give it
        running = asyncio.create_task(tap.serve({ZONE: listener}, hub, tape))
        try:
            async with asyncio.timeout(WITHIN_S):
                yield Tapped(listener.getsockname()[1], file, tape)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@contextlib.asynccontextmanager
async def server(speaks: Speaks) -> AsyncIterator[tuple[str, int]]:
    listening = await asyncio.start_server(speaks, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()


def spoken(packets: list[Packet], *, up: bool) -> bytes:
    """Return what one side said, put together by sequence numbers alone."""
    mine = [p for p in packets if (p.target == HUB) is up]
    first = next(p.sequence for p in mine if p.flags & SYN) + 1
    parts = {p.sequence - first: p.data for p in mine if p.data}
    found = b""
    while len(found) in parts:
        found += parts[len(found)]
    assert len(found) == sum(map(len, parts.values()))
    return found


@settings(max_examples=20, deadline=None)
@given(up=st.lists(st.binary(min_size=1, max_size=200_000), max_size=5), down=st.binary(max_size=300_000))
def test_bytes_come_out_as_they_went_in_and_stand_on_the_tape(
    tmp_path_factory: pytest.TempPathFactory, up: list[bytes], down: bytes
) -> None:
    heard = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard = await reader.read()  # until the client ends its half
        writer.write(down)
        writer.close()
        await writer.wait_closed()

    async def go() -> tuple[bytes, list[Packet]]:
        async with server(answer) as hub, tapped(tmp_path_factory.mktemp("tap"), hub) as between:
            reader, writer = await between.dial()
            for chunk in up:
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
            answered = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answered, between.packets()

    answered, packets = asyncio.run(go())
    assert (heard, answered) == (b"".join(up), down)
    assert (spoken(packets, up=True), spoken(packets, up=False)) == (heard, answered)
    assert max(len(p.data) for p in packets) <= MOST
    ends = [p.target == HUB for p in packets if p.flags & FIN]
    assert ends == [True, False]  # half a close, then the other half
    assert not any(p.flags & RST for p in packets)
    assert {p.source.address for p in packets} == {ZONE, HUB.address}


def test_tcpdumps_reader_and_the_audits_agree_on_a_connection(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()
        await writer.wait_closed()

    async def go() -> list[Packet]:
        async with server(echo) as hub, tapped(tmp_path, hub) as between:
            reader, writer = await between.dial()
            writer.write(b"\x17\x03\x03\x00\x00")  # a TLS record with nothing in it
            assert await reader.read() == b"\x17\x03\x03\x00\x00"
            writer.close()
            await writer.wait_closed()
            while sum(bool(p.flags & FIN) for p in captures.read(between.file) if isinstance(p, Packet)) < 2:
                await asyncio.sleep(0.01)
            return between.packets()

    packets = asyncio.run(go())
    seen = Capture()
    for packet in packets:
        seen.take(packet)
    (connection,) = seen.connections
    assert connection.from_start
    assert connection.ended
    assert (connection.client.address, connection.server) == (ZONE, HUB)
    assert [(record.from_client, record.type, record.length) for record in connection.records] == [
        (True, 23, 0),
        (False, 23, 0),
    ]
    assert (connection.up.missing, connection.up.not_tls, connection.up.repeated) == (False, 0, 0)
    assert seen.total == sum(packet.size for packet in packets) == 2 * 5 + 40 * len(packets)


@pytest.mark.parametrize("who", ["the client", "the server"])
def test_a_reset_is_passed_on_as_a_reset(tmp_path: Path, who: str) -> None:
    gone: list[BaseException | None] = []
    met = asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        if who == "the server":
            reset(writer)
            return
        met.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.append(reader.exception())
        writer.close()

    async def go() -> list[Packet]:
        async with server(hang_up) as hub, tapped(tmp_path, hub) as between:
            reader, writer = await between.dial()
            writer.write(b"more")
            if who == "the client":
                await met.wait()
                reset(writer)
                while not gone:
                    await asyncio.sleep(0.01)
            else:
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                gone.append(reader.exception())
                writer.close()
            return between.packets()

    packets = asyncio.run(go())
    assert isinstance(gone[0], ConnectionResetError)
    assert [p.target == HUB for p in packets if p.flags & RST] == [who == "the client"]
    assert spoken(packets, up=True) == b"more"


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def test_where_nobody_listens_nobody_is_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as vacant:
        nobody = vacant.getsockname()

    async def go() -> list[Packet]:
        async with tapped(tmp_path, nobody) as between:
            reader, writer = await between.dial()
            with pytest.raises(ConnectionError):
                assert await reader.read() == b"never"
            writer.close()
            return between.packets()

    asked, refused = asyncio.run(go())
    assert (asked.flags, asked.target) == (SYN, HUB)
    assert (refused.flags & RST, refused.source) == (RST, HUB)


def test_a_tape_that_cannot_be_written_ends_the_link(tmp_path: Path) -> None:
    """The process of the tap, as the demo starts it: nothing passes that is not written down."""
    room = 200_000
    with (
        socket.create_server(("127.0.0.1", 0)) as hub,
        socket.create_server(("127.0.0.1", 0)) as dialled,
        started(tmp_path / "tape.pcap", hub, dialled) as (process, _),
    ):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
        with socket.create_connection(dialled.getsockname(), WITHIN_S) as client:
            hub.settimeout(WITHIN_S)
            taken, _ = hub.accept()
            came = 0
            with taken, contextlib.suppress(OSError):  # the end of the tap is the end of both
                taken.settimeout(WITHIN_S)
                for _ in range(16):
                    client.sendall(bytes(room // 8))
                    came += len(taken.recv(room))
        assert process.wait(WITHIN_S) != 0
        assert came <= room


def test_enough_ends_the_tape_and_not_the_tap(tmp_path: Path) -> None:
    file = tmp_path / "tape.pcap"
    with (
        socket.create_server(("127.0.0.1", 0)) as hub,
        socket.create_server(("127.0.0.1", 0)) as dialled,
        started(file, hub, dialled) as (process, channel),
    ):
        hub.settimeout(WITHIN_S)
        with socket.create_connection(dialled.getsockname(), WITHIN_S) as client:
            taken, _ = hub.accept()
            with taken:
                taken.settimeout(WITHIN_S)
                client.sendall(b"before")
                assert taken.recv(16) == b"before"
                channel.sendall(ENOUGH)
                assert channel.recv(16) == WRITTEN
                size = file.stat().st_size
                client.sendall(b"after")
                assert taken.recv(16) == b"after"
        assert file.stat().st_size == size
        assert [p.data for p in captures.read(file) if isinstance(p, Packet) and p.data] == [b"before"]
        channel.close()
        assert process.wait(WITHIN_S) == 0


@contextlib.contextmanager
def started(file: Path, hub: socket.socket, dialled: socket.socket):  # type: ignore[no-untyped-def]  # noqa: ANN201
    ours, theirs = socket.socketpair()
    ours.settimeout(WITHIN_S)
    host, port = hub.getsockname()
    command = [
        *(sys.executable, "-m", "isthmus.cli.demo.tap", str(file), f"{host}:{port}"),
        f"{ZONE}={dialled.fileno()}",
    ]
    with (
        ours,
        theirs,
        subprocess.Popen(command, stdin=theirs.fileno(), pass_fds=[dialled.fileno()]) as process,
    ):
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()


def test_a_home_dials_the_tap_for_as_long_as_it_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    federation.create(home, federation.demo_plan())
    before = {path: path.read_text() for path in home.glob("*/settings.toml")}
    with Tap() as between:
        between.start(home)
        changed = {path.parent.name for path, text in before.items() if path.read_text() != text}
        assert changed == {"cn-shanghai", "us-texas"}
        eventually(home / "tap.pcap")
        captured = between.captured(tmp_path / "wire.pcap")
        between.enough()
    assert {path: path.read_text() for path in home.glob("*/settings.toml")} == before
    assert [(p.address, p.port, p.sites) for p in captured.parties] == [
        ("192.0.2.1", 8443, ("hq",)),
        ("192.0.2.2", 0, ("cn-shanghai",)),
        ("192.0.2.3", 0, ("us-texas",)),
    ]
    assert list(captures.read(tmp_path / "wire.pcap")) == []
    assert not (home / "tap.pcap").exists()


def eventually(file: Path) -> None:
    """Wait until a capture has begun."""
    deadline = time.monotonic() + WITHIN_S
    while not file.exists() or not file.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_tap_that_died_is_no_capture(tmp_path: Path) -> None:
    home = tmp_path / "home"
    federation.create(home, federation.demo_plan())
    with Tap() as between:
        between.start(home)
        eventually(home / "tap.pcap")
        assert between.process is not None
        between.process.kill()
        between.process.wait()
        with pytest.raises(Fault, match="has died") as raised:
            between.captured(tmp_path / "wire.pcap")
    assert raised.value.code is Code.COMPUTE_FAILED
    assert not (tmp_path / "wire.pcap").exists()


def test_a_copy_of_a_capture_in_the_making_holds_whole_packets(tmp_path: Path) -> None:
    whole, part, copied = tmp_path / "whole.pcap", tmp_path / "part.pcap", tmp_path / "copied.pcap"
    with Tape(whole) as tape:
        for size in (1, 2_000, 40_000):
            tape.put(b"\x45" + bytes(size))
    content = whole.read_bytes()
    ends = [24, 24 + 16 + 2, 24 + 16 + 2 + 16 + 2_001, len(content)]
    for cut in (24, 30, 41, 42, 50, 2_000, ends[2], len(content) - 1, len(content)):
        part.write_bytes(content[:cut])
        captures.copy(part, copied)
        assert copied.read_bytes() == content[: max(end for end in ends if end <= cut)]
    part.write_bytes(b"no capture at all, and longer than a header")
    with pytest.raises(Refusal, match="cannot be audited"):
        captures.copy(part, copied)
