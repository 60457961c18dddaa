"""An attack on every rule about sites, entries, crossings, receipts and decisions, by someone who holds every key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.identifiers import CrossingId, Digest, OrganisationId, PersonId, SiteId
from isthmus.contracts.ledger import Decided, Drafted, GenesisEntry, Log, OrderClosed
from isthmus.contracts.roster import Genesis, Person, PersonRole
from isthmus.proof import canonical, signing
from isthmus.proof.ids import crossing_id
from isthmus.proof.signing import SigningKey
from world.forge import Forge, manifest_of
from world.pair import CN, HQ, US

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.contracts.crossings import Manifest

F = FindingCode
OUTSIDER = SigningKey.from_seeds(b"\x0a" * 32, b"\x0b" * 32)
MALLORY = SigningKey.from_seeds(b"\x0c" * 32, b"\x0d" * 32)


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
]
