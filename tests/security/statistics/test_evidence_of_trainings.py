"""What a verifier makes of private trainings: budget, settlements, updates. Attackers hold every key."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.contracts.crossings import Check, Contributors, Kind, PrivacyEvent
from isthmus.contracts.evidence import REPORTED, Examined, FindingCode
from isthmus.contracts.identifiers import Digest, JobId
from isthmus.contracts.ledger import KeysReleased, Log, PrivacyReserved, PrivacySettled
from isthmus.contracts.queries import PrivacyBudget
from isthmus.contracts.raw_table import Group
from isthmus.proof import accounting
from isthmus.proof.bundle import verify
from world.forge import Forge
from world.pair import CN, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.contracts.crossings import Manifest

F = FindingCode
WHOLE, CUT_SHORT, UNTOUCHED, OPEN = range(4)
"""Places: all of three rounds, one of four rounds, none since no keys went out, and one that goes on."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    pair = Pair(tmp_path_factory.mktemp("trained") / "sites")
    pair.prepare()
    pair.work(rounds=1)
    pair.train(CN, JobId(f"job-{1:016x}"), rounds=3)
    pair.train(CN, JobId(f"job-{2:016x}"), rounds=4, handed_in=1)
    pair.train(CN, JobId(f"job-{3:016x}"), keys=False)
    pair.train(CN, JobId(f"job-{4:016x}"), rounds=2, handed_in=1, closed=False)
    yield Forge(pair)
    pair.close()


def update(forge: Forge, *, private: bool = True) -> Manifest:
    """Return the manifest of the first update that is private, or of the first that is not."""
    return next(m for m in forge.all_sent(CN, Kind.MODEL_UPDATE) if (Check.NOISED in m.checks) is private)


def with_events(forge: Forge, mechanism: str, **said: object) -> None:
    """Change what an update says of one of its protections; leave it out where nothing is said."""
    manifest = update(forge)
    kept = [e.model_copy(update=said) if e.mechanism == mechanism else e for e in manifest.privacy]
    forge.change(manifest, privacy=tuple(e for e in kept if said or e.mechanism != mechanism))


def test_what_the_attacks_start_from_is_accepted_and_counted(trained: Forge) -> None:
    report = verify(trained.copy().build(), trained.roots)
    assert report.findings == ()
    assert (report.examined[Examined.TRAININGS], report.examined[Examined.QUESTIONS]) == (4, 0)


def test_what_is_spent_is_the_rounds_that_were_paid_for(trained: Forge) -> None:
    """The budget that just holds the whole of it: what came back is not in it, and not a millionth less would do."""
    reserved = [e for e in trained.entries[CN][Log.INTERNAL] if isinstance(e, PrivacyReserved)]
    settled = [e for e in trained.entries[CN][Log.INTERNAL] if isinstance(e, PrivacySettled)]
    assert [(e.outcome, e.rounds, e.question) for e in settled] == [
        ("spent", 3, None),
        ("spent", 2, None),
        ("returned", 0, None),
    ]
    used = accounting.add(reserved[WHOLE].curve, accounting.paid(reserved[CUT_SHORT].curve, 2, 4))
    peaks = [reserved[UNTOUCHED].curve, reserved[OPEN].curve]

    def holds(epsilon_micro: int) -> bool:
        return all(accounting.fits(used, peak, budget_of(epsilon_micro)) for peak in peaks)

    least = bisect.bisect_left(range(1, 16_000_000), x=True, key=holds) + 1
    assert codes(trained, lambda forge: allow(forge, least)) == set()
    assert codes(trained, lambda forge: allow(forge, least - 1)) == {F.PRIVACY_OVERSPENT}


def budget_of(epsilon_micro: int) -> PrivacyBudget:
    return PrivacyBudget(epsilon_micro=epsilon_micro, delta_exponent=6)


def allow(forge: Forge, epsilon_micro: int) -> None:
    forge.replace_genesis(lambda g: g.model_copy(update={"privacy": budget_of(epsilon_micro)}), CN)


def reservation_kept_back(forge: Forge) -> None:
    forge.drop(CN, forge.internal(CN, PrivacyReserved, WHOLE))


def reservation_after_its_keys(forge: Forge) -> None:
    log, place = forge.entries[CN][Log.INTERNAL], forge.internal(CN, PrivacyReserved, WHOLE)
    entry = log[place]
    order_keys = next(i for i, e in enumerate(log) if isinstance(e, KeysReleased) and e.order == entry.order)
    log.insert(order_keys + 1, entry.model_copy(update={"at": log[order_keys].at}))
    del log[place]


def reservation_at_another_epsilon(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacyReserved, WHOLE), epsilon_micro=1_999_999)


def reservation_at_another_delta(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacyReserved, WHOLE), delta_exponent=7)


def reservation_that_means_more_than_it_says(forge: Forge) -> None:
    index = forge.internal(CN, PrivacyReserved, WHOLE)
    entry = forge.entries[CN][Log.INTERNAL][index]
    rho = entry.curve[-2] / accounting.ALPHAS[-2] / accounting.NANO * 1.01
    forge.edit(CN, index, curve=accounting.curve([rho * alpha for alpha in accounting.ALPHAS]))


def settlement_kept_back(forge: Forge) -> None:
    forge.drop(CN, forge.internal(CN, PrivacySettled, WHOLE))


def settled_twice(forge: Forge) -> None:
    place = forge.internal(CN, PrivacySettled, CUT_SHORT)
    log = forge.entries[CN][Log.INTERNAL]
    log.insert(place + 1, log[place])


def fewer_rounds_than_updates_left(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, WHOLE), rounds=2)


