"""The clock, as a port: whole seconds since 1970."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time of this host."""

    def now(self) -> int:
        """Return Unix seconds."""
        ...


class SystemClock:
    """The host's clock."""

    def now(self) -> int:
        """Return Unix seconds."""
        return int(time.time())


class ManualClock:
    """A clock that stands until it is moved."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        """Return the time it was set to."""
        return self._now

    def advance(self, seconds: int) -> None:
        """Move by `seconds`, backwards if negative."""
        self._now += seconds
