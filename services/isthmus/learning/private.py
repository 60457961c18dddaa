"""Training in which each vehicle, by itself, changes the model a little, and no vehicle changes the sum by much.

User-level federated averaging inside one zone (McMahan, Ramage, Talwar and Zhang 2018, "Learning differentially
private recurrent language models", algorithm 1, without its sampling of users), up to the sum. Noise is the border's.

Rules:
1. A vehicle's change is a function of the model it starts from, the round's lesson, its own name and its own windows,
   bit for bit: who else is there, how many they are, and in what order windows come, does not enter. So it is computed
   alone, by a program whose shapes the lesson fixes, from windows in an order of their content.
2. It is cut to the lesson's Euclidean norm and given in whole steps of that norm / grain, rounded towards zero. The
   vector is at most `grain` steps long, which is checked in whole numbers. What is not finite counts as no change.
3. The sum is of whole numbers, so exact: one vehicle more or less changes it by exactly that vehicle's vector.
4. Where there is no vehicle, the sum is zeros: that there is none is not told either.
5. Each step takes at most a batch of the vehicle's windows, all alike; a thousand times the windows weigh no more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from isthmus.learning.forecaster import MODEL_SCHEMA
from isthmus.learning.loss import shared_displacement
from isthmus.learning.models import COMPILER_OPTIONS
from isthmus.learning.windows import FUTURE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from isthmus.learning.weights import Weights
    from isthmus.learning.windows import Windows

_AT_ONCE = 1 << 16
"""Windows that are laid out at a time for one vehicle: 27 MB."""
_HAIR = 2.0**-40
"""What a vector is shortened by, again and again, while rounding has left it too long."""


@dataclass(frozen=True, slots=True)
class VehicleLesson:
    """What every vehicle does in one round.

    Attributes:
        steps: of plain gradient descent, at least 1.
        seed: from which, with its name, a vehicle draws the windows of its steps.
        learning_rate: of a step.
        batch_size: the most windows in a step.
        norm: the bound on what a vehicle changes, in the model's units, Euclidean.
        grain: how many steps that bound has in whole numbers; at most 2^30.
    """

    steps: int
    seed: int
    learning_rate: float
    batch_size: int
    norm: float
    grain: int


class Vehicles:
    """One zone's windows, by the vehicle that recorded them."""

    def __init__(self, windows: Windows) -> None:
        """Take the windows to train on. A vehicle that has none does not take part."""
        self._windows = windows
        self._rows: dict[str, NDArray[np.int64]] = {}
        if len(windows) == 0:
            return
        by_vehicle = np.argsort(windows.vehicles, kind="stable")
        ends = np.cumsum(np.bincount(windows.vehicles, minlength=len(windows.vehicle_names)))
        shares = np.split(by_vehicle, ends[:-1])
        named = zip(windows.vehicle_names, shares, strict=True)
        self._rows = {name: _by_content(windows, rows) for name, rows in named if len(rows)}

    def total(self, weights: Weights, lesson: VehicleLesson) -> NDArray[np.int64]:
        """Return the sum of all vehicles' changes in one round, int64 [d], tensors in the order of `MODEL_SCHEMA`.

        Args:
            weights: the shared model, of `MODEL_SCHEMA`; left as it is.
            lesson: of the round.
        """
        total = np.zeros(sum(spec.elements for spec in MODEL_SCHEMA), np.int64)
        for _, change in self.changes(weights, lesson):
            total += change
        return total

    def changes(self, weights: Weights, lesson: VehicleLesson) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Give each vehicle's name and what it adds to the sum; arguments as for `total`."""
        start = {name: jnp.asarray(value) for name, value in weights.items()}
        before = _flat(weights)
        for name, rows in self._rows.items():
            change = _flat(self._stepped(start, rows, name, lesson)) - before
            yield name, whole_steps(change, lesson.norm, lesson.grain)

    def _stepped(
        self, start: Mapping[str, jax.Array], rows: NDArray[np.int64], name: str, lesson: VehicleLesson
    ) -> Mapping[str, jax.Array]:
        """Return the model after one vehicle's steps."""
        drawn = rows[_permutation(len(rows), lesson.seed, name)]
        taken = min(len(rows), lesson.batch_size)
        shares = np.zeros(lesson.batch_size, np.float32)
        shares[:taken] = 1.0 / (taken * FUTURE)
        rate = np.float32(lesson.learning_rate)
        piece = max(1, _AT_ONCE // lesson.batch_size)
        now = start
        for first in range(0, lesson.steps, piece):
            steps = np.arange(first, min(first + piece, lesson.steps))
            chosen = drawn[(steps[:, None] * taken + np.arange(lesson.batch_size)) % len(drawn)]
            now = _run_steps(now, self._windows.inputs[chosen], self._windows.residuals[chosen], shares, rate)
        return now


def whole_steps(change: NDArray[np.float64], norm: float, grain: int) -> NDArray[np.int64]:
    """Cut a vector to a norm and return it in whole steps of norm / grain, rounded towards zero.

    Args:
        change: float64 [d], each number within what float32 holds, or not finite.
        norm: the bound, positive.
        grain: steps of the bound.

    Returns:
        int64 [d], whose squares sum up to at most grain^2; zeros where a number was not finite.

    >>> whole_steps(np.array([30.0, -40.0]), norm=1.0, grain=1000).tolist()
    [600, -800]
    """
    if not np.isfinite(change).all():
        return np.zeros(len(change), np.int64)
    length = float(np.sqrt(np.square(change).sum()))
    scale = grain / max(length, norm)
    while True:
        steps = np.trunc(change * scale).astype(np.int64)
        if int(np.square(steps).sum()) <= grain**2:
            return steps
        scale *= 1 - _HAIR


def _by_content(windows: Windows, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort one vehicle's rows by what its windows hold: files of others decide in which order they were read."""
    held = np.concatenate([windows.inputs[rows], windows.residuals[rows].reshape(len(rows), -1)], axis=1)
    as_bytes = np.ascontiguousarray(held).view(np.dtype((np.void, held.shape[1] * held.itemsize))).ravel()
    return rows[np.argsort(as_bytes, kind="stable")]


def _permutation(count: int, seed: int, name: str) -> NDArray[np.int64]:
    """Draw the order in which a vehicle's windows are taken; after the last comes the first again."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big"))).permutation(count)


def _flat(weights: Mapping[str, NDArray[np.float32] | jax.Array]) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(weights[spec.name], np.float64).reshape(-1) for spec in MODEL_SCHEMA])


def _steps(
    weights: Mapping[str, jax.Array], inputs: jax.Array, residuals: jax.Array, shares: jax.Array, rate: jax.Array
) -> dict[str, jax.Array]:
    """Take plain gradient steps on the displacement.

    Args:
        weights: where to start.
        inputs: [steps, batch, 72].
        residuals: [steps, batch, 15, 2] m.
        shares: [batch], what each window of a batch counts for; 0 where it only fills up.
        rate: of a step.
    """

    def step(now: dict[str, jax.Array], batch: tuple[jax.Array, jax.Array]) -> tuple[dict[str, jax.Array], None]:
        gradient = jax.grad(shared_displacement)(now, *batch, shares)
        return {name: value - rate * gradient[name] for name, value in now.items()}, None

    carry, _ = jax.lax.scan(step, dict(weights), (inputs, residuals))
    return carry


_run_steps = jax.jit(_steps, compiler_options=COMPILER_OPTIONS)
