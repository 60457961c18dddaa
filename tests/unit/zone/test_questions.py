"""A question from its order to what the coordinator is handed: the zone's worker and its border, the real ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.analytics import algorithm
from isthmus.analytics.partials import partials, rows_that_count
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.inside import CandidateHeader, InsideRole
from isthmus.contracts.orders import Algorithm, Order
from isthmus.contracts.queries import Answer, Mode, Partials
from isthmus.contracts.raw_table import Group
from isthmus.fleet import simulate
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from isthmus.proof.sealing import SealingKey
from isthmus.zone.app import build
from isthmus.zone.progress import Progress
from isthmus.zone.questions import InProcessQuestions
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.store import DirectoryStore, MemoryStore
from unit.analytics.rows import figure, question
from unit.zone.counted_files import FLEET, SPEC, Vault, a_fleet, an_order
from unit.zone.sites import ZONE, make_borders

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.queries import QuerySpec
    from isthmus.zone.app import Zone
    from isthmus.zone.questions import Counted
    from unit.zone.sites import Borders


def counted(vault: Vault, **changes: Any) -> Counted:
    asking = InProcessQuestions(vault.store).prepare(vault.order)
    return asking.count([vault.grant(asking.run_keys[0], **changes)])


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_what_is_counted_is_what_the_files_hold_and_again_the_same_bytes(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path)
    vault = Vault.of(store, a_fleet(), an_order())
    found = counted(vault)
    expected = partials(SPEC, a_fleet())
    assert canonical.load(Partials, found.payload) == expected
    assert (found.contributors.vehicles, expected.vehicles) == (30, 30)
    assert found.contributors.windows == rows_that_count(SPEC, expected)
    assert counted(vault) == found


@pytest.mark.parametrize("spec", [SPEC, question(figure("vehicles"))])
def test_how_files_are_read_together_changes_nothing(spec: QuerySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = a_fleet()
    vault = Vault.of(MemoryStore(), tables, an_order(spec=spec))
    found = counted(vault)
    assert len(tables) > 1
    monkeypatch.setattr("isthmus.zone.questions.ROWS_AT_ONCE", 1)  # each file by itself, as very large ones are read
    assert counted(vault) == found


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"algorithm": Algorithm(name=algorithm.NAME, digest=Digest.of(b"other"))}, Code.ALGORITHM_UNKNOWN),
        ({"groups": (Group.MINUTES,)}, Code.GROUP_NOT_IN_ORDER),
    ],
)
def test_another_algorithm_or_group_is_not_counted(changes: dict[str, Any], code: Code) -> None:
    with pytest.raises(Refusal) as refusal:
        InProcessQuestions(MemoryStore()).prepare(an_order(**changes))
    assert refusal.value.code is code


def test_a_question_on_another_catalogue_is_not_counted() -> None:
    order = an_order()
    assert order.query is not None
    other = order.query.model_copy(update={"catalogue": Digest.of(b"other")})
    with pytest.raises(Refusal) as refusal:
        InProcessQuestions(MemoryStore()).prepare(order.model_copy(update={"query": other}))
    assert refusal.value.code is Code.SCHEMA_MISMATCH


def test_an_altered_file_a_foreign_grant_and_a_foreign_key_are_refused() -> None:
    vault = Vault.of(MemoryStore(), a_fleet(), an_order())
    questions = InProcessQuestions(vault.store)
    with pytest.raises(Refusal) as refusal:
        counted(vault, size=1)
    assert refusal.value.code is Code.FILE_ALTERED
    with pytest.raises(Refusal):
        counted(vault, digest=Digest.of(b"another"))
    asking = questions.prepare(vault.order)
    foreign = vault.grant(asking.run_keys[0]).model_copy(update={"order": order_id(an_order(2))})
    with pytest.raises(Refusal) as refusal:
        asking.count([foreign])
    assert refusal.value.code is Code.ORDER_UNKNOWN
    asking = questions.prepare(vault.order)
    with pytest.raises(Refusal):
        asking.count([vault.grant(SealingKey.generate().public)])


def test_a_closed_or_used_one_counts_no_more() -> None:
    vault = Vault.of(MemoryStore(), a_fleet(), an_order())
    asking = InProcessQuestions(vault.store).prepare(vault.order)
    grant = vault.grant(asking.run_keys[0])
    asking.count([grant])
    with pytest.raises(Refusal) as refusal:
        asking.count([grant])
    assert refusal.value.code is Code.ORDER_CLOSED


def test_a_snapshot_without_the_table_says_what_to_do() -> None:
    vault = Vault.of(MemoryStore(), [], an_order())
    with pytest.raises(Refusal) as refusal:
        counted(vault)
    assert refusal.value.code is Code.DATASET_UNKNOWN
    assert "Ingest" in refusal.value.remedy


# With the worker and the borders.


def a_zone(home: Path, borders: Borders) -> Zone:
    settings = ZoneSettings(
        site=ZONE,
        border_url="http://border",
        store=home / "store",
        catalogue=home / "catalogue.db",
        results=home / "results",
    )
    return build(settings, borders.clock)


async def asked(
    home: Path, order: Order, *, killed: bool = False, spoil: bool = False
) -> tuple[list[Answer], Code | None]:
    """Ingest a small fleet, ask, and let the worker serve; `killed` stops it after 1 turn, then 2, and so on.

    Returns:
        The answers that reached the coordinator, and the code with which the zone closed the order.
    """
    borders = make_borders(home / "borders")
    zone, hq = a_zone(home / "zone", borders), borders.hq.client(InsideRole.SUBMITTER)
    await zone.ingest(simulate("cn-shanghai", 12, 1, 1), dataset=FLEET, border=borders.zone.client(InsideRole.INGEST))
    if spoil:
        _spoil(home)
    body = canonical.dump(order)
    await hq.submit(
        CandidateHeader(order=order_id(order), kind=Kind.ORDER, recipient=ZONE, slot=0, size=len(body)), body
    )
    progress, patience = Progress(zone.database), 0
    while not _closed(progress, order):
        patience += 1
        stop = asyncio.Event()
        serving = asyncio.create_task(zone.worker(borders.zone.client(InsideRole.COMPUTE)).run(stop))
        turns = 0
        while not serving.done() and not _closed(progress, order) and not (killed and turns == patience):
            borders.carry()
            borders.clock.advance(1)
            borders.zone.keeper.statistics.release_due()
            await asyncio.sleep(0.01)  # the worker's turn: nothing is timed by it
            turns += 1
        stop.set()
        await serving
    borders.carry()
    came = [d for d in await hq.deliveries(0, 0) if d.order == order_id(order) and d.kind is Kind.AGGREGATE]
    answers = [canonical.load(Answer, bytes(await hq.payload(d.crossing))) for d in came]
    standing = progress.standing(order_id(order))
    assert standing is not None
    zone.close()
    return answers, standing.code


def _spoil(home: Path) -> None:
    path = next(home.rglob("drives.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def _closed(progress: Progress, order: Order) -> bool:
    standing = progress.standing(order_id(order))
    return standing is not None and standing.state == "closed"


@pytest.mark.parametrize("killed", [False, True])
def test_an_answer_reaches_the_coordinator_once_whatever_dies_in_the_zone(tmp_path: Path, *, killed: bool) -> None:
    (answer,), code = asyncio.run(asked(tmp_path, an_order(), killed=killed))
    assert code is None
    assert answer.mode is Mode.DP
    assert len(answer.cells) == 2
    assert answer.epsilon_micro <= 1_000_000


def test_a_changed_file_closes_the_question_with_a_code_and_nothing_of_it_leaves(tmp_path: Path) -> None:
    answers, code = asyncio.run(asked(tmp_path, an_order(), spoil=True))
    assert (answers, code) == ([], Code.FILE_ALTERED)
