"""What a private training must not tell of the zone's vehicles by failing, nor by when it is done.

Rules:
1. Who sends the models could make one that overflows at the windows of one vehicle alone. Of a private plan, figures
   and adaptation that fail are left out, and the order goes on: else its end would tell whether that vehicle is there.
2. A round itself does not fail so: what is not finite counts as no change (`learning.private`).
3. A round takes `SHORTEST_S` times a power of two: each vehicle takes its time, and who waits could count them. What is
   told is that a doubling was crossed.
4. A run that is lost with its machine is lost (`RunLost`), whatever it was at.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

import structlog

from isthmus.zone.compute import RunLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.contracts.orders import Evaluation, Figures, Order
    from isthmus.zone.compute import Buffer, Run

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)

SHORTEST_S = 1.0
"""What a round takes at least, s."""


def quiet(order: Order, run: Run) -> Run:
    """Return a run that fails in no way that an order's models could choose, where the order's training is private."""
    return QuietRun(run) if order.training is not None and order.training.privacy is not None else run


def paced(took_s: float) -> float:
    """Return how long a round is made to take that took so long, s.

    >>> [paced(took) for took in (0.0, 0.7, 1.0, 1.1, 5.0)]
    [1.0, 1.0, 1.0, 2.0, 8.0]
    """
    pace = SHORTEST_S
    while pace < took_s:
        pace *= 2
    return pace


class QuietRun:
    """A run of a private plan."""

    def __init__(self, run: Run) -> None:
        """Take the run that does the work."""
        self._run = run
        self._closed = threading.Event()
        self.contributors = run.contributors
        self.evaluators = run.evaluators

    def train(self, slot: int, base: Buffer) -> bytes:
        """Return the sum of one round, when its time has come."""
        began = time.monotonic()
        found = self._run.train(slot, base)
        took = time.monotonic() - began
        self._closed.wait(paced(took) - took)
        return found

    def evaluate(self, slot: int, model: Buffer) -> Evaluation | None:
        """Return the errors on held-out vehicles; None also where they cannot be told."""
        return _or(None, lambda: self._run.evaluate(slot, model))

    def reference(self, initial: Buffer) -> Figures | None:
        """Train alone; None also where that comes to nothing."""
        return _or(None, lambda: self._run.reference(initial))

    def adapt(self, final: Buffer) -> tuple[bytes, Figures | None]:
        """Train on for this zone; the model as it was sent where that comes to nothing."""
        as_sent: tuple[bytes, Figures | None] = (bytes(final), None)
        return _or(as_sent, lambda: self._run.adapt(final))

    def close(self) -> None:
        """Drop all plaintext; nothing is waited for any more."""
        self._closed.set()
        self._run.close()


def _or(instead: Answer, work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except RunLost:
        raise
    except Exception as error:  # noqa: BLE001 -- rule 1: whatever it is
        log.warning("left_out_of_private_training", error=type(error).__name__)
        return instead
