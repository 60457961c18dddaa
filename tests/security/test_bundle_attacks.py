"""Attacks on an evidence bundle: each is refused, with its finding.

`attacks_on_...` hold an attack for every finding that fails a bundle, made by someone who holds every site's keys and
signs all of it anew, so that each rule is seen to hold on its own. The tests after them are attacks with fewer keys,
and whatever bytes chance brings.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.contracts.crossings import CROSSING_TYPE, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.evidence import REPORTED, FindingCode, Report, Severity
from isthmus.contracts.identifiers import Digest, JobId, SiteId
from isthmus.contracts.inside import LogView
from isthmus.contracts.ledger import (
    KeysReleased,
    Log,
    OrderAccepted,
    PeerRefused,
)
from isthmus.proof import canonical
from isthmus.proof.bundle import verify
from world.forge import Forge, manifest_of, note, root
from world.pair import CN, HQ, US, Pair
from world.questions import VEHICLES, spec
from world.questions import plan as question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isthmus.contracts.roster import Roots


from security import attacks_on_heads, attacks_on_ledgers, attacks_on_orders, attacks_on_questions, attacks_on_releases
from security.attacks_on_heads import with_view
from security.attacks_on_ledgers import OUTSIDER

F = FindingCode
RULES = [
    *attacks_on_heads.RULES,
    *attacks_on_ledgers.RULES,
    *attacks_on_orders.RULES,
    *attacks_on_questions.RULES,
    *attacks_on_releases.RULES,
]


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    pair = Pair(tmp_path_factory.mktemp("genuine") / "sites", (CN, US))
    pair.prepare()
    pair.work(rounds=2)
    for number, answered in ((1, True), (2, True), (3, False)):
        query = None if answered else question(spec(VEHICLES))
        pair.ask(CN, JobId(f"job-{number:016x}"), query, answered=answered)
    pair.ask(CN, JobId(f"job-{4:016x}"), question(epsilon_micro=500_000))
    yield Forge(pair)
    pair.close()


def refused(bundle: dict[str, bytes], roots: Roots) -> set[FindingCode]:
    """Return the failed findings of a bundle that is not accepted."""
    report = verify(bundle, roots)
    assert not report.accepted
    return {f.code for f in report.findings} - REPORTED


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
    assert F.LOG_FORKED in refused(with_view(forge, CN, Log.INTERNAL, cosigned=notes), pair.roots)


def test_a_zone_that_shows_an_old_note_cannot_rewrite_what_came_after_it(tmp_path: Path) -> None:
    """With its own key alone it hides a key release; the note it shows of itself is genuine, and older than that."""
    pair = Pair(tmp_path / "sites")
    pair.prepare()
    pair.open(CN)
    old = {view.log: view.cosigned for view in pair.keeper(CN).evidence().logs}
    pair.work(rounds=1)
    forge, mine = Forge(pair), pair.keeper(CN).evidence()
    index = forge.internal(CN, KeysReleased)
    hidden = forge.entries[CN][Log.INTERNAL][index]
    harmless = PeerRefused(peer=HQ, code=Code.MALFORMED, evidence=Digest.of(b""), at=hidden.at)
    leaves = [text.encode() for text in mine.entries[Log.INTERNAL]]
    leaves[index] = canonical.dump(harmless)
    view = LogView(
        log=Log.INTERNAL,
        size=len(leaves),
        root=root(leaves),
        checkpoint=note(CN, Log.INTERNAL, leaves, forge.keys[CN]),
        cosigned=old[Log.INTERNAL],
    )
    rewritten = mine.model_copy(
        update={
            "logs": tuple(view if v.log is Log.INTERNAL else v for v in mine.logs),
            "entries": mine.entries | {Log.INTERNAL: tuple(leaf.decode() for leaf in leaves)},
        }
    )
    bundle, roots = pair.evidence() | {f"{CN}.json": canonical.dump(rewritten)}, pair.roots
    pair.close()
    assert old[Log.INTERNAL]
    assert refused(bundle, roots) == {F.LOG_FORKED}
    silent = edited(bundle, HQ, lambda one: one.update(witnessed=[]))
    assert refused(silent, roots) == {F.WITNESS_MISSING}  # who would cover for the zone has to answer for it


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


def _but_for_cosigned(evidence: Any) -> Any:
    """Leave out the notes that a site shows of itself, which it may do without: its peers' evidence holds them too."""
    return evidence | {"logs": [view | {"cosigned": []} for view in evidence["logs"]]}


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
    assert report.findings or _but_for_cosigned(after) == _but_for_cosigned(before)


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
        one["witnessed"] = ["canary-in-a-witnessed-note"]
        one["orders"] = dict.fromkeys(one["orders"], "canary-in-an-order")

    bundle = edited(pair.evidence(), CN, change) | {"canary-in-a-name.json": b"canary-in-a-file"}
    assert b"canary" not in canonical.dump(_answers(bundle, pair.roots))
