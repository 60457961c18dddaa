"""One contract for every compute: in this process, on a cluster as one shard, and as two."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest, Name
from isthmus.contracts.inside import KeyGrant
from isthmus.contracts.orders import GRAIN, Algorithm, Predictor, TrainingPrivacy
from isthmus.contracts.raw_table import Group
from isthmus.learning import algorithm, sums, weights
from isthmus.learning.forecaster import initial_weights
from isthmus.proof.ids import order_id
from isthmus.proof.sealing import SealingKey
from isthmus.zone.cluster.compute import RayCompute, RayOpening
from isthmus.zone.cluster.connection import Connection
from isthmus.zone.compute import InProcessCompute
from isthmus.zone.store import DirectoryStore
from servers.ray_cluster import running
from servers.stored_order import an_order, circling, stored
from unit.learning.tracks import Mover, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isthmus.zone.compute import Compute, Run
    from servers.ray_cluster import RayCluster
    from servers.stored_order import Stored

FIRST = weights.encode(initial_weights(3))
KINDS = {"in process": 0, "one shard": 1, "two shards": 2}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def drives(cluster: RayCluster) -> Stored:
    """Three files of 12 vehicles, where the cluster finds them."""
    return stored(cluster.site / "store", circling(3, 12))


@pytest.fixture(scope="module")
def connection(cluster: RayCluster) -> Iterator[Connection]:
    connection = Connection(cluster.settings.client_address, cluster.settings.token, 30)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def computes(cluster: RayCluster, connection: Connection, drives: Stored) -> dict[str, Compute]:
    settings = cluster.settings
    found: dict[str, Compute] = {"in process": InProcessCompute(DirectoryStore(drives.folder))}
    for name, shards in list(KINDS.items())[1:]:
        chosen = settings.model_copy(update={"most_shards": shards})
        found[name] = RayCompute(connection, chosen, lambda *_: drives.bytes)
    return found


@pytest.fixture(params=list(KINDS))
def compute(request: pytest.FixtureRequest, computes: dict[str, Compute]) -> Compute:
    return computes[request.param]


ORDER = an_order(batch_size=200, epochs=2)
PRIVACY = TrainingPrivacy(
    epsilon_micro=8_000_000,
    delta_exponent=6,
    vehicle_norm_micro=500_000,
    vehicles=100,
    vehicle_steps=3,
    vehicle_batch=32,
    vehicle_rate_micro=1_000,
)
PRIVATE = an_order(privacy=PRIVACY)


@pytest.fixture(scope="module")
def runs(computes: dict[str, Compute], drives: Stored) -> Iterator[dict[str, Run]]:
    """The same order, open in each compute."""
    found = {name: drives.opened(compute, ORDER) for name, compute in computes.items()}
    yield found
    for run in found.values():
        run.close()


def numbers(update: bytes) -> np.ndarray:
    decoded = weights.decode(update, weights.MODEL_SCHEMA)
    return np.concatenate([decoded[name].ravel() for name in sorted(decoded)])


def test_an_order_has_a_key_for_each_part_of_compute(computes: dict[str, Compute]) -> None:
    keys = []
    for name, shards in KINDS.items():
        opening = computes[name].prepare(an_order())
        assert len(opening.run_keys) == max(1, shards)
        assert opening.accelerators == ("cpu",)
        keys += opening.run_keys
        opening.close()
    assert len(set(keys)) == len(keys)


def test_shards_are_as_urgent_as_this_process_is(cluster: RayCluster, runs: dict[str, Run]) -> None:
    """Ray starts actors at niceness 15: on a busy machine a round would wait for all else."""
    assert len(runs) == len(KINDS)
    assert {process.nice() for process in cluster.shard_processes()} == {os.nice(0)}


def test_all_count_the_same_vehicles_and_windows(runs: dict[str, Run]) -> None:
    counted = [(run.contributors, run.evaluators) for run in runs.values()]
    assert counted[0] == counted[1] == counted[2]
    contributors, evaluators = counted[0]
    assert (contributors.vehicles, evaluators.vehicles) == (8, 4)
    assert contributors.windows > evaluators.windows > 0


def test_all_train_the_same_update_up_to_the_order_of_sums(runs: dict[str, Run]) -> None:
    alone, one, two = (numbers(run.train(1, FIRST)) for run in runs.values())
    np.testing.assert_array_equal(one, alone)
    assert np.linalg.norm(alone) > 0.1
    np.testing.assert_allclose(two, alone, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def private_runs(computes: dict[str, Compute], drives: Stored) -> Iterator[dict[str, Run]]:
    """A private order, open in each compute."""
    found = {name: drives.opened(compute, PRIVATE) for name, compute in computes.items()}
    yield found
    for run in found.values():
        run.close()


def test_a_private_order_has_one_key_since_a_vehicles_windows_stay_together(compute: Compute) -> None:
    opening = compute.prepare(PRIVATE)
    assert len(opening.run_keys) == 1
    opening.close()


def test_all_compute_the_same_sum_of_a_private_round(private_runs: dict[str, Run]) -> None:
    found = {run.train(1, FIRST) for run in private_runs.values()}
    (payload,) = found
    total = sums.decode(payload, weights.MODEL_SCHEMA)
    vehicles = private_runs["in process"].contributors.vehicles
    assert 0 < np.linalg.norm(total) <= vehicles * GRAIN
    (other,) = {run.train(2, FIRST) for run in private_runs.values()}
    assert other != payload


def test_a_private_sum_is_of_each_vehicle_alone_however_files_are_laid_out(
    private_runs: dict[str, Run], tmp_path: Path
) -> None:
    """The same drives in other files: all in one, and one more vehicle in a file that comes to be read first."""
    one = drives_in(tmp_path / "one", [pa.concat_tables(circling(3, 12))])
    assert one.train(1, FIRST) == private_runs["in process"].train(1, FIRST)
    tables = circling(3, 12)
    newcomer = drive(Mover(speed=9.0, turn_rate=0.2), vehicle="v9", scene="s0", samples=101)
    larger = drives_in(tmp_path / "larger", [*tables[:2], pa.concat_tables([newcomer, tables[2]])])
    more = sums.decode(larger.train(1, FIRST), weights.MODEL_SCHEMA)
    fewer = sums.decode(private_runs["in process"].train(1, FIRST), weights.MODEL_SCHEMA)
    assert 0 < sum(int(number) ** 2 for number in (more - fewer).tolist()) <= GRAIN**2


def drives_in(folder: Path, tables: list[pa.Table]) -> Run:
    """Open the private order in this process, on other files."""
    return stored(folder, tables).opened(InProcessCompute(DirectoryStore(folder)), PRIVATE)


def test_a_private_order_is_evaluated_and_adapted_as_any_other(
    private_runs: dict[str, Run], runs: dict[str, Run]
) -> None:
    """Figures and the adapted model stay in the zone, or cross as they do without privacy."""
    plain = runs["in process"].evaluate(2, FIRST)
    for run in private_runs.values():
        found = run.evaluate(2, FIRST)
        assert plain is not None
        assert found is not None
        assert [abs(a.ade_um - b.ade_um) <= 2 for a, b in zip(found.figures, plain.figures, strict=True)] == [True] * 3
        adapted, figures = run.adapt(FIRST)
        assert figures is not None
        assert np.linalg.norm(numbers(adapted) - numbers(FIRST)) > 0.1
        assert run.reference(FIRST) is not None


def test_a_private_order_does_not_tell_by_failing_how_many_vehicles_there_are(compute: Compute, drives: Stored) -> None:
    """Who orders it chooses how many are held out: 11 of 12 leave one to train on, and with 12 there is none."""
    for held_out, trained in ((11, 1), (12, 0), (1_000, 0)):
        run = drives.opened(compute, an_order(held_out=held_out, privacy=PRIVACY))
        assert (run.contributors.vehicles, run.evaluators.vehicles) == (trained, 12 - trained)
        total = sums.decode(run.train(0, FIRST), weights.MODEL_SCHEMA)
        assert np.any(total) == bool(trained)
        run.reference(FIRST)
        adapted, _ = run.adapt(FIRST)
        assert (adapted == FIRST) == (not trained)
        run.close()
    assert code_of(lambda: drives.opened(compute, an_order(held_out=12))) is Code.INPUT_INVALID


def test_shards_that_share_a_private_order_give_no_sum_rather_than_a_part_of_it(
    cluster: RayCluster, connection: Connection, drives: Stored
) -> None:
    opening = RayOpening(PRIVATE, connection, cluster.settings)
    opening.start(connection.nodes() * 2)
    run = opening.open([drives.grant(PRIVATE, key) for key in opening.run_keys])
    with pytest.raises(Fault) as fault:
        run.train(0, FIRST)
    assert fault.value.code is Code.COMPUTE_FAILED
    run.close()


def test_a_closed_run_of_a_private_order_sums_nothing(compute: Compute, drives: Stored) -> None:
    run = drives.opened(compute, PRIVATE)
    run.close()
    assert code_of(lambda: run.train(0, FIRST)) is Code.ORDER_CLOSED


def test_three_shards_meet_each_with_each(
    cluster: RayCluster, connection: Connection, runs: dict[str, Run], drives: Stored
) -> None:
    opening = RayOpening(ORDER, connection, cluster.settings)
    opening.start(connection.nodes() * 3)
    run = opening.open([drives.grant(ORDER, key) for key in opening.run_keys])
    assert run.contributors == runs["in process"].contributors
    for slot in (1, 2):
        found, alone = numbers(run.train(slot, FIRST)), numbers(runs["in process"].train(slot, FIRST))
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)
    run.close()


def test_the_same_shards_train_the_same_bytes(
    runs: dict[str, Run], computes: dict[str, Compute], drives: Stored
) -> None:
    first, second = runs["two shards"], drives.opened(computes["two shards"], ORDER)
    assert first.train(0, FIRST) == first.train(0, FIRST) == second.train(0, FIRST) != first.train(1, FIRST)
    second.close()


def test_all_find_the_same_errors(runs: dict[str, Run]) -> None:
    alone, *others = (run.evaluate(2, FIRST) for run in runs.values())
    assert alone is not None
    for other in others:
        assert other is not None
        assert (other.version, other.slot) == (alone.version, alone.slot) == (1, 2)
        for mine, theirs in zip(other.figures, alone.figures, strict=True):
            assert mine.predictor == theirs.predictor
            assert abs(mine.ade_um - theirs.ade_um) <= 2
            assert abs(mine.fde_um - theirs.fde_um) <= 2
            assert abs(mine.miss_ppm - theirs.miss_ppm) <= 2


def test_all_adapt_and_compare_alike(runs: dict[str, Run]) -> None:
    found = [(run.reference(FIRST), run.adapt(FIRST)) for run in runs.values()]
    for reference, (adapted, figures) in found:
        assert reference is not None
        assert figures is not None
        assert (reference.predictor, figures.predictor) == (Predictor.LOCAL_ONLY, Predictor.ADAPTED)
        np.testing.assert_allclose(numbers(adapted), numbers(found[0][1][0]), rtol=0, atol=1e-6)
        assert abs(reference.ade_um - found[0][0].ade_um) <= 10
        assert abs(figures.ade_um - found[0][1][1].ade_um) <= 10


def test_nothing_is_evaluated_where_nobody_is_held_out(compute: Compute, drives: Stored) -> None:
    run = drives.opened(compute, an_order(held_out=0))
    assert run.evaluators.vehicles == 0
    assert run.evaluate(0, FIRST) is None
    assert run.reference(FIRST) is None
    run.close()


def code_of(do: Callable[[], object]) -> Code:
    with pytest.raises(Refusal) as refusal:
        do()
    return refusal.value.code


def test_another_algorithm_is_refused_before_there_is_a_key(compute: Compute) -> None:
    order = an_order().model_copy(update={"algorithm": Algorithm(name=algorithm.NAME, digest=Digest.of(b"other"))})
    assert code_of(lambda: compute.prepare(order)) is Code.ALGORITHM_UNKNOWN


def test_an_altered_file_is_refused(compute: Compute, drives: Stored) -> None:
    path = drives.folder / drives.files[1].object_name
    whole = path.read_bytes()
    path.chmod(0o600)
    try:
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        assert code_of(lambda: drives.opened(compute, an_order())) is Code.FILE_ALTERED
        path.unlink()
        assert code_of(lambda: drives.opened(compute, an_order())) is Code.NOT_FOUND
    finally:
        path.write_bytes(whole)


def test_keys_that_were_sealed_to_somebody_else_open_nothing(compute: Compute, drives: Stored) -> None:
    opening, order = compute.prepare(an_order()), an_order()
    stranger = SealingKey.generate().public
    assert code_of(lambda: opening.open([drives.grant(order, stranger) for _ in opening.run_keys])) is (
        Code.PAYLOAD_ALTERED
    )
    opening.close()


def test_a_grant_for_another_order_or_dataset_or_of_nothing_is_refused(compute: Compute, drives: Stored) -> None:
    order, other = an_order(), an_order(job=2)
    opening = compute.prepare(order)
    for code, wrong in (
        (Code.ORDER_UNKNOWN, lambda grant: grant.model_copy(update={"order": order_id(other)})),
        (
            Code.ORDER_UNKNOWN,
            lambda grant: KeyGrant(
                order=grant.order, files=tuple(f.model_copy(update={"dataset": Name("other")}) for f in grant.files)
            ),
        ),
        (Code.DATASET_UNKNOWN, lambda grant: KeyGrant(order=grant.order, files=())),
    ):
        grants = [wrong(drives.grant(order, key)) for key in opening.run_keys]
        assert code_of(lambda g=grants: opening.open(g)) is code
    opening.close()


def test_an_order_that_does_not_name_the_motion_is_refused(compute: Compute, drives: Stored) -> None:
    order = an_order().model_copy(update={"groups": (Group.IDENTITY,)})
    assert code_of(lambda: drives.opened(compute, order)) is Code.GROUP_NOT_IN_ORDER


def test_at_least_one_vehicle_is_trained_on(compute: Compute, drives: Stored) -> None:
    assert code_of(lambda: drives.opened(compute, an_order(held_out=12))) is Code.INPUT_INVALID


def test_a_model_of_another_schema_is_refused(
    request: pytest.FixtureRequest, compute: Compute, runs: dict[str, Run]
) -> None:
    run = runs[request.node.callspec.params["compute"]]
    other = weights.encode({"a": np.zeros(3, np.float32)})
    for do in (lambda: run.train(0, other), lambda: run.evaluate(0, other), lambda: run.adapt(other)):
        assert code_of(do) is Code.SCHEMA_MISMATCH
    assert run.evaluate(0, FIRST) is not None


def test_an_opening_opens_once_and_a_closed_run_does_nothing(compute: Compute, drives: Stored) -> None:
    order = an_order()
    opening = compute.prepare(order)
    grants = [drives.grant(order, key) for key in opening.run_keys]
    run = opening.open(grants)
    assert code_of(lambda: opening.open(grants)) is Code.ORDER_CLOSED
    run.close()
    run.close()
    for do in (lambda: run.train(0, FIRST), lambda: run.evaluate(0, FIRST), lambda: run.adapt(FIRST)):
        assert code_of(do) is Code.ORDER_CLOSED
