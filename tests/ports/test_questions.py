"""One contract for all who count: in this process, and on a cluster as one actor and as two. The same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isthmus.analytics.partials import partials
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest, Name
from isthmus.contracts.orders import Algorithm
from isthmus.contracts.queries import Partials
from isthmus.contracts.tables import TABLES
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from isthmus.proof.sealing import SealingKey
from isthmus.zone.cluster.connection import Connection
from isthmus.zone.cluster.questions import RayQuestions
from isthmus.zone.cluster.settings import RaySettings
from isthmus.zone.questions import InProcessQuestions
from isthmus.zone.store import DirectoryStore
from servers.ray_cluster import running
from unit.zone.counted_files import SPEC, Vault, a_fleet, an_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.contracts.orders import DatasetRef
    from isthmus.contracts.raw_table import Group
    from isthmus.zone.questions import Counted, Questions
    from servers.ray_cluster import RayCluster

KINDS = {"in process": 0, "one actor": 1, "two actors": 2}
ORDER = an_order()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def vault(cluster: RayCluster) -> Vault:
    """Three files, where the cluster finds them; vehicles have rows in several."""
    return Vault.of(DirectoryStore(cluster.site / "store"), a_fleet(), ORDER)


@pytest.fixture(scope="module")
def connection(cluster: RayCluster) -> Iterator[Connection]:
    connection = Connection(cluster.settings.client_address, cluster.settings.token, 30)
    yield connection
    connection.close()


@pytest.fixture(params=list(KINDS))
def questions(request: pytest.FixtureRequest, cluster: RayCluster, connection: Connection, vault: Vault) -> Questions:
    actors, here = KINDS[request.param], InProcessQuestions(vault.store)
    if not actors:
        return here
    settings = cluster.settings.model_copy(update={"most_shards": actors, "small_question_bytes": 0})
    return RayQuestions(connection, settings, lambda *_: 1 << 20, here)


def counted(questions: Questions, vault: Vault) -> Counted:
    asking = questions.prepare(ORDER)
    try:
        return asking.count([vault.grant(key) for key in asking.run_keys])
    finally:
        asking.close()


def test_the_sums_are_those_of_all_files_together(questions: Questions, vault: Vault) -> None:
    found = counted(questions, vault)
    assert canonical.load(Partials, found.payload) == partials(SPEC, a_fleet())
    assert found.contributors.vehicles == 30


def test_another_algorithm_is_not_counted(questions: Questions) -> None:
    other = ORDER.model_copy(update={"algorithm": Algorithm(name=ORDER.algorithm.name, digest=Digest.of(b"other"))})
    with pytest.raises(Refusal) as refusal:
        questions.prepare(other)
    assert refusal.value.code is Code.ALGORITHM_UNKNOWN


def test_a_grant_of_another_order_or_to_another_key_is_refused(questions: Questions, vault: Vault) -> None:
    asking = questions.prepare(ORDER)
    foreign = order_id(an_order(2))
    with pytest.raises(Refusal) as refusal:
        asking.count([vault.grant(key).model_copy(update={"order": foreign}) for key in asking.run_keys])
    assert refusal.value.code is Code.ORDER_UNKNOWN
    asking.close()
    asking = questions.prepare(ORDER)
    with pytest.raises(Refusal):
        asking.count([vault.grant(SealingKey.generate().public) for _ in asking.run_keys])
    asking.close()


def test_a_closed_one_counts_no_more(questions: Questions, vault: Vault) -> None:
    asking = questions.prepare(ORDER)
    grants = [vault.grant(key) for key in asking.run_keys]
    asking.close()
    with pytest.raises(Refusal) as refusal:
        asking.count(grants)
    assert refusal.value.code is Code.ORDER_CLOSED


def test_the_machine_on_which_rows_are_added_up_is_named_beside_the_nodes(
    cluster: RayCluster, connection: Connection, vault: Vault
) -> None:
    own = Name("h20")
    settings = cluster.settings.model_copy(update={"small_question_bytes": 0})
    here = InProcessQuestions(vault.store, own)
    for questions, named in (
        (here, (own,)),
        (RayQuestions(connection, settings, lambda *_: 1 << 20, here), ("cpu", own)),
    ):
        asking = questions.prepare(ORDER)
        asking.close()
        assert asking.accelerators == named


def test_a_small_table_is_counted_without_the_cluster(vault: Vault) -> None:
    """However much one actor is worth starting for."""
    nobody_there = Connection("127.0.0.1:1", Path("no-token"), 1)
    worth, asked = RaySettings(shard_bytes=1, small_question_bytes=4096), []

    def size_of(dataset: DatasetRef, group: Group) -> int:
        asked.append((dataset, group))
        return 4096

    questions = RayQuestions(nobody_there, worth, size_of, InProcessQuestions(vault.store))
    assert canonical.load(Partials, counted(questions, vault).payload) == partials(SPEC, a_fleet())
    assert asked == [(ORDER.dataset, TABLES[SPEC.table].group)]


def test_a_larger_table_than_a_small_one_is_not_counted_here(vault: Vault) -> None:
    """The zone's process has no memory for it, though one actor is worth starting for far more."""
    nobody_there = Connection("127.0.0.1:1", Path("no-token"), 1)
    settings = RaySettings()
    size = settings.small_question_bytes + 1
    assert size < settings.shard_bytes
    with pytest.raises(Fault) as fault:
        RayQuestions(nobody_there, settings, lambda *_: size, InProcessQuestions(vault.store)).prepare(ORDER)
    assert fault.value.code is Code.CONFIGURATION  # the cluster's token is asked for
