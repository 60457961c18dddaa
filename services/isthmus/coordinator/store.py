"""The coordinator's memory: SQLite, full sync, one explicit transaction for each change.

Rules:
1. A job is its progress, changed by facts alone (`coordinator.progress`); a delivery's effect and the cursor move in
   one transaction, so each has one effect whenever the process is killed.
2. An update's copy at the border is let go only when the model made from it is durable here.
3. Orders are kept as the bytes that were, or will be, submitted.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, OrderId, PersonId
from isthmus.contracts.jobs import JobState
from isthmus.coordinator.archive import PROGRESS, Archive
from isthmus.coordinator.chronicle import Happening, happenings
from isthmus.coordinator.plans import first_progress
from isthmus.coordinator.progress import Averaged, Begun, EvaluationIn, Fact, JobProgress, UpdateIn, apply
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from isthmus.contracts.answers import AnswerColumns
    from isthmus.contracts.inside import Delivery
    from isthmus.contracts.jobs import JobRequest, ModelRecord
    from isthmus.contracts.orders import Evaluation, Order
    from isthmus.contracts.queries import Answer
    from isthmus.kit.bell import Bell
    from isthmus.kit.clock import Clock


@dataclass(frozen=True, slots=True)
class Step:
    """What changes together.

    Attributes:
        facts: applied in this order.
        delivery: what brought them, if a delivery did: the cursor moves past it.
        evaluation: the evaluation it brought.
        answer: the answer to a question that it brought.
        model: the model that came to be.
        round_us: how long the round took.
    """

    facts: tuple[Fact, ...] = ()
    delivery: Delivery | None = None
    evaluation: Evaluation | None = None
    answer: Answer | None = None
    model: ModelRecord | None = None
    round_us: int | None = None


class Store(Archive):
    """Everything a coordinator knows. Rings `bell` after every change that others may wait for."""

    def __init__(self, path: Path, *, bell: Bell, clock: Clock) -> None:
        super().__init__(path)
        self._bell = bell
        self._clock = clock

    def create(
        self,
        *,
        job: JobId,
        person: PersonId,
        request: JobRequest,
        orders: Sequence[Order],
        columns: AnswerColumns | None = None,
        key: str | None = None,
        body: Digest | None = None,
    ) -> JobId:
        """Record a new job and its orders; return its id, or that of the job recorded under the same key.

        Args:
            job: its id.
            person: who asks.
            request: what is asked.
            orders: one for each zone.
            columns: of a question, the answer's columns.
            key: the caller's own name for this request.
            body: digest of the request as it came.

        Raises:
            Refusal: `CONFLICTING_PAYLOAD` when the key stands for another body.
        """
        with self._changing():
            if key is not None and (known := self._recorded(person, key, body)):
                return known
            now = self._clock.now()
            progress = first_progress(request)
            self._db.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    job,
                    person,
                    request.work,
                    canonical.dump(request),
                    PROGRESS.dump_json(progress),
                    progress.state,
                    request.base,
                    now,
                ),
            )
            if columns is not None:
                self._db.execute("INSERT INTO questions VALUES (?, ?)", (job, canonical.dump(columns)))
            for order in orders:
                text = canonical.dump(order)
                self._db.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", (OrderId.of(text), job, order.zone, text))
            if key is not None:
                self._db.execute("INSERT INTO submissions VALUES (?, ?, ?, ?)", (person, key, body, job))
            self._tell(job, [Happening("submitted")], round_us=None)
        return job

    def record(self, job: JobId, step: Step) -> JobProgress:
        """Apply a step to a job and return where it stands. A delivery that was taken before changes nothing."""
        with self._changing():
            old = self._progress(job)
            if step.delivery and not self._move_cursor(step.delivery):
                return old
            progress = old
            for fact in step.facts:
                before, progress = progress, apply(progress, fact)
                if progress != before:
                    self._note(job, fact, step)
                    self._tell(job, happenings(before, fact), round_us=step.round_us)
            if step.delivery:
                self._settle(step.delivery, progress, ignored=progress == old)
            if progress != old:
                self._keep(job, progress)
        return progress

    def ignore(self, delivery: Delivery) -> None:
        """Record a delivery that belongs to no job here, and let the border's copy go."""
        with self._changing():
            if self._move_cursor(delivery):
                self._set_aside(delivery)
                self._let_go(delivery)

    def acknowledged(self, crossings: Sequence[CrossingId]) -> None:
        """Forget acknowledgements that the border has taken."""
        with self._changing(silently=True):
            self._db.executemany("DELETE FROM acknowledgements WHERE crossing = ?", [(c,) for c in crossings])

    def _keep(self, job: JobId, progress: JobProgress) -> None:
        over = progress.state is not JobState.RUNNING
        self._db.execute(
            "UPDATE jobs SET progress = ?, state = ?, finished_at = ? WHERE id = ?",
            (PROGRESS.dump_json(progress), progress.state, self._clock.now() if over else None, job),
        )
        if over:  # what was not averaged never will be
            self._acknowledge("SELECT crossing FROM updates WHERE job = ? AND slot >= ?", (job, progress.slot))

    def _note(self, job: JobId, fact: Fact, step: Step) -> None:
        """Write down what came with a fact that counts."""
        match fact:
            case UpdateIn(zone, slot) if (delivery := step.delivery) and delivery.contributors:
                weights = (delivery.contributors.vehicles, delivery.contributors.windows)
                self._db.execute(
                    "INSERT INTO updates VALUES (?, ?, ?, ?, ?, ?)",
                    (delivery.crossing, job, zone, slot, *weights),
                )
            case EvaluationIn(zone, slot) if step.delivery and step.evaluation:
                row = (step.delivery.crossing, job, zone, slot, canonical.dump(step.evaluation))
                self._db.execute("INSERT OR IGNORE INTO evaluations VALUES (?, ?, ?, ?, ?)", row)
            case EvaluationIn(zone) if step.delivery and step.answer:
                answered = (step.delivery.crossing, job, zone, canonical.dump(step.answer))
                self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", answered)
            case Averaged(slot):
                self._acknowledge("SELECT crossing FROM updates WHERE job = ? AND slot = ?", (job, slot))
            case _:
                pass
        if step.model and isinstance(fact, Begun | Averaged):
            self._add_model(step.model)

    def _add_model(self, model: ModelRecord) -> None:
        row = (model.job, model.slot, model.digest, canonical.dump(model), len(model.lineage))
        self._db.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?, ?, ?)", row)
        self._db.execute("UPDATE jobs SET model = ? WHERE id = ?", (model.digest, model.job))

    def _settle(self, delivery: Delivery, progress: JobProgress, *, ignored: bool) -> None:
        if ignored:
            self._set_aside(delivery)
        pending = self._db.execute(
            "SELECT 1 FROM updates WHERE crossing = ? AND slot >= ?", (delivery.crossing, progress.slot)
        ).fetchone()
        if not pending or progress.state is not JobState.RUNNING:
            self._let_go(delivery)

    def _let_go(self, delivery: Delivery) -> None:
        if delivery.event == "crossing":
            self._db.execute("INSERT OR IGNORE INTO acknowledgements VALUES (?)", (delivery.crossing,))

    def _acknowledge(self, query: str, values: tuple[object, ...]) -> None:
        self._db.execute(f"INSERT OR IGNORE INTO acknowledgements {query}", values)

    def _set_aside(self, d: Delivery) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO ignored VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (d.ordinal, d.crossing, d.event, d.kind, d.sender, d.job, d.slot, d.code, self._clock.now()),
        )

    def _move_cursor(self, delivery: Delivery) -> bool:
        moved = self._db.execute(
            "UPDATE cursor SET ordinal = ? WHERE ordinal < ?", (delivery.ordinal, delivery.ordinal)
        )
        return moved.rowcount == 1

    def _tell(self, job: JobId, told: Sequence[Happening], *, round_us: int | None) -> None:
        now = self._clock.now()
        for item in told:
            took = round_us if item.event == "round_done" else None
            self._db.execute(
                "INSERT INTO events SELECT ?1, coalesce(max(ordinal), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7"
                " FROM events WHERE job = ?1",
                (job, item.event, item.site, item.slot, item.code, took, now),
            )

    def _recorded(self, person: PersonId, key: str, body: Digest | None) -> JobId | None:
        row = self._db.execute(
            "SELECT body, job FROM submissions WHERE person = ? AND key = ?", (person, key)
        ).fetchone()
        if row is None:
            return None
        if row["body"] != body:
            raise Refusal(
                Code.CONFLICTING_PAYLOAD,
                "This Idempotency-Key was used for another job.",
                remedy="Send the same request again, or use a new key.",
            )
        return JobId(row["job"])

    @contextmanager
    def _changing(self, *, silently: bool = False) -> Iterator[None]:
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        if not silently:
            self._bell.ring()
