"""What training makes small: how far forecasts lie from the way that was driven. To be traced by jax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from isthmus.learning.models import forward

if TYPE_CHECKING:
    from collections.abc import Mapping

    import jax

_SMOOTHING_M2 = 1e-6
"""Rounds off the tip of the displacement: its slope at zero is not defined."""


def mean_displacement(weights: Mapping[str, jax.Array], inputs: jax.Array, residuals: jax.Array) -> jax.Array:
    """Mean over windows and points, m: the figure that evaluation reports (ADE), so no other is tuned.

    Args:
        weights: of `forecaster.MODEL_SCHEMA`.
        inputs: [n, 72].
        residuals: [n, 15, 2] m.
    """
    return jnp.mean(_displacements(weights, inputs, residuals))


def shared_displacement(
    weights: Mapping[str, jax.Array], inputs: jax.Array, residuals: jax.Array, shares: jax.Array
) -> jax.Array:
    """Sum of displacements, each times its window's share; arguments as above.

    Args:
        weights: as above.
        inputs: as above.
        residuals: as above.
        shares: [n]; 0 for a window that only fills up a batch.
    """
    return jnp.sum(_displacements(weights, inputs, residuals) * shares[:, None])


def _displacements(weights: Mapping[str, jax.Array], inputs: jax.Array, residuals: jax.Array) -> jax.Array:
    error = forward(weights, inputs) - residuals
    return jnp.sqrt(jnp.sum(jnp.square(error), axis=-1) + _SMOOTHING_M2)
