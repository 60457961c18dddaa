"""A private training over both fleets, the whole way, on one budget with questions asked before and after it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from isthmus.cli.federation import officer_key
from isthmus.contracts.answers import QueryRequest
from isthmus.contracts.approvals import REJECTION_TYPE, Rejection
from isthmus.contracts.crossings import Check, Kind, Manifest
from isthmus.contracts.errors import Code
from isthmus.contracts.evidence import Examined, Severity
from isthmus.contracts.identifiers import Name
from isthmus.contracts.inside import InsideRole, SignedStatement
from isthmus.contracts.jobs import JobState, ZoneData
from isthmus.contracts.ledger import Log
from isthmus.contracts.orders import EvaluationPlan, TrainingPrivacy
from isthmus.contracts.roster import Roots
from isthmus.kit.clock import SystemClock
from isthmus.privacy.training import noise_of
from isthmus.proof import accounting, canonical, signing
from isthmus.proof.bundle import verify
from world.world import CN, DATASET, HQ, OFFICERS, US, ZONES, World, drives, plan, request, running

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.evidence import Report
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import PrivacyView
    from isthmus.contracts.jobs import JobRequest, JobView
    from isthmus.contracts.orders import TrainingPlan

MICRO = 1_000_000
VALID_S = 900
VEHICLES = {CN: 20, US: 24}
FLEET = "SELECT count(DISTINCT vehicle) FROM drives"
OTHER = "SELECT count(*) FROM minutes"
PRIVACY = TrainingPrivacy(
    epsilon_micro=6 * MICRO,
    delta_exponent=6,
    vehicle_norm_micro=MICRO,
    vehicles=10,
    vehicle_steps=1,
    vehicle_rate_micro=100_000,
)


class LaterClock(SystemClock):
    """The machine's time, and later by as much as a test says."""

    later_s = 0

    def now(self) -> int:
        return super().now() + self.later_s


def training(rounds: int = 2, privacy: TrainingPrivacy = PRIVACY) -> TrainingPlan:
    return plan(rounds, privacy=privacy, adaptation_epochs=0, reference_epochs=0)


def private(
    rounds: int = 2, privacy: TrainingPrivacy = PRIVACY, at_slots: tuple[int, ...] = (2,), **changes: Any
) -> JobRequest:
    evaluation = EvaluationPlan(at_slots=at_slots, band_um=20_000, minimum_vehicles=10) if at_slots else None
    return request(rounds, training=training(rounds, privacy), evaluation=evaluation, **changes)


def question(sql: str) -> QueryRequest:
    return QueryRequest(
        sql=sql,
        zones=tuple(ZoneData(zone=zone, dataset=DATASET) for zone in ZONES),
        purpose=Name("fleet-statistics"),
        recipients=tuple(sorted((HQ, *ZONES))),
        epsilon_micro=2 * MICRO,
        slot_s=1,
    )


async def ingested(world: World) -> None:
    for seed, zone in enumerate(ZONES):
        await world.ingest(zone, drives(VEHICLES[zone], seed))


async def answered(world: World, sql: str) -> JobState:
    jobs = world.jobs()
    return (await jobs.answered((await jobs.ask(question(sql))).id)).state


async def trained(world: World, asked: JobRequest, *kinds: Kind) -> JobView:
    """Submit a job, have the officers of both zones approve, and wait for its end."""
    jobs = world.jobs()
    job = await jobs.submit(asked)
    async with asyncio.TaskGroup() as officers:
        for zone in ZONES:
            for kind in kinds:
                officers.create_task(world.approve(zone, kind))
    async for _ in jobs.watch(job.id):
        pass
    return await jobs.job(job.id)


async def budgets(world: World) -> dict[SiteId, PrivacyView]:
    return {zone: await world.client(zone, InsideRole.AUDITOR).privacy() for zone in ZONES}


async def rejected(world: World, zone: SiteId) -> None:
    """Have an officer of a zone reject its next held update."""
    manifest = (await world.held(zone)).manifest
    body = Rejection(version=1, zone=zone, crossing=manifest.crossing, sealed=manifest.payload.digest)
    signed = officer_key(world.home, OFFICERS[zone][0]).sign(REJECTION_TYPE, canonical.dump(body))
    await world.client(zone, InsideRole.OFFICER).reject(SignedStatement(envelope=signed.decode()))


async def settled(world: World, zone: SiteId, number: int) -> list[dict[str, Any]]:
    """Wait until a zone has settled so many orders; return the settlements of trainings."""
    while True:
        ticket = world.sites[zone].border.bell.ticket()
        entries = await internal(world, zone)
        found = [e for e in entries if e["event"] == "privacy_settled"]
        if len(found) >= number:
            return [e for e in found if e["rounds"] is not None]
        await world.sites[zone].border.bell.wait(ticket, 1)


async def internal(world: World, zone: SiteId) -> list[dict[str, Any]]:
    return [json.loads(e) for e in (await world.client(zone, InsideRole.AUDITOR).entries(Log.INTERNAL, 0)).entries]


async def reserved(world: World, zone: SiteId) -> list[accounting.Curve]:
    entries = await internal(world, zone)
    return [tuple(e["curve"]) for e in entries if e["event"] == "privacy_reserved"]


