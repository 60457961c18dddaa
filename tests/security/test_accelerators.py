"""Chips that one zone permits and another does not: where an order's keys may go, and what is told of it afterwards."""

from __future__ import annotations

import dataclasses
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from isthmus.border.keeper.policy import Policy, Refuse, Release
from isthmus.cli import federation
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.facts import UNKNOWN_ACCELERATOR, Action, Facts
from isthmus.contracts.identifiers import CrossingId, Name
from isthmus.contracts.inside import CloseOrder, KeyRequest
from isthmus.contracts.raw_table import Group
from isthmus.contracts.roster import Genesis
from isthmus.kit.clock import ManualClock
from isthmus.proof import canonical
from isthmus.proof.ids import crossing_id, order_id
from isthmus.proof.sealing import SealingKey
from security import asking
from security.scene import (
    ALGORITHM,
    CN,
    CPU,
    HQ,
    NOW,
    PURPOSE,
    US,
    ZONES,
    Scene,
    approve_all,
    grant_of,
    model,
    order_for,
    refusal,
    set_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.contracts.identifiers import SiteId

H20, H100 = Name("h20"), Name("h100")
ALL = (CPU[0], H100, H20)
PACKS = files("isthmus.border") / "packs"
RULES = "\n".join(p.read_text("utf-8") for p in PACKS.iterdir() if p.name.endswith(".cedar"))
SCHEMA = "\n".join(p.read_text("utf-8") for p in PACKS.iterdir() if p.name.endswith(".cedarschema"))
POLICY = Policy(RULES, SCHEMA)
FORBIDS = """
@id("zone.no-{chip}")
@cite("rules of this zone") @status("in_force") @code("accelerator_not_permitted")
forbid (principal, action == Isthmus::Action::"{action}", resource)
when {{ context.accelerators.contains("{chip}") }};
"""
ALLOWS = """
@id("zone.trained-here-on")
@cite("rules of this zone") @status("in_force") @code("policy_denied")
forbid (principal, action == Isthmus::Action::"release", resource)
unless { ["cpu"].containsAll(context.accelerators) };
"""
FACTS = Facts(
    action=Action.COMPUTE,
    kind=Kind.ORDER,
    sender=HQ,
    recipient=CN,
    purpose=PURPOSE,
    order_purpose=PURPOSE,
    recipients=frozenset({CN, HQ}),
    named=frozenset({CN, HQ}),
    order_known=True,
    outputs=frozenset({Kind.MODEL_UPDATE}),
    algorithm_registered=True,
    dataset_frozen=True,
    accelerators=frozenset(CPU),
    permitted_accelerators=frozenset(CPU),
)


def planned(*said: tuple[SiteId, Name]) -> federation.FederationPlan:
    """Return the plan of a federation whose geneses permit these classes."""
    return federation.permitting(dataclasses.replace(federation.demo_plan(), algorithms=(ALGORITHM,)), said)


def add_pack(site: Path, rules: str) -> None:
    """Add rules to a site that has not begun: the genesis of its ledger names them."""
    (site / "policy" / "zone.cedar").write_text(rules)
    genesis = canonical.load(Genesis, (site / "genesis.json").read_bytes(), limit=1 << 20)
    changed = genesis.model_copy(update={"policy": Policy.load(site / "policy").digest})
    (site / "genesis.json").write_bytes(canonical.dump(changed))


@pytest.fixture(scope="module")
def zones_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shanghai permits h20 beside the processor; Texas h100."""
    home = tmp_path_factory.mktemp("zones") / "home"
    set_up(home, planned((CN, CPU[0]), (CN, H20), (US, CPU[0]), (US, H100)))
    return home


@pytest.fixture
def zones(zones_home: Path, tmp_path: Path) -> Iterator[Scene]:
    shutil.copytree(zones_home, tmp_path / "home")
    scene = Scene(tmp_path / "home")
    yield scene
    scene.close()


def events(scene: Scene, site: SiteId, kind: str) -> list[dict[str, object]]:
    return scene.picture(site).events(kind)


# ---- rules


@given(st.permutations("abcdefghijkl"))
def test_of_rules_that_forbid_the_first_by_id_gives_the_code_wherever_it_stands(order: list[str]) -> None:
    packs = {name: FORBIDS.format(chip=f"{name}100", action="compute") for name in order}
    packs["a"] = packs["a"].replace("accelerator_not_permitted", "slot_too_short")
    facts = dataclasses.replace(FACTS, accelerators=frozenset(f"{name}100" for name in order))
    decision = Policy("".join(packs.values()), SCHEMA).decide(
        facts, crossing_id(order_id(order_for(CN)), Kind.ORDER, CN, 0)
    )
    assert isinstance(decision, Refuse)
    assert decision.code is Code.SLOT_TOO_SHORT
    assert list(decision.rules) == [f"zone.no-{name}100" for name in sorted(order)]


# ---- keys


@pytest.mark.parametrize(("chip", "there", "not_there"), [(H20, CN, US), (H100, US, CN)])
def test_chips_of_one_zone_bring_no_key_in_another(zones: Scene, chip: Name, there: SiteId, not_there: SiteId) -> None:
    assert grant_of(zones, there, order_id(order_for(there)), accelerators=(chip,)).files
    (released,) = events(zones, there, "keys_released")
    assert (released["accelerators"], released["rules"]) == ([chip], ["house.compute-order"])

    before = zones.picture(not_there)
    with refusal(Code.ACCELERATOR_NOT_PERMITTED):
        grant_of(zones, not_there, order_id(order_for(not_there)), accelerators=(chip,))
    after = zones.picture(not_there)
    assert (after.budget, after.deliveries, after.crossings) == (before.budget, before.deliveries, before.crossings)
    (noted,) = after.internal[len(before.internal) :]
    assert (noted["event"], noted["code"], noted["accelerators"], noted["rules"]) == (
        "keys_refused",
        "accelerator_not_permitted",
        [chip],
        ["house.permitted-accelerators"],
    )
    assert not after.events("keys_released")


def test_one_machine_that_is_not_permitted_keeps_the_keys_from_all(zones: Scene) -> None:
    with refusal(Code.ACCELERATOR_NOT_PERMITTED):
        grant_of(zones, CN, order_id(order_for(CN)), accelerators=ALL)
    assert not events(zones, CN, "keys_released")
    assert grant_of(zones, CN, order_id(order_for(CN)), accelerators=(CPU[0], H20)).files


def test_a_request_that_names_no_chips_is_none() -> None:
    with pytest.raises(ValidationError):
        KeyRequest(
            order=order_id(order_for(CN)),
            groups=(Group.MOTION,),
            accelerators=(),
            run_key=SealingKey.generate().public,
        )


def test_a_genesis_that_does_not_say_permits_no_chips_and_no_slot_but_the_longest() -> None:
    assert Genesis.model_fields["accelerators"].default == ()
    assert Genesis.model_fields["minimum_slot_s"].default == 3_600


def test_the_coordinators_genesis_permits_no_chips(zones: Scene) -> None:
    assert federation.demo_plan().sites[1].accelerators == CPU
    for site, chips in ((HQ, ()), (CN, (CPU[0], H20)), (US, (CPU[0], H100))):
        genesis = canonical.load(Genesis, (zones.home / site / "genesis.json").read_bytes(), limit=1 << 20)
        assert genesis.accelerators == chips


def test_packs_of_two_zones_say_different_things_of_the_same_chips(tmp_path: Path) -> None:
    """Both geneses permit both classes: what keeps the keys back is each zone's own pack."""
    packs = {CN: FORBIDS.format(chip=H100, action="compute"), US: FORBIDS.format(chip=H20, action="compute")}
    home = tmp_path / "home"
    federation.create(home, planned(*((zone, chip) for zone in ZONES for chip in ALL)), ManualClock(NOW))
    for site, rules in packs.items():
        add_pack(home / site, rules)
    scene = Scene(home)
    try:
        for zone, good, bad in ((CN, H20, H100), (US, H100, H20)):
            scene.ingest(zone)
            scene.give(order_for(zone))
            scene.carry()
            with refusal(Code.ACCELERATOR_NOT_PERMITTED):
                grant_of(scene, zone, order_id(order_for(zone)), accelerators=(bad,))
            assert events(scene, zone, "keys_refused")[0]["rules"] == [f"zone.no-{bad}"]
            assert grant_of(scene, zone, order_id(order_for(zone)), accelerators=(good,)).files
    finally:
        scene.close()


# ---- releases


def stage(home: Path, rules: str) -> Scene:
    """Return borders with an order in Shanghai, whose pack says `rules` and whose genesis permits all chips."""
    federation.create(home, planned(*((CN, chip) for chip in ALL)), ManualClock(NOW))
    add_pack(home / CN, rules)
    scene = Scene(home)
    scene.ingest(CN)
    scene.give(order_for(CN))
    scene.carry()
    return scene


@pytest.mark.parametrize(
    ("chips", "code"),
    [((H20,), None), ((H100,), Code.ACCELERATOR_NOT_PERMITTED), (ALL, Code.ACCELERATOR_NOT_PERMITTED)],
)
def test_a_pack_may_forbid_the_release_of_what_was_trained_on_a_class(
    tmp_path: Path, chips: tuple[Name, ...], code: Code | None
) -> None:
    """What was computed on comes from the ledger's key releases, all of them: a candidate has no word for it."""
    scene = stage(tmp_path / "home", FORBIDS.format(chip=H100, action="release"))
    try:
        for chip in chips:  # one run after another: a later one on better chips washes nothing off
            grant_of(scene, CN, order_id(order_for(CN)), accelerators=(chip,))
        status = scene.release(order_for(CN), Kind.MODEL_UPDATE, 0, model())
        assert (status.state, status.code) == ("refused" if code else "held", code)
        if code is None:
            approve_all(scene, CN)
            assert [entry[0] for entry in scene.picture(CN).crossings][-1] == "sent"
    finally:
        scene.close()


def test_what_no_key_went_out_for_was_computed_on_nothing_that_a_list_permits(tmp_path: Path) -> None:
    scene = stage(tmp_path / "home", ALLOWS)
    try:
        assert scene.release(order_for(CN), Kind.MODEL_UPDATE, 0, model()).code is Code.POLICY_DENIED
        grant_of(scene, CN, order_id(order_for(CN)))
        assert scene.release(order_for(CN), Kind.MODEL_UPDATE, 1, model()).state == "held"
    finally:
        scene.close()


def test_asking_again_washes_nothing_off_what_was_computed_on_a_class(tmp_path: Path) -> None:
    """A repeat is the answer that stands: it was computed where its own order was, wherever this one's keys went."""
    home = tmp_path / "home"
    made = planned(*((CN, chip) for chip in ALL))
    federation.create(home, dataclasses.replace(made, algorithms=(asking.STATISTICS,)), ManualClock(NOW))
    add_pack(home / CN, FORBIDS.format(chip=H100, action="release"))
    scene = Scene(home)
    scene.ingest(CN, (Group.DRIVES,))
    try:
        for number, chip in enumerate((H100, CPU[0]), start=1):
            order = asking.asking(number)
            asking.ask(scene, order)
            grant_of(scene, CN, order_id(order), (Group.DRIVES,), (chip,))
            asking.hand_in(scene, order)
            asking.at_the_slot(scene)
            about = crossing_id(order_id(order), Kind.AGGREGATE, HQ, 0)
            decided = [e["code"] for e in events(scene, CN, "decided") if e["crossing"] == about]
            assert (decided, asking.answer_of(scene, order)) == (["accelerator_not_permitted"], None), chip
            assert scene.keeper(CN).statistics.view().unprotected == 0
    finally:
        scene.close()


# ---- the rule


@given(asked=st.frozensets(st.sampled_from(ALL)), permitted=st.frozensets(st.sampled_from(ALL)))
def test_keys_go_out_exactly_where_every_class_is_permitted_and_one_is_named(
    asked: frozenset[Name], permitted: frozenset[Name]
) -> None:
    facts = dataclasses.replace(FACTS, accelerators=asked, permitted_accelerators=permitted)
    decision = POLICY.decide(facts, CrossingId.of(b"order"))
    if asked and asked <= permitted:
        assert isinstance(decision, Release)
    else:
        assert isinstance(decision, Refuse)
        assert decision.code is Code.ACCELERATOR_NOT_PERMITTED


@pytest.mark.parametrize(
    "changes",
    [
        {"order_known": False},
        {"kind": Kind.MODEL},
        {"accelerators": frozenset({UNKNOWN_ACCELERATOR})},
        {"outputs": frozenset({Kind.EXTRACT})},
        {"purpose": Name("another")},
    ],
)
def test_a_fact_that_is_missing_brings_no_key(changes: dict[str, object]) -> None:
    assert isinstance(POLICY.decide(FACTS, CrossingId.of(b"order")), Release)
    changed = dataclasses.replace(FACTS, **changes)  # type: ignore[arg-type] # facts by name
    assert isinstance(POLICY.decide(changed, CrossingId.of(b"order")), Refuse)


def test_the_pack_that_the_policy_page_shows_keeps_one_class_out_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "policy.md").read_text("utf-8")
    (shown,) = [block for block in page.split("```") if "zone.no-h100" in block]
    policy = Policy(RULES + shown, SCHEMA)
    for chip, outcome in ((H20, Release), (H100, Refuse)):
        facts = dataclasses.replace(FACTS, accelerators=frozenset({chip}), permitted_accelerators=frozenset(ALL))
        assert isinstance(policy.decide(facts, CrossingId.of(b"order")), outcome)


