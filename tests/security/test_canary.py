"""A canary: a VIN planted wherever a zone names things. A whole job runs, and the canary is in no byte that left.

Looked through are all bytes on both links, both ways; every envelope and every payload in them, opened with the
receiver's keys; all entries and evidence of all ledgers; and the coordinator's files.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from isthmus.border.gate.framing import message_in, unpadded
from isthmus.contracts.crossings import Kind, Manifest
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, Name
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.contracts.ledger import CrossingEntry, Log
from isthmus.contracts.link import FRAME, LinkProblem
from isthmus.contracts.orders import DatasetRef
from isthmus.proof import canonical, sealing, signing
from isthmus.proof.canonical import from_base64
from isthmus.proof.ids import content_context
from security.rogue import Rogue
from security.wiretap import TappedWorld, quick_world
from world.world import CN, HQ, ZONES, drives, request, running

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CANARY = "LSVCANARY20261120"
VEHICLES = 12


def planted() -> list[pa.Table]:
    """Drives whose vehicles, VINs and scenes all bear the canary."""
    tables = []
    for number, table in enumerate(drives(VEHICLES, 0, seconds=6.0, vin=CANARY)):
        for column, name in (("vehicle", f"{CANARY}-{number}"), ("scene_id", f"drive of {CANARY} no {number}")):
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, pa.array([name] * table.num_rows, pa.string()))  # noqa: PLW2901  the same drive, renamed
        tables.append(table)
    return tables


def spellings(secret: bytes) -> set[bytes]:
    """Return how `secret` would look as it is, in hexadecimal, in UTF-16, or in base64 wherever it starts."""
    found = {secret, secret.lower(), secret[::-1], secret.hex().encode(), secret.hex().upper().encode()}
    found.add(secret.decode().encode("utf-16-le"))
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(bytes(shift) + secret)[4 if shift else 0 : -4])
    return found


def secrets_of(world: TappedWorld) -> set[bytes]:
    """The canary, and the pseudonyms that stand for its vehicles inside the zone."""
    key = Rogue(world.home, CN).keys.pseudonym
    names = {hmac.digest(key, f"{CANARY}-{n}".encode(), "sha256").hex()[:24].encode() for n in range(VEHICLES)}
    return {CANARY.encode(), *names}


def leaks(secrets: Iterable[bytes], *haystacks: bytes) -> list[bytes]:
    needles = {spelling for secret in secrets for spelling in spellings(secret)}
    return [needle for needle in needles if any(needle in haystack for haystack in haystacks)]


def crossed(world: TappedWorld) -> list[tuple[Manifest, bytes, bytes]]:
    """Return what crossed, as each receiver's ledger has it: manifest, its bytes, and the opened payload."""
    sealed = world.tap.sealed()
    found = []
    for site in (HQ, *ZONES):
        keys = Rogue(world.home, site).keys
        for text in world.sites[site].border.keeper.entries(Log.CROSSINGS, 0).entries:
            entry = canonical.load(CrossingEntry, text.encode())
            if entry.verdict == "sent":
                continue
            raw = signing.parse_envelope(entry.envelope.encode()).payload
            manifest = canonical.load(Manifest, raw)
            context = content_context(manifest.crossing)
            key = keys.sealing.open(from_base64(manifest.payload.wrapped_key), context=context)
            plain = sealing.open_sealed(key, [sealed[manifest.payload.digest]], context=context)
            found.append((manifest, raw, bytes(plain)))
    return found


async def evidence_of(world: TappedWorld) -> list[bytes]:
    """Return all that the three sites would hand to an auditor, and what stands in their ledgers."""
    parts = []
    for site in (HQ, *ZONES):
        auditor = world.client(site, InsideRole.AUDITOR)
        parts += [canonical.dump(await auditor.evidence()), canonical.dump(await auditor.ledger())]
        parts += [canonical.dump(await auditor.entries(log, 0)) for log in Log]
        parts.append(canonical.dump(await auditor.usage()))
    return parts


def files_of(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()]


