"""Attacks on an evidence bundle: each is refused, with its finding.

`RULES` has an attack for every finding that fails a bundle, made by someone who holds every site's keys and signs all
of it anew, so that each rule is seen to hold on its own. The tests after it are attacks with fewer keys.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.contracts.approvals import STANDING_APPROVAL_TYPE, StandingApproval
from isthmus.contracts.crossings import CROSSING_TYPE, Check, Contributors, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.evidence import REPORTED, FindingCode, Report, Severity
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name, OrganisationId, PersonId, SiteId
from isthmus.contracts.ledger import (
    Approved,
    Decided,
    Drafted,
    GenesisEntry,
    KeysReleased,
    Log,
    OrderAccepted,
    OrderClosed,
    Rejected,
    SnapshotFrozen,
)
from isthmus.contracts.roster import Genesis, Person, PersonRole, Roots
from isthmus.proof import canonical, checkpoint, signing
from isthmus.proof.bundle import verify
from isthmus.proof.ids import crossing_id
from isthmus.proof.signing import SigningKey
from world.forge import Forge, manifest_of, note, root
from world.pair import CN, ENGINEER, HQ, US, Pair, officers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isthmus.contracts.crossings import Manifest

F = FindingCode
OUTSIDER = SigningKey.from_seeds(b"\x0a" * 32, b"\x0b" * 32)
MALLORY = SigningKey.from_seeds(b"\x0c" * 32, b"\x0d" * 32)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    pair = Pair(tmp_path_factory.mktemp("genuine") / "sites", (CN, US))
    pair.prepare()
    pair.work(rounds=2)
    yield Forge(pair)
    pair.close()


def refused(bundle: dict[str, bytes], roots: Roots) -> set[FindingCode]:
    """Return the failed findings of a bundle that is not accepted."""
    report = verify(bundle, roots)
    assert not report.accepted
    return {f.code for f in report.findings} - REPORTED


# ---- one attack on every rule, by someone who holds every key


def roots_repeat(forge: Forge) -> None:
    again = forge.roots.sites[0].model_copy(update={"signing": OUTSIDER.verify_key})
    forge.roots = forge.roots.model_copy(update={"sites": (again, *forge.roots.sites)})


def without_a_site(forge: Forge) -> dict[str, bytes]:
    return {name: data for name, data in forge.build().items() if name != f"{US}.json"}


def with_another_site(forge: Forge) -> dict[str, bytes]:
    return forge.build() | {"eu-berlin.json": forge.build()[f"{US}.json"]}


def cut_short(forge: Forge) -> dict[str, bytes]:
    bundle = forge.build()
    return bundle | {f"{CN}.json": bundle[f"{CN}.json"][:-100]}


def one_log_for_both(forge: Forge) -> dict[str, bytes]:
    one = forge.evidence()[CN]
    swapped = one.model_copy(update={"logs": (one.logs[0], one.logs[0])})
    return forge.build() | {f"{CN}.json": canonical.dump(swapped)}


def _own_officers(genesis: Genesis) -> Genesis:
    mine = Person(
        id=PersonId("mallory"),
        organisation=OrganisationId("nobody"),
        roles=(PersonRole.OFFICER,),
        key=MALLORY.verify_key,
    )
    return genesis.model_copy(update={"roster": genesis.roster.model_copy(update={"persons": (mine,)})})


def own_officers(forge: Forge) -> None:
    forge.replace_genesis(_own_officers, CN, trusted=False)


def genesis_repeated(forge: Forge) -> None:
    forge.entries[CN][Log.INTERNAL].append(GenesisEntry(genesis=_own_officers(forge.genesis(CN))))


def _other_hq(genesis: Genesis, **update: object) -> Genesis:
    sites = tuple(s.model_copy(update=update) if s.id == HQ else s for s in genesis.roster.sites)
    return genesis.model_copy(update={"roster": genesis.roster.model_copy(update={"sites": sites})})


def another_key_of_hq(forge: Forge) -> None:
    forge.replace_genesis(lambda g: _other_hq(g, signing=OUTSIDER.verify_key))


def another_certificate_of_hq(forge: Forge) -> None:
    forge.replace_genesis(lambda g: _other_hq(g, certificate=Digest.of(b"mallory's")), CN)


def roots_without_a_site(forge: Forge) -> dict[str, bytes]:
    forge.roots = forge.roots.model_copy(update={"sites": tuple(s for s in forge.roots.sites if s.id != US)})
    return without_a_site(forge)


def entry_with_a_space(forge: Forge) -> None:
    text = canonical.dump(forge.entries[CN][Log.INTERNAL][1]).decode()
    forge.raw[CN, Log.INTERNAL, 1] = text.replace(",", ", ", 1)


def entry_of_an_unknown_event(forge: Forge) -> None:
    forge.raw[CN, Log.INTERNAL, 1] = '{"at":1800000000,"event":"budget_topped_up"}'


def crossing_entry_with_a_code_and_no_refusal(forge: Forge) -> None:
    text = canonical.dump(forge.entries[CN][Log.CROSSINGS][0]).decode()
    forge.raw[CN, Log.CROSSINGS, 0] = text.replace('"code":null', '"code":"expired"')


def back_in_time(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, OrderClosed), at=1_800_000_000)


def _view(forge: Forge, site: SiteId, log: Log, **update: object) -> dict[str, bytes]:
    one = forge.evidence()[site]
    views = tuple(v.model_copy(update=update) if v.log is log else v for v in one.logs)
    return forge.build() | {f"{site}.json": canonical.dump(one.model_copy(update={"logs": views}))}


def checkpoint_of_an_outsider(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.CROSSINGS, forge.leaves(CN, Log.CROSSINGS), OUTSIDER)
    return _view(forge, CN, Log.CROSSINGS, checkpoint=signed)


def checkpoint_of_another_log(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.INTERNAL, forge.leaves(CN, Log.CROSSINGS), forge.keys[CN])
    return _view(forge, CN, Log.CROSSINGS, checkpoint=signed)


def stated_root_of_another_log(forge: Forge) -> dict[str, bytes]:
    return _view(forge, CN, Log.INTERNAL, root=root(forge.leaves(CN, Log.CROSSINGS)))


def cosigned_by_an_outsider(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    forged = checkpoint.cosign(signed, f"isthmus/{HQ}/internal", OUTSIDER, 1_800_000_100)
    return _view(forge, CN, Log.INTERNAL, cosigned=(forged,))


def cosigned_by_itself(forge: Forge) -> dict[str, bytes]:
    signed = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    return _view(forge, CN, Log.INTERNAL, cosigned=(forge.cosign(signed, CN, Log.INTERNAL),))


def forked(forge: Forge) -> dict[str, bytes]:
    leaves = forge.leaves(CN, Log.INTERNAL)
    other = note(CN, Log.INTERNAL, [*leaves[:-1], leaves[1]], forge.keys[CN])
    return _view(forge, CN, Log.INTERNAL, cosigned=(forge.cosign(other, HQ, Log.INTERNAL),))


def rolled_back(forge: Forge) -> dict[str, bytes]:
    newest = note(CN, Log.INTERNAL, forge.leaves(CN, Log.INTERNAL), forge.keys[CN])
    forge.drop(CN, -1)
    return _view(forge, CN, Log.INTERNAL, cosigned=(forge.cosign(newest, HQ, Log.INTERNAL),))


def never_cosigned(forge: Forge) -> None:
    forge.uncosigned.add((CN, Log.INTERNAL))


def unknown_sender(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), MALLORY, sender=SiteId("eu-berlin"))


def signed_by_an_outsider(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), MALLORY)


def logged_in_a_third_ledger(forge: Forge) -> None:
    entry = forge.entries[HQ][Log.CROSSINGS][forge.index(HQ, forge.sent(HQ, Kind.MODEL).crossing)]
    assert manifest_of(entry).recipient == CN
    forge.entries[US][Log.CROSSINGS].append(entry.model_copy(update={"verdict": "accepted", "at": 1_800_000_100}))


def id_of_another_slot(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), slot=7)


def the_same_twice(forge: Forge) -> None:
    log = forge.entries[HQ][Log.CROSSINGS]
    log.append(next(e for e in reversed(log) if e.verdict == "accepted"))


def sequence_skipped(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), sequence=99)


def sequence_swapped(forge: Forge) -> None:
    one, two = forge.sent(CN, Kind.MODEL_UPDATE, 0), forge.sent(CN, Kind.MODEL_UPDATE, 1)
    forge.change(one, sequence=two.sequence)
    forge.change(two, sequence=one.sequence)


def _as_kind(forge: Forge, manifest: Manifest, kind: Kind, **update: object) -> None:
    id_ = crossing_id(manifest.order, kind, manifest.recipient, manifest.slot)
    forge.change(manifest, kind=kind, crossing=id_, **update)


def a_zone_sends_a_model(forge: Forge) -> None:
    _as_kind(forge, forge.sent(CN, Kind.MODEL_UPDATE, 1), Kind.MODEL, plaintext=Digest.of(b"a model"))


def rows_leave(forge: Forge) -> None:
    _as_kind(forge, forge.sent(CN, Kind.MODEL_UPDATE, 1), Kind.EXTRACT)


def more_bytes_than_stated(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), information_bits=8)


def another_policy(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.MODEL, 1), policy=Digest.of(b"permit everything"))


def sender_forgets(forge: Forge) -> None:
    forge.drop(CN, forge.index(CN, forge.sent(CN, Kind.AGGREGATE, 1).crossing), Log.CROSSINGS)


def receiver_forgets(forge: Forge) -> None:
    forge.drop(CN, forge.index(CN, forge.sent(HQ, Kind.MODEL, 0).crossing), Log.CROSSINGS)


def two_envelopes(forge: Forge) -> None:
    manifest = forge.sent(CN, Kind.MODEL_UPDATE, 1)
    other = forge.sign(manifest, forge.keys[CN])  # the second signature is randomised
    forge.edit(HQ, forge.index(HQ, manifest.crossing), Log.CROSSINGS, envelope=other)


def receipt_says_refused(forge: Forge) -> None:
    forge.receipt_changes[forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing] = {"verdict": "refused", "code": Code.EXPIRED}


def receipt_of_another_site(forge: Forge) -> None:
    forge.receipt_changes[forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing] = {"by": US}


def receipt_without_a_proof(forge: Forge) -> None:
    forge.receipt_changes[forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing] = {"inclusion": ()}


def _receipts(forge: Forge, change: Callable[[dict[CrossingId, str]], None]) -> dict[str, bytes]:
    one = forge.evidence()[CN]
    change(one.receipts)
    return forge.build() | {f"{CN}.json": canonical.dump(one)}


def receipts_swapped(forge: Forge) -> dict[str, bytes]:
    ids = [forge.sent(CN, Kind.MODEL_UPDATE, place).crossing for place in (0, 1)]
    return _receipts(forge, lambda receipts: receipts.update({ids[0]: receipts[ids[1]]}))


def receipt_of_an_outsider(forge: Forge) -> dict[str, bytes]:
    id_ = forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing

    def change(receipts: dict[CrossingId, str]) -> None:
        parsed = signing.parse_envelope(receipts[id_].encode())
        receipts[id_] = OUTSIDER.sign(parsed.payload_type, parsed.payload).decode()

    return _receipts(forge, change)


def receipt_in_the_middle_lost(forge: Forge) -> None:
    forge.unreceipted.add(forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing)


def receipts_all_lost(forge: Forge) -> dict[str, bytes]:
    return _receipts(forge, lambda receipts: receipts.clear())


def receipt_for_nothing(forge: Forge) -> dict[str, bytes]:
    some = forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing
    return _receipts(forge, lambda receipts: receipts.update({CrossingId.of(b"nothing"): receipts[some]}))


def draft_lost(forge: Forge) -> None:
    forge.drop(CN, forge.about(CN, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Drafted))


def sealed_after_the_draft(forge: Forge) -> None:
    manifest = forge.sent(CN, Kind.MODEL_UPDATE, 1)
    forge.change(manifest, payload=manifest.payload.model_copy(update={"digest": Digest.of(b"other bytes")}))


def decision_lost(forge: Forge) -> None:
    forge.drop(CN, forge.about(CN, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Decided))


def accepted_and_decided_to_refuse(forge: Forge) -> None:
    index = forge.about(HQ, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Decided)
    forge.edit(HQ, index, outcome="refuse", code=Code.EXPIRED)


def crossing_lost_in_both_ledgers(forge: Forge) -> None:
    id_ = forge.sent(CN, Kind.AGGREGATE, 1).crossing
    for site in (CN, HQ):
        forge.drop(site, forge.index(site, id_), Log.CROSSINGS)


def rejected_and_released(forge: Forge) -> None:
    id_ = forge.sent(CN, Kind.MODEL_UPDATE, 0).crossing
    at = forge.about(CN, id_, Decided, outcome="release")
    rejected = Rejected(person=officers(CN)[0], crossing=id_, envelope="", at=1_800_000_007)
    forge.entries[CN][Log.INTERNAL].insert(at, rejected)


def order_of_another_body(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.ORDER), plaintext=Digest.of(b"another order"))


def order_not_entered(forge: Forge) -> None:
    forge.drop(CN, forge.internal(CN, OrderAccepted))


def order_from_nowhere(forge: Forge) -> None:
    entry = forge.entries[CN][Log.INTERNAL][forge.internal(CN, OrderAccepted)]
    forge.entries[CN][Log.INTERNAL].append(
        entry.model_copy(update={"order": Digest.of(b"no order"), "at": 1_800_000_100})
    )


def release_of_another_zones_order(forge: Forge) -> None:
    other = forge.sent(US, Kind.MODEL_UPDATE, 1)
    manifest = forge.sent(CN, Kind.MODEL_UPDATE, 1)
    id_ = crossing_id(other.order, manifest.kind, manifest.recipient, 5)
    forge.change(manifest, order=other.order, slot=5, crossing=id_)


def release_before_the_order_was_accepted(forge: Forge) -> None:
    log = forge.entries[CN][Log.INTERNAL]
    accepted = log.pop(forge.internal(CN, OrderAccepted))
    at = forge.about(CN, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Drafted)
    log.insert(at + 1, accepted.model_copy(update={"at": log[at].at}))


def another_job(forge: Forge) -> None:
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), job=JobId("job-00000000000000ff"))


def another_purpose(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.MODEL, 1), purpose=Name("marketing"))


def closed_twice(forge: Forge) -> None:
    forge.entries[CN][Log.INTERNAL].append(forge.entries[CN][Log.INTERNAL][forge.internal(CN, OrderClosed)])


def closed_before_the_release(forge: Forge) -> None:
    log = forge.entries[CN][Log.INTERNAL]
    closed = log.pop(forge.internal(CN, OrderClosed))
    at = forge.about(CN, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Decided)
    log.insert(at, closed.model_copy(update={"at": log[at].at}))


def released_after_expiry(forge: Forge) -> None:
    manifest = forge.sent(CN, Kind.MODEL_UPDATE, 1)
    forge.change(manifest, expires_at=manifest.issued_at - 1)


def keys_for_no_order(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, KeysReleased), order=Digest.of(b"no order"))


def keys_after_closing(forge: Forge) -> None:
    log = forge.entries[CN][Log.INTERNAL]
    log.append(log[forge.internal(CN, KeysReleased)].model_copy(update={"at": log[-1].at}))


def reserved_less_than_spent(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, OrderAccepted), reserved_bits=8)


def closed_with_too_little_spent(forge: Forge) -> None:
    index = forge.internal(CN, OrderClosed)
    closed = forge.entries[CN][Log.INTERNAL][index]
    assert isinstance(closed, OrderClosed)
    forge.edit(CN, index, spent_bits=closed.spent_bits - 8, returned_bits=closed.returned_bits + 8)


def released_without_a_charge(forge: Forge) -> None:
    forge.edit(CN, forge.about(CN, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Drafted), spent_bits=0)


def beyond_the_quota(forge: Forge) -> None:
    def smaller(genesis: Genesis) -> Genesis:
        quotas = genesis.quotas.model_copy(update={"information_bits_per_order": 8})
        return genesis.model_copy(update={"quotas": quotas})

    forge.replace_genesis(smaller, CN)


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
    (F.ROOTS_REPEAT_A_SITE, roots_repeat),
    (F.SITE_MISSING, without_a_site),
    (F.SITE_UNKNOWN, with_another_site),
    (F.EVIDENCE_MALFORMED, cut_short),
    (F.EVIDENCE_MALFORMED, one_log_for_both),
    (F.GENESIS_DIFFERS, own_officers),
    (F.GENESIS_REPEATED, genesis_repeated),
    (F.ROOT_KEY_DIFFERS, another_key_of_hq),
    (F.GENESES_DISAGREE, another_certificate_of_hq),
    (F.SITE_WITHOUT_ROOT, roots_without_a_site),
    (F.ENTRY_MALFORMED, entry_with_a_space),
    (F.ENTRY_MALFORMED, entry_of_an_unknown_event),
    (F.ENTRY_MALFORMED, crossing_entry_with_a_code_and_no_refusal),
    (F.TIME_RUNS_BACKWARDS, back_in_time),
    (F.CHECKPOINT_INVALID, checkpoint_of_an_outsider),
    (F.CHECKPOINT_INVALID, checkpoint_of_another_log),
    (F.LOG_ALTERED, stated_root_of_another_log),
    (F.COSIGNATURE_INVALID, cosigned_by_an_outsider),
    (F.COSIGNATURE_INVALID, cosigned_by_itself),
    (F.LOG_FORKED, forked),
    (F.LOG_ROLLED_BACK, rolled_back),
    (F.NEVER_COSIGNED, never_cosigned),
    (F.SENDER_UNKNOWN, unknown_sender),
    (F.ENVELOPE_INVALID, signed_by_an_outsider),
    (F.MISDIRECTED, logged_in_a_third_ledger),
    (F.ID_MISMATCH, id_of_another_slot),
    (F.CROSSING_TWICE, the_same_twice),
    (F.SEQUENCE_BROKEN, sequence_skipped),
    (F.SEQUENCE_BROKEN, sequence_swapped),
    (F.KIND_NOT_ALLOWED, a_zone_sends_a_model),
    (F.EXTRACT_WITHOUT_PERMIT, rows_leave),
    (F.SIZE_MISSTATED, more_bytes_than_stated),
    (F.POLICY_DIFFERS, another_policy),
    (F.NOT_IN_SENDERS_LEDGER, sender_forgets),
    (F.NOT_IN_RECEIVERS_LEDGER, receiver_forgets),
    (F.ENVELOPES_DIFFER, two_envelopes),
    (F.RECEIPT_INVALID, receipt_without_a_proof),
    (F.RECEIPT_INVALID, receipt_of_an_outsider),
    (F.RECEIPT_DIFFERS, receipt_says_refused),
    (F.RECEIPT_DIFFERS, receipt_of_another_site),
    (F.RECEIPT_DIFFERS, receipts_swapped),
    (F.RECEIPT_MISSING, receipt_in_the_middle_lost),
    (F.RECEIPT_MISSING, receipts_all_lost),
    (F.RECEIPT_UNKNOWN, receipt_for_nothing),
    (F.DRAFT_MISSING, draft_lost),
    (F.DRAFT_MISSING, sealed_after_the_draft),
    (F.DECISION_MISSING, decision_lost),
    (F.DECISION_MISSING, accepted_and_decided_to_refuse),
    (F.CROSSING_UNLOGGED, crossing_lost_in_both_ledgers),
    (F.RELEASED_AFTER_REJECTION, rejected_and_released),
    (F.ORDER_ID_MISMATCH, order_of_another_body),
    (F.ORDER_NOT_ACCEPTED, order_not_entered),
    (F.ORDER_NOT_ACCEPTED, order_from_nowhere),
    (F.ORDER_UNKNOWN, release_of_another_zones_order),
    (F.ORDER_UNKNOWN, release_before_the_order_was_accepted),
    (F.ORDER_DIFFERS, another_job),
    (F.ORDER_DIFFERS, another_purpose),
    (F.ORDER_DIFFERS, closed_twice),
    (F.ORDER_OVER, closed_before_the_release),
    (F.ORDER_OVER, released_after_expiry),
    (F.KEYS_WITHOUT_ORDER, keys_for_no_order),
    (F.KEYS_WITHOUT_ORDER, keys_after_closing),
    (F.BUDGET_OVERSPENT, reserved_less_than_spent),
    (F.BUDGET_DISAGREES, closed_with_too_little_spent),
    (F.BUDGET_DISAGREES, released_without_a_charge),
    (F.QUOTA_EXCEEDED, beyond_the_quota),
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


@pytest.mark.parametrize(("code", "attack"), RULES, ids=[attack.__name__ for _, attack in RULES])
def test_an_attack_is_refused_with_its_finding(genuine: Forge, code: FindingCode, attack: Any) -> None:
    forge = genuine.copy()
    bundle = attack(forge) or forge.build()
    assert code in refused(bundle, forge.roots)


def test_every_rule_has_an_attack() -> None:
    assert {code for code, _ in RULES} == set(FindingCode) - REPORTED


def test_what_the_attacks_start_from_is_accepted(genuine: Forge) -> None:
    assert verify(genuine.copy().build(), genuine.roots).findings == ()


# ---- attacks with fewer keys


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("small") / "sites")
    made.prepare()
    made.work(rounds=1)
    yield made
    made.close()


def edited(bundle: dict[str, bytes], site: SiteId, change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """Return a bundle with one site's file changed as anyone could who holds no key."""
    one = json.loads(bundle[f"{site}.json"])
    change(one)
    return bundle | {f"{site}.json": canonical.encode(one)}


