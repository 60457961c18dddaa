"""The verifier accepts what real borders log, whatever happened to a job, and says how much it looked at."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.evidence import REPORTED, Examined, FindingCode, Report, Severity
from isthmus.contracts.identifiers import JobId, Name, SiteId
from isthmus.contracts.inside import CloseOrder
from isthmus.contracts.ledger import Decided, Log, OrderClosed
from isthmus.contracts.orders import DatasetRef
from isthmus.kit.clock import ManualClock
from isthmus.proof import canonical
from isthmus.proof.bundle import NOT_CLAIMED, verify
from world.forge import Forge, note
from world.pair import CN, HQ, NOW, US, Pair, evaluation, model
from world.questions import VEHICLES, spec
from world.questions import plan as question

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER_JOB = JobId("job-00000000000000bb")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "evidence-bundle.md"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "sites")
    made.prepare()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("whole") / "sites", (CN, US))
    made.prepare()
    made.work(rounds=2)
    yield made
    made.close()


def verified(pair: Pair) -> Report:
    return verify(pair.evidence(), pair.roots)


def codes(report: Report) -> set[FindingCode]:
    return {finding.code for finding in report.findings}


def started(pair: Pair) -> str:
    order = pair.order(CN)
    pair.open(CN)
    pair.carry()
    return order


def test_a_whole_job_of_two_zones_is_accepted_without_a_finding(whole: Pair) -> None:
    report = verified(whole)
    assert report.accepted
    assert report.findings == ()
    assert report.not_claimed == NOT_CLAIMED


def test_answered_repeated_and_unanswered_questions_are_accepted_without_a_finding(pair: Pair) -> None:
    pair.ask(CN, JobId("job-0000000000000001"))
    pair.ask(CN, JobId("job-0000000000000002"))
    pair.ask(CN, JobId("job-0000000000000003"), question(spec(VEHICLES)), answered=False)
    report = verified(pair)
    assert report.accepted
    assert report.findings == ()
    assert report.examined[Examined.QUESTIONS] == 2


def test_the_report_counts_what_crossed(whole: Pair) -> None:
    report = verified(whole)
    totals = {total.kind: total for total in report.crossings}
    assert {kind: total.count for kind, total in totals.items()} == {
        Kind.ORDER: 2,
        Kind.MODEL: 6,
        Kind.MODEL_UPDATE: 4,
        Kind.AGGREGATE: 4,
        Kind.NOTICE: 4,
    }
    assert totals[Kind.MODEL_UPDATE].information_bits == 4 * 8 * len(model(0.0))
    releases = totals[Kind.MODEL_UPDATE].information_bits + totals[Kind.AGGREGATE].information_bits
    assert report.information_bound_bits == releases


def test_the_report_says_what_was_examined_and_each_ledgers_root(whole: Pair) -> None:
    report = verified(whole)
    uncounted = {Examined.ENTRIES, Examined.QUESTIONS, Examined.TRAININGS}
    assert {what: report.examined[what] for what in set(Examined) - uncounted} == {
        Examined.GENESES: 3,
        Examined.CHECKPOINTS: 6,
        Examined.COSIGNED_HEADS: 8,
        Examined.WITNESSED_HEADS: 8,
        Examined.ENVELOPES: 20,
        Examined.RECEIPTS: 20,
        Examined.DECISIONS: 40,
        Examined.ORDERS: 4,
        Examined.KEY_RELEASES: 2,
        Examined.APPROVALS: 8,
        Examined.RELEASES: 8,
        Examined.MODELS: 6,
    }
    for site in report.sites:
        assert site.verified
        for log, view in zip(site.logs, whole.keeper(site.site).ledger().logs, strict=True):
            assert (log.log, log.size, log.root, log.uncosigned) == (view.log, view.size, view.root, 0)


def test_the_report_is_canonical(whole: Pair) -> None:
    report = verified(whole)
    assert canonical.load(Report, canonical.dump(report)) == report


def test_a_bundle_put_together_again_is_accepted(whole: Pair) -> None:
    forge = Forge(whole)
    assert verify(forge.build(), forge.roots).findings == ()


def test_two_jobs_one_after_the_other_are_accepted(pair: Pair) -> None:
    pair.work()
    pair.work(job=OTHER_JOB)
    assert verified(pair).findings == ()


class Restless(ManualClock):
    """A host's clock that is set back and forth between two looks at it."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self._swings = itertools.cycle((0, 40, 13, 0, 55, 21, 8))

    def now(self) -> int:
        return super().now() + next(self._swings)