def the_round_that_is_missing_is_not_paid_for(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, CUT_SHORT), rounds=1)


def more_rounds_than_there_are(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, CUT_SHORT), rounds=5)


def spent_and_called_returned(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, WHOLE), outcome="returned", rounds=0)


def returned_though_keys_were_out(forge: Forge) -> None:
    """The whole of it agrees but for this: no update left, and none had to, since data was touched all the same."""
    log, place = forge.entries[CN][Log.INTERNAL], forge.internal(CN, PrivacySettled, UNTOUCHED)
    released = log[forge.internal(CN, KeysReleased)]
    log.insert(
        place, released.model_copy(update={"order": log[place].order, "groups": (Group.MOTION,), "at": log[place].at})
    )


def returned_though_an_update_left(forge: Forge) -> None:
    """Compute had the files of an earlier order, and asked for no keys."""
    settled = forge.internal(CN, PrivacySettled, CUT_SHORT)
    forge.edit(CN, settled, outcome="returned", rounds=0)
    log = forge.entries[CN][Log.INTERNAL]
    order = log[settled].order
    forge.drop(CN, next(i for i, e in enumerate(log) if isinstance(e, KeysReleased) and e.order == order))


def settled_as_a_question(forge: Forge) -> None:
    index = forge.internal(CN, PrivacySettled, WHOLE)
    forge.edit(CN, index, question=Digest.of(b"a question"), rounds=None)


def settled_as_a_repeat(forge: Forge) -> None:
    forge.edit(CN, forge.internal(CN, PrivacySettled, UNTOUCHED), outcome="repeated", rounds=0)


def update_without_noise(forge: Forge) -> None:
    forge.change(update(forge), checks=tuple(sorted({*update(forge).checks} - {Check.NOISED})))


def update_at_another_epsilon(forge: Forge) -> None:
    with_events(forge, "differential_privacy", parameter=1)


def update_noised_by_the_zone(forge: Forge) -> None:
    with_events(forge, "differential_privacy", enforced_by="zone")


def update_at_another_vehicle_norm(forge: Forge) -> None:
    with_events(forge, "vehicle_clip", parameter=1)


def update_whose_vehicles_were_not_clipped(forge: Forge) -> None:
    with_events(forge, "vehicle_clip")


def update_that_was_not_clipped_as_a_whole(forge: Forge) -> None:
    with_events(forge, "l2_clip")


def update_that_counts_its_vehicles(forge: Forge) -> None:
    forge.change(update(forge), contributors=Contributors(vehicles=40, windows=3_000))


def unprotected_update_that_claims_noise(forge: Forge) -> None:
    manifest = update(forge, private=False)
    claim = PrivacyEvent(mechanism="differential_privacy", parameter=1, enforced_by="border")
    forge.change(manifest, privacy=(*manifest.privacy, claim))


def unprotected_update_that_claims_the_check(forge: Forge) -> None:
    manifest = update(forge, private=False)
    forge.change(manifest, checks=tuple(sorted((*manifest.checks, Check.NOISED))))


def no_budget_at_all(forge: Forge) -> None:
    forge.replace_genesis(lambda g: g.model_copy(update={"privacy": None}), CN)


RULES = [
    (F.PRIVACY_OVERSPENT, no_budget_at_all),
    (F.PRIVACY_DISAGREES, reservation_kept_back),
    (F.PRIVACY_DISAGREES, reservation_after_its_keys),
    (F.PRIVACY_DISAGREES, reservation_at_another_epsilon),
    (F.PRIVACY_DISAGREES, reservation_at_another_delta),
    (F.PRIVACY_DISAGREES, reservation_that_means_more_than_it_says),
    (F.PRIVACY_DISAGREES, settlement_kept_back),
    (F.PRIVACY_DISAGREES, settled_twice),
    (F.PRIVACY_DISAGREES, fewer_rounds_than_updates_left),
    (F.PRIVACY_DISAGREES, the_round_that_is_missing_is_not_paid_for),
    (F.PRIVACY_DISAGREES, more_rounds_than_there_are),
    (F.PRIVACY_DISAGREES, spent_and_called_returned),
    (F.PRIVACY_DISAGREES, returned_though_keys_were_out),
    (F.PRIVACY_DISAGREES, returned_though_an_update_left),
    (F.PRIVACY_DISAGREES, settled_as_a_question),
    (F.PRIVACY_DISAGREES, settled_as_a_repeat),
    (F.CHECKS_MISSING, update_without_noise),
    (F.CHECKS_MISSING, update_at_another_epsilon),
    (F.CHECKS_MISSING, update_noised_by_the_zone),
    (F.CHECKS_MISSING, update_at_another_vehicle_norm),
    (F.CHECKS_MISSING, update_whose_vehicles_were_not_clipped),
    (F.CHECKS_MISSING, update_that_was_not_clipped_as_a_whole),
    (F.CHECKS_MISSING, update_that_counts_its_vehicles),
    (F.CHECKS_MISSING, unprotected_update_that_claims_noise),
    (F.CHECKS_MISSING, unprotected_update_that_claims_the_check),
]


def codes(trained: Forge, attack: Any) -> set[FindingCode]:
    forge = trained.copy()
    attack(forge)
    return {finding.code for finding in verify(forge.build(), forge.roots).findings} - REPORTED


@pytest.mark.parametrize(("code", "attack"), RULES, ids=[attack.__name__ for _, attack in RULES])
def test_an_attack_is_refused_with_its_finding_alone(trained: Forge, code: FindingCode, attack: Any) -> None:
    assert codes(trained, attack) == {code}
