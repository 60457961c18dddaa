"""Working ahead: what waits for a disk or a network is begun a few at a time, and taken in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(work: Callable[[Item], Result], items: Iterable[Item], at_once: int) -> Iterator[Result]:
    """Yield `work` of each item, in order, while the next ones are worked on in threads.

    Args:
        work: called in a thread of its own.
        items: taken in the caller's thread, no more than `at_once` of them ahead of what was yielded.
        at_once: how many are worked on at once, and held.

    Raises:
        Exception: the first failure, in order, that of taking an item among them. Nothing is begun after it; what was
            begun is waited for.

    >>> list(ahead(abs, (-1, 2, -3), 2))
    [1, 2, 3]
    """
    with ThreadPoolExecutor(at_once, "ahead") as threads:
        begun: deque[Future[Result]] = deque()
        rest = iter(items)
        failed: Exception | None = None
        while failed is None:
            try:
                item = next(rest)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 -- raised below, in its turn
                failed = error
            else:
                if len(begun) == at_once:
                    yield begun.popleft().result()
                begun.append(threads.submit(work, item))
        while begun:
            yield begun.popleft().result()
        if failed is not None:
            raise failed
