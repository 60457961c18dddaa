"""Waiting before trying again: longer each time, never longer than a bound."""

from __future__ import annotations

import asyncio

FIRST_S = 0.1
LONGEST_S = 5.0


class Pause:
    """A pause that doubles from a tenth of a second to five seconds."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    async def wait(self) -> None:
        """Sleep, and make the next pause longer."""
        seconds, self._next_s = self._next_s, min(self._next_s * 2, LONGEST_S)
        await asyncio.sleep(seconds)

    def over(self) -> None:
        """Start short again: it worked."""
        self._next_s = FIRST_S
