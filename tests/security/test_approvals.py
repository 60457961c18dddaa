"""Four eyes: a release leaves when two officers of the zone, of two organisations, signed for it, and not before.

Every attack here ends with the release held or refused: nothing of it is signed, sequenced or sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.cli import federation
from isthmus.contracts.approvals import (
    APPROVAL_TYPE,
    REJECTION_TYPE,
    STANDING_APPROVAL_TYPE,
    Approval,
    Bounds,
    Rejection,
    StandingApproval,
)
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest, JobId, Name, OrganisationId, PersonId
from isthmus.contracts.inside import SignedStatement
from isthmus.contracts.orders import Algorithm, DatasetRef
from isthmus.contracts.raw_table import Group
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from isthmus.proof.signing import SigningKey
from security.scene import (
    ALGORITHM,
    CN,
    DAY,
    HOUR,
    HQ,
    NOW,
    OFFICERS,
    US,
    Scene,
    evaluation,
    kinds_sent,
    model,
    order_for,
    refusal,
    set_up,
    signed,
    unharmed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.contracts.inside import CandidateStatus, ReviewItem
    from isthmus.contracts.wire import Wire

LIN, WU = OFFICERS[CN]
UPDATE = Kind.MODEL_UPDATE
ORDER = order_for(CN)


def held_item(scene: Scene, kind: Kind = UPDATE, payload: bytes | None = None, slot: int = 0) -> ReviewItem:
    """Have compute hand in a release; return it as the officers see it."""
    status = scene.release(ORDER, kind, slot, payload or model())
    assert (status.state, status.needs) == ("held", ("approval:two-organisations",))
    return next(i for i in scene.keeper(CN).review.waiting().items if i.manifest.crossing == status.crossing)


def approve(scene: Scene, person: PersonId, body: Approval | StandingApproval) -> CandidateStatus:
    payload_type = APPROVAL_TYPE if isinstance(body, Approval) else STANDING_APPROVAL_TYPE
    return scene.keeper(CN).review.approve(signed(scene, person, payload_type, body))


def sent(scene: Scene) -> list[str]:
    """Return the kinds of what the zone's border has signed to be sent."""
    return [kind for kind in kinds_sent(scene, CN) if kind != "notice"]


def test_two_officers_of_two_organisations_let_it_pass(scene: Scene) -> None:
    item = held_item(scene)
    assert approve(scene, LIN, item.single).state == "held"
    assert sent(scene) == []
    assert approve(scene, WU, item.single).state == "logged"
    assert sent(scene) == ["model_update"]


def test_one_officer_twice_is_one_officer(scene: Scene) -> None:
    item = held_item(scene)
    for _ in range(3):
        assert approve(scene, LIN, item.single).state == "held"
        assert approve(scene, LIN, item.standing).state == "held"
    assert [e["person"] for e in scene.picture(CN).events("approved")] == [LIN, LIN], "one entry for each statement"
    assert sent(scene) == []


def test_the_engineer_and_other_strangers_approve_nothing(scene: Scene) -> None:
    item = held_item(scene)
    border_key = FileKeyStore(scene.home / CN / "keys").load().signing
    for key in (SigningKey.generate(), border_key):
        envelope = key.sign(APPROVAL_TYPE, canonical.dump(item.single)).decode()
        with unharmed(scene, CN), refusal(Code.APPROVAL_INVALID):
            scene.keeper(CN).review.approve(SignedStatement(envelope=envelope))
    assert sent(scene) == []


def test_officers_of_another_zone_approve_nothing(scene: Scene) -> None:
    item = held_item(scene)
    approve(scene, LIN, item.single)
    for person in OFFICERS[US]:
        with unharmed(scene, CN), refusal(Code.APPROVAL_INVALID):
            approve(scene, person, item.single)
    assert sent(scene) == []


def test_one_officer_in_the_name_of_another_approves_nothing(scene: Scene) -> None:
    """The key id of the second officer over the signature of the first."""
    item = held_item(scene)
    approve(scene, LIN, item.single)
    own = signed(scene, LIN, APPROVAL_TYPE, item.single).envelope
    names = [federation.officer_key(scene.home, person).verify_key.keyid for person in (LIN, WU)]
    with unharmed(scene, CN), refusal(Code.SIGNATURE_INVALID):
        scene.keeper(CN).review.approve(SignedStatement(envelope=own.replace(*names)))
    assert sent(scene) == []


def changed_single(item: ReviewItem) -> dict[str, Approval]:
    def change(**changes: Any) -> Approval:
        return item.single.model_copy(update=changes)

    return {
        "another digest": change(sealed=Digest.of(b"other bytes")),
        "another crossing": change(crossing=Digest.of(b"another crossing")),
        "another policy": change(policy=Digest.of(b"a laxer policy")),
        "another zone": change(zone=US),
        "more recipients": change(recipients=(CN, HQ)),
        "another purpose": change(purpose=Name("resale")),
        "an approval that has expired": change(expires_at=NOW - 1),
    }


SINGLE = ("another digest", "another crossing", "another policy", "another zone", "more recipients", "another purpose")


