"""No key without an order: whoever asks for more than an accepted order names gets nothing, and nothing is released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from isthmus.client.border import BorderClient
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest, FileId, JobId, Name, OrderId
from isthmus.contracts.inside import (
    SIDECAR_TYPE,
    CloseOrder,
    FreezeSnapshot,
    InsideRole,
    KeyRequest,
    RegisterFiles,
    SessionRequest,
    Sidecar,
)
from isthmus.contracts.keys import HpkeKey
from isthmus.contracts.orders import DatasetRef
from isthmus.contracts.raw_table import Group
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical
from isthmus.proof.ids import file_key_context, order_id
from isthmus.proof.sealing import SealingKey, wrap
from isthmus.proof.signing import SigningKey
from security.scene import CN, CPU, DATASET, DAY, HQ, US, Scene, file_of, grant_of, order_for, refusal, unharmed

if TYPE_CHECKING:
    from isthmus.contracts.inside import KeyGrant

ORDER = order_for(CN)
ID = order_id(ORDER)


def request_for(run: HpkeKey) -> KeyRequest:
    return KeyRequest(order=ID, groups=(Group.MOTION,), accelerators=CPU, run_key=run)


def opened(grant: KeyGrant, run: SealingKey) -> list[bytes]:
    return [
        run.open(
            canonical.from_base64(file.wrapped_key),
            context=file_key_context(file.dataset, file.file, file.group, file.digest),
        )
        for file in grant.files
    ]


def test_an_accepted_order_brings_the_keys_it_names_and_one_entry(scene: Scene) -> None:
    before = scene.picture(CN)
    run = SealingKey.generate()
    grant = scene.keeper(CN).files.grant(request_for(run.public))
    assert [(file.file, file.group) for file in grant.files] == [(file_of(CN), Group.MOTION)]
    assert opened(grant, run) == [bytes(32)]
    (entry,) = scene.picture(CN).internal[len(before.internal) :]
    assert (entry["event"], entry["order"], entry["groups"], entry["files"]) == ("keys_released", ID, ["motion"], 1)
    with refusal(Code.PAYLOAD_ALTERED):
        opened(grant, SealingKey.generate())


@pytest.mark.parametrize(
    "groups", [(Group.IDENTITY,), (Group.PLACE,), (Group.IDENTITY, Group.MOTION), tuple(sorted(Group))]
)
def test_a_group_outside_the_order_brings_no_key_at_all(scene: Scene, groups: tuple[Group, ...]) -> None:
    with unharmed(scene, CN), refusal(Code.GROUP_NOT_IN_ORDER):
        grant_of(scene, CN, ID, groups)


def test_an_order_that_is_unknown_or_of_another_zone_brings_no_key(scene: Scene) -> None:
    for order in (
        OrderId.of(b"made up"),
        order_id(order_for(US)),
        order_id(order_for(CN, expires_at=ORDER.expires_at + 1)),
    ):
        with unharmed(scene, CN), refusal(Code.ORDER_UNKNOWN):
            grant_of(scene, CN, order)


def test_an_order_that_was_given_and_not_taken_brings_no_key(scene: Scene) -> None:
    """The coordinator's own border holds the order too: it holds no keys for it."""
    with unharmed(scene, HQ), refusal(Code.ORDER_UNKNOWN):
        grant_of(scene, HQ, ID)


def test_a_closed_or_expired_order_brings_no_key_after_a_restart_either(scene: Scene) -> None:
    scene.clock.advance(DAY + 1)
    with unharmed(scene, CN), refusal(Code.EXPIRED):
        grant_of(scene, CN, ID)
    scene.keeper(CN).close_order(CloseOrder(order=ID))
    scene.stop(CN)
    with unharmed(scene, CN), refusal(Code.ORDER_CLOSED):
        grant_of(scene, CN, ID)


@pytest.mark.parametrize("role", [role for role in InsideRole if role is not InsideRole.COMPUTE])
def test_the_token_of_another_role_brings_no_key(scene: Scene, role: InsideRole) -> None:
    request = request_for(SealingKey.generate().public)

    async def ask() -> None:
        transport = httpx2.ASGITransport(app=scene.border(CN).inside)
        async with httpx2.AsyncClient(transport=transport, base_url="http://border") as http:
            await BorderClient(http, read_token(scene.home / CN / "tokens" / role)).keys(request)

    with unharmed(scene, CN), refusal(Code.FORBIDDEN):
        asyncio.run(ask())


def test_a_run_key_that_would_share_its_secret_brings_no_key(scene: Scene) -> None:
    """An X25519 point of small order makes a secret that everybody knows."""
    good = SealingKey.generate().public.raw
    run = HpkeKey.from_bytes(good[:-32] + bytes(32))
    with unharmed(scene, CN), refusal(Code.MALFORMED):
        scene.keeper(CN).files.grant(request_for(run))


# ---- files that ingest did not write


