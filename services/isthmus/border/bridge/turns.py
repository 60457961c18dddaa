"""One gate at a time: what a gate asked before it died has its effect before the next gate is let in.

Else a head that came with an older request could be looked at after a newer one, and an honest restart of the gate
would pass for a fork of its peer.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

REMEMBERED = 256
"""Gates that had their turn and are not let in again."""


class Turns:
    """Whose turn it is. A gate names itself by a number that it makes when it starts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._current: str | None = None
        self._past: deque[str] = deque(maxlen=REMEMBERED)
        self._busy: Counter[str] = Counter()

    def let_in(self, gate: str) -> None:
        """Make it the turn of `gate`, as soon as no other's call is under way.

        Raises:
            Refusal: `STATE_CONFLICT`: another has taken its place.
        """
        with self._changed:
            if gate in self._past:
                raise _displaced()
            if gate != self._current:
                if self._current is not None:
                    self._past.append(self._current)
                self._current = gate
            self._changed.wait_for(lambda: not any(count for each, count in self._busy.items() if each != gate))
            if gate != self._current:
                raise _displaced()

    @contextmanager
    def call(self, gate: str) -> Iterator[None]:
        """Do one call of `gate`.

        Raises:
            Refusal: `STATE_CONFLICT`: it is another's turn.
        """
        with self._changed:
            if gate != self._current:
                raise _displaced()
            self._busy[gate] += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy[gate] -= 1
                if not self._busy[gate]:
                    del self._busy[gate]
                self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Let nobody in any more; wait until no call is under way, and return whether it came to that."""
        with self._changed:
            self._current = None
            return self._changed.wait_for(lambda: not self._busy, seconds)


def _displaced() -> Refusal:
    return Refusal(
        Code.STATE_CONFLICT,
        "Another gate has taken this one's place at the keeper.",
        remedy="Run one gate for each keeper.",
    )
