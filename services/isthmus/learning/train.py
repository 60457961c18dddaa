"""Local training of the forecaster: Adam on the mean displacement, one compiled pass over the data per epoch.

The optimiser starts afresh in every call, so a round depends on nothing but the weights it was sent, the data and the
seed; it repeats bit for bit on one machine. The last batch of an epoch is filled up from the epoch's beginning, so
every batch has one shape and one compilation serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning.models import COMPILER_OPTIONS, forward

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from isthmus.learning.windows import Windows

Schedule = Literal["constant", "cosine"]

_SMOOTHING_M2 = 1e-6
"""Rounds off the tip of the displacement: its slope at zero is not defined."""

_adam = optax.scale_by_adam()


def displacement_loss(weights: Mapping[str, jax.Array], inputs: jax.Array, residuals: jax.Array) -> jax.Array:
    """Mean displacement over windows and points, m: the figure that evaluation reports (ADE), so no other is tuned."""
    error = forward(weights, inputs) - residuals
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(error), axis=-1) + _SMOOTHING_M2))


def _epoch(
    weights: dict[str, jax.Array],
    state: optax.OptState,
    data: tuple[jax.Array, jax.Array],
    order: jax.Array,
    rates: jax.Array,
) -> tuple[dict[str, jax.Array], optax.OptState]:
    inputs, residuals = data

    def step(
        carry: tuple[dict[str, jax.Array], optax.OptState], batch: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[dict[str, jax.Array], optax.OptState], None]:
        now, state = carry
        chosen, rate = batch
        gradient = jax.grad(displacement_loss)(now, inputs[chosen], residuals[chosen])
        updates, state = _adam.update(gradient, state)
        return ({name: value - rate * updates[name] for name, value in now.items()}, state), None

    carry, _ = jax.lax.scan(step, (weights, state), (order, rates))
    return carry


_run_epoch = jax.jit(_epoch, compiler_options=COMPILER_OPTIONS)


class Trainer:
    """One zone's windows, held on the device, ready to train from any weights."""

    def __init__(self, windows: Windows) -> None:
        """Take the windows to train on; at least one.

        Raises:
            Refusal: INPUT_INVALID, when there are none.
        """
        if len(windows) == 0:
            raise Refusal(Code.INPUT_INVALID, "There are no windows to train on.")
        self._data = (jnp.asarray(windows.inputs), jnp.asarray(windows.residuals))
        self._count = len(windows)

    def train(
        self,
        weights: Mapping[str, NDArray[np.float32]],
        *,
        epochs: int,
        seed: int,
        learning_rate: float,
        batch_size: int,
        schedule: Schedule = "constant",
    ) -> dict[str, NDArray[np.float32]]:
        """Train for some epochs and return the new weights; `weights` are left as they are.

        Args:
            weights: where to start.
            epochs: passes over the windows; 0 returns a copy.
            seed: of the shuffling; the same seed gives the same bits.
            learning_rate: Adam's step size.
            batch_size: windows per step.
            schedule: `constant`, or `cosine`: falls to zero over the whole call.
        """
        generator = np.random.Generator(np.random.PCG64(abs(seed) * 2 + (seed < 0)))
        steps = -(-self._count // batch_size)
        rates = _rates(learning_rate, epochs * steps, schedule).reshape(epochs, steps)
        now = {name: jnp.asarray(value) for name, value in weights.items()}
        state = _adam.init(now)
        for epoch in range(epochs):
            order = np.resize(generator.permutation(self._count).astype(np.int32), (steps, batch_size))
            now, state = _run_epoch(now, state, self._data, order, rates[epoch])
        return {name: np.array(value) for name, value in now.items()}


def _rates(peak: float, steps: int, schedule: Schedule) -> NDArray[np.float32]:
    if schedule == "constant":
        return np.full(steps, peak, np.float32)
    return (peak * 0.5 * (1.0 + np.cos(np.pi * np.arange(steps) / max(1, steps)))).astype(np.float32)
