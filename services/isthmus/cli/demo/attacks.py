"""What must fail: nine attempts, each against a border of a throwaway copy, each with the code that stopped it.

The rogue holds the coordinator's keys, a zone's keys, or a token inside a zone: each attempt takes what it needs.
"""

from __future__ import annotations

import logging
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isthmus.border.app import load_genesis
from isthmus.border.gate.framing import message_in, padded, padded_payload
from isthmus.cli import defaults, interruptions
from isthmus.cli.demo.furnish import furnish, meet
from isthmus.cli.demo.report import Attempt
from isthmus.cli.demo.rogue import Rogue, enrolled
from isthmus.cli.federation import officer_key
from isthmus.contracts.approvals import STANDING_APPROVAL_TYPE
from isthmus.contracts.crossings import Check, Contributors, HeadProof, Kind, Manifest, Receipt
from isthmus.contracts.errors import Code, IsthmusError
from isthmus.contracts.identifiers import Digest, JobId, Name, SiteId
from isthmus.contracts.inside import (
    CandidateHeader,
    CandidateStatus,
    InsideRole,
    KeyRequest,
    ReviewItem,
    SignedStatement,
)
from isthmus.contracts.ledger import Log
from isthmus.contracts.link import Heads, LinkProblem, Opening, Parcel, ParcelAnswer
from isthmus.contracts.orders import Algorithm, Order
from isthmus.contracts.raw_table import Group
from isthmus.contracts.roster import PersonRole
from isthmus.kit import journal
from isthmus.kit.clock import SystemClock
from isthmus.learning import algorithm, weights
from isthmus.learning.forecaster import MODEL_SCHEMA, initial_weights
from isthmus.proof import canonical, checkpoint, signing
from isthmus.proof.ids import log_name, order_id
from isthmus.proof.sealing import SealingKey
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HQ, CHINA, TEXAS = SiteId("hq"), SiteId("cn-shanghai"), SiteId("us-texas")
VALID_S = 3600
MOST = 256 * 1024
"""Most bytes of an answer that is looked at."""


def all_of_them(home: Path, *, bare: bool = False) -> tuple[Attempt, ...]:
    """Try everything on a copy of `home`.

    Args:
        home: a federation, running or not.
        bare: no zone of it has drives: the copies are given a dataset that nobody reads.
    """
    journal.configure("rogue", logging.CRITICAL)  # every refusal is shown as a row of its own
    with tempfile.TemporaryDirectory(prefix="isthmus-rogue-") as folder:
        return interruptions.run(lambda: _attempts(home, Path(folder) / "home", bare=bare))


async def _attempts(home: Path, copy: Path, *, bare: bool) -> tuple[Attempt, ...]:
    tries: tuple[tuple[str, SiteId, Code, Callable[[Rogue], Awaitable[Code | None]]], ...] = (
        ("raw rows without a permit", CHINA, Code.PERMIT_MISSING, _raw_rows),
        ("an order for an unknown algorithm", CHINA, Code.ALGORITHM_UNKNOWN, _unknown_algorithm),
        ("a replayed crossing", CHINA, Code.REPLAYED, _replayed),
        ("a key for a column group outside the order", CHINA, Code.GROUP_NOT_IN_ORDER, _other_group),
        ("a self-approval", CHINA, Code.APPROVAL_INVALID, _self_approval),
        ("one officer in place of two", CHINA, Code.APPROVAL_MISSING, _one_officer),
        ("a recipient outside the named ones", HQ, Code.RECIPIENT_NOT_NAMED, _unnamed_recipient),
        ("a tampered update", HQ, Code.PAYLOAD_ALTERED, _tampered),
        ("a forked ledger", HQ, Code.LEDGER_FORKED, _forked),
    )
    with enrolled(home, copy, (HQ, CHINA, TEXAS)) as rogue:
        for zone in (CHINA, TEXAS) if bare else ():
            await furnish(rogue, zone)
            await meet(rogue, zone, HQ)
        return tuple(
            [
                Attempt(what, border, await _code(attempt(rogue)), expected.value)
                for what, border, expected, attempt in tries
            ]
        )


async def _code(attempt: Awaitable[Code | None]) -> str:
    """Return the code that stopped an attempt, empty where nothing did. Which one it should be is compared later."""
    try:
        code = await attempt
    except IsthmusError as error:
        code = error.code
    return code.value if code else ""