def test_no_ledger_runs_backwards_when_the_clock_does(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "sites", clock=Restless())
    pair.prepare()
    pair.work()
    report = verified(pair)
    pair.close()
    assert report.findings == ()


def test_what_no_peer_has_cosigned_yet_is_reported(pair: Pair) -> None:
    pair.work()
    pair.order(CN, job=OTHER_JOB)
    pair.carry()
    report = verified(pair)
    assert report.accepted
    assert codes(report) == {FindingCode.NOT_YET_COSIGNED}
    internal = next(log for site in report.sites for log in site.logs if (site.site, log.log) == (CN, Log.INTERNAL))
    assert internal.uncosigned == 2


def test_an_order_on_its_way_is_reported(pair: Pair) -> None:
    pair.work()
    pair.order(CN, job=OTHER_JOB)
    report = verified(pair)
    assert report.accepted
    assert FindingCode.IN_FLIGHT in codes(report)


def test_a_receipt_on_its_way_is_reported(pair: Pair) -> None:
    pair.work()
    pair.order(CN, job=OTHER_JOB)
    crossing = pair.keeper(HQ).next_for(CN)
    assert crossing is not None
    pieces = list(pair.keeper(HQ).blob(CN, crossing.payload)[1])
    pair.keeper(CN).inbound.receive(HQ, crossing.envelope, pieces)
    report = verified(pair)
    assert report.accepted
    assert FindingCode.RECEIPT_AWAITED in codes(report)


def test_a_held_release_is_no_release(pair: Pair) -> None:
    order = started(pair)
    pair.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.5))
    pair.carry()
    pair.cosign()
    report = verified(pair)
    assert report.findings == ()
    assert report.information_bound_bits == 0


def test_a_release_approved_on_its_own_is_accepted(pair: Pair) -> None:
    order = started(pair)
    pair.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.5))
    pair.approve(CN, standing=False)
    pair.carry()
    pair.cosign()
    report = verified(pair)
    assert report.findings == ()
    assert report.examined[Examined.RELEASES] == 1


def test_a_release_that_replaced_another_before_it_was_sealed_is_accepted(pair: Pair) -> None:
    order = started(pair)
    pair.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.5))
    pair.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.75))
    pair.approve(CN)
    pair.carry()
    pair.keeper(CN).close_order(CloseOrder(order=order))
    pair.cosign()
    assert verified(pair).findings == ()


def test_a_rejected_release_leaves_an_acceptable_ledger(pair: Pair) -> None:
    order = started(pair)
    pair.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.5))
    pair.reject(CN)
    pair.carry()
    pair.keeper(CN).close_order(CloseOrder(order=order))
    pair.cosign()
    assert verified(pair).findings == ()


def test_another_payload_under_a_used_id_leaves_an_acceptable_ledger(pair: Pair) -> None:
    order = started(pair)
    pair.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.5))
    pair.approve(CN)
    with pytest.raises(Refusal) as refused:
        pair.release(CN, order, Kind.MODEL_UPDATE, 0, model(0.75))
    assert refused.value.code is Code.CONFLICTING_PAYLOAD
    pair.carry()
    pair.cosign()
    assert verified(pair).findings == ()


def test_candidates_refused_before_they_were_drafted_are_accounted_to_the_bit(pair: Pair) -> None:
    """One is refused for good, one is followed by a good one: the closing is what both entries charged."""
    order = started(pair)
    for slot in (0, 0, 1):
        with pytest.raises(Refusal):
            pair.release(CN, order, Kind.MODEL_UPDATE, slot, b"not a model")
    pair.release(CN, order, Kind.MODEL_UPDATE, 1, model(0.5))
    pair.approve(CN)
    pair.carry()
    pair.keeper(CN).close_order(CloseOrder(order=order))
    pair.cosign()
    assert verified(pair).findings == ()
    internal = Forge(pair).entries[CN][Log.INTERNAL]
    charged = sum(e.spent_bits for e in internal if isinstance(e, Decided))
    closed = next(e for e in internal if isinstance(e, OrderClosed))
    assert charged == closed.spent_bits == 2 * 8 * len(model(0.0))


def test_a_coordinator_that_has_not_heard_of_its_cosignatures_is_accepted(pair: Pair) -> None:
    """It hears of them when a link opens again; the zone's evidence holds them all along."""
    order = started(pair)
    pair.send_model(CN, order, 0, model(0.0))
    pair.carry()
    pair.exchange(CN)
    report = verified(pair)
    assert report.findings == ()
    assert all(log.uncosigned == 0 for site in report.sites for log in site.logs)