quick = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(data=st.data())
def test_any_flipped_bit_is_refused(pair: Pair, data: st.DataObject) -> None:
    bundle = pair.evidence()
    name = data.draw(st.sampled_from(sorted(bundle)))
    altered = bytearray(bundle[name])
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not verify(bundle | {name: bytes(altered)}, pair.roots).accepted


@quick
@given(data=st.data())
def test_a_flipped_bit_within_what_was_signed_is_refused(pair: Pair, data: st.DataObject) -> None:
    """In the payload of any envelope, in an entry or a receipt, spelled canonically again."""
    bundle = pair.evidence()
    site = data.draw(st.sampled_from([CN, HQ]))

    def change(one: dict[str, Any]) -> None:
        places = [one["entries"]["crossings"], one["receipts"]]
        place = data.draw(st.sampled_from([p for p in places if p]))
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        outer = json.loads(place[key])
        envelope = json.loads(outer["envelope"]) if "envelope" in outer else outer
        payload = bytearray(canonical.from_base64(envelope["payload"]))
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        envelope["payload"] = canonical.to_base64(bytes(payload))
        if "envelope" in outer:
            outer["envelope"] = canonical.encode(envelope).decode()
        place[key] = canonical.encode(outer).decode()

    assert not verify(edited(bundle, site, change), pair.roots).accepted


