"""Notes between the people of a demo whose sites are apart: files that somebody carries, whole or not there.

Headquarters writes which job runs, that it is done, and that its evidence was verified; each zone's officers and its
operator write what they hand over. No service reads them.
"""

from __future__ import annotations

import os
import secrets
from enum import StrEnum, unique
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Refusal
from isthmus.contracts.identifiers import JobId

if TYPE_CHECKING:
    from pathlib import Path

FIGURES, EVIDENCE, INGESTED = "figures", "evidence", "ingested.json"
READABLE = 0o644


@unique
class Note(StrEnum):
    """What headquarters says of a job."""

    RUNS = "runs"
    DONE = "done"
    VERIFIED = "verified"


def say(notes: Path, note: Note, job: JobId) -> None:
    """Write a note."""
    hand_over(notes / note.value, job.encode())


def said(notes: Path, note: Note) -> JobId | None:
    """Return the job of the latest such note, None where there is none."""
    try:
        return JobId((notes / note.value).read_text("ascii"))
    except (FileNotFoundError, ValueError, Refusal):
        return None


def hand_over(path: Path, content: bytes) -> None:
    """Write a file that others may read, in one move."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, READABLE)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, READABLE)
            file.write(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
