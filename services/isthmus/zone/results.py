"""What a job brought to this zone, for its operator. None of it crosses; figures are exact."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Literal

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import JobId, OrderId, SiteId
from isthmus.contracts.orders import Figures
from isthmus.contracts.wire import Count, Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    from pathlib import Path


class ZoneResults(Wire):
    """One order's outcome in the zone.

    `vehicles` and `windows` were trained on, `held_out_vehicles` and `held_out_windows` judged on; `raw_bytes` is the
    plain size of the snapshot that the order worked on. `figures` are of held-out vehicles; there are none where none
    was held out. `training_us_median` is the median time of a round's training.
    """

    version: Literal[1]
    zone: SiteId
    job: JobId
    order: OrderId
    vehicles: Count
    windows: Count
    held_out_vehicles: Count
    held_out_windows: Count
    raw_bytes: Count
    figures: tuple[Figures, ...]
    rounds: Count
    training_us_median: Count


def results_path(folder: Path, job: JobId) -> Path:
    """Return where a job's results stand."""
    return folder / f"{job}.json"


def model_path(folder: Path, job: JobId) -> Path:
    """Return where the model adapted to this zone stands, as safetensors."""
    return folder / f"{job}.safetensors"


def write_results(folder: Path, results: ZoneResults, model: bytes) -> None:
    """Write results and adapted model, each whole or not at all, the results last.

    Raises:
        Fault: `STORAGE_FAILED`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(model_path(folder, results.job), model)
        _replace(results_path(folder, results.job), canonical.dump(results))
    except OSError as error:
        what = f"The results of {results.job} cannot be written."
        raise Fault(Code.STORAGE_FAILED, what, why=error.strerror or "", remedy="Free space.") from error


def read_results(folder: Path, job: JobId) -> ZoneResults | None:
    """Return a job's results, None where it has none yet."""
    path = results_path(folder, job)
    return canonical.load(ZoneResults, path.read_bytes()) if path.exists() else None


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
