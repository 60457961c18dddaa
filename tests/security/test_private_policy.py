"""What policy makes of private trainings: the packs' rules case by case, and a zone's own rule that demands them."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.border.keeper.policy import Hold, Policy, Refuse, Release
from isthmus.cli import federation
from isthmus.contracts.crossings import Check, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.facts import Action, Facts
from isthmus.contracts.identifiers import CrossingId
from isthmus.contracts.raw_table import Group
from isthmus.contracts.roster import Genesis
from isthmus.kit.clock import ManualClock
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from security.private_training import begin, hand_in, private_order, take_keys
from security.scene import ALGORITHM, CN, HQ, NOW, PURPOSE, Scene, approve_all, order_for

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.border.keeper.policy import Decision
    from isthmus.contracts.orders import Order

PACKS = files("isthmus.border") / "packs"
POLICY = Policy(
    "\n".join(p.read_text("utf-8") for p in PACKS.iterdir() if p.name.endswith(".cedar")),
    "\n".join(p.read_text("utf-8") for p in PACKS.iterdir() if p.name.endswith(".cedarschema")),
)
CROSSING = CrossingId.of(b"crossing")
PRIVATE_ONLY = """
@id("zone.private-training-only")
@cite("rules of this zone") @status("in_force") @code("policy_denied")
forbid (principal, action == Isthmus::Action::"accept", resource)
when { context.kind == "order" && context.outputs.contains("model_update") }
unless { context.mode == "dp" };
"""
NOISED = frozenset({Check.SCHEMA, Check.FINITE, Check.CLIPPED, Check.NOISED})
OPEN = frozenset({Check.SCHEMA, Check.FINITE, Check.CLIPPED, Check.CONTRIBUTORS})
COMMON = Facts(
    action=Action.RELEASE,
    kind=Kind.MODEL_UPDATE,
    sender=CN,
    recipient=HQ,
    purpose=PURPOSE,
    order_purpose=PURPOSE,
    lineage=frozenset({CN}),
    recipients=frozenset({CN, HQ}),
    named=frozenset({CN, HQ}),
    order_known=True,
    minimum_vehicles=0,
    bits=800,
    bits_left=800,
)
LEAVING = replace(COMMON, mode="dp", checks=NOISED, approving_organisations=2)
ARRIVING = replace(LEAVING, action=Action.ACCEPT, approving_organisations=0)
ORDERED = replace(
    COMMON,
    action=Action.ACCEPT,
    kind=Kind.ORDER,
    mode="dp",
    groups=frozenset({Group.MOTION}),
    outputs=frozenset({Kind.AGGREGATE, Kind.MODEL_UPDATE}),
    algorithm_registered=True,
    dataset_frozen=True,
    within_privacy_budget=True,
)

Case = tuple[Facts, dict[str, Any], type, Code | None]
CASES: dict[str, Case] = {
    "a noised update that two organisations approve leaves": (LEAVING, {}, Release, None),
    "with no vehicle told": (LEAVING, {"vehicles": 0, "minimum_vehicles": 0}, Release, None),
    "one that one organisation approves waits": (LEAVING, {"approving_organisations": 1}, Hold, None),
    "one that is not noised does not leave": (LEAVING, {"checks": NOISED - {Check.NOISED}}, Refuse, Code.POLICY_DENIED),
    "one that is not clipped does not leave": (
        LEAVING,
        {"checks": NOISED - {Check.CLIPPED}},
        Refuse,
        Code.POLICY_DENIED,
    ),
    "a noised one of an open training does not leave": (
        LEAVING,
        {"mode": "", "vehicles": 20},
        Refuse,
        Code.POLICY_DENIED,
    ),
    "one beyond what its order reserved does not leave": (LEAVING, {"bits_left": 1}, Refuse, Code.BUDGET_EXHAUSTED),
    "one of no open order does not leave": (LEAVING, {"order_known": False}, Refuse, Code.POLICY_DENIED),
    "an open update with its contributors still leaves": (
        LEAVING,
        {"mode": "", "checks": OPEN, "vehicles": 20},
        Release,
        None,
    ),
    "an open update of few vehicles still does not": (
        LEAVING,
        {"mode": "", "checks": OPEN, "vehicles": 9},
        Refuse,
        Code.TOO_FEW_CONTRIBUTORS,
    ),
    "an open update without contributors still does not": (
        LEAVING,
        {"mode": "", "checks": OPEN - {Check.CONTRIBUTORS}, "vehicles": 20},
        Refuse,
        Code.POLICY_DENIED,
    ),
    "a private update comes in": (ARRIVING, {"checks": NOISED - {Check.NOISED}}, Release, None),
    "one that is larger than its order allows does not": (
        ARRIVING,
        {"checks": frozenset({Check.SCHEMA, Check.FINITE})},
        Refuse,
        Code.POLICY_DENIED,
    ),
    "an order for a private training comes in": (ORDERED, {}, Release, None),
    "without a catalogue and a slot, which are a question's": (
        ORDERED,
        {"catalogue_known": False, "slot_s": 0, "minimum_slot_s": 5},
        Release,
        None,
    ),
    "one beyond the vehicles' budget does not": (
        ORDERED,
        {"within_privacy_budget": False},
        Refuse,
        Code.BUDGET_EXHAUSTED,
    ),
    "one for an open training needs no budget": (ORDERED, {"mode": "", "within_privacy_budget": False}, Release, None),
    "a question against another catalogue still does not": (
        ORDERED,
        {"outputs": frozenset({Kind.AGGREGATE}), "slot_s": 5, "minimum_slot_s": 5},
        Refuse,
        Code.ALGORITHM_UNKNOWN,
    ),
    "a question with too short a slot still does not": (
        ORDERED,
        {"outputs": frozenset({Kind.AGGREGATE}), "catalogue_known": True, "slot_s": 1, "minimum_slot_s": 5},
        Refuse,
        Code.SLOT_TOO_SHORT,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_packs_say(case: str) -> None:
    facts, changes, outcome, code = CASES[case]
    decision: Decision = POLICY.decide(dataclasses.replace(facts, **changes), CROSSING)
    assert isinstance(decision, outcome), decision
    assert (decision.code if isinstance(decision, Refuse) else None) is code


def test_the_rules_that_let_a_private_update_pass_are_named() -> None:
    leaving, arriving = POLICY.decide(LEAVING, CROSSING), POLICY.decide(ARRIVING, CROSSING)
    assert leaving == Release(("house.release-private-update",))
    assert isinstance(arriving, Release)
    assert "house.accept-private-update" in arriving.rules


def test_a_zone_can_let_in_private_trainings_alone(tmp_path: Path) -> None:
    """Its own rule, in its own pack; what it lets in goes its way to the end."""
    home = tmp_path / "home"
    federation.create(home, replace(federation.demo_plan(), algorithms=(ALGORITHM,)), ManualClock(NOW))
    add_rule(home / CN, PRIVATE_ONLY)
    scene = Scene(home)
    scene.ingest(CN)
    private = private_order(1)
    begin(scene, order_for(CN))
    begin(scene, private)
    assert verdict(scene, order_for(CN)) == ("refuse", Code.POLICY_DENIED.value, ["zone.private-training-only"])
    assert verdict(scene, private) == ("accept", None, ["house.accept-order"])
    take_keys(scene, private)
    hand_in(scene, private)
    approve_all(scene, CN)
    scene.carry()
    assert [item.kind for item in scene.keeper(HQ).inbound.deliveries(0).items if item.event == "crossing"][-1] is (
        Kind.MODEL_UPDATE
    )
    scene.close()


def test_the_budget_holds_where_a_zone_has_left_the_statistics_pack_out(tmp_path: Path) -> None:
    """That pack is about questions; the house's own rules let a training in."""
    home = tmp_path / "home"
    federation.create(home, replace(federation.demo_plan(), algorithms=(ALGORITHM,)), ManualClock(NOW))
    (home / CN / "policy" / "statistics.cedar").unlink()
    add_rule(home / CN, PRIVATE_ONLY)
    scene = Scene(home)
    scene.ingest(CN)
    orders = [private_order(number, epsilon_micro=10_000_000) for number in range(1, 4)]
    for order in orders:
        begin(scene, order)
    told = [verdict(scene, order)[:2] for order in orders]
    assert told[0] == ("accept", None)
    assert told[-1] == ("refuse", Code.BUDGET_EXHAUSTED.value)
    used = scene.keeper(CN).statistics.view()
    assert used.budget is not None
    assert used.epsilon_micro <= used.budget.epsilon_micro
    scene.close()


def verdict(scene: Scene, order: Order) -> tuple[str, str | None, list[str]]:
    """Return how the zone decided about an order, and by which rules."""
    return next(
        (e["outcome"], e["code"], e["rules"])
        for e in scene.picture(order.zone).events("decided")
        if e["order"] == order_id(order) and e["direction"] == "in"
    )


def add_rule(site: Path, rules: str) -> None:
    """Add rules to a site that has not begun: the genesis of its ledger names them."""
    (site / "policy" / "zone.cedar").write_text(rules)
    genesis = canonical.load(Genesis, (site / "genesis.json").read_bytes(), limit=1 << 20)
    changed = genesis.model_copy(update={"policy": Policy.load(site / "policy").digest})
    (site / "genesis.json").write_bytes(canonical.dump(changed))
