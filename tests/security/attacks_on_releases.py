"""An attack on every rule about releases, approvals and lineage, by someone who holds every key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.contracts.approvals import STANDING_APPROVAL_TYPE, StandingApproval
from isthmus.contracts.crossings import Check, Contributors, Kind
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name, OrganisationId, SiteId
from isthmus.contracts.ledger import (
    Approved,
    Decided,
    Log,
    OrderAccepted,
    Rejected,
    SnapshotFrozen,
)
from isthmus.contracts.raw_table import Group
from isthmus.contracts.roster import Genesis, PersonRole
from isthmus.proof import canonical, signing
from security.attacks_on_ledgers import MALLORY
from world.pair import CN, ENGINEER, HQ, US, officers

if TYPE_CHECKING:
    from isthmus.proof.signing import SigningKey
    from world.forge import Forge

F = FindingCode


def rejected_and_released(forge: Forge) -> None:
    id_ = forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing
    at = forge.about(CN, id_, Decided, outcome="release")
    rejected = Rejected(person=officers(CN)[0], crossing=id_, envelope="", at=1_800_000_007)
    forge.entries[CN][Log.INTERNAL].insert(at, rejected)


def _approvals(forge: Forge) -> list[int]:
    """Return where the two approvals of the model updates stand."""
    return [forge.internal(CN, Approved, place) for place in (0, 1)]


def _standing(forge: Forge) -> StandingApproval:
    entry = forge.entries[CN][Log.INTERNAL][_approvals(forge)[0]]
    assert isinstance(entry, Approved)
    return canonical.load(StandingApproval, signing.parse_envelope(entry.envelope.encode()).payload)


def _resign(forge: Forge, index: int, key: SigningKey, body: StandingApproval, **update: object) -> None:
    envelope = key.sign(STANDING_APPROVAL_TYPE, canonical.dump(body)).decode()
    forge.edit(CN, index, envelope=envelope, statement=canonical.digest(body), **update)


def approved_by_nobody_on_the_roster(forge: Forge) -> None:
    _resign(forge, _approvals(forge)[1], MALLORY, _standing(forge))


def approval_in_anothers_name(forge: Forge) -> None:
    forge.edit(CN, _approvals(forge)[1], person=officers(CN)[0])


def approval_altered(forge: Forge) -> None:
    index = _approvals(forge)[1]
    entry = forge.entries[CN][Log.INTERNAL][index]
    assert isinstance(entry, Approved)
    parsed = signing.parse_envelope(entry.envelope.encode())
    wider = canonical.dump(_standing(forge).model_copy(update={"purpose": Name("anything")}))
    altered = signing.Envelope(parsed.payload_type, wider, parsed.keyid, parsed.ed25519, parsed.mldsa65)
    forge.edit(CN, index, envelope=altered.to_bytes().decode())


def statement_of_another_approval(forge: Forge) -> None:
    forge.edit(CN, _approvals(forge)[1], statement=Digest.of(b"another statement"))


def _with_engineers_key(genesis: Genesis) -> Genesis:
    persons = tuple(
        p.model_copy(update={"key": MALLORY.verify_key}) if p.id == ENGINEER else p for p in genesis.roster.persons
    )
    return genesis.model_copy(update={"roster": genesis.roster.model_copy(update={"persons": persons})})


def approved_by_the_engineer(forge: Forge) -> None:
    forge.replace_genesis(_with_engineers_key)
    _resign(forge, _approvals(forge)[1], MALLORY, _standing(forge), person=ENGINEER)


def engineer_abroad_is_officer_here(forge: Forge) -> None:
    """One genesis says officer, another says engineer: whoever submits jobs anywhere approves nowhere."""

    def as_engineer(genesis: Genesis) -> Genesis:
        persons = tuple(
            p.model_copy(update={"roles": (PersonRole.ENGINEER,)}) if p.id == officers(CN)[0] else p
            for p in genesis.roster.persons
        )
        return genesis.model_copy(update={"roster": genesis.roster.model_copy(update={"persons": persons})})

    forge.replace_genesis(as_engineer, HQ)


def approvals_lost(forge: Forge) -> None:
    for index in reversed(_approvals(forge)):
        forge.drop(CN, index)


def approved_after_the_release(forge: Forge) -> None:
    log = forge.entries[CN][Log.INTERNAL]
    moved = [log.pop(index) for index in reversed(_approvals(forge))]
    log.extend(entry.model_copy(update={"at": log[-1].at}) for entry in moved)


def _approve_otherwise(forge: Forge, **update: object) -> None:
    """Have both real officers sign another statement, and every update of the zone name it."""
    other = _standing(forge).model_copy(update=update)
    for index, key in zip(_approvals(forge), forge.officers[CN], strict=True):
        _resign(forge, index, key, other)
    for place in (0, 1):
        forge.change(forge.sent(CN, Kind.MODEL_UPDATE, place), approvals=(canonical.digest(other),))


def approval_of_another_order(forge: Forge) -> None:
    _approve_otherwise(forge, order=forge.sent(US, Kind.MODEL_UPDATE).order)


def approval_for_other_recipients(forge: Forge) -> None:
    _approve_otherwise(forge, recipients=(CN, HQ))


def approval_of_fewer_releases(forge: Forge) -> None:
    _approve_otherwise(forge, bounds=_standing(forge).bounds.model_copy(update={"releases": 1}))


def approval_of_fewer_bits(forge: Forge) -> None:
    _approve_otherwise(forge, bounds=_standing(forge).bounds.model_copy(update={"information_bits_per_release": 8}))


def approval_of_a_smaller_norm(forge: Forge) -> None:
    _approve_otherwise(forge, bounds=_standing(forge).bounds.model_copy(update={"clip_norm_micro": 1}))


def approval_expired(forge: Forge) -> None:
    _approve_otherwise(forge, expires_at=1_800_000_006)


def approval_of_another_snapshot(forge: Forge) -> None:
    dataset = _standing(forge).dataset.model_copy(update={"snapshot": Name("another")})
    _approve_otherwise(forge, dataset=dataset)


def approval_of_other_columns(forge: Forge) -> None:
    _approve_otherwise(forge, groups=(Group.PLACE,))


def approval_of_an_unknown_algorithm(forge: Forge) -> None:
    algorithm = _standing(forge).algorithm.model_copy(update={"digest": Digest.of(b"other source")})
    _approve_otherwise(forge, algorithm=algorithm)


def approved_by_one(forge: Forge) -> None:
    forge.drop(CN, _approvals(forge)[1])


def one_officer_twice(forge: Forge) -> None:
    one, two = _approvals(forge)
    log = forge.entries[CN][Log.INTERNAL]
    log[two] = log[one]


def one_organisation_twice(forge: Forge) -> None:
    def merged(genesis: Genesis) -> Genesis:
        same = OrganisationId("maker-china")
        persons = tuple(
            p.model_copy(update={"organisation": same}) if p.id in officers(CN) else p for p in genesis.roster.persons
        )
        return genesis.model_copy(update={"roster": genesis.roster.model_copy(update={"persons": persons})})

    forge.replace_genesis(merged, CN)


def released_without_naming_approvals(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), approvals=())


def release_for_fewer_recipients_than_ordered(forge: Forge) -> None:
    _approve_otherwise(forge, recipients=(CN, HQ))
    for place in (0, 1):
        forge.change(forge.sent(CN, Kind.MODEL_UPDATE, place), recipients=(CN, HQ))


def clipped_to_another_norm(forge: Forge) -> None:
    manifest = forge.sent(CN, Kind.MODEL_UPDATE, 1)
    wider = tuple(e.model_copy(update={"parameter": e.parameter - 1}) for e in manifest.privacy)
    forge.change(manifest, privacy=wider)


def banded_by_nobody(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.AGGREGATE, 1), privacy=())


def snapshot_never_frozen(forge: Forge) -> None:
    forge.drop(CN, forge.internal(CN, SnapshotFrozen))


def no_snapshot_named(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.AGGREGATE, 1), commitments=())


def not_clipped(forge: Forge) -> None:
    manifest = forge.sent(CN, Kind.MODEL_UPDATE, 1)
    forge.change(manifest, checks=tuple(c for c in manifest.checks if c is not Check.CLIPPED))


def exact_contributors(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), contributors=Contributors(vehicles=17, windows=2000))


def release_of_nobodys_data(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), lineage=())


def model_without_its_lineage(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.MODEL, -1), lineage=(CN,))


def model_of_an_unknown_input(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.MODEL, -1), inputs=(CrossingId.of(b"never accepted"),))


def model_laundered_through_another_job(forge: Forge) -> None:
    """The same model again, said to be of a new job and of nobody's data."""
    tainted = forge.sent(HQ, Kind.MODEL, 3)
    forge.change(
        forge.sent(HQ, Kind.MODEL, -1),
        plaintext=tainted.plaintext,
        job=JobId("job-00000000000000ff"),
        lineage=(),
        inputs=(),
    )


