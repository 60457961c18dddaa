"""The demo, scene by scene, on whatever stage it is given.

The play itself holds the engineer's and the auditor's tokens alone. What a zone's operator sees, and what its officers
sign, happens on the stage.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.cli import bundles, defaults, interruptions, verify
from isthmus.cli.connections import border_of, jobs_of
from isthmus.cli.demo import questions, report, wire
from isthmus.cli.demo.embedded import embedded
from isthmus.cli.demo.stage import FLEETS, LOOKS_EVERY_S
from isthmus.cli.interruptions import Interrupted, ending_on_signals
from isthmus.cli.screen import Exit, Screen
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.proof import bundle as verifier
from isthmus.proof import canonical

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.cli.demo.questions import Headline
    from isthmus.cli.demo.stage import Stage
    from isthmus.cli.demo.wire import WireAudit
    from isthmus.contracts.evidence import Report as Verification
    from isthmus.contracts.identifiers import JobId, SiteId
    from isthmus.contracts.inside import UsageReport
    from isthmus.contracts.jobs import JobEvent, JobResults
    from isthmus.zone.results import ZoneResults

REPORT, EVIDENCE, ROOTS, WIRE = "demo-report.json", "demo-evidence", "roots.json", "demo-wire.pcap"
COSIGNED_WITHIN_S = 60.0
"""Longer than the cadence at which borders exchange heads."""
COPIES = 3
"""Of a capture, at most."""


@dataclass(frozen=True, slots=True)
class Training:
    """A finished job and the answered questions, as the engineer sees them, and what each zone's operator sees."""

    job: JobId
    events: tuple[JobEvent, ...]
    results: JobResults
    zones: dict[SiteId, ZoneResults]
    headlines: tuple[Headline, ...]
    usage: UsageReport


def run(home: Path | None, out: Path, *, keep: bool, screen: Screen) -> int:
    """Play the demo on this machine; return the exit code.

    Args:
        home: where to make the sites; a throwaway folder where None.
        out: where report, evidence bundle, roots and capture are written.
        keep: leave the sites running for API clients until Ctrl-C.
        screen: where to write.

    Raises:
        IsthmusError: something that should work did not.
    """
    try:
        with ending_on_signals(), embedded(home) as stage:
            findings = play(stage, out, screen)
            if keep:
                stage.keep(screen)
    except Interrupted:
        screen.note("Interrupted. Everything that was started is stopped.")
        return Exit.INTERRUPTED
    return Exit.OK if findings.holds() else Exit.NOT_ACCEPTED


def play(stage: Stage, out: Path, screen: Screen) -> report.Findings:
    """Play the six scenes."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    _require_ours(out)
    screen.note(f"Isthmus demo in {stage.name}", "bold")
    with screen.waiting("1/6  Starting three sites: each a border, and behind it a zone or the coordinator ..."):
        stage.start()
    with screen.waiting("2/6  Simulating both fleets; each zone's ingest seals its drives ..."):
        stage.ingest(screen)
    screen.note("3/6  Training: 60 rounds, one model, two zones; then each adapts it for itself")
    training = interruptions.run(lambda: _job(stage, screen))
    with screen.waiting(
        "4/6  Verifying the borders' evidence with the roots alone, and a capture of the wire with both ..."
    ):
        roots, evidence, capture = out / ROOTS, out / EVIDENCE, out / WIRE
        shutil.copyfile(stage.roots, roots)
        verification = _verified(stage, evidence, roots)
        wired = _wired(stage, capture, evidence, roots)
    with screen.waiting("5/6  A rogue tries what must fail, on a throwaway copy of the borders ..."):
        attempts = stage.attempts()
    findings = report.Findings(
        zones=training.zones,
        events=training.events,
        results=training.results,
        headlines=training.headlines,
        usage=training.usage,
        attempts=attempts,
        verification=verification,
        wire=wired,
        seconds=time.monotonic() - began,
    )
    report.write(findings, out / REPORT)
    screen.result(
        report.as_json(findings),
        *report.tables(findings),
        f"6/6  {findings.seconds:.0f} s. Written: {out / REPORT}, {evidence}, {roots}, {capture}",
        f"     isthmus verify {evidence} --roots {roots}",
        f"     {wire.command(wired, capture, evidence, roots)}",
    )
    return findings


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


def _verified(stage: Stage, evidence: Path, roots: Path) -> Verification:
    """Write the evidence bundle, once every entry in it is cosigned by a peer, and verify it with the roots alone."""
    trusted = verify.read_roots(roots)
    deadline = time.monotonic() + COSIGNED_WITHIN_S
    while True:
        parts = stage.evidence()
        verification = verifier.verify({part.site: canonical.dump(part) for part in parts}, trusted)
        awaited = any(finding.code is FindingCode.NOT_YET_COSIGNED for finding in verification.findings)
        if (verification.accepted and not awaited) or time.monotonic() > deadline:
            break
        time.sleep(LOOKS_EVERY_S)
    if evidence.exists():
        shutil.rmtree(evidence)
    bundles.write(evidence, parts)
    return verification


def _wired(stage: Stage, capture: Path, evidence: Path, roots: Path) -> WireAudit:
    """Audit a capture with the evidence that was just verified.

    A message that is under way when the capture is copied has no answer in it. So what is not clear is copied again:
    the capture goes on, and what was dark in it stays dark.
    """
    tries = COPIES
    while True:
        found = wire.audited(stage.captured(capture), capture, evidence, roots)
        tries -= 1
        if found.holds or not tries:
            return found


async def _job(stage: Stage, screen: Screen) -> Training:
    """Submit the job, let the officers sign, wait for the end in every zone."""
    home, zones = stage.headquarters(), sorted(FLEETS)
    async with jobs_of(home, None) as jobs, border_of(home.coordinator, InsideRole.AUDITOR) as border:
        job = await jobs.submit(defaults.training_job(home.coordinator.id, zones))
        async with stage.officers(job.id, screen):
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
            found = {zone: await stage.results(zone, job.id) for zone in zones}
        screen.note("     Asking five questions of both fleets")
        headlines = await questions.headlines(jobs, home.coordinator.id, zones)
        return Training(job.id, tuple(events), await jobs.results(job.id), found, headlines, await border.usage())