@pytest.mark.parametrize("attack", [*SINGLE, "an approval that has expired"])
def test_an_approval_of_something_else_is_not_taken(scene: Scene, attack: str) -> None:
    item = held_item(scene)
    code = Code.EXPIRED if "expired" in attack else Code.APPROVAL_INVALID
    for person in (LIN, WU):
        with unharmed(scene, CN), refusal(code):
            approve(scene, person, changed_single(item)[attack])
    assert sent(scene) == []


def changed_standing(item: ReviewItem) -> dict[str, StandingApproval]:
    def change(**changes: Any) -> StandingApproval:
        return item.standing.model_copy(update=changes)

    bounds = item.standing.bounds
    return {
        "another order": change(order=order_id(order_for(US))),
        "another job": change(job=JobId("job-00000000000000bb")),
        "another kind": change(kind=Kind.AGGREGATE),
        "another algorithm": change(algorithm=Algorithm(name=ALGORITHM.name, digest=Digest.of(b"x"))),
        "another dataset": change(dataset=DatasetRef(dataset=Name("other"), snapshot=Name("2026q4"))),
        "another group": change(groups=(Group.IDENTITY,)),
        "another policy": change(policy=Digest.of(b"a laxer policy")),
        "another zone": change(zone=US),
        "other recipients": change(recipients=(CN, HQ)),
        "another purpose": change(purpose=Name("resale")),
        "a smaller norm": change(bounds=bounds.model_copy(update={"clip_norm_micro": bounds.clip_norm_micro - 1})),
        "fewer bits": change(
            bounds=bounds.model_copy(update={"information_bits_per_release": item.manifest.information_bits - 1})
        ),
    }


STANDING = (
    "another order", "another job", "another kind", "another algorithm", "another dataset", "another group",
    "another policy", "another zone", "other recipients", "another purpose", "a smaller norm", "fewer bits",
)  # fmt: skip


@pytest.mark.parametrize("attack", STANDING)
def test_a_standing_approval_of_another_class_is_not_taken(scene: Scene, attack: str) -> None:
    item = held_item(scene)
    for person in (LIN, WU):
        with unharmed(scene, CN), refusal(Code.APPROVAL_INVALID):
            approve(scene, person, changed_standing(item)[attack])
    assert sent(scene) == []


def test_two_officers_must_sign_the_same_statement(scene: Scene) -> None:
    """One signs for the class, the other for this release: they have not agreed on anything yet."""
    item = held_item(scene)
    approve(scene, LIN, item.standing)
    assert approve(scene, WU, item.single).state == "held"
    assert sent(scene) == []
    assert approve(scene, LIN, item.single).state == "logged"
    second = held_item(scene, slot=1)
    assert second.signed_by == (LIN,), "the other officer's signature was for the first release alone"


def test_bytes_that_change_after_an_approval_are_held_again(scene: Scene) -> None:
    item = held_item(scene)
    approve(scene, LIN, item.single)
    other = held_item(scene, payload=model(0.25))
    assert other.manifest.crossing == item.manifest.crossing
    assert other.manifest.payload.digest != item.manifest.payload.digest
    assert other.signed_by == ()
    with unharmed(scene, CN), refusal(Code.APPROVAL_INVALID):
        approve(scene, WU, item.single)
    assert approve(scene, WU, other.single).state == "held", "the first officer has not seen these bytes"
    assert sent(scene) == []
    (spent,) = [row[3] for row in scene.picture(CN).budget]
    assert spent == 8 * len(model()), "a replacement is not charged again"


def test_what_was_sealed_is_not_replaced(scene: Scene) -> None:
    item = held_item(scene)
    for person in (LIN, WU):
        approve(scene, person, item.single)
    before = scene.picture(CN)
    with refusal(Code.CONFLICTING_PAYLOAD):
        scene.release(ORDER, UPDATE, 0, model(0.25))
    after = scene.picture(CN)
    assert (after.crossings, after.budget, after.blobs) == (before.crossings, before.budget, before.blobs)


def test_a_standing_approval_ends_at_its_number_of_releases(scene: Scene) -> None:
    item = held_item(scene)
    once = item.standing.model_copy(update={"bounds": item.standing.bounds.model_copy(update={"releases": 1})})
    for person in (LIN, WU):
        approve(scene, person, once)
    assert sent(scene) == ["model_update"]
    assert scene.release(ORDER, UPDATE, 1, model()).state == "held"


def test_a_standing_approval_of_one_kind_lets_no_other_pass(scene: Scene) -> None:
    item = held_item(scene)
    for person in (LIN, WU):
        approve(scene, person, item.standing)
    assert scene.release(ORDER, Kind.AGGREGATE, 0, evaluation()).state == "held"
    assert sent(scene) == ["model_update"]


def test_a_standing_approval_ends_with_its_time(scene: Scene) -> None:
    item = held_item(scene)
    short = item.standing.model_copy(update={"expires_at": NOW + HOUR})
    for person in (LIN, WU):
        approve(scene, person, short)
    scene.clock.advance(HOUR + 1)
    assert scene.release(ORDER, UPDATE, 1, model()).state == "held"
    scene.clock.advance(-HOUR)
    assert scene.release(ORDER, UPDATE, 1, model()).state == "held", "turning the clock back brings nothing back"


