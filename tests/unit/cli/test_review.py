"""An officer signs what was shown, with their own key, and nothing that says more than the release at hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from isthmus.cli import main, review
from isthmus.cli.federation import officer_key
from isthmus.cli.screen import Exit
from isthmus.contracts.approvals import STANDING_APPROVAL_TYPE, StandingApproval
from isthmus.contracts.crossings import Kind, PrivacyEvent
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, JobId, Name, SiteId
from isthmus.proof import canonical, signing
from world.pair import CN, Pair, model, officers
from world.questions import controlled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isthmus.contracts.inside import ReviewItem


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "sites")
    made.prepare()
    order = made.order(CN)
    made.carry()
    made.take_keys(CN, order)
    made.send_model(CN, order, 0, model(0.0))
    made.carry()
    made.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.25))
    yield made
    made.close()


def held(pair: Pair) -> ReviewItem:
    (item,) = pair.held(CN)
    return item


@pytest.mark.parametrize("standing", [True, False])
def test_two_officers_let_a_release_go(pair: Pair, standing: bool) -> None:  # noqa: FBT001 - a test's parameter
    item = held(pair)
    first, second = (review.approval(officer_key(pair.home, who), item, standing=standing) for who in officers(CN))
    assert pair.keeper(CN).review.approve(first).state == "held"
    assert pair.keeper(CN).review.approve(second).state == "logged"


def test_one_officer_stops_it(pair: Pair) -> None:
    item = held(pair)
    status = pair.keeper(CN).review.reject(review.rejection(officer_key(pair.home, officers(CN)[0]), item))
    assert status.state == "refused"
    assert pair.held(CN) == ()


def test_the_signature_is_the_officers_own(pair: Pair) -> None:
    key = officer_key(pair.home, officers(CN)[0])
    item = held(pair)
    signed = review.approval(key, item, standing=True).envelope.encode()
    payload = signing.verify(signed, STANDING_APPROVAL_TYPE, key.verify_key)
    assert canonical.load(StandingApproval, payload) == item.standing


@pytest.mark.parametrize(
    "change",
    [
        {"recipients": (CN, SiteId("hq"), SiteId("us-texas"), SiteId("zz-elsewhere"))},
        {"purpose": Name("resale")},
        {"policy": Digest.of(b"another policy")},
        {"zone": SiteId("us-texas")},
    ],
)
@pytest.mark.parametrize("which", ["standing", "single"])
def test_a_statement_that_says_more_than_its_release_is_not_signed(
    pair: Pair, change: dict[str, object], which: str
) -> None:
    item = held(pair)
    forged = item.model_copy(update={which: getattr(item, which).model_copy(update=change)})
    key = officer_key(pair.home, officers(CN)[0])
    with pytest.raises(Refusal) as refused:
        review.approval(key, forged, standing=which == "standing")
    assert refused.value.code is Code.APPROVAL_INVALID


def test_a_release_is_found_by_its_first_digits(pair: Pair) -> None:
    item = held(pair)
    crossing = item.manifest.crossing
    assert review.find((item,), crossing) is item
    assert review.find((item,), crossing.removeprefix("sha256:")[:6]) is item


@pytest.mark.parametrize("wanted", ["", "sha256:", "abc", "zzzzzzzz"])
def test_a_release_that_is_not_clearly_meant_is_not_found(pair: Pair, wanted: str) -> None:
    item = held(pair)
    with pytest.raises(Refusal) as refused:
        review.find((item, item), wanted)
    assert refused.value.code is Code.NOT_FOUND


@pytest.fixture
def reached(pair: Pair, reach: Callable[[Pair], Pair]) -> Pair:
    """A pair whose borders the command line reaches without a socket."""
    return reach(pair)


def test_what_protects_a_release_is_shown_with_its_unit(reached: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    release = held(reached).manifest.crossing
    arguments = ["review", "show", release, "--site", CN, "--home", str(reached.home)]
    assert main.run(arguments) == Exit.OK
    shown = capsys.readouterr().out
    assert "L2 norm clipped to 10.0 by the border" in shown
    assert release in shown


def test_an_officer_sees_the_question_and_every_number_that_would_cross(
    tmp_path: Path, reach: Callable[[Pair], Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    pair = reach(Pair(tmp_path / "asked"))
    pair.prepare()
    pair.ask(CN, JobId("job-00000000000000bb"), controlled(), approved=False)
    (item,) = pair.held(CN)
    assert main.run(["review", "show", item.manifest.crossing, "--site", CN, "--home", str(pair.home)]) == Exit.OK
    shown = capsys.readouterr().out
    assert "SELECT road_class, avg(speed_mps), count(DISTINCT vehicle) FROM drives GROUP BY road_class" in shown
    assert item.answer is not None
    for cell in item.answer.cells:
        assert all(f"{number}" in shown for numbers in cell.values for number in numbers)
    pair.close()


def test_figures_are_shown_as_banded_in_centimetres() -> None:
    assert review.protection(PrivacyEvent(mechanism="band", parameter=20_000, enforced_by="border")) == (
        "figures banded to 2 cm by the border"
    )


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("person", ["nobody.at.all", "maker.us-texas"])
def test_who_is_no_officer_here_is_told_who_is(
    reached: Pair, verb: str, person: str, capsys: pytest.CaptureFixture[str]
) -> None:
    release = held(reached).manifest.crossing
    arguments = ["review", verb, release, "--site", CN, "--as", person, "--home", str(reached.home), "--json"]
    assert main.run(arguments) == Exit.REFUSED
    told = json.loads(capsys.readouterr().out)
    assert told["code"] == "forbidden"
    assert all(officer in told["remedy"] for officer in officers(CN))
    assert "setup" not in told["remedy"]
    assert held(reached).signed_by == ()
