"""The shape of the forecaster and its first weights: an MLP 72-128-128-30 with ReLU, 29,726 parameters.

Without jax, so that a coordinator can make the first model and a border can know the schema.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERS = (72, 128, 128, 30)
"""Widths: 72 inputs, two hidden layers, 15 future points x 2."""

MODEL_SCHEMA: tuple[TensorSpec, ...] = tuple(
    spec
    for index, (fan_in, fan_out) in enumerate(pairwise(LAYERS))
    for spec in (
        TensorSpec(name=f"layer{index}/bias", shape=(fan_out,)),
        TensorSpec(name=f"layer{index}/weight", shape=(fan_in, fan_out)),
    )
)


def initial_weights(seed: int) -> dict[str, NDArray[np.float32]]:
    """Make the first weights: He-normal (He et al. 2015), biases zero, last layer zero.

    With a last layer of zeros the untrained model predicts constant velocity, so training starts from the baseline.

    Args:
        seed: any integer; the same seed gives the same bits.
    """
    generator = np.random.Generator(np.random.PCG64(abs(seed) * 2 + (seed < 0)))
    last = f"layer{len(LAYERS) - 2}/weight"
    weights: dict[str, NDArray[np.float32]] = {}
    for spec in MODEL_SCHEMA:
        if spec.name.endswith("/weight") and spec.name != last:
            scale = np.float32(np.sqrt(2.0 / spec.shape[0]))
            weights[spec.name] = generator.standard_normal(spec.shape, dtype=np.float32) * scale
        else:
            weights[spec.name] = np.zeros(spec.shape, np.float32)
    return weights
