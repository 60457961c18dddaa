"""Questions on the stage of the attacks: orders that ask, and compute that hands its sums in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isthmus.cli import federation
from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.inside import CandidateHeader, CandidateStatus, InsideRole
from isthmus.contracts.queries import Answer, Partials, QueryPlan
from isthmus.contracts.raw_table import Group
from isthmus.kit.clock import ManualClock
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from security.scene import ALGORITHM, CN, HQ, NOW, ZONES, Scene, order_for
from world.questions import SLOT_S, STATISTICS, VEHICLES, controlled, plan, spec, sums

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.orders import Order
    from isthmus.contracts.queries import PrivacyBudget

__all__ = ["SLOT_S", "STATISTICS", "VEHICLES", "controlled", "plan", "spec", "sums"]


def asking(number: int, query: QueryPlan | None = None, zone: SiteId = CN, **changes: Any) -> Order:
    """Return the order of the `number`th question."""
    values: dict[str, Any] = {
        "job": JobId(f"job-{number:016x}"),
        "algorithm": STATISTICS,
        "groups": (Group.DRIVES,),
        "outputs": (Kind.AGGREGATE,),
        "training": None,
        "evaluation": None,
        "query": query or plan(),
        "tensors": (),
        "clip_norm_micro": 1,
    }
    return order_for(zone, **{**values, **changes})


def set_up(home: Path, budget: PrivacyBudget = federation.DEMO_PRIVACY, open_orders: int = 16) -> None:
    """Make a federation whose zones hold a frozen snapshot and answer questions."""
    quotas = federation.DEMO_QUOTAS.model_copy(update={"open_orders_per_peer": open_orders})
    plan_ = replace(federation.demo_plan(), algorithms=(ALGORITHM, STATISTICS), privacy=budget, quotas=quotas)
    federation.create(home, plan_, ManualClock(NOW))
    scene = Scene(home)
    for zone in ZONES:
        scene.ingest(zone, (Group.DRIVES, Group.MOTION))
    scene.cosign()
    scene.close()


def ask(scene: Scene, order: Order) -> None:
    """Have the coordinator ask."""
    scene.give(order)
    scene.carry()


def hand_in(scene: Scene, order: Order, partials: Partials | None = None) -> CandidateStatus:
    """Have the zone's compute hand its sums in."""
    assert order.query is not None
    handed = partials or sums(order.query)
    body = canonical.dump(handed)
    header = CandidateHeader(
        order=order_id(order),
        kind=Kind.AGGREGATE,
        recipient=HQ,
        slot=0,
        size=len(body),
        contributors=Contributors(vehicles=handed.vehicles, windows=2 * handed.vehicles),
    )
    return scene.keeper(order.zone).submit(InsideRole.COMPUTE, header, body)


def at_the_slot(scene: Scene, zone: SiteId = CN) -> None:
    """Let the next slot come, and carry what it lets out."""
    scene.clock.advance(SLOT_S)
    scene.keeper(zone).statistics.release_due()
    scene.carry()


def answer_of(scene: Scene, order: Order) -> Answer | None:
    """Return the answer that the coordinator was handed, None where there is none."""
    hub = scene.keeper(HQ).inbound
    for item in hub.deliveries(0).items:
        if item.order == order_id(order) and item.kind is Kind.AGGREGATE:
            return canonical.load(Answer, bytes(hub.payload(item.crossing)))
    return None


def verdict(scene: Scene, order: Order) -> tuple[str, str | None]:
    """Return how the zone decided about an order."""
    return next(
        (e["outcome"], e["code"])
        for e in scene.picture(order.zone).events("decided")
        if e["order"] == order_id(order) and e["direction"] == "in"
    )


def spent(scene: Scene) -> int:
    """Return what is gone of the budget, in millionths of epsilon."""
    return scene.keeper(CN).statistics.view().epsilon_micro