def test_too_few_vehicles_leave_an_acceptable_ledger(pair: Pair) -> None:
    order = started(pair)
    pair.release(CN, order, Kind.AGGREGATE, 0, evaluation(0), vehicles=3)
    pair.carry()
    pair.cosign()
    report = verified(pair)
    assert report.findings == ()
    assert Kind.AGGREGATE not in {total.kind for total in report.crossings}


def test_a_refused_order_stands_in_both_ledgers_and_is_counted(pair: Pair) -> None:
    pair.work()
    pair.order(CN, job=OTHER_JOB, dataset=DatasetRef(dataset=Name("drives"), snapshot=Name("never-frozen")))
    pair.carry()
    pair.cosign()
    report = verified(pair)
    assert report.findings == ()
    total = next(total for total in report.crossings if total.kind is Kind.ORDER)
    assert (total.count, total.refused) == (2, 1)


def test_what_a_peer_could_not_make_a_crossing_of_is_reported(pair: Pair) -> None:
    pair.work()
    with pytest.raises(Refusal):
        pair.keeper(HQ).inbound.examine(CN, b"nothing of the kind")
    report = verified(pair)
    assert report.accepted
    assert FindingCode.PEER_REFUSED in codes(report)


def test_a_halted_link_is_reported(pair: Pair) -> None:
    pair.work()
    forge = Forge(pair)
    internal = forge.leaves(CN, Log.INTERNAL)
    forked = [*internal[:-1], b'"another"', b'"and more"']
    proof = pair.keeper(CN).heads.heads(HQ, (Log.INTERNAL,)).heads[Log.INTERNAL]
    with pytest.raises(Refusal) as refused:
        pair.keeper(HQ).heads.cosign(
            CN,
            Log.INTERNAL,
            proof.model_copy(
                update={
                    "checkpoint": note(CN, Log.INTERNAL, forked, forge.keys[CN]),
                    "base": len(internal),
                    "consistency": (),
                }
            ),
        )
    assert refused.value.code is Code.LEDGER_FORKED
    report = verified(pair)
    assert report.accepted
    assert FindingCode.LINK_HALTED in codes(report)


def test_an_empty_bundle_is_refused(whole: Pair) -> None:
    report = verify({}, whole.roots)
    assert not report.accepted
    assert [finding.site for finding in report.findings] == sorted([CN, HQ, US])


def test_every_finding_is_failed_or_reported_as_its_code_says(whole: Pair) -> None:
    report = verify({"nobody.json": b""}, whole.roots)
    assert {f.severity for f in report.findings} == {Severity.FAILED}
    assert report.accepted is False


def test_the_reference_page_names_every_finding_with_its_severity() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (failed|reported) \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert rows == {code.value: ("reported" if code in REPORTED else "failed") for code in FindingCode}


def test_the_reference_page_says_what_is_not_claimed() -> None:
    page = " ".join(PAGE.read_text("utf-8").split())
    assert all(claim in page for claim in NOT_CLAIMED)


def test_the_verifier_needs_nothing_but_the_auditors_part() -> None:
    script = (
        "import sys; import isthmus.proof.bundle; "
        "print(sorted({m.split('.')[0] for m in sys.modules} | {m for m in sys.modules if m.startswith('isthmus.')}))"
    )
    loaded = set(
        ast.literal_eval(
            subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout.decode()
        )
    )
    assert not loaded & {"numpy", "jax", "sqlite3", "fastapi", "httpx2", "starlette", "uvicorn", "pyarrow", "structlog"}
    assert {name.split(".")[1] for name in loaded if name.startswith("isthmus.")} == {"contracts", "proof"}


@pytest.mark.parametrize("name", ["", "HQ.json", "../hq.json", "hq.json.json", "roots.json"])
def test_a_file_of_no_site_is_refused(whole: Pair, name: str) -> None:
    evidence = whole.evidence() | {name: whole.evidence()["hq.json"]}
    assert FindingCode.SITE_UNKNOWN in codes(verify(evidence, whole.roots))


def test_evidence_may_go_by_the_sites_name_alone(whole: Pair) -> None:
    evidence = {name.removesuffix(".json"): data for name, data in whole.evidence().items()}
    assert verify(evidence, whole.roots).accepted
    assert SiteId("hq") in evidence
