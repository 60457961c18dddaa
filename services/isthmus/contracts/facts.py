"""Facts: all that policy is told.

The keeper computes each from its ledger, the order and the bytes; a requester states none.

A fact that is not known has the value that permits least.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.contracts.crossings import Check, Kind
    from isthmus.contracts.identifiers import Name, SiteId
    from isthmus.contracts.raw_table import Group


@unique
class Action(StrEnum):
    """What policy is asked about."""

    SEND = "send"
    RELEASE = "release"
    ACCEPT = "accept"
    COMPUTE = "compute"


UNKNOWN_ACCELERATOR = "?"
"""Stands for a class that nobody has said. It is no name, so no list of permitted classes can hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of one crossing at the moment of the decision.

    Attributes:
        action: `send` what does not derive from data, `release` what does, `accept` what comes in, `compute` what an
            accepted order asks: may its keys go to these chips.
        kind: the crossing's kind.
        sender: who signs it.
        recipient: whom it is sealed to.
        purpose: its purpose.
        order_purpose: the purpose of the order it belongs to, empty where there is none.
        lineage: zones whose data it holds.
        recipients: sites it may be passed on to, as its manifest says.
        named: sites that every release in it, and its order, name.
        order_known: an open order of the ledger asks for this kind at this slot.
        checks: what the border checked of the payload.
        permits: kinds for which an authority's permit stands in the ledger.
        approving_organisations: distinct organisations whose officers' valid approvals cover it.
        vehicles: vehicles behind it; 0 where no number of them may be told, policy included (`dp`).
        minimum_vehicles: how many there must be.
        bits: payload bits, or for an order what it reserves.
        bits_left: what order and peer have left.
        groups: column groups that an order asks for.
        outputs: kinds that an order asks for.
        algorithm_registered: the order's algorithm and digest stand in the genesis.
        dataset_frozen: the order's snapshot exists.
        mode: how the order's question is to be answered; `dp` too for an order for a private training, and for its
            updates. Empty elsewhere: also for such a training's evaluations.
        catalogue_known: the question was written against the catalogue that is installed here.
        within_privacy_budget: what the question or the private training reserves fits what is left of the vehicles'
            privacy budget.
        slot_s: seconds of the grid on which the order's question is answered; 0 where it asks none.
        minimum_slot_s: how many there must be, as the genesis says.
        accelerators: classes of chips: those that an order's keys are asked for or, of a release, all that they went
            to, as compute said; `UNKNOWN_ACCELERATOR` alone where it is not known.
        permitted_accelerators: classes that the genesis permits.
    """

    action: Action
    kind: Kind
    sender: SiteId
    recipient: SiteId
    purpose: Name
    order_purpose: str = ""
    lineage: frozenset[SiteId] = frozenset()
    recipients: frozenset[SiteId] = frozenset()
    named: frozenset[SiteId] = frozenset()
    order_known: bool = False
    checks: frozenset[Check] = frozenset()
    permits: frozenset[Kind] = frozenset()
    approving_organisations: int = 0
    vehicles: int = 0
    minimum_vehicles: int = 2**53
    bits: int = 2**53
    bits_left: int = 0
    groups: frozenset[Group] = frozenset()
    outputs: frozenset[Kind] = frozenset()
    algorithm_registered: bool = False
    dataset_frozen: bool = False
    mode: str = ""
    catalogue_known: bool = False
    within_privacy_budget: bool = False
    slot_s: int = 0
    minimum_slot_s: int = 2**53
    accelerators: frozenset[str] = frozenset({UNKNOWN_ACCELERATOR})
    permitted_accelerators: frozenset[str] = frozenset()
