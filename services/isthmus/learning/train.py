"""Local training of the forecaster: Adam on the mean displacement, one compiled pass over the data per epoch.

The optimiser starts afresh in every call, so a round depends on nothing but the weights it was sent, the data and the
seed; it repeats bit for bit, whatever the number of cores (see the package). The last batch of an epoch is filled up
from the epoch's beginning, so every batch has one shape and one compilation serves.

The same training can be shared out (`train_in_parts`): each holder of a part of the windows gives the gradient of its
part of every batch, the sums of these are the batch's gradient, and one optimiser takes the step (synchronous
data-parallel training; Chen et al. 2016, arXiv:1604.00981). Batches are the same, so the result is, up to the order
in which float32 numbers are summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning.forecaster import MODEL_SCHEMA
from isthmus.learning.loss import mean_displacement, shared_displacement
from isthmus.learning.models import COMPILER_OPTIONS
from isthmus.learning.windows import FUTURE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from isthmus.learning.windows import Windows

Schedule = Literal["constant", "cosine"]

_adam = optax.scale_by_adam()


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
        gradient = jax.grad(mean_displacement)(now, inputs[chosen], residuals[chosen])
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
        steps = steps_of(self._count, batch_size)
        rates = _rates(learning_rate, epochs * steps, schedule).reshape(epochs, steps)
        now = {name: jnp.asarray(value) for name, value in weights.items()}
        state = _adam.init(now)
        for epoch, order in enumerate(_batches(self._count, epochs, seed, batch_size)):
            now, state = _run_epoch(now, state, self._data, order, rates[epoch])
        return {name: np.array(value) for name, value in now.items()}


class Part:
    """Some of the windows of a training, held on the device, ready to give its part of each batch's gradient."""

    def __init__(self, windows: Windows, places: NDArray[np.int64], total: int) -> None:
        """Take the windows of one holder; there may be none.

        Args:
            windows: the holder's, n of them.
            places: int64 [n], where each stands among all windows, as if they were in one table.
            total: how many windows all holders have together, at least one.

        Raises:
            Refusal: INPUT_INVALID, when there are none in all.
        """
        if total == 0:
            raise Refusal(Code.INPUT_INVALID, "There are no windows to train on.")
        self._data = (jnp.asarray(windows.inputs), jnp.asarray(windows.residuals))
        self._row_at = np.full(total, -1, np.int32)
        self._row_at[places] = np.arange(len(places), dtype=np.int32)
        self._orders: Iterator[NDArray[np.int32]] = iter(())
        self._rows = np.zeros((0, 0), np.int32)
        self._shares = np.zeros((0, 0), np.float32)
        self._epoch = -1

    def begin(self, *, epochs: int, seed: int, batch_size: int) -> None:
        """Begin a training; arguments as for `Trainer.train`, and the same for every part."""
        self._orders = _batches(len(self._row_at), epochs, seed, batch_size)
        self._epoch = -1

    def gradient(self, weights: NDArray[np.float32], epoch: int, step: int) -> NDArray[np.float32]:
        """Return this part's term of one batch's gradient at `weights`, both float32 [parameters], tensors by name.

        Epochs are asked for in their order, counted from 0.
        """
        while self._epoch < epoch:
            self._lay_out(next(self._orders))
            self._epoch += 1
        rows = self._rows[step]
        if not len(self._data[0]) or not len(rows):
            return np.zeros_like(weights)
        return np.asarray(_run_term(weights, self._data, rows, self._shares[step]))

    def _lay_out(self, order: NDArray[np.int32]) -> None:
        """Find this part's rows of every batch. Batches share one shape: what is short is filled up with no share."""
        rows = self._row_at[order]
        mine = rows >= 0
        grain = max(1, order.shape[1] // 8)
        width = min(order.shape[1], -(-int(mine.sum(axis=1).max()) // grain) * grain)
        first = np.argsort(~mine, axis=1, kind="stable")[:, :width]
        self._rows = np.maximum(np.take_along_axis(rows, first, axis=1), 0)
        share = np.float32(1.0 / (order.shape[1] * FUTURE))
        self._shares = np.take_along_axis(mine, first, axis=1).astype(np.float32) * share


def train_in_parts(
    weights: Mapping[str, NDArray[np.float32]],
    own: Part,
    ask: Callable[[NDArray[np.float32], int, int], Callable[[], Sequence[NDArray[np.float32]]]],
    *,
    total: int,
    epochs: int,
    seed: int,
    learning_rate: float,
    batch_size: int,
    schedule: Schedule = "constant",
) -> dict[str, NDArray[np.float32]]:
    """Train as `Trainer.train` does, on windows that several holders have.

    Args:
        weights: where to start; of `MODEL_SCHEMA`.
        own: the caller's part.
        ask: gives the others weights, epoch and step, and returns what waits for their terms, always in one order.
            They work while `own` does.
        total: windows of all holders together.
        epochs: as for `Trainer.train`, as are all that follow. The others have begun with the same.
        seed: as above.
        learning_rate: as above.
        batch_size: as above.
        schedule: as above.
    """
    steps = steps_of(total, batch_size)
    rates = _rates(learning_rate, epochs * steps, schedule)
    own.begin(epochs=epochs, seed=seed, batch_size=batch_size)
    now = np.concatenate([weights[spec.name].reshape(-1) for spec in MODEL_SCHEMA])
    state = _adam.init(now)
    for number, rate in enumerate(rates):
        epoch, step = divmod(number, steps)
        others = ask(now, epoch, step)
        gradient = own.gradient(now, epoch, step)
        for term in others():
            gradient = gradient + term
        stepped, state = _run_step(now, state, gradient, rate)
        now = np.asarray(stepped)
    return {name: np.array(value) for name, value in _named(now).items()}


def steps_of(count: int, batch_size: int) -> int:
    """Return how many batches an epoch over `count` windows has."""
    return -(-count // batch_size)


def _batches(count: int, epochs: int, seed: int, batch_size: int) -> Iterator[NDArray[np.int32]]:
    """Yield each epoch's batches, int32 [steps, batch_size]: places among all windows, drawn from the seed alone."""
    generator = np.random.Generator(np.random.PCG64(abs(seed) * 2 + (seed < 0)))
    for _ in range(epochs):
        permutation = generator.permutation(count).astype(np.int32)
        yield np.resize(permutation, (steps_of(count, batch_size), batch_size))


def _named(flat: jax.Array | NDArray[np.float32]) -> dict[str, jax.Array]:
    """Cut a flat vector into the model's tensors."""
    named, start = {}, 0
    for spec in MODEL_SCHEMA:
        named[spec.name] = jnp.reshape(flat[start : start + spec.elements], spec.shape)
        start += spec.elements
    return named


def _term(flat: jax.Array, data: tuple[jax.Array, jax.Array], rows: jax.Array, shares: jax.Array) -> jax.Array:
    """Gradient of the displacements of some rows, each times its share."""
    # By tensor: a gradient of `flat` would add up one padded vector for each.
    by_name = jax.grad(shared_displacement)(_named(flat), data[0][rows], data[1][rows], shares)
    return jnp.concatenate([by_name[spec.name].reshape(-1) for spec in MODEL_SCHEMA])


def _step(
    flat: jax.Array, state: optax.OptState, gradient: jax.Array, rate: jax.Array
) -> tuple[jax.Array, optax.OptState]:
    updates, state = _adam.update(gradient, state)
    return flat - rate * updates, state


_run_term = jax.jit(_term, compiler_options=COMPILER_OPTIONS)
_run_step = jax.jit(_step, compiler_options=COMPILER_OPTIONS)


def _rates(peak: float, steps: int, schedule: Schedule) -> NDArray[np.float32]:
    if schedule == "constant":
        return np.full(steps, peak, np.float32)
    return (peak * 0.5 * (1.0 + np.cos(np.pi * np.arange(steps) / max(1, steps)))).astype(np.float32)
