"""The forecaster in jax: what it computes. Only this module, `train` and `private` import jax.

Outside, weights are named numpy arrays; inside, a pytree of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from isthmus.learning.forecaster import LAYERS, initial_weights
from isthmus.learning.windows import FUTURE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["COMPILER_OPTIONS", "forward", "initial_weights", "predict"]

COMPILER_OPTIONS = {"xla_cpu_multi_thread_eigen": False}
"""Sums are taken in one order, and two zones on one machine do not fight for cores: with the package's one thread."""


def forward(weights: Mapping[str, jax.Array], inputs: jax.Array) -> jax.Array:
    """Residuals over constant velocity, [n, 15, 2] m, from inputs [n, 72]. To be traced by jax."""
    hidden = inputs
    for index in range(len(LAYERS) - 1):
        hidden = hidden @ weights[f"layer{index}/weight"] + weights[f"layer{index}/bias"]
        if index < len(LAYERS) - 2:
            hidden = jax.nn.relu(hidden)
    return hidden.reshape(-1, FUTURE, 2)


_forward = jax.jit(forward, compiler_options=COMPILER_OPTIONS)


def predict(weights: Mapping[str, NDArray[np.float32]], inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Forecast: residuals over constant velocity, float32 [n, 15, 2] m, from inputs float32 [n, 72]."""
    return np.asarray(_forward({name: jnp.asarray(value) for name, value in weights.items()}, jnp.asarray(inputs)))
