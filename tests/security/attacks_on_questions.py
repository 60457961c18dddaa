"""An attack on every rule about questions and what they cost, by someone who holds every key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Check, Contributors, Kind
from isthmus.contracts.evidence import FindingCode
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.ledger import KeysReleased, Log, PrivacyReserved, PrivacySettled
from isthmus.contracts.queries import PrivacyBudget
from isthmus.contracts.raw_table import Group
from isthmus.proof import accounting
from world.pair import CN

if TYPE_CHECKING:
    from isthmus.contracts.crossings import Manifest
    from world.forge import Forge

F = FindingCode
FIRST, REPEAT, CLOSED, CHEAPER = 0, 1, 2, 3
"""Places of the settlements: an answer, the same answer again, an order that was closed before its slot, an answer to
the first question at another epsilon."""


def answer(forge: Forge) -> Manifest:
    """Return the manifest of the first answer."""
    return next(m for m in forge.all_sent(CN, Kind.AGGREGATE) if Check.NOISED in m.checks)


def a_smaller_budget_than_was_spent(forge: Forge) -> None:
    budget = PrivacyBudget(epsilon_micro=100_000, delta_exponent=6)
    forge.replace_genesis(lambda g: g.model_copy(update={"privacy": budget}), CN)


def no_budget_at_all(forge: Forge) -> None:
    forge.replace_genesis(lambda g: g.model_copy(update={"privacy": None}), CN)


def a_longer_slot_than_was_asked_for(forge: Forge) -> None:
    forge.replace_genesis(lambda g: g.model_copy(update={"minimum_slot_s": 3_600}), CN)


def reservation_kept_back(forge: Forge) -> None:
    forge.drop(CN, forge.internal(CN, PrivacyReserved))


def reservation_of_nothing(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacyReserved), curve=accounting.zero())


def reservation_of_few_orders_of_divergence(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacyReserved), curve=(1,))


def reservation_at_another_epsilon(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacyReserved), epsilon_micro=1)


def reservation_that_means_more_than_it_says(forge: Forge) -> None:
    index = forge.internal(CN, PrivacyReserved)
    forge.edit(CN, index, curve=tuple(10**12 for _ in accounting.ALPHAS))


def settlement_kept_back(forge: Forge) -> None:
    forge.drop(CN, forge.internal(CN, PrivacySettled, FIRST))


def spent_and_called_returned(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, FIRST), outcome="returned")


def given_back_though_keys_were_out(forge: Forge) -> None:
    """The whole of it agrees but for this: no answer left, and none had to, since data was touched all the same."""
    log, place = forge.entries[CN][Log.INTERNAL], forge.internal(CN, PrivacySettled, CLOSED)
    released = log[forge.internal(CN, KeysReleased)]
    update = {"order": log[place].order, "groups": (Group.DRIVES,), "at": log[place].at}
    log.insert(place, released.model_copy(update=update))


def settled_as_another_question(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, FIRST), question=Digest.of(b"another question"))


def repeat_of_nothing(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, FIRST), outcome="repeated")


def an_answer_of_its_own_called_a_repeat(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, CHEAPER), outcome="repeated")


def answer_without_noise(forge: Forge) -> None:
    forge.change(answer(forge), checks=(Check.SCHEMA,))


def answer_at_another_epsilon(forge: Forge) -> None:
    manifest = answer(forge)
    changed = tuple(
        e.model_copy(update={"parameter": 1}) if e.mechanism == "differential_privacy" else e for e in manifest.privacy
    )
    forge.change(manifest, privacy=changed)


def answer_that_was_not_bounded(forge: Forge) -> None:
    manifest = answer(forge)
    kept = tuple(e for e in manifest.privacy if e.mechanism != "contribution_bound")
    forge.change(manifest, privacy=kept)


def answer_that_counts_its_vehicles(forge: Forge) -> None:
    forge.change(answer(forge), contributors=Contributors(vehicles=400, windows=1000))


RULES = [
    (F.PRIVACY_OVERSPENT, a_smaller_budget_than_was_spent),
    (F.PRIVACY_OVERSPENT, no_budget_at_all),
    (F.SLOT_TOO_SHORT, a_longer_slot_than_was_asked_for),
    (F.PRIVACY_DISAGREES, reservation_kept_back),
    (F.PRIVACY_DISAGREES, reservation_of_nothing),
    (F.PRIVACY_DISAGREES, reservation_of_few_orders_of_divergence),
    (F.PRIVACY_DISAGREES, reservation_at_another_epsilon),
    (F.PRIVACY_DISAGREES, reservation_that_means_more_than_it_says),
    (F.PRIVACY_DISAGREES, settlement_kept_back),
    (F.PRIVACY_DISAGREES, spent_and_called_returned),
    (F.PRIVACY_DISAGREES, given_back_though_keys_were_out),
    (F.PRIVACY_DISAGREES, settled_as_another_question),
    (F.PRIVACY_DISAGREES, repeat_of_nothing),
    (F.PRIVACY_DISAGREES, an_answer_of_its_own_called_a_repeat),
    (F.CHECKS_MISSING, answer_without_noise),
    (F.CHECKS_MISSING, answer_at_another_epsilon),
    (F.CHECKS_MISSING, answer_that_was_not_bounded),
    (F.CHECKS_MISSING, answer_that_counts_its_vehicles),
]
