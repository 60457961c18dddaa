"""Federated averaging (McMahan et al. 2017, algorithm 1) over updates that borders have already checked.

The result depends on the updates, the counts and the sites' names alone, never on who answered first: sums run in the
order of the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning.weights import require_same_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from isthmus.learning.weights import Weights

_BLOCK = 65_536
"""Numbers worked on at a time, so that what is between two steps stays in the cache."""


def federated_average(
    base: Weights, deltas: Mapping[str, Weights], counts: Mapping[str, int]
) -> dict[str, NDArray[np.float32]]:
    """Return base + sum over sites of (count / total count) x delta.

    Args:
        base: the weights that every site started from.
        deltas: what each site adds, by site.
        counts: what each site weighs, by site: its vehicles or its windows, at least 1.

    Raises:
        Refusal: TOO_FEW_CONTRIBUTORS, when there are no deltas; INPUT_INVALID, when counts are not of the same sites
            or one is not positive; SCHEMA_MISMATCH, when tensors differ; NOT_FINITE, when the result is not finite.
    """
    if not deltas:
        raise Refusal(Code.TOO_FEW_CONTRIBUTORS, "There are no updates to average.")
    if counts.keys() != deltas.keys() or any(count < 1 for count in counts.values()):
        raise Refusal(Code.INPUT_INVALID, "Every update needs a positive count, and every count an update.")
    for delta in deltas.values():
        require_same_shapes(base, delta)
    sites = sorted(deltas)
    total = sum(counts.values())
    shares = [np.float32(counts[site] / total) for site in sites]
    return {name: _moved(base[name], [deltas[site][name] for site in sites], shares) for name in base}


def _moved(
    base: NDArray[np.float32], deltas: Sequence[NDArray[np.float32]], shares: Sequence[np.float32]
) -> NDArray[np.float32]:
    moved = np.empty(base.shape, np.float32)
    target, start_from = moved.reshape(-1), base.reshape(-1)
    flats = [delta.reshape(-1) for delta in deltas]
    mean, part = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below
        for start in range(0, target.size, _BLOCK):
            block = slice(start, min(start + _BLOCK, target.size))
            size = block.stop - block.start
            np.multiply(flats[0][block], shares[0], out=mean[:size])
            for flat, share in zip(flats[1:], shares[1:], strict=True):
                np.multiply(flat[block], share, out=part[:size])
                np.add(mean[:size], part[:size], out=mean[:size])
            np.add(start_from[block], mean[:size], out=target[block])
            if not np.isfinite(target[block]).all():
                raise Refusal(Code.NOT_FINITE, "The average is not finite.")
    return moved
