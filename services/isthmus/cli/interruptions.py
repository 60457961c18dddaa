"""Being asked to end: a signal becomes an exception, raised where the work can be left.

Rules:
1. The first signal counts; what then stops is not disturbed by another.
2. Plain code is left wherever it is. An event loop is not: a signal cancels the coroutine that it runs, and the
   exception is raised once the loop is closed. Raised within the loop's own code it could leave the loop half made.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import FrameType
    from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")


class Interrupted(BaseException):
    """A signal that asks this process to end.

    Attributes:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise `Interrupted` in the main thread on SIGINT, SIGTERM or SIGHUP, once.

    Put it around a `with Supervisor()`.
    """

    def end(number: int, _: FrameType | None) -> None:
        _ignore()
        raise Interrupted(number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run what `main` makes in an event loop of its own, as `asyncio.run` does, within `ending_on_signals`.

    A coroutine that was made before the loop would be left unawaited by a signal between the two.

    Raises:
        Interrupted: a signal came. The coroutine was cancelled and has ended, and the loop is closed.
    """
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        _ignore()
        came.append(number)
        if under_way:
            with contextlib.suppress(RuntimeError):  # the loop is closed already: the coroutine has ended
                loop.call_soon_threadsafe(under_way[0].cancel)

    async def watched() -> Result:
        under_way.append(asyncio.ensure_future(main()))
        if came:
            under_way[0].cancel()
        return await under_way[0]

    under_way: list[asyncio.Future[Result]] = []
    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            result = runner.run(watched())
    except BaseException as error:
        if came:
            raise Interrupted(came[0]) from error
        raise
    finally:
        if not came:
            for number, handler in before.items():
                signal.signal(number, handler)
    if came:
        raise Interrupted(came[0])
    return result


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