def model_to_an_unnamed_recipient(forge: Forge) -> None:
    """The Chinese zone's releases name the coordinator alone; the model made of them goes to the US all the same."""
    for kind in (Kind.MODEL_UPDATE, Kind.AGGREGATE):
        for place in (0, 1):
            forge.change(forge.sent(CN, kind, place), recipients=(HQ,))


def model_that_may_go_further(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.MODEL, -1), recipients=tuple(sorted((CN, HQ, US, SiteId("eu-berlin")))))


def update_to_another_than_its_orderer(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, OrderAccepted), peer=US)


def recipient_not_in_its_own_list(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.MODEL, 1), recipients=(HQ,))


RULES: list[tuple[FindingCode, Any]] = [
    (F.RELEASED_AFTER_REJECTION, rejected_and_released),
    (F.RECIPIENT_NOT_NAMED, release_for_fewer_recipients_than_ordered),
    (F.CHECKS_MISSING, clipped_to_another_norm),
    (F.CHECKS_MISSING, banded_by_nobody),
    (F.APPROVAL_INVALID, approved_by_nobody_on_the_roster),
    (F.APPROVAL_INVALID, approval_in_anothers_name),
    (F.APPROVAL_INVALID, approval_altered),
    (F.APPROVAL_INVALID, statement_of_another_approval),
    (F.APPROVAL_BY_ENGINEER, approved_by_the_engineer),
    (F.APPROVAL_BY_ENGINEER, engineer_abroad_is_officer_here),
    (F.APPROVAL_MISSING, approvals_lost),
    (F.APPROVAL_MISSING, approved_after_the_release),
    (F.APPROVAL_NOT_COVERING, approval_of_another_order),
    (F.APPROVAL_NOT_COVERING, approval_for_other_recipients),
    (F.APPROVAL_NOT_COVERING, approval_of_fewer_releases),
    (F.APPROVAL_NOT_COVERING, approval_of_fewer_bits),
    (F.APPROVAL_NOT_COVERING, approval_of_a_smaller_norm),
    (F.APPROVAL_NOT_COVERING, approval_expired),
    (F.APPROVAL_NOT_COVERING, approval_of_another_snapshot),
    (F.APPROVAL_NOT_COVERING, approval_of_other_columns),
    (F.APPROVAL_NOT_COVERING, approval_of_an_unknown_algorithm),
    (F.TOO_FEW_ORGANISATIONS, approved_by_one),
    (F.TOO_FEW_ORGANISATIONS, one_officer_twice),
    (F.TOO_FEW_ORGANISATIONS, one_organisation_twice),
    (F.TOO_FEW_ORGANISATIONS, released_without_naming_approvals),
    (F.DATASET_NOT_FROZEN, snapshot_never_frozen),
    (F.DATASET_NOT_FROZEN, no_snapshot_named),
    (F.CHECKS_MISSING, not_clipped),
    (F.CHECKS_MISSING, exact_contributors),
    (F.LINEAGE_INCOMPLETE, release_of_nobodys_data),
    (F.LINEAGE_INCOMPLETE, model_without_its_lineage),
    (F.LINEAGE_INCOMPLETE, model_of_an_unknown_input),
    (F.LINEAGE_INCOMPLETE, model_laundered_through_another_job),
    (F.RECIPIENT_NOT_NAMED, model_to_an_unnamed_recipient),
    (F.RECIPIENT_NOT_NAMED, model_that_may_go_further),
    (F.RECIPIENT_NOT_NAMED, update_to_another_than_its_orderer),
    (F.RECIPIENT_NOT_NAMED, recipient_not_in_its_own_list),
]