async def gone(world: World, zone: SiteId, *curves: accounting.Curve) -> int:
    """Return what a zone's budget holds against these curves together."""
    budget = (await budgets(world))[zone].budget
    assert budget is not None
    used = accounting.zero()
    for curve in curves:
        used = accounting.add(used, curve)
    return accounting.spent_micro(used, budget)


async def verified(world: World) -> Report:
    """Export every border's evidence, its heads exchanged, and verify it."""
    for zone in ZONES:
        await exchanged(world, zone)
    bundle = {f"{site}.json": canonical.dump(world.sites[site].border.keeper.evidence()) for site in (HQ, *ZONES)}
    return verify(bundle, canonical.load(Roots, (world.home / "roots.json").read_bytes()))


async def exchanged(world: World, zone: SiteId) -> None:
    near, far = world.sites[zone].border.keeper, world.sites[HQ].border.keeper
    both = (Log.CROSSINGS, Log.INTERNAL)
    for _ in range(2):
        near.heads.answered(HQ, far.exchange(zone, near.heads.heads(HQ, both)))


async def updates(world: World, zone: SiteId) -> list[Manifest]:
    """Return the manifests of the updates that left a zone."""
    entries = (await world.client(zone, InsideRole.AUDITOR).entries(Log.CROSSINGS, 0)).entries
    envelopes = [json.loads(entry)["envelope"].encode() for entry in entries]
    manifests = [canonical.load(Manifest, signing.parse_envelope(envelope).payload) for envelope in envelopes]
    return [m for m in manifests if m.kind is Kind.MODEL_UPDATE]


def test_a_training_and_the_questions_around_it_share_one_budget(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(World(tmp_path / "home")) as world:
            await ingested(world)
            assert await answered(world, FLEET) is JobState.DONE
            job = await trained(world, private(), Kind.MODEL_UPDATE, Kind.AGGREGATE)
            assert (job.state, job.rounds_done, job.privacy) == (JobState.DONE, 2, PRIVACY)
            assert await answered(world, OTHER) is JobState.DONE
            for zone in ZONES:
                ends = await settled(world, zone, 3)
                assert [(e["outcome"], e["rounds"]) for e in ends] == [("spent", 2)]
                curves = await reserved(world, zone)
                assert curves[1] == noise_of(training()).curve
                view = (await budgets(world))[zone]
                assert view.epsilon_micro == await gone(world, zone, *curves)
                assert (view.answered, view.trainings, view.open) == (2, 1, 0)
                assert view.unprotected == 1  # the evaluation
                crossed = await updates(world, zone)
                assert len(crossed) == 2
                for manifest in crossed:
                    assert manifest.contributors is None
                    assert Check.NOISED in manifest.checks
                    told = {(e.mechanism, e.parameter, e.enforced_by) for e in manifest.privacy}
                    assert ("vehicle_clip", MICRO, "zone") in told
                    assert ("differential_privacy", 6 * MICRO, "border") in told
            model = max((await world.jobs().results(job.id)).models, key=lambda m: m.slot)
            assert model.lineage == ZONES

            second = await trained(world, private(privacy=PRIVACY.model_copy(update={"epsilon_micro": 12 * MICRO})))
            assert (second.state, second.code, second.rounds_done) == (JobState.FAILED, Code.BUDGET_EXHAUSTED, 0)
            for zone in ZONES:
                assert len(await updates(world, zone)) == 2
                assert (await budgets(world))[zone].trainings == 1

            report = await verified(world)
            assert [f for f in report.findings if f.severity is Severity.FAILED] == []
            assert (report.examined[Examined.TRAININGS], report.examined[Examined.QUESTIONS]) == (2, 4)

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_training_that_ends_in_the_middle_gets_back_what_it_never_began(tmp_path: Path) -> None:
    """An officer rejects the first update: when its orders have expired, eight of ten rounds are free for others."""

    async def scenario() -> None:
        clock = LaterClock()
        async with running(World(tmp_path / "home", clock=clock)) as world:
            await ingested(world)
            most = PRIVACY.model_copy(update={"epsilon_micro": 15 * MICRO})
            jobs = world.jobs()
            job = await jobs.submit(private(10, most, at_slots=(), valid_for_s=VALID_S))
            await world.approve(US)
            await rejected(world, CN)
            async for _ in jobs.watch(job.id):
                pass
            assert (await jobs.job(job.id)).state is JobState.FAILED
            assert await answered(world, FLEET) is JobState.FAILED  # all ten rounds are reserved still

            clock.later_s = VALID_S + 600
            assert await answered(world, OTHER) is JobState.DONE
            for zone in ZONES:
                ends = [e for e in await internal(world, zone) if e["event"] == "privacy_settled"]
                assert [(e["outcome"], e["rounds"]) for e in ends] == [("spent", 2), ("spent", None)]
                whole, answer = await reserved(world, zone)
                assert whole == noise_of(training(10, most)).curve
                view = (await budgets(world))[zone]
                assert view.epsilon_micro == await gone(world, zone, accounting.paid(whole, 2, 10), answer)
                assert (view.trainings, view.answered) == (1, 1)
            report = await verified(world)
            assert [f for f in report.findings if f.severity is Severity.FAILED] == []

    asyncio.run(asyncio.wait_for(scenario(), 120))
