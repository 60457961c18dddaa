"""What compute's partial sums and a released answer must be. Pure: bytes and a plan in.

Exact sums are held to the plan's own bounds, so that compute cannot hand over more of one vehicle than noise covers
without it showing in the totals; that each vehicle was bounded is compute's word, and the manifest says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Check
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.queries import Answer, Mode, Partials, Primitive, PrimitiveKind, QueryPlan, primitives
from isthmus.contracts.tables import TABLES
from isthmus.proof import canonical
from isthmus.proof.ids import question_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.queries import QuerySpec

DIGITS = 18
"""Most characters of one number, with its sign and comma."""
HEAD = 2_048
CELL = 64
LARGEST = 64
"""Most characters of the two largest contributions to one primitive."""

ADDED_UP = frozenset({PrimitiveKind.SUM, PrimitiveKind.SQUARES})


def answer_limit(plan: QueryPlan) -> int:
    """Return the most bytes that an answer to `plan` can have."""
    widths = sum(p.width for p in primitives(plan.spec))
    return HEAD + plan.spec.domain_size() * (CELL + DIGITS * widths) + CELL * len(primitives(plan.spec))


def partials_limit(plan: QueryPlan) -> int:
    """Return the most bytes that the partial sums for `plan` can have."""
    return answer_limit(plan) + plan.spec.domain_size() * LARGEST * len(primitives(plan.spec))


def read_partials(plan: QueryPlan, data: bytes) -> Partials:
    """Parse compute's sums, and hold them to the question.

    Raises:
        Refusal: `SCHEMA_MISMATCH` or `MALFORMED`: they are not sums for this question.
    """
    partials = canonical.load(Partials, data, limit=partials_limit(plan))
    if partials.question != question_digest(plan.spec) or len(partials.cells) != plan.spec.domain_size():
        raise Refusal(Code.SCHEMA_MISMATCH, "The sums are for another question than the order's.")
    wanted = primitives(plan.spec)
    for cell in partials.cells:
        if cell.vehicles > partials.vehicles or len(cell.largest) != len(wanted) or not _shaped(wanted, cell.values):
            raise _misshapen()
        for primitive, values in zip(wanted, cell.values, strict=True):
            most = partials.vehicles * most_of_one(plan.spec, primitive)
            signed = primitive.kind is PrimitiveKind.SUM
            if sum(abs(value) for value in values) > most or (min(values) < 0 and not signed):
                raise Refusal(Code.SCHEMA_MISMATCH, "A sum is larger than its vehicles can make it.")
    return partials


def most_of_one(spec: QuerySpec, primitive: Primitive) -> int:
    """Return the most that one vehicle can add to one cell's `primitive`."""
    if primitive.kind is PrimitiveKind.VEHICLES:
        return 1
    reach = 1
    measure = TABLES[spec.table].measure(primitive.measure or "")
    if primitive.kind in ADDED_UP and measure is not None:
        centre = (measure.low + measure.high) // 2
        reach = max(measure.high - centre, centre - measure.low)
    return spec.rows_per_vehicle * (reach**2 if primitive.kind is PrimitiveKind.SQUARES else reach)


def require_answer(plan: QueryPlan, data: bytes | bytearray | memoryview) -> tuple[Check, ...]:
    """Hold an answer to its plan; return what has been checked of it.

    Raises:
        Refusal: it is not an answer to this question, or not protected as the order says.
    """
    answer = canonical.load(Answer, bytes(data), limit=answer_limit(plan))
    wanted = primitives(plan.spec)
    if (answer.question, answer.mode) != (question_digest(plan.spec), plan.mode):
        raise Refusal(Code.SCHEMA_MISMATCH, "The answer is to another question than the order's.")
    if len(answer.cells) != plan.spec.domain_size() or len(answer.noise) != len(wanted):
        raise _misshapen()
    if any(bool(cell.values) is cell.suppressed for cell in answer.cells):
        raise Refusal(Code.SCHEMA_MISMATCH, "A suppressed cell has values, or another one has none.")
    if not all(_shaped(wanted, cell.values) for cell in answer.cells if not cell.suppressed):
        raise _misshapen()
    private = plan.mode is Mode.DP
    if any((noise.mechanism == "none") is private or (noise.scale_micro > 0) is not private for noise in answer.noise):
        raise Refusal(Code.SCHEMA_MISMATCH, "The answer is not noised as its order says.")
    if answer.epsilon_micro > plan.epsilon_micro or (answer.repeated and answer.epsilon_micro):
        raise Refusal(Code.SCHEMA_MISMATCH, "The answer says that it cost more than its order allows.")
    return (Check.NOISED, Check.SCHEMA) if private else (Check.DISCLOSURE_CONTROLLED, Check.SCHEMA)


def slot_after(accepted_at: int, slot_s: int, now: int, until: int) -> int:
    """Return the first of an order's slots after `now`, Unix seconds.

    Slots lie 1, 2, 4, 8 ... times `slot_s` after acceptance: how long counting took may depend on data, and the slot
    tells no more of it than its order of magnitude. The last slot is the last multiple of `slot_s` until `until`.

    >>> [slot_after(100, 5, now, 500) for now in (100, 104, 105, 111, 121)]
    [105, 105, 110, 120, 140]
    >>> slot_after(100, 5, 141, 152), slot_after(100, 5, 150, 152)
    (150, 180)
    """
    slot = slot_s
    while accepted_at + slot <= now:
        slot *= 2
    last = accepted_at + (until - accepted_at) // slot_s * slot_s
    return last if now < last < accepted_at + slot else accepted_at + slot


def _shaped(wanted: Sequence[Primitive], values: Sequence[Sequence[int]]) -> bool:
    return [len(numbers) for numbers in values] == [primitive.width for primitive in wanted]


def _misshapen() -> Refusal:
    return Refusal(Code.SCHEMA_MISMATCH, "The numbers are not those of the question's cells and primitives.")
