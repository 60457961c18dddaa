"""Reading a job request: JSON as people write it, held to every rule of `JobRequest`.

Spelling is free (order, white space, defaults left out); meaning is not: no key twice, no unknown key, no number that
is not whole. What is wrong is named by its place, never by what stood there.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic import ValidationError

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.jobs import JobRequest

LIMIT = 64 * 1024


def read_request(text: bytes) -> JobRequest:
    """Return the request that `text` is.

    Raises:
        Refusal: `INPUT_INVALID`, naming the place.
    """
    try:
        json.loads(text, object_pairs_hook=_once, parse_float=_not_whole, parse_constant=_not_whole)
    except (ValueError, RecursionError):
        raise _invalid("the whole", "It is not JSON, holds a key twice, or a number that is not whole.") from None
    try:
        return JobRequest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":  # the caller chose this name
            place[-1] = "?"
        why = first["msg"] if first["type"] in {"value_error", "missing", "extra_forbidden"} else first["type"]
        raise _invalid(".".join(place) or "the whole", why) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _not_whole(_: str) -> NoReturn:
    raise ValueError("not a whole number")


def _invalid(place: str, why: str) -> Refusal:
    return Refusal(
        Code.INPUT_INVALID,
        f"The request is not valid at `{place}`.",
        why=why,
        remedy="See the schema of JobRequest in the API's description.",
    )