class Ingest:
    """Whoever can reach the border's ingest routes, or only knows its public key."""

    def __init__(self, scene: Scene, *, known: bool = True) -> None:
        self.files = scene.keeper(CN).files
        self.key = SigningKey.generate()
        self.to = scene.border(CN).keeper._desk.keys.sealing.public
        if known:
            self.files.start_session(SessionRequest(key=self.key.verify_key))

    def sidecar(self, **changes: Any) -> Sidecar:
        file = changes.get("file", FileId("file-" + "a" * 32))
        digest = changes.get("digest", Digest.of(b"file"))
        context = file_key_context(changes.get("dataset", DATASET.dataset), file, Group.MOTION, digest)
        values = {
            "version": 1,
            "dataset": DATASET.dataset,
            "file": file,
            "group": Group.MOTION,
            "object_name": f"{file}.motion",
            "digest": digest,
            "size": 1000,
            "rows": 10,
            "wrapped_key": canonical.to_base64(wrap(b"k" * 32, self.to, context=context)),
            **changes,
        }
        return Sidecar(**values)

    def register(self, *sidecars: Sidecar, payload_type: str = SIDECAR_TYPE) -> None:
        envelopes = tuple(self.key.sign(payload_type, canonical.dump(s)).decode() for s in sidecars)
        self.files.register(RegisterFiles(envelopes=envelopes))


def test_a_file_forged_with_the_borders_public_key_is_registered_by_nobody(scene: Scene) -> None:
    forger = Ingest(scene, known=False)
    with unharmed(scene, CN), refusal(Code.FILE_UNREGISTERED):
        forger.register(forger.sidecar())


def test_a_session_is_registered_once(scene: Scene) -> None:
    ingest = Ingest(scene)
    with unharmed(scene, CN), refusal(Code.ALREADY_EXISTS):
        ingest.files.start_session(SessionRequest(key=ingest.key.verify_key))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"digest": Digest.of(b"swapped"), "file": FileId("file-" + "b" * 32)}, Code.PAYLOAD_ALTERED),
        ({"group": Group.IDENTITY}, Code.PAYLOAD_ALTERED),
        ({"dataset": Name("other")}, Code.PAYLOAD_ALTERED),
        ({"wrapped_key": ""}, Code.PAYLOAD_ALTERED),
        ({"wrapped_key": "QUJD"}, Code.PAYLOAD_ALTERED),
    ],
)
def test_a_key_that_was_sealed_for_another_file_is_not_registered(
    scene: Scene, changes: dict[str, Any], code: Code
) -> None:
    ingest = Ingest(scene)
    right = ingest.sidecar()
    with unharmed(scene, CN), refusal(code):
        ingest.register(right.model_copy(update=changes))


def test_one_bad_sidecar_registers_none(scene: Scene) -> None:
    ingest = Ingest(scene)
    good, bad = (
        ingest.sidecar(),
        ingest.sidecar(file=FileId("file-" + "c" * 32)).model_copy(update={"rows": 11, "wrapped_key": "QUJD"}),
    )
    with unharmed(scene, CN), refusal(Code.PAYLOAD_ALTERED):
        ingest.register(good, bad)
    ingest.register(good)


def test_a_registered_file_cannot_be_replaced(scene: Scene) -> None:
    """Not by the same session and not by the next: what a snapshot holds stays what it was."""
    ingest = Ingest(scene)
    ingest.register(ingest.sidecar())
    with unharmed(scene, CN), refusal(Code.ALREADY_EXISTS):
        ingest.register(ingest.sidecar(digest=Digest.of(b"another file")))
    with unharmed(scene, CN), refusal(Code.ALREADY_EXISTS):
        ingest.register(ingest.sidecar(file=file_of(CN), digest=Digest.of(b"another file")))


def test_an_envelope_of_another_type_is_no_sidecar(scene: Scene) -> None:
    ingest = Ingest(scene)
    with unharmed(scene, CN), refusal(Code.SIGNATURE_INVALID):
        ingest.register(ingest.sidecar(), payload_type="application/json")


def test_a_snapshot_never_changes_and_holds_registered_files_alone(scene: Scene) -> None:
    ingest = Ingest(scene)
    ingest.register(ingest.sidecar())
    added = (FileId("file-" + "a" * 32),)
    with unharmed(scene, CN), refusal(Code.ALREADY_EXISTS):
        ingest.files.freeze(FreezeSnapshot(dataset=DATASET, files=added))
    stranger = DatasetRef(dataset=DATASET.dataset, snapshot=Name("2027q1"))
    with unharmed(scene, CN), refusal(Code.FILE_UNREGISTERED):
        ingest.files.freeze(FreezeSnapshot(dataset=stranger, files=(*added, FileId("file-" + "f" * 32))))
    elsewhere = DatasetRef(dataset=Name("other"), snapshot=Name("2027q1"))
    with unharmed(scene, CN), refusal(Code.FILE_UNREGISTERED):
        ingest.files.freeze(FreezeSnapshot(dataset=elsewhere, files=added))
    grant = grant_of(scene, CN, ID)
    assert [file.file for file in grant.files] == [file_of(CN)], "what was added later is in no earlier order"


def test_keys_do_not_follow_a_job_into_another(scene: Scene) -> None:
    """An order of the same job name, once refused, opens nothing; the accepted one is untouched."""
    scene.give(order_for(CN, job=JobId("job-00000000000000bb"), groups=(Group.IDENTITY, Group.MOTION)))
    scene.carry()
    wanted = order_id(order_for(CN, job=JobId("job-00000000000000bb"), groups=(Group.IDENTITY, Group.MOTION)))
    with unharmed(scene, CN), refusal(Code.ORDER_UNKNOWN):
        grant_of(scene, CN, wanted, (Group.MOTION,))
    assert len(grant_of(scene, CN, ID).files) == 1
