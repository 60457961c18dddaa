"""A model's weights as bytes and as numbers. Without jax: borders use it on models of any schema.

On the wire a model is a safetensors file (https://github.com/huggingface/safetensors, "Format") with one spelling:

1. The header is compact JSON, tensors sorted by name, no metadata, padded with spaces to a multiple of 8 bytes.
2. Data follows in the same order, little-endian float32, without gaps; nothing follows the data.
3. Every number is finite.

So a schema fixes every byte of the file but the numbers, and reading is comparing: a header that differs from the one
the schema calls for is refused before anything in it is believed. Its text is looked at only to name the reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.tensors import TensorSpec
from isthmus.learning.forecaster import MODEL_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]
"""Tensors by name, float32."""

__all__ = [
    "MODEL_SCHEMA",
    "Weights",
    "add",
    "clip",
    "decode",
    "encode",
    "header_bytes",
    "l2_norm",
    "pieces",
    "require_same_shapes",
    "schema_of",
    "subtract",
]

_FLOAT32 = np.dtype("<f4")
_LENGTH_BYTES = 8
_MAX_HEADER = 128 * 1024
"""More than the header of the largest schema: 512 tensors with names of 64 and four dimensions."""
_BLOCK = 8192
"""Numbers summed at a time: they stay in the cache, and BLAS does not split so few among threads."""
_CLIP_MARGIN = 2.0**-21
"""Relative; more than the rounding of the product (2^-24) and of a norm over 2^26 squares in float64 (2^-27)."""
_SMALLEST_BOUND = 1e-9


def schema_of(weights: Weights) -> tuple[TensorSpec, ...]:
    """Return the schema of some weights, sorted by name.

    Raises:
        Refusal: SCHEMA_MISMATCH, when they are not float32 or have a name or shape that no schema allows.
    """
    if any(value.dtype != _FLOAT32 for value in weights.values()):
        raise Refusal(Code.SCHEMA_MISMATCH, "A tensor is not float32.")
    try:
        return tuple(TensorSpec(name=name, shape=weights[name].shape) for name in sorted(weights))
    except ValueError as error:
        raise Refusal(Code.SCHEMA_MISMATCH, "A tensor has a name or a shape that no schema allows.") from error


def header_bytes(schema: Sequence[TensorSpec]) -> bytes:
    """Return the only header that a file of this schema may have, with its length in front.

    Raises:
        Refusal: SCHEMA_MISMATCH, when the schema names a tensor twice.
    """
    described: dict[str, object] = {}
    end = 0
    for spec in sorted(schema, key=lambda spec: spec.name):
        start, end = end, end + spec.elements * _FLOAT32.itemsize
        described[spec.name] = {"dtype": "F32", "shape": list(spec.shape), "data_offsets": [start, end]}
    if len(described) != len(schema):
        raise Refusal(Code.SCHEMA_MISMATCH, "The schema names a tensor twice.")
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def pieces(weights: Weights) -> Iterator[memoryview]:
    """Give the file piece by piece without copying the numbers: the header, then each tensor's bytes.

    Raises:
        Refusal: as for `schema_of`.
    """
    yield memoryview(header_bytes(schema_of(weights)))
    for name in sorted(weights):
        yield np.ascontiguousarray(weights[name]).reshape(-1).view(np.uint8).data


def encode(weights: Weights) -> bytes:
    """Return the file. Equal weights give equal bytes, which are also what the safetensors library writes.

    Raises:
        Refusal: as for `schema_of`.
    """
    return b"".join(pieces(weights))


def decode(data: bytes | memoryview, schema: Sequence[TensorSpec]) -> dict[str, NDArray[np.float32]]:
    """Read a file of exactly this schema.

    Args:
        data: the file; contiguous.
        schema: what it must hold: these names, shapes and types, no more and no less.

    Returns:
        Read-only arrays that share memory with `data`.

    Raises:
        Refusal: TRUNCATED, TOO_LARGE or MALFORMED when it is not such a file (another spelling of the same tensors
            is MALFORMED), SCHEMA_MISMATCH when it holds other tensors, NOT_FINITE when it holds NaN or infinity.
    """
    view = memoryview(data).cast("B")
    if not schema:
        raise Refusal(Code.SCHEMA_MISMATCH, "The schema names no tensors.")
    expected = header_bytes(schema)
    if view[: len(expected)] != expected:
        raise _why_not(view, schema)
    numbers = sum(spec.elements for spec in schema)
    size = len(expected) + numbers * _FLOAT32.itemsize
    if len(view) < size:
        raise Refusal(Code.TRUNCATED, f"The model's file has {len(view)} bytes of {size}.")
    if len(view) > size:
        raise Refusal(Code.TOO_LARGE, f"{len(view) - size} bytes follow the last tensor.")
    flat = np.frombuffer(view, _FLOAT32, count=numbers, offset=len(expected))
    flat.setflags(write=False)
    if not _all_finite(flat):
        raise Refusal(Code.NOT_FINITE, "A weight is not finite.", why="Training diverged, or the file was made so.")
    tensors: dict[str, NDArray[np.float32]] = {}
    start = 0
    for spec in sorted(schema, key=lambda spec: spec.name):
        tensors[spec.name] = flat[start : start + spec.elements].reshape(spec.shape)
        start += spec.elements
    return tensors


def l2_norm(weights: Weights) -> float:
    """Return the L2 norm over all tensors, summed in float64 in the order of names.

    NaN or infinity in the weights comes back as a norm that is not finite.
    """
    total = 0.0
    for name in sorted(weights):
        flat = weights[name].reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            total += float(block @ block)
    return math.sqrt(total)


def clip(weights: Weights, bound: float) -> tuple[Weights, float]:
    """Scale weights down so that their `l2_norm` is at most `bound`; those within it come back as they are.

    What is scaled lands slightly under the bound (2^-21 of it), so that rounding to float32 cannot cross it.
    Weights more than 10^37 times too large keep to the bound, but no longer their exact direction.

    Args:
        weights: left unchanged.
        bound: at least 1e-9, finite.

    Returns:
        The weights, and their norm before.

    Raises:
        Refusal: NOT_FINITE, when a weight is not finite.
        ValueError: for a bound out of range.
    """
    if not _SMALLEST_BOUND <= bound < math.inf:
        raise ValueError(f"a clipping bound must be finite and at least {_SMALLEST_BOUND}")
    norm = l2_norm(weights)
    if not math.isfinite(norm):
        raise Refusal(Code.NOT_FINITE, "A weight is not finite.")
    if norm <= bound:
        return weights, norm
    factor = _float32_at_most(bound / norm * (1.0 - _CLIP_MARGIN))
    return {name: value * factor for name, value in weights.items()}, norm


def subtract(a: Weights, b: Weights) -> dict[str, NDArray[np.float32]]:
    """Return a - b, tensor by tensor.

    Raises:
        Refusal: SCHEMA_MISMATCH, when names or shapes differ.
    """
    require_same_shapes(a, b)
    with np.errstate(over="ignore"):  # an overflow becomes an infinity, which every reader refuses
        return {name: a[name] - b[name] for name in a}


def add(a: Weights, b: Weights) -> dict[str, NDArray[np.float32]]:
    """Return a + b, tensor by tensor.

    Raises:
        Refusal: SCHEMA_MISMATCH, when names or shapes differ.
    """
    require_same_shapes(a, b)
    with np.errstate(over="ignore"):  # as above
        return {name: a[name] + b[name] for name in a}


def require_same_shapes(a: Weights, b: Weights) -> None:
    """Refuse weights that do not have the same names, shapes and types.

    Raises:
        Refusal: SCHEMA_MISMATCH.
    """
    if schema_of(a) != schema_of(b):
        raise Refusal(Code.SCHEMA_MISMATCH, "Two models do not have the same tensors.")


def _float32_at_most(value: float) -> np.float32:
    rounded = np.float32(value)
    return np.nextafter(rounded, np.float32(0)) if float(rounded) > value else rounded


def _all_finite(flat: NDArray[np.float32]) -> bool:
    return all(np.isfinite(flat[start : start + _BLOCK]).all() for start in range(0, flat.size, _BLOCK))


def _why_not(view: memoryview, schema: Sequence[TensorSpec]) -> Refusal:
    """Name the reason why a file does not start with the header its schema calls for."""
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    if len(view) < _LENGTH_BYTES or len(view) - _LENGTH_BYTES < length <= _MAX_HEADER:
        return Refusal(Code.TRUNCATED, "The model's file ends inside its header.")
    if length > _MAX_HEADER:
        return Refusal(Code.TOO_LARGE, "The model's header is too long, or this is not a safetensors file.")
    try:
        described = _described(json.loads(bytes(view[_LENGTH_BYTES : _LENGTH_BYTES + length])))
    except (ValueError, RecursionError):
        return Refusal(Code.MALFORMED, "The model's header is not a JSON object.")
    if described == {spec.name: ("F32", list(spec.shape)) for spec in schema}:
        return Refusal(
            Code.MALFORMED,
            "The model's header describes the right tensors in another way than the one that is allowed.",
            why="Offsets with gaps or overlaps, repeats, metadata, another order or other spaces.",
        )
    return Refusal(Code.SCHEMA_MISMATCH, "The model does not hold the tensors that the order names.")


def _described(header: object) -> dict[str, object]:
    """Return type and shape by tensor, as a header states them."""
    if not isinstance(header, dict):
        raise ValueError("not an object")  # noqa: TRY004 - joins what the parser raises
    described: dict[str, object] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            described[name] = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else None
    return described