def test_what_is_not_known_is_no_class_that_a_genesis_can_name() -> None:
    with pytest.raises(ValueError, match="Name"):
        Name(UNKNOWN_ACCELERATOR)


# ---- a question's slot


@pytest.mark.parametrize("controlled", [False, True], ids=["dp", "controlled"])
def test_a_slot_shorter_than_the_genesis_asks_for_is_refused_before_anything_is_reserved(
    tmp_path: Path, *, controlled: bool
) -> None:
    home = tmp_path / "home"
    asking.set_up(home)
    scene = Scene(home)
    try:
        query = asking.controlled() if controlled else asking.plan()
        before = scene.picture(CN)
        asking.ask(scene, asking.asking(1, query.model_copy(update={"slot_s": asking.SLOT_S - 1})))
        after = scene.picture(CN)
        assert after.crossings[-1][:2] == ("refused", "slot_too_short")
        assert (after.budget, after.deliveries) == (before.budget, before.deliveries)
        assert after.internal[-1]["rules"] == ["statistics.slot-long-enough"]
        assert not after.events("privacy_reserved")
        assert not after.events("order_accepted")
        asking.ask(scene, asking.asking(2, query))
        assert scene.picture(CN).crossings[-1][0] == "accepted"
    finally:
        scene.close()


def test_a_question_whose_keys_are_refused_gets_its_budget_back(tmp_path: Path) -> None:
    """No key went out, so nothing that depends on data was said: the reservation is free again."""
    home = tmp_path / "home"
    asking.set_up(home)
    scene = Scene(home)
    try:
        order = asking.asking(1)
        asking.ask(scene, order)
        with refusal(Code.ACCELERATOR_NOT_PERMITTED):
            grant_of(scene, CN, order_id(order), (Group.DRIVES,), (H100,))
        scene.keeper(CN).close_order(CloseOrder(order=order_id(order), code=Code.ACCELERATOR_NOT_PERMITTED))
        scene.carry()
        (settled,) = events(scene, CN, "privacy_settled")
        assert settled["outcome"] == "returned"
        told = [json.loads(item) for item in scene.picture(HQ).deliveries]
        assert [(item["kind"], item["code"]) for item in told] == [("notice", "accelerator_not_permitted")]
    finally:
        scene.close()
