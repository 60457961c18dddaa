"""The schema of a model: which tensors a payload may hold, fixed by the order before any payload exists.

A model has 1 to 512 tensors, float32 throughout, sorted by name, each with 1 to 4 dimensions, and at most 2^26
numbers (256 MiB) in all. `model_schema` is where a tuple of specifications is held to the rules for the whole.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from isthmus.contracts.wire import Wire

MAX_TENSORS = 512
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 2**26
"""Most float32 numbers in one model: 256 MiB, the most that a reader is made to hold."""

TensorName = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9_/.]{0,63}$")]
"""Starts with a letter or digit: the file format keeps `__metadata__` for itself."""
Extent = Annotated[int, Field(strict=True, ge=1, le=MAX_ELEMENTS)]


def _not_too_many(shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"more than {MAX_ELEMENTS} elements")
    return shape


class TensorSpec(Wire):
    """One tensor of a model: its name, its shape, its type."""

    name: TensorName
    shape: Annotated[tuple[Extent, ...], Field(min_length=1, max_length=MAX_DIMENSIONS), AfterValidator(_not_too_many)]
    dtype: Literal["float32"] = "float32"

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)


def _whole_model(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    names = [spec.name for spec in specs]
    if any(a >= b for a, b in pairwise(names)):
        raise ValueError("tensors must be sorted by name and without repeats")
    if sum(spec.elements for spec in specs) > MAX_ELEMENTS:
        raise ValueError(f"more than {MAX_ELEMENTS} elements in all")
    return specs


ModelSchema = Annotated[tuple[TensorSpec, ...], Field(max_length=MAX_TENSORS), AfterValidator(_whole_model)]
"""A whole model's tensors; empty where there is no model."""
