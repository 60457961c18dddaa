"""Reading a request: JSON as people write it, held to every rule of `JobRequest` or `QueryRequest`.

Spelling is free (order, white space, defaults left out); meaning is not: no key twice, no unknown key, no number that
is not whole. What is wrong is named by its place, never by what stood there.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn, TypeVar

from fastapi import Header, Query
from pydantic import ValidationError

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.jobs import JobRequest
from isthmus.contracts.wire import Wire

Model = TypeVar("Model", bound=Wire)
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
Wait = Annotated[float, Query(ge=0, le=25, description="Seconds to wait where there is none yet.")]
SCHEMAS = "#/components/schemas/{model}"

LIMIT = 64 * 1024


def read_request(text: bytes) -> JobRequest:
    """Return the job that `text` asks for.

    Raises:
        Refusal: `INPUT_INVALID`, naming the place.
    """
    request = read_as(JobRequest, text)
    if request.work == "query":
        raise Refusal(
            Code.INPUT_INVALID,
            "The request is not valid at `work`.",
            why="A question has an address of its own.",
            remedy="Ask with `POST /v1/queries`, or `isthmus query`.",
        )
    return request


def read_as(model: type[Model], text: bytes) -> Model:
    """Return the request of type `model` that `text` is.

    Raises:
        Refusal: `INPUT_INVALID`, naming the place.
    """
    fractions: list[str] = []
    try:
        json.loads(text, object_pairs_hook=_once, parse_float=fractions.append, parse_constant=_not_whole)
    except (ValueError, RecursionError):
        why = "It is not JSON, holds a key twice, or what is no number."
        raise _invalid("the whole", why, model.__name__) from None
    try:
        request = model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":  # the caller chose this name
            place[-1] = "?"
        why = first["msg"] if first["type"] in {"value_error", "missing", "extra_forbidden"} else first["type"]
        if first["type"] in {"int_type", "int_from_float"}:
            why = "It is not a whole number."
        raise _invalid(".".join(place) or "the whole", why, model.__name__) from None
    if fractions:
        raise _invalid("the whole", "It holds a number that is not whole.", model.__name__)
    return request


def job_of(text: str) -> JobId:
    """Return the job that a path names.

    Raises:
        Refusal: `NOT_FOUND`: it is no job's id.
    """
    try:
        return JobId(text)
    except ValueError:
        raise Refusal(Code.NOT_FOUND, "There is no such job.", why="This is not a job's id.") from None


def described_body(model: type[Wire]) -> dict[str, Any]:
    """Return how a body that is read by hand stands in the API's description."""
    content = {"application/json": {"schema": {"$ref": SCHEMAS.format(model=model.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _not_whole(_: str) -> NoReturn:
    raise ValueError("not a whole number")


def _invalid(place: str, why: str, model: str) -> Refusal:
    return Refusal(
        Code.INPUT_INVALID,
        f"The request is not valid at `{place}`.",
        why=why,
        remedy=f"See the schema of {model} in the API's description.",
    )