async def nothing_leaked(world: TappedWorld) -> list[tuple[Manifest, bytes, bytes]]:
    """Look through everything; return what crossed."""
    secrets = secrets_of(world)
    assert not leaks(secrets, *(exchange.everything() for exchange in world.tap.exchanges))
    bodies = [body for exchange in world.tap.exchanges for body in (exchange.body, exchange.answer)]
    assert not [len(body) for body in bodies if len(body) % FRAME], "what passed fills whole frames"
    found = crossed(world)
    assert {manifest.payload.digest for manifest, _, _ in found} == set(world.tap.sealed()), "all of it was opened"
    assert not leaks(secrets, *(raw for _, raw, _ in found), *(plain for _, _, plain in found))
    assert not leaks(secrets, *(await evidence_of(world)))
    assert not leaks(secrets, *files_of(world.home / HQ))
    for error in world.tap.errors:
        assert list(json.loads(unpadded(error, 1024))) == ["code"]
        message_in(LinkProblem, error, 1024)
    return found


def run(home: Path, scenario: Any, trouble: str | None = None) -> None:
    async def main() -> None:
        async with running(quick_world(home, trouble)) as world:
            await world.ingest(CN, planted())
            await world.ingest(ZONES[1], drives(VEHICLES, 1, seconds=6.0))
            await scenario(world)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_whole_job_leaks_nothing(tmp_path: Path) -> None:
    async def scenario(world: TappedWorld) -> None:
        jobs = world.jobs()
        job = await jobs.submit(request(rounds=2))
        async with asyncio.TaskGroup() as officers:
            for zone in ZONES:
                officers.create_task(world.approve(zone))
                officers.create_task(world.approve(zone, Kind.AGGREGATE))
        async for _ in jobs.watch(job.id):
            pass
        assert (await jobs.job(job.id)).state is JobState.DONE
        found = await nothing_leaked(world)
        kinds = [manifest.kind for manifest, _, _ in found]
        assert kinds.count(Kind.MODEL_UPDATE) == 4
        assert kinds.count(Kind.AGGREGATE) == 2
        assert kinds.count(Kind.MODEL) == 6
        assert not leaks([CANARY.encode()], *files_of(world.home / CN)), "in the zone itself it lies sealed"

    run(tmp_path / "home", scenario)


def test_a_job_that_fails_on_the_canary_says_one_code(tmp_path: Path) -> None:
    """Compute fails with an exception that quotes its data: what leaves is `compute_failed`."""

    async def scenario(world: TappedWorld) -> None:
        jobs = world.jobs()
        job = await jobs.submit(request(rounds=2))
        async for _ in jobs.watch(job.id):
            pass
        done = await jobs.job(job.id)
        assert (done.state, done.code) == (JobState.FAILED, Code.COMPUTE_FAILED)
        found = await nothing_leaked(world)
        notices = [plain for manifest, _, plain in found if manifest.kind is Kind.NOTICE and manifest.sender == CN]
        assert [json.loads(plain)["code"] for plain in notices] == ["compute_failed"]
        assert not leaks([CANARY.encode()], done.model_dump_json().encode())

    run(tmp_path / "home", scenario, trouble=f"vehicle {CANARY}")


def test_a_canary_in_column_names_and_values_is_not_even_taken_in(tmp_path: Path) -> None:
    """The ingest of a bad table fails with words for the operator; nothing of them reaches the ledger."""

    async def scenario(world: TappedWorld) -> None:
        good = planted()[0]
        ledger = world.sites[CN].border.keeper.ledger().logs[0].size
        for bad in (
            good.rename_columns([CANARY if name == "x" else name for name in good.column_names]),
            good.append_column(CANARY, pa.array([CANARY] * good.num_rows, pa.string())),
            good.set_column(
                good.schema.get_field_index("road_type"), "road_type", pa.array([CANARY] * good.num_rows, pa.string())
            ),
        ):
            with pytest.raises(Refusal) as refused:
                await world.ingest(CN, [bad], DatasetRef(dataset=Name("others"), snapshot=Name("first")))
            assert refused.value.code is Code.INPUT_INVALID
        assert world.sites[CN].border.keeper.ledger().logs[0].size == ledger
        await nothing_leaked(world)

    run(tmp_path / "home", scenario)


def test_the_search_finds_what_is_there() -> None:
    """Otherwise a clean result would mean nothing."""
    secret = CANARY.encode()
    hiding: list[bytes] = [
        secret,
        b"x" + secret.hex().encode(),
        json.dumps({"a": CANARY}).encode("utf-16-le"),
        *(base64.b64encode(b"prefix"[:n] + secret + b"suffix") for n in range(6)),
        canonical.dump(LinkProblem(code=Code.MALFORMED)).replace(b"malformed", secret.lower()),
    ]
    for place in hiding:
        assert leaks([secret], place), place
    assert not leaks([secret], Digest.of(secret).encode())
