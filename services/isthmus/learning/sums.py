"""Sums of vehicles' changes: what a private training has between zone and border. Without jax: borders use it.

Rules:
1. A sum is whole numbers, one for each number of the model, tensors in the schema's order; on the way to the border it
   is these as little-endian int32 and nothing else, so a schema fixes the length and nothing is left to be believed.
2. A number beyond int32 is sent as the nearest one that int32 has. What one vehicle changes is never made larger by
   that, so neither is what noise has to hide.
3. The float32 update is made of the noised numbers alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.errors import Code, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from isthmus.contracts.tensors import TensorSpec
    from isthmus.learning.weights import Weights

_INT32 = np.dtype("<i4")
_LEAST, _MOST = -(2**31), 2**31 - 1


def encode(sums: NDArray[np.int64]) -> bytes:
    """Return a sum as its payload.

    Args:
        sums: int64 [d], in the schema's order; numbers beyond int32 are cut to it.

    >>> encode(np.array([1, -2, 2**40])).hex()
    '01000000feffffffffffff7f'
    """
    return np.clip(sums, _LEAST, _MOST).astype(_INT32).tobytes()


def decode(data: bytes | bytearray | memoryview, schema: Sequence[TensorSpec]) -> NDArray[np.int64]:
    """Read the payload of a sum for a model of this schema.

    Args:
        data: the payload; contiguous.
        schema: the model's tensors.

    Returns:
        int64 [d], in the schema's order.

    Raises:
        Refusal: SCHEMA_MISMATCH, when it has another length than the schema calls for.
    """
    view = memoryview(data).cast("B")
    expected = _numbers_of(schema) * _INT32.itemsize
    if not expected or len(view) != expected:
        raise Refusal(Code.SCHEMA_MISMATCH, f"The sum has {len(view)} bytes; the order's model calls for {expected}.")
    return np.frombuffer(view, _INT32).astype(np.int64)


def released(noised: Sequence[int], schema: Sequence[TensorSpec], norm: float, grain: int, vehicles: int) -> Weights:
    """Return the update that a noised sum is: numbers x norm / grain / vehicles.

    Args:
        noised: a sum with its noise, in the schema's order.
        schema: the model's tensors.
        norm: the bound on the Euclidean norm of what a vehicle changes.
        grain: how many steps that bound has.
        vehicles: what the plan divides by, not how many there are.

    Raises:
        Refusal: SCHEMA_MISMATCH, when there are more or fewer numbers than the schema calls for; NOT_FINITE, when
            float32 cannot hold one.
    """
    if len(noised) != _numbers_of(schema):
        raise Refusal(Code.SCHEMA_MISMATCH, f"The sum has {len(noised)} numbers of {_numbers_of(schema)}.")
    with np.errstate(over="ignore"):  # looked at below
        flat = (np.asarray(noised, np.float64) * (norm / grain / vehicles)).astype(np.float32)
    if not np.isfinite(flat).all():
        raise Refusal(Code.NOT_FINITE, "A number of the noised sum is beyond float32.")
    tensors: dict[str, NDArray[np.float32]] = {}
    start = 0
    for spec in schema:
        tensors[spec.name] = flat[start : start + spec.elements].reshape(spec.shape)
        start += spec.elements
    return tensors


def _numbers_of(schema: Sequence[TensorSpec]) -> int:
    return sum(spec.elements for spec in schema)