@quick
@given(data=st.data(), log=st.sampled_from(["crossings", "internal"]), site=st.sampled_from([CN, HQ]))
def test_a_dropped_entry_is_refused(pair: Pair, data: st.DataObject, log: str, site: SiteId) -> None:
    def change(one: dict[str, Any]) -> None:
        entries = one["entries"][log]
        del entries[data.draw(st.integers(0, len(entries) - 1))]

    assert FindingCode.LOG_ALTERED in refused(edited(pair.evidence(), site, change), pair.roots)


@quick
@given(data=st.data(), log=st.sampled_from(["crossings", "internal"]), site=st.sampled_from([CN, HQ]))
def test_swapped_entries_are_refused(pair: Pair, data: st.DataObject, log: str, site: SiteId) -> None:
    def change(one: dict[str, Any]) -> None:
        entries = one["entries"][log]
        places = st.lists(st.integers(0, len(entries) - 1), min_size=2, max_size=2, unique=True)
        a, b = data.draw(places)
        entries[a], entries[b] = entries[b], entries[a]

    assert FindingCode.LOG_ALTERED in refused(edited(pair.evidence(), site, change), pair.roots)


def test_a_federation_of_the_attackers_own_is_refused(pair: Pair, tmp_path: Path) -> None:
    """Every key, genesis and signature in the bundle agrees with every other, and none with the roots."""
    own = Pair(tmp_path / "own")
    own.prepare()
    own.work(rounds=1)
    assert verify(own.evidence(), own.roots).accepted
    found = refused(own.evidence(), pair.roots)
    own.close()
    assert {F.GENESIS_DIFFERS, F.CHECKPOINT_INVALID, F.COSIGNATURE_INVALID, F.ENVELOPE_INVALID} <= found


