"""How often bars cover, held to bounds so that chance does not decide.

Runs go on until the coverage is shown to be inside the bounds by four standard errors, `MOST` at most. A true coverage
0.6 points inside is then 6 standard errors inside at `MOST` for a lone bar of 97.4 %, further for any other in the
tests: about 1 false alarm in 10^8 runs of one test, with some twenty-five tests.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 500
MOST = 60_000
ERRORS = 4
LOW, HIGH = 0.93, 0.98


def require_coverage(run: Callable[[], Sequence[bool]], *, high: float = HIGH) -> None:
    """Hold the share of bars that cover between LOW and `high`; bars of one run may depend on each other.

    Args:
        run: makes one answer; says of each of its bars whether it covers. It may have none.
        high: 1.0 where bars are known to be longer than they need be: then only LOW is held.
    """
    hits = bars = squares = cross = counts = 0
    done, share, error = 0, 0.0, 1.0
    while done < MOST:
        for _ in range(BATCH):
            found = run()
            hit, number = sum(found), len(found)
            hits, bars = hits + hit, bars + number
            squares, cross, counts = squares + hit**2, cross + hit * number, counts + number**2
        done += BATCH
        share = hits / bars
        # The variance of a ratio of sums over runs, each a cluster of bars; never less than of one bar in a thousand.
        spread = max(squares - 2 * share * cross + share**2 * counts, bars / 1_000)
        error = ERRORS * math.sqrt(spread) / bars
        if share - error >= LOW and (high == 1.0 or share + error <= high):
            return
    raise AssertionError(f"coverage {share:.4f} +- {error:.4f} is not within {LOW} and {high}")
