"""Serve an ASGI app until an event is set: long polls end first, then connections, then the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import uvicorn

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

GRACE_S = 5
KEEP_ALIVE_S = 75
"""Longer than any client here keeps an idle connection: the client closes it, and is never met by a closing server."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address `host:port`.

        Raises:
            ValueError: it is none.
        """
        host, _, port = text.rpartition(":")
        return cls(host, int(port))


async def serve(
    app: Any,
    address: Address,
    stop: asyncio.Event,
    *,
    before_stop: Callable[[], None],
    tls: ssl.SSLContext | None = None,
    http: type[asyncio.Protocol] | Literal["httptools"] = "httptools",
) -> None:
    """Serve `app` until `stop` is set.

    Args:
        app: the ASGI app.
        address: where to listen.
        stop: set it to end; it is set when the server ends by itself.
        before_stop: ends the app's long polls; uvicorn would otherwise wait for them for ever.
        tls: serve TLS with this context.
        http: the protocol class.
    """
    config = uvicorn.Config(
        app,
        address.host,
        address.port,
        http=http,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    config.load()
    if tls is not None:
        config.ssl = tls
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())  # noqa: SLF001 - `serve` would take over the process's signals
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    before_stop()
    server.should_exit = True
    stopping.cancel()
    try:
        await serving
    finally:
        stop.set()