@pytest.mark.parametrize("field", ["signing", "genesis"])
def test_roots_that_differ_in_one_thing_refuse(pair: Pair, field: str) -> None:
    value: Any = OUTSIDER.verify_key if field == "signing" else Digest.of(b"another genesis")
    sites = tuple(r.model_copy(update={field: value}) if r.id == CN else r for r in pair.roots.sites)
    assert refused(pair.evidence(), pair.roots.model_copy(update={"sites": sites}))


def test_the_bundle_of_yesterday_beside_the_peers_of_today_is_refused(tmp_path: Path) -> None:
    """A zone shows an old and once valid copy of itself; the coordinator's side alone gives it away."""
    pair = Pair(tmp_path / "sites")
    pair.prepare()
    pair.work(rounds=1)
    yesterday = pair.evidence()
    assert verify(yesterday, pair.roots).accepted
    pair.work(job=JobId("job-00000000000000bb"), rounds=1)
    today = pair.evidence()
    pair.close()
    found = refused(today | {f"{CN}.json": yesterday[f"{CN}.json"]}, pair.roots)
    assert {F.NOT_IN_SENDERS_LEDGER, F.NOT_IN_RECEIVERS_LEDGER} <= found


def test_a_zone_that_cuts_its_own_log_cannot_cut_the_coordinators_receipts(pair: Pair) -> None:
    """The zone's key signs a shorter crossings log: the coordinator still holds receipts of the longer one."""
    forge = Forge(pair)
    longer = forge.evidence()[HQ]
    forge.drop(CN, -1, Log.CROSSINGS)
    bundle = forge.build() | {f"{HQ}.json": canonical.dump(longer)}
    assert F.NOT_IN_SENDERS_LEDGER in refused(bundle, pair.roots)


