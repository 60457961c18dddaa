"""When the driving function hands back to the driver, and when the driver lets it drive again.

Rules: a drive begins with the function engaged. It hands back by chance, the more often the more others are near, so
that dense traffic has more of it; the driver keeps the wheel for some seconds. What moves is not changed by it: the
draws come from a generator of their own, and only the raw table's column `engaged` shows them.

The rates are made up, for statistics to have something rare to count. No figure of any maker stands behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isthmus.fleet.traffic import STEP

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALONE_PER_HOUR = 1.0
"""Hand-backs an hour with nobody near."""
EACH_PER_HOUR = 0.5
"""Hand-backs an hour for each road user near."""
BY_HAND_S = 8.0
"""How long the driver drives, on average."""


def draw_engaged(near: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int32]:
    """Return whether the driving function drives, 1 or 0, instant by instant.

    Args:
        near: other road users recorded at each instant, shape (scenes, instants).
        rng: a generator for this alone.
    """
    drawn = rng.random(near.shape)
    hands_back = drawn < (ALONE_PER_HOUR + EACH_PER_HOUR * near) * STEP / 3600.0
    takes_over = drawn < STEP / BY_HAND_S
    engaged = np.ones(near.shape, np.int32)
    for instant in range(1, near.shape[1]):
        before = engaged[:, instant - 1] == 1
        engaged[:, instant] = np.where(before, ~hands_back[:, instant], takes_over[:, instant])
    return engaged