def _order(zone: SiteId, **changes: object) -> Order:
    """Return an order that the zone would accept, but for `changes`."""
    now = SystemClock().now()
    order = Order(
        version=1,
        job=JobId("job-" + secrets.token_hex(8)),
        issuer=HQ,
        zone=zone,
        algorithm=Algorithm(name=defaults.ALGORITHM, digest=algorithm.digest()),
        dataset=defaults.DATASET,
        groups=(Group.MOTION,),
        purpose=defaults.PURPOSE,
        recipients=(CHINA, HQ, TEXAS),
        outputs=(Kind.MODEL_UPDATE,),
        training=defaults.training_plan(1),
        evaluation=None,
        tensors=MODEL_SCHEMA,
        clip_norm_micro=defaults.CLIP_NORM_MICRO,
        base=None,
        issued_at=now,
        expires_at=now + VALID_S,
    )
    return order.model_copy(update=changes)


async def _give(rogue: Rogue, order: Order) -> Code | None:
    """Send an order to its zone with the coordinator's own keys."""
    manifest, payload = rogue.sealed(HQ, order, Kind.ORDER, 0, canonical.dump(order))
    return await rogue.send_down(HQ, order.zone, manifest, payload)


async def _accepted(rogue: Rogue) -> Order:
    """Return an order that the zone has accepted: what the rogue then does with it is the attempt."""
    order = _order(CHINA)
    if (code := await _give(rogue, order)) is not None:
        raise AssertionError(f"the copy refused an order without fault: {code}")
    return order


async def _raw_rows(rogue: Rogue) -> Code | None:
    return await _give(rogue, _order(CHINA, outputs=(Kind.EXTRACT,), training=None, tensors=()))


async def _unknown_algorithm(rogue: Rogue) -> Code | None:
    unknown = Algorithm(name=defaults.ALGORITHM, digest=Digest.of(b"another source"))
    return await _give(rogue, _order(CHINA, algorithm=unknown))


async def _unnamed_recipient(rogue: Rogue) -> Code | None:
    """Let China's update, which names China and headquarters alone, reach Texas inside the next model."""
    job = JobId("job-" + secrets.token_hex(8))
    ours = _order(CHINA, job=job, recipients=(CHINA, HQ))
    theirs = _order(TEXAS, job=job)
    coordinator = rogue.inside(HQ, InsideRole.SUBMITTER)
    for order in (ours, theirs):
        await coordinator.submit(_header(order, Kind.ORDER, 0, canonical.dump(order)), canonical.dump(order))
    checks = tuple(sorted((Check.CLIPPED, Check.CONTRIBUTORS, Check.FINITE, Check.SCHEMA)))
    update, behind = _zero_update(), Contributors(vehicles=100, windows=10_000)
    manifest, payload = rogue.sealed(CHINA, ours, Kind.MODEL_UPDATE, 0, update, checks=checks, contributors=behind)
    if (code := await _upload(rogue, CHINA, manifest, payload)) is not None:
        raise AssertionError(f"the copy refused an update without fault: {code}")
    model = weights.encode(initial_weights(1))
    return (await coordinator.submit(_header(theirs, Kind.MODEL, 1, model), model)).code


async def _replayed(rogue: Rogue) -> Code | None:
    """Sign a model that the zone has had already under the next sequence number."""
    order = await _accepted(rogue)
    manifest, payload = rogue.sealed(HQ, order, Kind.MODEL, 0, weights.encode(initial_weights(1)))
    if (code := await rogue.send_down(HQ, CHINA, manifest, payload)) is not None:
        raise AssertionError(f"the copy refused a model without fault: {code}")
    again = manifest.model_copy(update={"sequence": manifest.sequence + 1})
    return await rogue.send_down(HQ, CHINA, again, b"")


async def _other_group(rogue: Rogue) -> Code | None:
    order = await _accepted(rogue)
    run = SealingKey.generate().public
    groups, chips = (Group.MOTION, Group.PLACE), (Name("cpu"),)
    asked = KeyRequest(order=order_id(order), groups=groups, accelerators=chips, run_key=run)
    await rogue.inside(CHINA, InsideRole.COMPUTE).keys(asked)
    return None


async def _self_approval(rogue: Rogue) -> Code | None:
    """Approve a release of one's own job with a key of one's own: the key is of nobody on the zone's roster."""
    item = await _held(rogue)
    return (await _approve(rogue, item, SigningKey.generate())).code


