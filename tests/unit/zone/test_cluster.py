"""What decides about a cluster, without one: which nodes may work, how files are shared out, how a node is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli import main
from isthmus.cli.screen import Exit
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest, FileId, Name
from isthmus.contracts.orders import DatasetRef
from isthmus.contracts.raw_table import Group
from isthmus.zone.catalogue import Catalogue, Database, StoredFile, StoredGroup
from isthmus.zone.cluster.answers import Failure, answered, value_of
from isthmus.zone.cluster.launch import Machine, head_command, worker_command
from isthmus.zone.cluster.layout import FileReport, draw, lay_out, shards_for, share_out
from isthmus.zone.cluster.nodes import ACCELERATOR_LABEL, Node, classes_of, nodes_of, permitted
from isthmus.zone.cluster.settings import RaySettings
from isthmus.zone.compute import RunLost
from isthmus.zone.settings import ZoneSettings

CPU, H20, UNSAID = Node("a", "cpu", 4), Node("b", "h20", 8), Node("c", None, 2)


def test_only_nodes_of_an_allowed_class_work() -> None:
    assert permitted([CPU, H20, UNSAID], ("cpu",)) == (CPU,)
    assert permitted([CPU, H20, UNSAID], ("h20", "cpu")) == (CPU, H20)


@pytest.mark.parametrize("allowed", [("h100",), (), ("",), ("no class",)])
def test_an_order_is_refused_where_no_node_is_allowed(allowed: tuple[str, ...]) -> None:
    """What one jurisdiction allows another does not; a node that does not say what it is counts as not allowed."""
    with pytest.raises(Refusal) as refusal:
        permitted([H20, UNSAID], allowed)
    assert refusal.value.code is Code.POLICY_DENIED
    assert "h20" in refusal.value.why
    assert "no class" in refusal.value.why


def test_a_head_that_only_coordinates_neither_works_nor_stands_in_the_way() -> None:
    head = Node("head", "h100", 0)
    assert permitted([head, CPU], ("cpu",)) == (CPU,)
    assert permitted([head], ("cpu",)) == ()


def test_nodes_are_read_from_what_ray_tells() -> None:
    listing: list[dict[str, Any]] = [
        {"NodeID": "b", "Alive": True, "Labels": {ACCELERATOR_LABEL: "cpu"}, "Resources": {"CPU": 2.0}},
        {"NodeID": "gone", "Alive": False, "Labels": {ACCELERATOR_LABEL: "cpu"}, "Resources": {"CPU": 2.0}},
        {"NodeID": "a", "Alive": True, "Labels": None, "Resources": {}},
    ]
    assert nodes_of(listing) == (Node("a", None, 0), Node("b", "cpu", 2))


@pytest.mark.parametrize(("size", "expected"), [(0, 1), (1, 1), (100, 1), (101, 2), (300, 3), (10_000, 3)])
def test_shards_grow_with_the_data_up_to_the_processors(size: int, expected: int) -> None:
    assert shards_for(size, 100, 8, 3) == expected
    assert shards_for(size, 100, 1, 3) == 1


def test_the_data_are_those_of_the_orders_snapshot(tmp_path: Path) -> None:
    """And the whole dataset where the snapshot is not listed: no data at all would be counted anywhere."""
    names = [FileId(f"file-{number:032x}") for number in range(3)]
    catalogue = Catalogue(Database(tmp_path / "catalogue"))
    catalogue.add_files(
        [
            StoredFile(
                file=name,
                dataset=Name("fleet"),
                groups=tuple(
                    StoredGroup(group, f"{name}-{group.value}", Digest.of(name.encode()), size * 10**number)
                    for group, size in ((Group.MOTION, 1), (Group.IDENTITY, 5))
                ),
                pseudonyms=(),
                drives=1,
                rows=1,
                raw_bytes=1,
            )
            for number, name in enumerate(names)
        ],
        at=0,
    )
    first, later = (DatasetRef(dataset=Name("fleet"), snapshot=Name(name)) for name in ("first", "later"))
    catalogue.freeze(first, names[:2], Digest.of(b"first"), at=0)
    assert catalogue.sealed_bytes(first, Group.MOTION) == 11
    assert catalogue.sealed_bytes(first, Group.IDENTITY) == 55
    assert catalogue.sealed_bytes(later, Group.MOTION) == 111


def test_every_file_has_one_shard_and_loads_are_even() -> None:
    sizes = [5, 90, 10, 40, 45, 80]
    shared = share_out(sizes, 3)
    assert sorted(file for files in shared for file in files) == list(range(6))
    loads = [sum(sizes[file] for file in files) for files in shared]
    assert max(loads) - min(loads) <= 10
    assert share_out([1], 3) == ((0,), (), ())


def test_files_stand_in_an_order_of_their_content() -> None:
    vehicle = draw("salt", "v1")
    reports = [FileReport(0, "b", {vehicle: 5}), FileReport(1, "a", {vehicle: 7}), FileReport(2, "b", {vehicle: 2})]
    layout = lay_out(reports, 0)
    assert layout.starts == {1: 0, 0: 7, 2: 12}
    assert layout.contributors.windows == 14


def test_the_border_is_told_the_class_of_every_node_that_was_chosen() -> None:
    listed = [
        {"NodeID": name, "Alive": True, "Labels": {"accelerator-class": label}, "Resources": {"CPU": 2.0}}
        for name, label in (("n1", "h20"), ("n2", "cpu"), ("n3", "h20"), ("n4", "h100"))
    ]
    chosen = permitted(nodes_of(listed), ("cpu", "h20"))
    assert [node.id for node in chosen] == ["n1", "n2", "n3"]
    assert classes_of(chosen) == ("cpu", "h20")


@pytest.mark.parametrize("held_out", [-1, 2, 3])
def test_no_more_vehicles_are_held_out_than_there_are(held_out: int) -> None:
    reports = [FileReport(0, "a", {b"1": 1, b"2": 1})]
    with pytest.raises(Refusal) as refusal:
        lay_out(reports, held_out)
    assert refusal.value.code is Code.INPUT_INVALID


def test_what_goes_wrong_in_an_actor_comes_back_without_its_words() -> None:
    def fails(error: Exception) -> object:
        def method() -> None:
            raise error

        return answered(method)()

    unforeseen = fails(RuntimeError("vehicle v007 at 31.2, 121.4"))
    assert isinstance(unforeseen, Failure)
    assert "v007" not in repr(unforeseen)
    for error in (Refusal(Code.FILE_ALTERED, "a", why="b", remedy="c"), Fault(Code.STORAGE_FAILED, "d"), RunLost("e")):
        with pytest.raises(type(error)) as raised:
            value_of(fails(error))
        assert str(raised.value) == str(error)


MACHINE = Machine("10.0.0.7", Path("/state"), 2, 1, "h20")


@pytest.mark.parametrize("command", [head_command, worker_command])
def test_a_node_takes_the_token_by_path_tells_nobody_and_keeps_to_its_ports(command: Any) -> None:
    settings = RaySettings(head="10.0.0.1").within(Path("/site"))
    started = command(settings, MACHINE)
    assert started.environment["RAY_AUTH_MODE"] == "token"
    assert started.environment["RAY_AUTH_TOKEN_PATH"] == str(settings.token)
    assert started.environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert started.environment["HOME"] == "/state"
    options = dict(part.removeprefix("--").split("=", 1) for part in started.arguments if "=" in part)
    assert options["labels"] == "accelerator-class=h20"
    assert options["node-ip-address"] == "10.0.0.7"
    ports = {name: int(value) for name, value in options.items() if name.endswith("port")}
    assert len(ports) >= 8
    assert len(set(ports.values())) == len(ports)
    assert all(settings.ports <= port < settings.ports + 60 for port in ports.values())


def test_a_head_shows_no_dashboard_and_spills_nothing_to_disk() -> None:
    arguments = head_command(RaySettings().within(Path("/site")), MACHINE).arguments
    assert "--include-dashboard=false" in arguments
    config = next(part for part in arguments if part.startswith("--system-config="))
    assert json.loads(config.partition("=")[2])["automatic_object_spilling_enabled"] is False


def site(tmp_path: Path, ray: str) -> Path:
    (tmp_path / "settings.toml").write_text(f'site = "cn-shanghai"\n[zone]\nborder_url = "http://127.0.0.1:1"\n{ray}')
    return tmp_path


def test_paths_of_the_cluster_start_at_the_sites_folder(tmp_path: Path) -> None:
    ray = ZoneSettings.load(site(tmp_path, '[zone.ray]\nhead = "ray-head"\n')).ray
    assert ray is not None
    assert (ray.token, ray.folder) == (tmp_path / "tokens/ray", tmp_path)
    assert (ray.address, ray.client_address) == ("ray-head:24000", "ray-head:24010")


@pytest.mark.parametrize("part", ["head", "worker"])
@pytest.mark.parametrize(("ray", "named"), [("", "[zone.ray]"), ("[zone.ray]\n", "tokens/ray")])
def test_a_node_does_not_start_without_what_it_needs(
    tmp_path: Path, part: str, ray: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["ray", part, str(site(tmp_path, ray)), "--state", str(tmp_path / "state")]) == Exit.FAILED
    assert named in "".join(capsys.readouterr().err.split("\n"))
