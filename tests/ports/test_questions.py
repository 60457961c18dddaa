"""One contract for all who count: in this process, and on a cluster as one actor and as two. The same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isthmus.analytics.partials import partials
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, Name
from isthmus.contracts.orders import Algorithm
from isthmus.contracts.queries import Partials
from isthmus.proof import canonical
from isthmus.proof.ids import order_id
from isthmus.proof.sealing import SealingKey
from isthmus.zone.cluster.connection import Connection
from isthmus.zone.cluster.questions import RayQuestions
from isthmus.zone.questions import InProcessQuestions
from isthmus.zone.store import DirectoryStore
from servers.ray_cluster import running
from unit.zone.counted_files import SPEC, Vault, a_fleet, an_order

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture(params=list(KINDS))
def questions(request: pytest.FixtureRequest, cluster: RayCluster, vault: Vault) -> Iterator[Questions]:
    actors, settings = KINDS[request.param], cluster.settings
    if not actors:
        yield InProcessQuestions(vault.store)
        return
    connection = Connection(settings.client_address, settings.token, 30)
    yield RayQuestions(connection, settings.model_copy(update={"most_shards": actors}), lambda _: 1 << 20)
    connection.close()


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


def test_the_machine_on_which_rows_are_added_up_is_named_beside_the_nodes(cluster: RayCluster, vault: Vault) -> None:
    own, settings = Name("h20"), cluster.settings
    connection = Connection(settings.client_address, settings.token, 30)
    for questions, named in (
        (InProcessQuestions(vault.store, own), (own,)),
        (RayQuestions(connection, settings, lambda _: 1 << 20, own), ("cpu", own)),
    ):
        asking = questions.prepare(ORDER)
        asking.close()
        assert asking.accelerators == named
    connection.close()
