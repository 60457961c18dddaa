"""Stored files that were tampered with, through ingest, border and compute as shipped: compute opens none of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest

from isthmus.client.border import BorderClient
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import JobId, Name
from isthmus.contracts.inside import InsideRole, KeyRequest
from isthmus.contracts.orders import DatasetRef
from isthmus.contracts.raw_table import Group
from isthmus.kit.tokens import read_token
from isthmus.learning.weights import MODEL_SCHEMA
from isthmus.proof.ids import file_aad, order_id
from isthmus.zone import app as zone_app
from isthmus.zone.compute import InProcessCompute
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.vault import new_file_key, seal_group
from security.scene import CN, Scene, order_for, refusal
from world.world import drives

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SNAPSHOT = DatasetRef(dataset=Name("circles"), snapshot=Name("first"))
ORDER = order_for(CN, job=JobId("job-00000000000000bb"), dataset=SNAPSHOT, tensors=MODEL_SCHEMA)


def ingested(scene: Scene) -> InProcessCompute:
    """Ingest the same drives twice, so that there are two files; have the order accepted; return the zone's compute."""
    zone = zone_app.build(ZoneSettings.load(scene.home / CN), scene.clock)

    async def come_in() -> None:
        transport = httpx2.ASGITransport(app=scene.border(CN).inside)
        async with httpx2.AsyncClient(transport=transport, base_url="http://border") as http:
            border = BorderClient(http, read_token(scene.home / CN / "tokens" / InsideRole.INGEST))
            for seed in (1, 2):
                await zone.ingest(drives(6, seed, seconds=8.0), dataset=SNAPSHOT, border=border, freeze=seed == 2)

    asyncio.run(come_in())
    zone.close()
    scene.give(ORDER)
    scene.carry()
    return InProcessCompute(zone.store)


def open_order(scene: Scene, compute: InProcessCompute) -> int:
    """Take the order's keys and open its files; return the number of vehicles."""
    opening = compute.prepare(ORDER)
    asked, chips = order_id(ORDER), opening.accelerators
    requests = [
        KeyRequest(order=asked, groups=(Group.MOTION,), accelerators=chips, run_key=key) for key in opening.run_keys
    ]
    opened = opening.open([scene.keeper(CN).files.grant(request) for request in requests])
    vehicles = opened.contributors.vehicles + opened.evaluators.vehicles
    opened.close()
    return vehicles


def flip(first: Path, second: Path) -> None:
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)


def swap(first: Path, second: Path) -> None:
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def copy_over(first: Path, second: Path) -> None:
    second.write_bytes(first.read_bytes())


def truncate(first: Path, second: Path) -> None:
    first.write_bytes(first.read_bytes()[:-1])


def forge(first: Path, second: Path) -> None:
    """A whole new file of the right dataset and group, under a key of the forger."""
    table = next(iter(drives(1, 3, seconds=8.0))).select(["scene_id", "x", "y"])
    aad = file_aad(SNAPSHOT.dataset, first.name.split(".")[0], Group.MOTION)  # type: ignore[arg-type]  # its name will do
    first.write_bytes(seal_group(table, new_file_key(), aad))


@pytest.mark.parametrize("tamper", [flip, swap, copy_over, truncate, forge])
def test_a_tampered_file_is_not_opened(scene: Scene, tamper: Callable[[Path, Path], None]) -> None:
    compute = ingested(scene)
    assert open_order(scene, compute) == 12
    motion = [p for p in sorted((scene.home / CN / "store").rglob("*")) if p.is_file() and "motion" in p.name]
    assert len(motion) == 2
    for path in motion:
        path.chmod(0o600)
    tamper(*motion)
    with refusal(Code.FILE_ALTERED):
        open_order(scene, compute)
