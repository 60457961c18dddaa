"""Jobs and deliveries for these tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.identifiers import Digest, JobId, PersonId, SiteId
from isthmus.contracts.inside import Delivery
from isthmus.contracts.jobs import JobRequest, ModelRecord
from isthmus.coordinator.plans import default_recipes, make_orders
from isthmus.coordinator.store import Store
from isthmus.kit.bell import Bell
from isthmus.kit.clock import ManualClock
from isthmus.learning import algorithm
from isthmus.proof import ids

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.identifiers import OrderId

NOW = 1_800_000_000
HQ = SiteId("hq")
CN = SiteId("cn-shanghai")
US = SiteId("us-texas")
ENGINEER = PersonId("ada")
JOB = JobId("job-00000000000000aa")


def training(rounds: int = 2) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "epochs": 1,
        "batch_size": 64,
        "learning_rate_micro": 1000,
        "seed": 7,
        "weighting": "windows",
        "held_out_vehicles": 2,
        "split_salt": "s1",
        "adaptation_epochs": 0,
        "reference_epochs": 0,
    }


def request_json(rounds: int = 2, at_slots: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {
        "name": "night-drive",
        "algorithm": str(algorithm.NAME),
        "zones": [{"zone": zone, "dataset": {"dataset": "drives", "snapshot": "q3"}} for zone in (CN, US)],
        "purpose": "motion-forecast",
        "recipients": ["cn-shanghai", "hq", "us-texas"],
        "training": training(rounds),
        "evaluation": {"at_slots": list(at_slots), "band_um": 10_000, "minimum_vehicles": 10} if at_slots else None,
    }


def raw_json() -> dict[str, Any]:
    return {**request_json(), "work": "raw", "training": None, "evaluation": None}


def job_request(**changes: Any) -> JobRequest:
    return JobRequest.model_validate_json(json.dumps({**request_json(), **changes}))


def open_store(folder: Path, bell: Bell | None = None) -> Store:
    return Store(folder / "coordinator.db", bell=bell or Bell(), clock=ManualClock(NOW))


def create(store: Store, request: JobRequest | None = None, job: JobId = JOB) -> JobId:
    request = request or job_request()
    orders = make_orders(request, default_recipes(), job=job, issuer=HQ, now=NOW)
    return store.create(job=job, person=ENGINEER, request=request, orders=orders)


def update(ordinal: int, order: OrderId, zone: SiteId, slot: int, job: JobId = JOB) -> Delivery:
    return Delivery(
        ordinal=ordinal,
        event="crossing",
        crossing=ids.crossing_id(order, Kind.MODEL_UPDATE, HQ, slot),
        kind=Kind.MODEL_UPDATE,
        sender=zone,
        job=job,
        order=order,
        slot=slot,
        contributors=Contributors(vehicles=20, windows=3000),
        code=None,
    )


def record(payload: bytes, slot: int, job: JobId = JOB, lineage: tuple[SiteId, ...] = ()) -> ModelRecord:
    return ModelRecord(
        digest=Digest.of(payload),
        job=job,
        slot=slot,
        size=len(payload),
        lineage=lineage,
        inputs=(),
        parent=None,
        created_at=NOW,
    )
