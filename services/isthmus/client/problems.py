"""Turn an answer back into the error it tells of, so that a caller meets the same `Refusal` far and near."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import httpx2

from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.inside import Problem
from isthmus.contracts.wire import Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

Model = TypeVar("Model", bound=Wire)

MAX_ANSWER = 512 << 20
FIRST_ERROR = 400
FIRST_FAULT = 500


def error_of(status: int, content: bytes) -> IsthmusError:
    """Return the error that an answer of `status` with `content` stands for."""
    try:
        problem = canonical.load(Problem, content)
    except Refusal:
        return Fault(Code.PEER_UNREACHABLE, f"The service answered {status} with nothing that can be read.")
    kind = Fault if status >= FIRST_FAULT else Refusal
    return kind(problem.code, problem.what, why=problem.why, remedy=problem.remedy)


def read(model: type[Model], response: httpx2.Response) -> Model:
    """Return the answer as `model`, or raise the error it tells of."""
    if response.status_code >= FIRST_ERROR:
        raise error_of(response.status_code, response.content)
    return canonical.load(model, response.content, limit=MAX_ANSWER)


@contextmanager
def reaching(service: str) -> Iterator[None]:
    """Turn a failed connection into a `Fault`."""
    try:
        yield
    except httpx2.TransportError as error:
        raise Fault(
            Code.PEER_UNREACHABLE,
            f"{service} does not answer.",
            why=type(error).__name__,
            remedy="See whether it runs (`isthmus up`), and its log.",
        ) from error
