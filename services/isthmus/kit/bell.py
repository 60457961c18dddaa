"""A bell: wakes every coroutine that waits for news, from any thread. It carries no news itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Bell:
    """Ring to wake all waiters; a waiter looks for itself what has changed.

    Take a `ticket` before looking, then `wait` with it: a ring between the look and the wait is not lost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rung = 0
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._closed = False

    @property
    def closed(self) -> bool:
        """True once the service is stopping: long polls end at once."""
        return self._closed

    def ticket(self) -> int:
        """Return a number that changes with every ring."""
        return self._rung

    def ring(self) -> None:
        """Wake everyone who waits."""
        with self._lock:
            self._rung += 1
            waiters, self._waiters = self._waiters, set()
        for loop, event in waiters:
            with contextlib.suppress(RuntimeError):  # the waiter's loop has closed: nobody is left to wake
                loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Wake everyone for the last time: from now on no wait lasts."""
        self._closed = True
        self.ring()

    async def wait(self, ticket: int, seconds: float) -> bool:
        """Wait until a ring after `ticket`; return False when `seconds` went by without one."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._lock:
            if self._closed or self._rung != ticket:
                return True
            self._waiters.add(waiter)
        try:
            # Not `asyncio.wait_for`: before Python 3.12 it can swallow a cancellation that meets the ring.
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            with self._lock:
                self._waiters.discard(waiter)
