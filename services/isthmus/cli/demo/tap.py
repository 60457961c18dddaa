"""The tap: a relay on the way from the zones' borders to the coordinator's, which writes down all that passes it.

`python -m isthmus.cli.demo.tap TAPE HOST:PORT ADDRESS=DESCRIPTOR ...` relays each listening socket to HOST:PORT.

Rules:
1. Every zone dials a socket of its own, so the tape tells by address who spoke.
2. Bytes are passed on as they came: nothing is added, changed or kept back. Half a close stays half a close, a reset
   a reset, and where nobody listens, nobody is reached.
3. What cannot be written down is not passed on: a full disk ends the tap, and every connection with it.
4. Standard input is the demo's channel. `enough` ends the tape and not the tap; when the channel closes, the tap ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli.demo.tape import MOST, Line, Tape
from isthmus.proof.wire_streams import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

ENOUGH, WRITTEN = b"enough\n", b"written\n"
HUB = Endpoint("192.0.2.1", 8443)
"""Where the coordinator's border stands on the tape, and the zones beside it: addresses for documentation (RFC 5737),
which are nobody's."""
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: what is closed is reset."""


async def serve(listeners: Mapping[str, socket.socket], hub: tuple[str, int], tape: Tape) -> None:
    """Relay until cancelled.

    Args:
        listeners: a listening socket for each client's address on the tape; they do not block.
        hub: whom to dial for each connection.
        tape: where it is written down.

    Raises:
        ExceptionGroup: the tape cannot be written, or a socket cannot listen.
    """
    async with asyncio.TaskGroup() as group:
        for address, listener in listeners.items():
            group.create_task(_accept(group, listener, address, hub, tape))


async def _accept(
    group: asyncio.TaskGroup, listener: socket.socket, address: str, hub: tuple[str, int], tape: Tape
) -> None:
    while True:
        client, (_, port, *_) = await asyncio.get_running_loop().sock_accept(listener)
        group.create_task(_relay(client, hub, Line(tape, Endpoint(address, port), HUB)))


async def _relay(client: socket.socket, hub: tuple[str, int], line: Line) -> None:
    """Relay one connection until both sides have ended it, or one has given it up."""
    with client, socket.socket() as server:
        server.setblocking(False)  # noqa: FBT003 - the name that sockets give it
        line.asked()
        try:
            await asyncio.get_running_loop().sock_connect(server, hub)
        except OSError:
            line.reset(up=False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            return
        line.taken()
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pass(client, server, line, up=True))
                ways.create_task(_pass(server, client, line, up=False))
        except* ConnectionError:
            for each in (client, server):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)


async def _pass(source: socket.socket, target: socket.socket, line: Line, *, up: bool) -> None:
    """Pass on one direction until its end.

    Raises:
        ConnectionError: one side has given the connection up.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(source, MOST)
        except OSError as error:
            line.reset(up=up)
            raise ConnectionResetError from error
        if not data:
            line.ended(up=up)
            with contextlib.suppress(OSError):  # the other side has gone meanwhile: its own direction tells
                target.shutdown(socket.SHUT_WR)
            return
        line.said(data, up=up)
        try:
            await loop.sock_sendall(target, data)
        except OSError as error:
            line.reset(up=not up)
            raise ConnectionResetError from error


async def run(listeners: Mapping[str, socket.socket], hub: tuple[str, int], tape: Tape, channel: socket.socket) -> None:
    """Relay until the channel closes.

    Raises:
        ExceptionGroup: as `serve` does.
    """
    serving = asyncio.create_task(serve(listeners, hub, tape))
    told = asyncio.create_task(_told(channel, tape))
    await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _told(channel: socket.socket, tape: Tape) -> None:
    """Do what the demo says, until it says no more."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # it is gone, which says the same
        while await loop.sock_recv(channel, len(ENOUGH)):
            tape.end()
            await loop.sock_sendall(channel, WRITTEN)


def main() -> None:
    """Run as the demo's child."""
    path, hub, *given = sys.argv[1:]
    host, _, port = hub.rpartition(":")
    named = dict(each.split("=") for each in given)
    with contextlib.ExitStack() as stack:
        listeners = {a: stack.enter_context(socket.socket(fileno=int(fd))) for a, fd in named.items()}
        channel = stack.enter_context(socket.socket(fileno=sys.stdin.fileno()))
        for each in (channel, *listeners.values()):
            each.setblocking(False)  # noqa: FBT003 - the name that sockets give it
        tape = stack.enter_context(Tape(Path(path)))
        asyncio.run(run(listeners, (host, int(port)), tape, channel))


if __name__ == "__main__":
    main()