def test_a_rewritten_zone_contradicts_the_head_its_peer_holds(pair: Pair) -> None:
    """The zone's key signs a log without one key release; the note that the coordinator cosigned says otherwise."""
    forge = Forge(pair)
    notes = next(view.cosigned for view in pair.keeper(CN).evidence().logs if view.log is Log.INTERNAL)
    forge.drop(CN, forge.internal(CN, KeysReleased))
    forge.entries[CN][Log.INTERNAL].append(forge.entries[CN][Log.INTERNAL][-1])  # as long as before
    assert F.LOG_FORKED in refused(_view(forge, CN, Log.INTERNAL, cosigned=notes), pair.roots)


# ---- whatever a bundle holds, the verifier answers


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Z"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=5,
)


def _somewhere(value: Any, data: st.DataObject) -> Any:
    """Put something else in place of a part of `value`, chosen at random."""
    inside = isinstance(value, dict | list) and len(value) > 0
    if not inside or data.draw(st.integers(0, 4)) == 0:
        return data.draw(JSON)
    key = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    changed = dict(value) if isinstance(value, dict) else list(value)
    part = changed[key]
    if isinstance(part, str) and part.startswith("{"):
        changed[key] = _text(_somewhere(json.loads(part), data))
    else:
        changed[key] = _somewhere(part, data)
    return changed


