"""What a coordinator can be asked about its memory: SQLite, read side.

Orders come back as the bytes that were written; everything else as the types of the jobs API.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from isthmus.contracts.answers import AnswerColumns
from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, OrderId, PersonId, SiteId
from isthmus.contracts.jobs import CrossedEvaluation, JobEvent, JobRequest, JobResults, JobState, JobView, ModelRecord
from isthmus.contracts.orders import Evaluation, Order
from isthmus.contracts.queries import Answer
from isthmus.coordinator import schema
from isthmus.coordinator.progress import JobProgress
from isthmus.coordinator.rounds import zone_views
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRESS = TypeAdapter(JobProgress)


@dataclass(frozen=True, slots=True)
class StoredUpdate:
    """An update that has crossed: where it is, and what it weighs."""

    zone: SiteId
    crossing: CrossingId
    contributors: Contributors


class Archive:
    """The read side of the store. Usable from any thread.

    Raises (every method):
        Fault: `STORAGE_FAILED`.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        with self._asking():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._db.row_factory = sqlite3.Row
            self._open()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def cursor(self) -> int:
        """Return the ordinal of the last delivery that was taken."""
        return int(self._one("SELECT ordinal FROM cursor")["ordinal"])

    def acknowledgements(self) -> tuple[CrossingId, ...]:
        """Return the crossings whose copy the border may let go."""
        return tuple(
            CrossingId(row["crossing"]) for row in self._all("SELECT crossing FROM acknowledgements LIMIT 256")
        )

    def running(self) -> tuple[JobId, ...]:
        """Return the jobs that are not over."""
        return tuple(JobId(row["id"]) for row in self._all("SELECT id FROM jobs WHERE state = 'running'"))

    def place(self, order: OrderId) -> tuple[JobId, SiteId] | None:
        """Return the job and the zone of an order, None for a foreign one."""
        rows = self._all("SELECT job, zone FROM orders WHERE id = ?", (order,))
        return (JobId(rows[0]["job"]), SiteId(rows[0]["zone"])) if rows else None

    def progress(self, job: JobId) -> JobProgress:
        """Return where a job stands."""
        with self._asking():
            return self._progress(job)

    def request(self, job: JobId) -> JobRequest:
        """Return what was asked for."""
        return canonical.load(JobRequest, self._one("SELECT request FROM jobs WHERE id = ?", (job,))["request"])

    def orders(self, job: JobId) -> dict[SiteId, tuple[OrderId, bytes]]:
        """Return each zone's order: its id and its bytes."""
        rows = self._all("SELECT zone, id, body FROM orders WHERE job = ? ORDER BY zone", (job,))
        return {SiteId(row["zone"]): (OrderId(row["id"]), bytes(row["body"])) for row in rows}

    def paid(self, zone: SiteId) -> tuple[Order, ...]:
        """Return the orders of the questions that a zone has answered anew: its budget has paid for their answers."""
        rows = self._all(
            "SELECT o.body FROM answers a JOIN orders o ON o.job = a.job AND o.zone = a.zone"
            " WHERE a.zone = ? AND NOT json_extract(CAST(a.body AS TEXT), '$.repeated') ORDER BY o.id",
            (zone,),
        )
        return tuple(canonical.load(Order, row["body"]) for row in rows)

    def trained(self, zone: SiteId) -> tuple[tuple[Order, int], ...]:
        """Return the orders of a zone's private trainings, with the rounds that its budget pays for as far as is known.

        While one runs, all of them are reserved; afterwards each that brought an update is paid, and the next one.
        """
        rows = self._all(
            "SELECT o.body, j.state, (SELECT count(*) FROM updates u WHERE u.job = o.job AND u.zone = o.zone) n"
            " FROM orders o JOIN jobs j ON j.id = o.job WHERE o.zone = ? AND j.work = 'train'",
            (zone,),
        )
        found = [(canonical.load(Order, row["body"]), row["state"], row["n"]) for row in rows]
        return tuple(
            (order, order.training.rounds if state == JobState.RUNNING else min(order.training.rounds, updates + 1))
            for order, state, updates in found
            if order.training and order.training.privacy and (updates or state == JobState.RUNNING)
        )

    def updates(self, job: JobId, slot: int) -> tuple[StoredUpdate, ...]:
        """Return the updates of a slot, by zone."""
        rows = self._all("SELECT * FROM updates WHERE job = ? AND slot = ? ORDER BY zone", (job, slot))
        return tuple(_update(row) for row in rows)

    def origin(self, crossing: CrossingId) -> SiteId | None:
        """Return the zone that an update came from."""
        rows = self._all("SELECT zone FROM updates WHERE crossing = ?", (crossing,))
        return SiteId(rows[0]["zone"]) if rows else None

    def has_job(self, job: JobId) -> bool:
        """Say whether there is such a job."""
        return bool(self._all("SELECT 1 FROM jobs WHERE id = ?", (job,)))

    def job(self, job: JobId) -> JobView:
        """Return a job as its engineer sees it.

        Raises:
            Refusal: `NOT_FOUND`.
        """
        rows = self._all("SELECT * FROM jobs WHERE id = ?", (job,))
        if not rows:
            raise no_such_job()
        return self._view(rows[0])

    def jobs(self, limit: int = 1_000) -> tuple[JobView, ...]:
        """Return jobs, newest first; questions are in `questions`."""
        rows = self._all(
            "SELECT * FROM jobs WHERE work <> 'query' ORDER BY created_at DESC, rowid DESC LIMIT ?", (limit,)
        )
        return tuple(self._view(row) for row in rows)

    def events(self, job: JobId, after: int, limit: int = 1_000) -> tuple[JobEvent, ...]:
        """Return a job's events after ordinal `after`."""
        rows = self._all(
            "SELECT * FROM events WHERE job = ? AND ordinal > ? ORDER BY ordinal LIMIT ?", (job, after, limit)
        )
        return tuple(_event(row) for row in rows)

    def results(self, job: JobId) -> JobResults:
        """Return what a job has brought so far."""
        models = self._all("SELECT record FROM models WHERE job = ? ORDER BY slot", (job,))
        rows = self._all("SELECT * FROM evaluations WHERE job = ? ORDER BY slot, zone", (job,))
        return JobResults(
            job=job, models=tuple(_record(row) for row in models), evaluations=tuple(_evaluation(row) for row in rows)
        )

    def questions(self, limit: int = 1_000) -> tuple[JobId, ...]:
        """Return the ids of questions, newest first."""
        query = "SELECT id FROM jobs WHERE work = 'query' ORDER BY created_at DESC, rowid DESC LIMIT ?"
        return tuple(JobId(row["id"]) for row in self._all(query, (limit,)))

    def columns(self, job: JobId) -> AnswerColumns:
        """Return the columns of a question's answer.

        Raises:
            Refusal: `NOT_FOUND`: there is no such question.
        """
        return canonical.load(
            AnswerColumns, self._one("SELECT columns FROM questions WHERE job = ?", (job,))["columns"]
        )

    def answers(self, job: JobId) -> dict[SiteId, tuple[CrossingId, Answer]]:
        """Return each zone's answer to a question, as it crossed, by zone."""
        rows = self._all("SELECT * FROM answers WHERE job = ? ORDER BY zone", (job,))
        return {SiteId(row["zone"]): (CrossingId(row["crossing"]), _answer(row["body"])) for row in rows}

    def models(self, limit: int = 1_000) -> tuple[ModelRecord, ...]:
        """Return models, newest first."""
        rows = self._all("SELECT record FROM models ORDER BY rowid DESC LIMIT ?", (limit,))
        return tuple(_record(row) for row in rows)

    def model(self, digest: Digest, job: JobId | None = None) -> ModelRecord:
        """Return a model's record: of two records of the same bytes, that of `job`, else that of most zones' data.

        Raises:
            Refusal: `NOT_FOUND`.
        """
        rows = self._all(
            "SELECT record FROM models WHERE digest = ? ORDER BY job IS ? DESC, lineage DESC, rowid LIMIT 1",
            (digest, job),
        )
        if not rows:
            raise Refusal(Code.NOT_FOUND, "There is no such model.", remedy="`isthmus models list` shows them.")
        return _record(rows[0])

    def current(self, job: JobId) -> Digest | None:
        """Return the digest of the job's latest model."""
        model = self._one("SELECT model FROM jobs WHERE id = ?", (job,))["model"]
        return Digest(model) if model else None

    def disposable(self, job: JobId, slot: int) -> Digest | None:
        """Return the digest of the job's model of `slot`, if nothing else is that model or starts from it."""
        rows = self._all("SELECT digest FROM models WHERE job = ? AND slot = ?", (job, slot))
        if not rows:
            return None
        digest = rows[0]["digest"]
        uses = self._one(
            "SELECT (SELECT count(*) FROM models WHERE digest = :digest)"
            " + (SELECT count(*) FROM jobs WHERE model = :digest) AS n",
            {"digest": digest},
        )
        return Digest(digest) if uses["n"] == 1 else None

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            self._db.executescript(f"BEGIN;{schema.TABLES}PRAGMA user_version = {schema.VERSION};COMMIT;")
        elif version != schema.VERSION:
            raise Fault(
                Code.CONFIGURATION,
                f"The coordinator's store has version {version}; this release reads {schema.VERSION}.",
                remedy="Run the release that wrote it. Nothing was changed.",
            )

    def _progress(self, job: JobId) -> JobProgress:
        row = self._db.execute("SELECT progress FROM jobs WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise no_such_job()
        return PROGRESS.validate_json(row["progress"])

    def _view(self, row: sqlite3.Row) -> JobView:
        progress = PROGRESS.validate_json(row["progress"])
        request = canonical.load(JobRequest, row["request"])
        job = JobId(row["id"])
        return JobView(
            id=job,
            name=request.name,
            work=request.work,
            submitted_by=PersonId(row["person"]),
            state=progress.state,
            code=progress.reason,
            rounds=progress.rounds,
            rounds_done=max(progress.slot, 0),
            privacy=request.training.privacy if request.training else None,
            zones=zone_views(progress, {zone: order for zone, (order, _) in self.orders(job).items()}),
            model=Digest(row["model"]) if row["model"] else None,
            created_at=row["created_at"],
            finished_at=row["finished_at"],
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                raise Fault(
                    Code.STORAGE_FAILED,
                    "The coordinator's store cannot be read or written.",
                    why=type(error).__name__,
                    remedy="See the disk's space and the file's owner.",
                ) from error

    def _all(self, query: str, values: Any = ()) -> list[sqlite3.Row]:
        with self._asking():
            return self._db.execute(query, values).fetchall()

    def _one(self, query: str, values: Any = ()) -> sqlite3.Row:
        rows = self._all(query, values)
        if not rows:
            raise no_such_job()
        return rows[0]


def no_such_job() -> Refusal:
    """Return the answer for a job that is not there."""
    return Refusal(Code.NOT_FOUND, "There is no such job.", remedy="`isthmus jobs list` shows them.")


def _update(row: sqlite3.Row) -> StoredUpdate:
    contributors = Contributors(vehicles=row["vehicles"], windows=row["windows"])
    return StoredUpdate(SiteId(row["zone"]), CrossingId(row["crossing"]), contributors)


def _record(row: sqlite3.Row) -> ModelRecord:
    return canonical.load(ModelRecord, row["record"])


def _evaluation(row: sqlite3.Row) -> CrossedEvaluation:
    return CrossedEvaluation(
        zone=SiteId(row["zone"]),
        crossing=CrossingId(row["crossing"]),
        evaluation=canonical.load(Evaluation, row["body"]),
    )


def _answer(body: bytes) -> Answer:
    return canonical.load(Answer, body, limit=len(body))


def _event(row: sqlite3.Row) -> JobEvent:
    return JobEvent(
        ordinal=row["ordinal"],
        job=JobId(row["job"]),
        event=row["event"],
        site=SiteId(row["site"]) if row["site"] else None,
        slot=row["slot"],
        code=Code(row["code"]) if row["code"] else None,
        round_us=row["round_us"],
        at=row["at"],
    )