def test_the_first_signature_runs_out_before_the_second(scene: Scene) -> None:
    item = held_item(scene)
    approve(scene, LIN, item.single.model_copy(update={"expires_at": NOW + HOUR}))
    scene.clock.advance(HOUR + 1)
    assert approve(scene, WU, item.single).state == "held"
    assert sent(scene) == []


def test_no_approval_outlives_the_order(scene: Scene) -> None:
    """Officers who sign for longer than the order runs let nothing out after its end."""
    item = held_item(scene)
    long = item.standing.model_copy(update={"expires_at": NOW + 9 * DAY})
    approve(scene, LIN, long)
    scene.clock.advance(2 * DAY)
    approve(scene, WU, long)
    assert sent(scene) == []


def test_one_rejection_is_enough_and_final(scene: Scene) -> None:
    item = held_item(scene)
    approve(scene, LIN, item.single)
    body = Rejection(version=1, zone=CN, crossing=item.manifest.crossing, sealed=item.manifest.payload.digest)
    status = scene.keeper(CN).review.reject(signed(scene, WU, REJECTION_TYPE, body))
    assert (status.state, status.code) == ("refused", Code.NOT_RELEASED)
    with unharmed(scene, CN), refusal(Code.APPROVAL_INVALID):
        approve(scene, WU, item.single)
    with refusal(Code.CONFLICTING_PAYLOAD):
        scene.release(ORDER, UPDATE, 0, model(0.25))
    assert scene.release(ORDER, UPDATE, 0, model()).state == "refused"
    assert sent(scene) == []


@pytest.mark.parametrize(
    ("person", "changes", "code"),
    [
        (OFFICERS[US][0], {}, Code.APPROVAL_INVALID),
        (WU, {"sealed": Digest.of(b"other")}, Code.STATE_CONFLICT),
        (WU, {"zone": US}, Code.STATE_CONFLICT),
        (WU, {"crossing": Digest.of(b"other")}, Code.NOT_FOUND),
    ],
)
def test_a_rejection_of_something_else_rejects_nothing(
    scene: Scene, person: PersonId, changes: dict[str, Any], code: Code
) -> None:
    item = held_item(scene)
    manifest = item.manifest
    values = {"version": 1, "zone": CN, "crossing": manifest.crossing, "sealed": manifest.payload.digest, **changes}
    with unharmed(scene, CN), refusal(code):
        scene.keeper(CN).review.reject(signed(scene, person, REJECTION_TYPE, Rejection(**values)))


def test_a_statement_is_not_taken_for_another_kind_of_statement(scene: Scene) -> None:
    item = held_item(scene)
    rejection = Rejection(version=1, zone=CN, crossing=item.manifest.crossing, sealed=item.manifest.payload.digest)
    wrong: tuple[tuple[str, Wire], ...] = (
        (REJECTION_TYPE, rejection),
        (APPROVAL_TYPE, rejection),
        (APPROVAL_TYPE, item.standing),
        (STANDING_APPROVAL_TYPE, item.single),
        ("application/json", item.single),
    )
    for payload_type, body in wrong:
        with (
            unharmed(scene, CN),
            refusal(Code.APPROVAL_INVALID if payload_type in {REJECTION_TYPE, "application/json"} else Code.MALFORMED),
        ):
            scene.keeper(CN).review.approve(signed(scene, LIN, payload_type, body))


# ---- two officers of one organisation


@pytest.fixture(scope="module")
def one_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation whose Chinese officers belong to one organisation."""
    home = tmp_path_factory.mktemp("one-house") / "home"
    plan = federation.demo_plan()
    persons = tuple(
        replace(p, organisation=OrganisationId("maker-china")) if p.id in OFFICERS[CN] else p for p in plan.persons
    )
    set_up(home, replace(plan, persons=persons, algorithms=(ALGORITHM,)))
    return home


@pytest.fixture
def same_house(one_house: Path) -> Iterator[Scene]:
    scene = Scene(one_house)
    yield scene
    scene.close()


def test_two_officers_of_one_organisation_are_one_pair_of_eyes(same_house: Scene) -> None:
    item = held_item(same_house)
    for person in (LIN, WU):
        assert approve(same_house, person, item.single).state == "held"
        assert approve(same_house, person, item.standing).state == "held"
    assert sent(same_house) == []


def test_statements_are_what_these_attacks_think_they_are(scene: Scene) -> None:
    """If a statement gains a field, an attack on it belongs here."""
    assert set(Bounds.model_fields) == {"clip_norm_micro", "information_bits_per_release", "releases"}
    item = held_item(scene)
    assert set(changed_single(item)) == {*SINGLE, "an approval that has expired"}
    assert set(Approval.model_fields) == {
        "version", "zone", "crossing", "sealed", "recipients", "purpose", "policy", "expires_at",
    }  # fmt: skip
    assert set(StandingApproval.model_fields) == {
        "version", "zone", "job", "order", "kind", "algorithm", "dataset", "groups", "recipients", "purpose", "policy",
        "bounds", "expires_at",
    }  # fmt: skip