def _text(value: Any) -> str:
    try:
        return canonical.encode(value).decode()
    except ValueError:  # a text that is not NFC
        return json.dumps(value)


def _answers(bundle: dict[str, bytes], roots: Roots) -> Report:
    report = verify(bundle, roots)
    assert report.accepted == all(f.severity is Severity.REPORTED for f in report.findings)
    assert canonical.load(Report, canonical.dump(report), limit=1 << 24) == report
    return report


@quick
@given(st.dictionaries(st.text(max_size=12), st.binary(max_size=200), max_size=4))
def test_any_bytes_are_answered(pair: Pair, bundle: dict[str, bytes]) -> None:
    assert not _answers(bundle, pair.roots).accepted


@quick
@given(data=st.data())
def test_no_change_of_any_part_goes_unnoticed(pair: Pair, data: st.DataObject) -> None:
    bundle = pair.evidence()
    site = data.draw(st.sampled_from([CN, HQ]))
    before = json.loads(bundle[f"{site}.json"])
    after = _somewhere(before, data)
    report = _answers(bundle | {f"{site}.json": _text(after).encode()}, pair.roots)
    assert after == before or report.findings


@quick
@given(data=st.data())
def test_any_change_of_an_entry_that_is_signed_anew_is_answered(pair: Pair, data: st.DataObject) -> None:
    """By someone with every key: whatever stands in entries and manifests, nothing is raised."""
    forge = Forge(pair)
    site = data.draw(st.sampled_from([CN, HQ]))
    log = data.draw(st.sampled_from(list(Log)))
    leaves = forge.leaves(site, log)
    index = data.draw(st.integers(0, len(leaves) - 1))
    entry = json.loads(leaves[index])
    if log is Log.CROSSINGS and data.draw(st.booleans()):
        payload = json.loads(manifest_of(forge.entries[site][log][index]).model_dump_json())
        signed = forge.keys[site].sign(CROSSING_TYPE, _text(_somewhere(payload, data)).encode())
        entry = entry | {"envelope": signed.decode()}
    else:
        entry = _somewhere(entry, data)
    forge.raw[site, log, index] = _text(entry)
    _answers(forge.build(), forge.roots)