async def _one_officer(rogue: Rogue) -> Code | None:
    """Let one real officer sign twice: the release stays held, and what it needs is still missing."""
    item = await _held(rogue)
    officer = next(p for p in load_genesis(rogue.home / CHINA).roster.persons if PersonRole.OFFICER in p.roles)
    key = officer_key(rogue.home, officer.id)
    await _approve(rogue, item, key)
    status = await _approve(rogue, item, key)
    return Code.APPROVAL_MISSING if status.state == "held" and status.needs else status.code


async def _held(rogue: Rogue) -> ReviewItem:
    """Return a release that an accepted order asked for, and that the zone's border holds."""
    order = await _accepted(rogue)
    update = _zero_update()
    header = _header(order, Kind.MODEL_UPDATE, 0, update, Contributors(vehicles=100, windows=10_000))
    await rogue.inside(CHINA, InsideRole.COMPUTE).submit(header, update)
    review = await rogue.inside(CHINA, InsideRole.OFFICER).review()
    return next(item for item in review.items if item.manifest.order == order_id(order))


async def _approve(rogue: Rogue, item: ReviewItem, key: SigningKey) -> CandidateStatus:
    envelope = key.sign(STANDING_APPROVAL_TYPE, canonical.dump(item.standing))
    return await rogue.inside(CHINA, InsideRole.OFFICER).approve(SignedStatement(envelope=envelope.decode()))


async def _tampered(rogue: Rogue) -> Code | None:
    """Upload an update with a zone's own keys, one bit of the sealed payload flipped on the way."""
    order = _order(TEXAS)
    body = canonical.dump(order)
    await rogue.inside(HQ, InsideRole.SUBMITTER).submit(_header(order, Kind.ORDER, 0, body), body)
    manifest, payload = rogue.sealed(TEXAS, order, Kind.MODEL_UPDATE, 0, _zero_update())
    return await _upload(rogue, TEXAS, manifest, bytes([payload[0] ^ 1]) + payload[1:])


async def _upload(rogue: Rogue, site: SiteId, manifest: Manifest, payload: bytes) -> Code | None:
    """Send a crossing to the coordinator's border, signed by `site`, over its own link; return what stopped it."""
    heads = rogue.borders[site].keeper.heads.heads(HQ)
    parcel = Parcel(envelope=rogue.signed_as(site, manifest).decode(), heads=heads)
    body = padded(canonical.dump(parcel)) + b"".join(padded_payload([payload], len(payload)))
    async with rogue.link(site, HQ) as http:
        answer = await http.put(f"/link/{site}/crossings/{manifest.crossing}", content=body)
    if answer.is_error:
        return message_in(LinkProblem, answer.content, MOST).code
    receipt = message_in(ParcelAnswer, answer.content, MOST).receipt
    return canonical.load(Receipt, signing.parse_envelope(receipt.encode()).payload).code


def _header(
    order: Order, kind: Kind, slot: int, payload: bytes, contributors: Contributors | None = None
) -> CandidateHeader:
    outward = kind in {Kind.ORDER, Kind.MODEL}
    return CandidateHeader(
        order=order_id(order),
        kind=kind,
        recipient=order.zone if outward else order.issuer,
        slot=slot,
        size=len(payload),
        contributors=contributors,
    )


def _zero_update() -> bytes:
    return weights.encode({name: np.zeros_like(value) for name, value in initial_weights(0).items()})


async def _forked(rogue: Rogue) -> Code | None:
    """Show the coordinator's border a head of Texas's internal log that does not extend the one it has cosigned."""
    async with rogue.link(TEXAS, HQ) as http:
        opening = rogue.borders[TEXAS].keeper.opening(HQ)
        answer = await http.post(f"/link/{TEXAS}/open", content=padded(canonical.dump(opening)))
        theirs = message_in(Opening, answer.content, MOST)
        name = log_name(TEXAS, Log.INTERNAL)
        size = int(theirs.cosigned[Log.INTERNAL].split("\n")[1])
        fork = checkpoint.Head(name, size + 1, Digest.of(b"another history"))
        note = checkpoint.sign_checkpoint(fork, name, rogue.signing_key(TEXAS))
        proof = HeadProof(checkpoint=note, base=size, consistency=())
        heads = Heads(heads={Log.INTERNAL: proof}, seen={Log.INTERNAL: 0})
        answer = await http.post(f"/link/{TEXAS}/heads", content=padded(canonical.dump(heads)))
    return message_in(LinkProblem, answer.content, MOST).code
