"""The demo, scene by scene.

Every process is a real one: borders, zones, coordinator, ingest, officers. The stage only starts them, waits, and
reads what each zone's operator, the engineer and the auditor may read. Whatever it starts, it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli import bundles, defaults, federation, verify
from isthmus.cli.connections import border_of, jobs_of
from isthmus.cli.demo import attacks, report
from isthmus.cli.homes import Home
from isthmus.cli.ledger import gather
from isthmus.cli.screen import Exit, Screen
from isthmus.cli.supervisor import Interrupted, Supervisor, ending_on_signals
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.proof import bundle as verifier
from isthmus.proof import canonical
from isthmus.zone.results import read_results

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from isthmus.contracts.evidence import Report as Verification
    from isthmus.contracts.identifiers import JobId, SiteId
    from isthmus.contracts.inside import UsageReport
    from isthmus.contracts.jobs import JobEvent, JobResults
    from isthmus.zone.results import ZoneResults

FLEETS = {"cn-shanghai": 160, "us-texas": 32}
MINUTES = 3
SEED = 7
REPORT, EVIDENCE, ROOTS = "demo-report.json", "demo-evidence", "roots.json"
RESULTS_WITHIN_S = 120.0
COSIGNED_WITHIN_S = 20.0
"""Longer than the cadence at which borders exchange heads."""
LOOKS_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Training:
    """A finished job, as the engineer sees it, and what each zone's operator sees."""

    job: JobId
    events: tuple[JobEvent, ...]
    results: JobResults
    zones: dict[SiteId, ZoneResults]
    usage: UsageReport


def run(home: Path | None, out: Path, *, keep: bool, screen: Screen) -> int:
    """Play the demo; return the exit code.

    Args:
        home: where to make the sites; a throwaway folder where None.
        out: where report, evidence bundle and roots are written.
        keep: leave the sites running for API clients until Ctrl-C.
        screen: where to write.

    Raises:
        IsthmusError: something that should work did not.
    """
    try:
        with ending_on_signals(), _stage(home) as stage, Supervisor() as supervisor:
            findings = _play(stage, out, screen, supervisor)
            if keep:
                _keep(Home.open(stage), screen)
    except Interrupted:
        screen.note("Interrupted. Everything that was started is stopped.")
        return Exit.INTERRUPTED
    return Exit.OK if findings.holds() else Exit.NOT_ACCEPTED


