"""A large table counted on a cluster: files with rows of the same vehicles, shared out, give one process's bytes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from bench.counting import divided, table_of
from isthmus.contracts.queries import Partials
from isthmus.contracts.tables import TABLES, TableName
from isthmus.proof import canonical
from isthmus.zone.cluster.connection import Connection
from isthmus.zone.cluster.questions import RayQuestions
from isthmus.zone.questions import InProcessQuestions
from isthmus.zone.store import DirectoryStore
from servers.ray_cluster import running
from unit.analytics.rows import EVERYTHING, figure, question
from unit.zone.counted_files import Vault, an_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.contracts.queries import QuerySpec
    from isthmus.zone.questions import Counted, Questions
    from servers.ray_cluster import RayCluster

pytestmark = pytest.mark.e2e
ROWS, VEHICLES, FILES, ACTORS = 300_000, 3_000, 5, 2
SPEC = question(*EVERYTHING, figure("histogram", "headway_s", bins=16), group_by=("road_type",), rows=2, groups=2)
FEWER_CELLS = question(*EVERYTHING, group_by=("road_type",), rows=7, groups=2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with running(tmp_path_factory.mktemp("cluster"), shards=ACTORS) as cluster:
        yield cluster


@pytest.mark.parametrize("spec", [SPEC, FEWER_CELLS], ids=["every cell", "two cells a vehicle"])
def test_two_actors_count_what_one_process_does(spec: QuerySpec, cluster: RayCluster) -> None:
    order = an_order(spec=spec)
    files = divided(table_of(TABLES[TableName.DRIVES], ROWS, VEHICLES), FILES)
    shutil.rmtree(cluster.site / "store", ignore_errors=True)  # of the question before
    vault = Vault.of(DirectoryStore(cluster.site / "store"), files, order)

    def counted(questions: Questions, keys: int) -> Counted:
        asking = questions.prepare(order)
        try:
            assert len(asking.run_keys) == keys
            return asking.count([vault.grant(key) for key in asking.run_keys])
        finally:
            asking.close()

    connection = Connection(cluster.settings.client_address, cluster.settings.token, 60)
    try:
        here = InProcessQuestions(vault.store)
        shared = counted(RayQuestions(connection, cluster.settings, lambda *_: 1 << 30, here), ACTORS)
    finally:
        connection.close()
    alone = counted(here, 1)
    assert shared.payload == alone.payload
    sums = canonical.load(Partials, shared.payload)
    assert sums.vehicles == shared.contributors.vehicles == VEHICLES
