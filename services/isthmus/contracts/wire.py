"""What every type that crosses or is signed has in common: immutable, closed, strict.

Numbers are whole, with their unit in the name (`ade_um`, `clip_norm_micro`); bytes are base64; nothing is coerced.
Canonical bytes are made and read in `proof.canonical` alone.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_INTEGER = 2**53
"""Largest magnitude of an integer on the wire: what every JSON reader keeps exactly (RFC 8785, section 3.2.2.3)."""

Int = Annotated[int, Field(strict=True, ge=-MAX_INTEGER, le=MAX_INTEGER)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MAX_INTEGER)]
UnixSeconds = Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER)]


def _one_spelling(text: str) -> str:
    """Refuse stray bits in the last letter: two spellings of the same bytes would be two messages."""
    if base64.b64encode(base64.b64decode(text)).decode() != text:
        raise ValueError("must be the canonical base64 of its bytes")
    return text


Base64 = Annotated[
    str,
    StringConstraints(strict=True, pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"),
    AfterValidator(_one_spelling),
]


class Wire(BaseModel):
    """Base of every type that crosses a border or is signed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _sorted_unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(a >= b for a, b in pairwise(values)):
        raise ValueError("must be sorted and without repeats")
    return values


SortedUnique = AfterValidator(_sorted_unique)
"""For a tuple that stands for a set: one set has one spelling, so one digest."""