def _play(stage: Path, out: Path, screen: Screen, supervisor: Supervisor) -> report.Findings:
    """Play the six scenes."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    _require_ours(out)
    screen.note(f"Isthmus demo in {stage}", "bold")
    federation.create(stage, federation.demo_plan())
    with screen.waiting("1/6  Starting three sites: each a border, and behind it a zone or the coordinator ..."):
        supervisor.start(stage)
        supervisor.wait_healthy()
    opened = Home.open(stage)
    with screen.waiting("2/6  Simulating both fleets; each zone's ingest seals its drives ..."):
        _ingest(opened, screen)
    screen.note("3/6  Training: 60 rounds, one model, two zones; then each adapts it for itself")
    training = _train(opened, screen)
    with screen.waiting("4/6  Collecting the borders' evidence, and verifying it with the roots alone ..."):
        roots, evidence = out / ROOTS, out / EVIDENCE
        shutil.copyfile(stage / ROOTS, roots)
        verification = _verified(opened, evidence, roots)
    with screen.waiting("5/6  A rogue tries what must fail, on a throwaway copy of the borders ..."):
        attempts = attacks.all_of_them(stage, training.job)
    findings = report.Findings(
        zones=training.zones,
        events=training.events,
        results=training.results,
        usage=training.usage,
        attempts=attempts,
        verification=verification,
        seconds=time.monotonic() - began,
    )
    report.write(findings, out / REPORT)
    screen.result(
        report.as_json(findings),
        *report.tables(findings),
        f"6/6  {findings.seconds:.0f} s. Written: {out / REPORT}, {evidence}, {roots}",
        f"     isthmus verify {evidence} --roots {roots}",
    )
    return findings


@contextlib.contextmanager
def _stage(home: Path | None) -> Iterator[Path]:
    """Yield where the sites are made; a folder that was not asked for goes away."""
    if home is not None:
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="isthmus-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "home"


def _require_ours(out: Path) -> None:
    """Refuse to overwrite roots or evidence that an earlier demo did not leave: they may be what somebody trusts.

    Raises:
        Refusal: `ALREADY_EXISTS`.
    """
    roots, evidence = out / ROOTS, out / EVIDENCE
    if not roots.exists() and not evidence.exists():
        return
    with contextlib.suppress(IsthmusError):
        if verifier.verify(bundles.read(evidence), verify.read_roots(roots)).accepted:
            return
    raise Refusal(
        Code.ALREADY_EXISTS,
        f"{roots} or {evidence} is there, and is not what an earlier demo left.",
        remedy="Name another folder with --out, or move them away yourself.",
    )


def _verified(home: Home, evidence: Path, roots: Path) -> Verification:
    """Write the evidence bundle, once every entry in it is cosigned by a peer, and verify it with the roots alone."""
    trusted = verify.read_roots(roots)
    deadline = time.monotonic() + COSIGNED_WITHIN_S
    while True:
        parts = asyncio.run(gather(home.sites))
        verification = verifier.verify({part.site: canonical.dump(part) for part in parts}, trusted)
        awaited = any(finding.code is FindingCode.NOT_YET_COSIGNED for finding in verification.findings)
        if not awaited or time.monotonic() > deadline:
            break
        time.sleep(LOOKS_EVERY_S)
    if evidence.exists():
        shutil.rmtree(evidence)
    bundles.write(evidence, parts)
    return verification


def _ingest(home: Home, screen: Screen) -> None:
    """Let both zones ingest their fleets at the same time, each in a process with the token of ingest alone."""
    running = {
        zone: subprocess.Popen(  # noqa: S603 - starts this very program, with no argument from outside
            [
                *(sys.executable, "-m", "isthmus.cli.main", "ingest", zone, "--fleet", "--json"),
                *("--vehicles", str(vehicles), "--minutes", str(MINUTES), "--seed", str(SEED)),
                *("--home", str(home.path)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for zone, vehicles in FLEETS.items()
    }
    try:
        for zone, process in running.items():
            told, _ = process.communicate()
            said = json.loads(told or b"{}")
            if process.returncode != 0:
                raise Fault(
                    Code.COMPUTE_FAILED, f"Ingest failed in {zone}.", why=f"{said.get('code')}: {said.get('what')}"
                )
            screen.note(
                f"     {zone}: {said['vehicles']} vehicles, {said['drives']} drives, {said['raw_bytes']:,} raw bytes,"
                f" stored as {said['stored_bytes']:,} encrypted bytes"
            )
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _train(home: Home, screen: Screen) -> Training:
    """Submit the job, let the officers sign, wait for the end in every zone."""
    return asyncio.run(_job(home, screen))


async def _job(home: Home, screen: Screen) -> Training:
    async with jobs_of(home, None) as jobs, border_of(home.coordinator, InsideRole.AUDITOR) as border:
        job = await jobs.submit(defaults.training_job(home.coordinator.id, [zone.id for zone in home.zones]))
        async with _officers(home, job.id, screen):
            events = []
            rounds = defaults.ROUNDS
            with screen.progress("     round", rounds) as bar:
                async for event in jobs.watch(job.id):
                    events.append(event)
                    if event.event == "round_done":
                        bar.at((event.slot or 0) + 1)
            done = await jobs.job(job.id)
            if done.state is not JobState.DONE:
                raise Fault(Code.COMPUTE_FAILED, "The job did not come to its end.", why=f"{done.state}: {done.code}")
            zones = {zone.id: await _results(zone.folder / "results", job.id) for zone in home.zones}
        return Training(job.id, tuple(events), await jobs.results(job.id), zones, await border.usage())


async def _results(folder: Path, job: JobId) -> ZoneResults:
    """Wait until a zone has adapted the model, and read what its operator sees."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RESULTS_WITHIN_S
    found = read_results(folder, job)
    while found is None:
        if loop.time() > deadline:
            raise Fault(Code.COMPUTE_FAILED, f"No results stand in {folder} after {RESULTS_WITHIN_S:.0f} s.")
        await asyncio.sleep(LOOKS_EVERY_S)
        found = await asyncio.to_thread(read_results, folder, job)
    return found


@contextlib.asynccontextmanager
async def _officers(home: Home, job: JobId, screen: Screen) -> AsyncIterator[None]:
    """Run the officers' process, and show what it signs."""
    command = (sys.executable, "-m", "isthmus.cli.demo.officers", str(home.path), job)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)

    async def show() -> None:
        if process.stdout is not None:
            async for line in process.stdout:
                screen.note(f"     {line.decode().rstrip()}", "cyan")

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.terminate()
        await process.wait()
        await showing


def _keep(home: Home, screen: Screen) -> None:
    """Leave everything running until Ctrl-C, which is how this is meant to end."""
    api = f"http://{home.coordinator.api}"
    screen.note(f"The jobs API answers on {api}; {api}/openapi.json describes it.")
    screen.note(f"Its token, for the engineer: {home.token_file(home.engineer())}")
    screen.note("Ctrl-C stops everything.")
    with contextlib.suppress(Interrupted):
        while True:
            time.sleep(1)
