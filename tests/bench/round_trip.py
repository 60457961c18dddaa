"""A whole federation of processes on loopback, and how long its rounds take when nobody trains."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import psutil

from bench.recipe import algorithm_of, name_of
from bench.serve import SIZES
from isthmus.border.settings import BorderSettings
from isthmus.cli import federation
from isthmus.cli.supervisor import ALLOCATOR
from isthmus.client.border import BorderClient
from isthmus.client.jobs import JobsClient
from isthmus.contracts.approvals import STANDING_APPROVAL_TYPE
from isthmus.contracts.errors import Fault
from isthmus.contracts.identifiers import FileId, Name, PersonId, SiteId
from isthmus.contracts.inside import (
    SIDECAR_TYPE,
    FreezeSnapshot,
    InsideRole,
    RegisterFiles,
    SessionRequest,
    Sidecar,
    SignedStatement,
)
from isthmus.contracts.jobs import JobRequest, JobState, ZoneData
from isthmus.contracts.orders import DatasetRef, TrainingPlan, Weighting
from isthmus.contracts.raw_table import Group
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import file_key_context
from isthmus.proof.sealing import new_content_key, wrap
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HQ, ZONES = SiteId("hq"), (SiteId("cn-shanghai"), SiteId("us-texas"))
OFFICERS = {ZONES[0]: ("lin.officer", "wu.officer"), ZONES[1]: ("carter.officer", "diaz.officer")}
DATASET = DatasetRef(dataset=Name("drives"), snapshot=Name("bench"))


class Federation:
    """The processes of a bench federation in `home`: six, or nine where each border is a gate and a keeper."""

    def __init__(self, home: Path, *, halves: Literal[1, 2] = 1) -> None:
        self.home = home
        self._border = ("border",) if halves == 1 else ("keeper", "gate")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        plan = federation.demo_plan()
        algorithms = tuple(algorithm_of(size) for size in SIZES)
        federation.create(home, dataclasses.replace(plan, algorithms=algorithms))

    def start(self) -> None:
        for site in (HQ, *ZONES):
            for part in (*self._border, "coordinator" if site == HQ else "zone"):
                log = (self.home / f"{site}-{part}.log").open("wb")
                command = [sys.executable, str(Path(__file__).with_name("serve.py")), part, str(self.home / site)]
                self.processes[f"{site} {part}"] = subprocess.Popen(
                    command, stdout=log, stderr=log, env={**ALLOCATOR, **os.environ}
                )

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(20)

    def memory_mb(self) -> float:
        return sum(psutil.Process(p.pid).memory_info().rss for p in self.processes.values()) / 1e6

    def processor_s(self) -> float:
        times = [psutil.Process(p.pid).cpu_times() for p in self.processes.values()]
        return sum(t.user + t.system for t in times)

    @contextlib.asynccontextmanager
    async def border(self, site: SiteId, role: InsideRole) -> AsyncIterator[BorderClient]:
        inside = BorderSettings.load(self.home / site).inside
        async with httpx2.AsyncClient(base_url=f"http://{inside.host}:{inside.port}", trust_env=False) as http:
            yield BorderClient(http, read_token(self.home / site / "tokens" / role.value))

    @contextlib.asynccontextmanager
    async def jobs(self) -> AsyncIterator[JobsClient]:
        settings = CoordinatorSettings.load(self.home / HQ)
        url = f"http://{settings.listen_host}:{settings.listen_port}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
            yield JobsClient(http, read_token(self.home / "people" / "maya.engineer" / "token"))

    async def ready(self) -> None:
        for site in (HQ, *ZONES):
            async with self.border(site, InsideRole.AUDITOR) as border:
                await eventually(border.ledger)
        async with self.jobs() as jobs:
            await eventually(jobs.jobs)

    async def freeze(self, site: SiteId) -> None:
        """Register one made-up file, so that there is a snapshot to order."""
        async with self.border(site, InsideRole.INGEST) as border:
            key = SigningKey.generate()
            sealing = (await border.start_session(SessionRequest(key=key.verify_key))).sealing
            file = FileId("file-" + os.urandom(16).hex())
            digest = canonical.digest(key.verify_key)
            context = file_key_context(DATASET.dataset, file, Group.MOTION, digest)
            sidecar = Sidecar(
                version=1, dataset=DATASET.dataset, file=file, group=Group.MOTION, object_name=f"{file}/motion",
                digest=digest, size=1, rows=1, wrapped_key=to_base64(wrap(new_content_key(), sealing, context=context)),
            )  # fmt: skip
            envelope = key.sign(SIDECAR_TYPE, canonical.dump(sidecar)).decode()
            await border.register_files(RegisterFiles(envelopes=(envelope,)))
            await border.freeze(FreezeSnapshot(dataset=DATASET, files=(file,)))

    async def approve(self, site: SiteId) -> None:
        """Let both officers sign the first release that is held."""
        async with self.border(site, InsideRole.OFFICER) as border:
            while not (items := (await border.review()).items):
                await asyncio.sleep(0.05)
            for person in OFFICERS[site]:
                key = federation.officer_key(self.home, PersonId(person))
                envelope = key.sign(STANDING_APPROVAL_TYPE, canonical.dump(items[0].standing)).decode()
                await border.approve(SignedStatement(envelope=envelope))

    async def rounds(self, parameters: int, rounds: int) -> list[float]:
        """Run a job and return the seconds of each round but the first, which waits for officers."""
        async with self.jobs() as jobs:
            job = await jobs.submit(request(parameters, rounds))
            async with asyncio.TaskGroup() as officers:
                for zone in ZONES:
                    officers.create_task(self.approve(zone))
            state = JobState.RUNNING
            while state is JobState.RUNNING:  # a watcher of every event would be part of what is measured
                await asyncio.sleep(0.25)
                state = (await jobs.job(job.id)).state
            events = [event async for event in jobs.watch(job.id)]
            if state is not JobState.DONE:
                raise RuntimeError(f"the bench job ended as {state}: {events[-1]}")
        times = [event.round_us / 1e6 for event in events if event.event == "round_done" and event.round_us]
        return times[1:]


async def eventually(call: Any) -> Any:
    for _ in range(200):
        try:
            return await call()
        except Fault:
            await asyncio.sleep(0.1)
    return await call()


def request(parameters: int, rounds: int) -> JobRequest:
    return JobRequest(
        name=name_of(parameters),
        algorithm=name_of(parameters),
        zones=tuple(ZoneData(zone=zone, dataset=DATASET) for zone in ZONES),
        purpose=Name("bench"),
        recipients=tuple(sorted((HQ, *ZONES))),
        training=TrainingPlan(
            rounds=rounds, epochs=1, batch_size=1, learning_rate_micro=1, seed=1, weighting=Weighting.VEHICLES,
            held_out_vehicles=0, split_salt=Name("bench"), adaptation_epochs=0, reference_epochs=0,
        ),
    )  # fmt: skip


def summary(times: list[float]) -> dict[str, float]:
    return {"median_s": statistics.median(times), "best_s": min(times), "worst_s": max(times), "rounds": len(times)}