def test_numbers_at_the_edge_are_answered(genuine: Forge) -> None:
    forge = genuine.copy()
    for place in (0, 1):
        manifest = forge.sent(CN, Kind.MODEL_UPDATE, place)
        payload = manifest.payload.model_copy(update={"size": 2**53})
        forge.change(manifest, information_bits=2**53, payload=payload, sequence=2**53)
    forge.edit(CN, forge.internal(CN, OrderAccepted), reserved_bits=2**53)
    report = _answers(forge.build(), forge.roots)
    assert not report.accepted
    assert report.information_bound_bits == 2**53


def test_a_flood_of_findings_is_cut_and_counted(pair: Pair) -> None:
    def change(one: dict[str, Any]) -> None:
        one["entries"]["internal"] += ["null"] * 3000

    report = _answers(edited(pair.evidence(), CN, change), pair.roots)
    assert len(report.findings) == 1000
    assert report.findings_left_out > 2000


def test_no_text_of_a_bundle_is_repeated(pair: Pair) -> None:
    """What an attacker writes does not come back out of the auditor's terminal."""

    def change(one: dict[str, Any]) -> None:
        one["entries"]["internal"][1] = "canary-in-an-entry"
        one["entries"]["crossings"][0] = '{"canary-in-a-key":1}'
        one["logs"][0]["checkpoint"] = "canary-in-a-note"
        one["logs"][0]["cosigned"] = ["canary-in-a-cosigned-note"]

    bundle = edited(pair.evidence(), CN, change) | {"canary-in-a-name.json": b"canary-in-a-file"}
    assert b"canary" not in canonical.dump(_answers(bundle, pair.roots))
