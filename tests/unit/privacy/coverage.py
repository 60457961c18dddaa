"""How often bars cover, held to bounds so that chance does not decide.

Runs go on until the coverage is shown to be inside the bounds by four standard errors, `MOST` at most. The narrowest
case is a lone count: discrete Laplace noise of scale 1 and a bar of 3 either way cover 97.32 times in 100, which at
`MOST` is 10.3 standard errors inside. A false alarm needs chance to be off by more than 6 of them: 2 in 10^9. All other
bars lie further inside, so all such tests together raise one less than once in 10^7 runs.
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
