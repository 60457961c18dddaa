"""An attack on every rule about orders, keys and budget, by someone who holds every key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name
from isthmus.contracts.ledger import (
    Decided,
    Drafted,
    KeysReleased,
    Log,
    OrderAccepted,
    OrderClosed,
    SnapshotFrozen,
)
from isthmus.contracts.orders import Order
from isthmus.contracts.raw_table import Group
from isthmus.proof import canonical
from isthmus.proof.ids import crossing_id
from world.pair import CN, HQ, US

if TYPE_CHECKING:
    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.roster import Genesis
    from world.forge import Forge

F = FindingCode


def order_of_another_body(forge: Forge) -> None:
    forge.change(forge.sent(HQ, Kind.ORDER), plaintext=Digest.of(b"another order"))


def body_of_another_order(forge: Forge) -> None:
    order = forge.sent(HQ, Kind.ORDER).order
    body = canonical.load(Order, forge.orders[CN][order].encode())
    forge.orders[CN][order] = canonical.dump(body.model_copy(update={"clip_norm_micro": 1})).decode()


def body_with_a_space(forge: Forge) -> None:
    order = forge.sent(HQ, Kind.ORDER).order
    forge.orders[CN][order] = forge.orders[CN][order].replace(",", ", ", 1)


def body_kept_back(forge: Forge) -> None:
    del forge.orders[CN][forge.sent(HQ, Kind.ORDER).order]


def body_kept_back_by_its_giver(forge: Forge) -> None:
    del forge.orders[HQ][forge.sent(HQ, Kind.ORDER).order]


def another_purpose_than_the_body_all_along(forge: Forge) -> None:
    """Every crossing of the order says the same other purpose; the order itself does not."""
    order = forge.sent(HQ, Kind.ORDER).order
    for site in (HQ, CN):
        for kind in (Kind.ORDER, Kind.MODEL, Kind.MODEL_UPDATE, Kind.AGGREGATE, Kind.NOTICE):
            for manifest in forge.all_sent(site, kind):
                if manifest.order == order:
                    forge.change(manifest, purpose=Name("marketing"))


def unregistered_algorithm(forge: Forge) -> None:
    forge.replace_genesis(lambda g: g.model_copy(update={"algorithms": ()}), CN)


def snapshot_frozen_after_the_order(forge: Forge) -> None:
    log = forge.entries[CN][Log.INTERNAL]
    frozen = log.pop(forge.internal(CN, SnapshotFrozen))
    log.insert(forge.internal(CN, OrderAccepted) + 1, frozen)


def keys_of_a_group_outside_the_order(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, KeysReleased), groups=(Group.IDENTITY,))


def keys_after_expiry(forge: Forge) -> None:
    order = forge.sent(HQ, Kind.ORDER).order
    expiry = canonical.load(Order, forge.orders[CN][order].encode()).expires_at
    forge.edit(CN, forge.internal(CN, KeysReleased), at=expiry + 1)


def _at_slot(forge: Forge, manifest: Manifest, slot: int) -> None:
    id_ = crossing_id(manifest.order, manifest.kind, manifest.recipient, slot)
    forge.change(manifest, slot=slot, crossing=id_)


def update_of_a_round_too_many(forge: Forge) -> None:
    _at_slot(forge, forge.sent(CN, Kind.MODEL_UPDATE, 1), 2)


def aggregate_at_another_slot(forge: Forge) -> None:
    _at_slot(forge, forge.sent(CN, Kind.AGGREGATE, 1), 1)


def model_of_a_round_too_many(forge: Forge) -> None:
    _at_slot(forge, forge.sent(HQ, Kind.MODEL, -1), 3)


def made_from_another_frozen_snapshot(forge: Forge) -> None:
    """A second snapshot is frozen at the same time as the first; the release names that one."""
    index = forge.internal(CN, SnapshotFrozen)
    frozen = forge.entries[CN][Log.INTERNAL][index]
    other = {"snapshot": Name("another"), "commitment": Digest.of(b"another")}
    forge.entries[CN][Log.INTERNAL].insert(index, frozen.model_copy(update=other))
    forge.change(forge.sent(CN, Kind.MODEL_UPDATE, 1), commitments=(Digest.of(b"another"),))


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


def keys_for_chips_that_are_not_permitted(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, KeysReleased), accelerators=(Name("cpu"), Name("h100")))


def reserved_less_than_spent(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, OrderAccepted), reserved_bits=8)


def closed_with_too_little_spent(forge: Forge) -> None:
    index = forge.internal(CN, OrderClosed)
    closed = forge.entries[CN][Log.INTERNAL][index]
    assert isinstance(closed, OrderClosed)
    forge.edit(CN, index, spent_bits=closed.spent_bits - 8, returned_bits=closed.returned_bits + 8)


def charge_of_a_refused_candidate_hidden(forge: Forge) -> None:
    """The closing counts bits that no entry charges, and the reservation has room for them."""
    log = forge.entries[CN][Log.INTERNAL]
    opening, closing = forge.internal(CN, OrderAccepted), forge.internal(CN, OrderClosed)
    forge.edit(CN, opening, reserved_bits=log[opening].reserved_bits + 8)
    forge.edit(CN, closing, spent_bits=log[closing].spent_bits + 8)


def charged_to_no_order(forge: Forge) -> None:
    index = forge.internal(CN, OrderClosed)
    closed = forge.entries[CN][Log.INTERNAL][index]
    refused = Decided(
        crossing=CrossingId.of(b"a candidate"),
        order=Digest.of(b"no order"),
        direction="out",
        outcome="refuse",
        code=Code.SCHEMA_MISMATCH,
        rules=(),
        needs=(),
        spent_bits=8,
        at=closed.at,
    )
    forge.entries[CN][Log.INTERNAL].insert(index, refused)


def decision_of_another_order(forge: Forge) -> None:
    index = forge.about(CN, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Decided)
    forge.edit(CN, index, order=forge.sent(US, Kind.MODEL_UPDATE).order)


def released_without_a_charge(forge: Forge) -> None:
    forge.edit(CN, forge.about(CN, forge.sent(CN, Kind.MODEL_UPDATE, 1).crossing, Drafted), spent_bits=0)


def beyond_the_quota(forge: Forge) -> None:
    def smaller(genesis: Genesis) -> Genesis:
        quotas = genesis.quotas.model_copy(update={"information_bits_per_order": 8})
        return genesis.model_copy(update={"quotas": quotas})

    forge.replace_genesis(smaller, CN)


RULES: list[tuple[FindingCode, Any]] = [
    (F.ORDER_ID_MISMATCH, order_of_another_body),
    (F.ORDER_ID_MISMATCH, body_of_another_order),
    (F.ORDER_ID_MISMATCH, body_with_a_space),
    (F.ORDER_BODY_MISSING, body_kept_back),
    (F.ORDER_BODY_MISSING, body_kept_back_by_its_giver),
    (F.ORDER_DIFFERS, another_purpose_than_the_body_all_along),
    (F.ALGORITHM_UNKNOWN, unregistered_algorithm),
    (F.DATASET_NOT_FROZEN, snapshot_frozen_after_the_order),
    (F.DATASET_NOT_FROZEN, made_from_another_frozen_snapshot),
    (F.KEYS_WITHOUT_ORDER, keys_of_a_group_outside_the_order),
    (F.KEYS_WITHOUT_ORDER, keys_after_expiry),
    (F.NOT_ASKED_FOR, update_of_a_round_too_many),
    (F.NOT_ASKED_FOR, aggregate_at_another_slot),
    (F.NOT_ASKED_FOR, model_of_a_round_too_many),
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
    (F.ACCELERATOR_NOT_PERMITTED, keys_for_chips_that_are_not_permitted),
    (F.BUDGET_OVERSPENT, reserved_less_than_spent),
    (F.BUDGET_DISAGREES, closed_with_too_little_spent),
    (F.BUDGET_DISAGREES, charge_of_a_refused_candidate_hidden),
    (F.BUDGET_DISAGREES, charged_to_no_order),
    (F.BUDGET_DISAGREES, released_without_a_charge),
    (F.ORDER_DIFFERS, decision_of_another_order),
    (F.QUOTA_EXCEEDED, beyond_the_quota),
]
