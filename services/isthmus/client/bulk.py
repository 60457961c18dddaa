"""Fetching many bytes at once, as a port: over whatever client there is, or straight into one buffer.

The HTTP library hands a body over in pieces, each copied several times: 80 ms of processor time for 40 MB, where the
standard library reads into the buffer that is kept: 15 ms. A service uses the second; tests over ASGI the first.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from isthmus.client.problems import FIRST_ERROR, reaching
from isthmus.contracts.errors import Code, Fault, Refusal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    import httpx2

    from isthmus.contracts.errors import IsthmusError

    ErrorOf = Callable[[int, bytes], IsthmusError]
    """Turns an error's status and body into what is raised."""

TIMEOUT_S = 60.0
MAX_ERROR = 64 * 1024


class Bulk(Protocol):
    """Fetches whole bodies from one service."""

    async def get(self, path: str, headers: Mapping[str, str], *, limit: int, error_of: ErrorOf) -> bytearray:
        """Return the body at `path`.

        Raises:
            Refusal: it has more than `limit` bytes (`TOO_LARGE`): none of them is kept.
            Fault: the service does not answer, or its answer was cut short (`PEER_UNREACHABLE`).
            IsthmusError: what `error_of` makes of an error.
        """
        ...


class StreamedBulk:
    """Over an HTTP client, whatever its transport."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, headers: Mapping[str, str], *, limit: int, error_of: ErrorOf) -> bytearray:
        """Return the body at `path`."""
        body = bytearray()
        with reaching("The service"):
            async with self._client.stream("GET", path, headers=dict(headers), timeout=TIMEOUT_S) as response:
                failed = response.status_code >= FIRST_ERROR
                async for chunk in response.aiter_raw():
                    _require_at_most(len(body) + len(chunk), MAX_ERROR if failed else limit)
                    body += chunk
        if failed:
            raise error_of(response.status_code, bytes(body))
        return body


class ThreadedBulk:
    """By the standard library in a worker thread, straight into the buffer that is returned.

    Args:
        url: the service.
        context: TLS, where the URL is https.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        self._url = urlsplit(url)
        self._context = context
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    async def get(self, path: str, headers: Mapping[str, str], *, limit: int, error_of: ErrorOf) -> bytearray:
        """Return the body at `path`."""
        status, body = await asyncio.to_thread(self._fetch, path, dict(headers), limit)
        if status >= FIRST_ERROR:
            raise error_of(status, bytes(body))
        return body

    def close(self) -> None:
        """Close the connections that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _fetch(self, path: str, headers: dict[str, str], limit: int) -> tuple[int, bytearray]:
        """Fetch over an idle connection, and over a new one where that has gone stale."""
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None:
            try:
                return self._exchange(idle, path, headers, limit)
            except (OSError, http.client.HTTPException, ValueError):
                idle.close()
            except Refusal:
                idle.close()
                raise
        connection = self._new()
        try:
            return self._exchange(connection, path, headers, limit)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise Fault(
                Code.PEER_UNREACHABLE,
                "The service does not answer, or its answer was cut short.",
                why=type(error).__name__,
                remedy="It is asked again.",
            ) from error
        except Refusal:
            connection.close()
            raise

    def _exchange(
        self, connection: http.client.HTTPConnection, path: str, headers: dict[str, str], limit: int
    ) -> tuple[int, bytearray]:
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as response:
            size = int(response.headers.get("content-length", ""))
            _require_at_most(size, MAX_ERROR if response.status >= FIRST_ERROR else limit)
            body = bytearray(size)
            view, filled = memoryview(body), 0
            while filled < size:
                count = response.readinto(view[filled:])
                if count == 0:
                    raise http.client.IncompleteRead(b"", size - filled)
                filled += count
            if response.read(1):
                raise http.client.HTTPException("more bytes than it said")
        with self._lock:
            self._idle.append(connection)
        return response.status, body

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


def _require_at_most(size: int, limit: int) -> None:
    if size > limit:
        raise Refusal(Code.TOO_LARGE, f"The answer has more than {limit} bytes.")
