"""What an actor answers: a value, or a failure as a value.

An exception that leaves an actor is written, with its words and its trace, into Ray's logs and tables, and its words
may quote data. So none leaves: a known error comes back as its parts, any other as the name of its type.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.zone.compute import RunLost

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that happened in an actor.

    Attributes:
        sort: which of the three error types it was.
        code: its code, as text.
        what: what happened.
        why: the cause.
        remedy: what to do.
    """

    sort: str
    code: str
    what: str
    why: str
    remedy: str

    def error(self) -> IsthmusError:
        """Return the error, as it was raised."""
        if self.sort == RunLost.__name__:
            return RunLost(self.what, why=self.why, remedy=self.remedy)
        sort = Refusal if self.sort == Refusal.__name__ else Fault
        return sort(Code(self.code), self.what, why=self.why, remedy=self.remedy)


def answered(method: Callable[P, Value]) -> Callable[P, Value | Failure]:
    """Make a method of an actor answer with a `Failure` where it would raise."""

    @functools.wraps(method)
    def answering(*arguments: P.args, **named: P.kwargs) -> Value | Failure:
        try:
            return method(*arguments, **named)
        except IsthmusError as error:
            sort = next(sort for sort in (RunLost, Refusal, Fault) if isinstance(error, sort))
            return Failure(sort.__name__, error.code.value, error.what, error.why, error.remedy)
        except Exception as error:  # noqa: BLE001 - its words may quote data: the name of its type is all that leaves
            return Failure(Fault.__name__, Code.COMPUTE_FAILED.value, "Compute failed.", type(error).__name__, "")

    return answering


def value_of(answer: Value | Failure) -> Value:
    """Return the value of an answer.

    Raises:
        IsthmusError: the failure that it is.
    """
    if isinstance(answer, Failure):
        raise answer.error()
    return answer
