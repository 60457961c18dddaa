"""Set-up for containers: each volume with what its service needs, once, whole, and never again."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isthmus.cli import compose_plan, compose_volumes, federation
from isthmus.cli.compose_plan import Owner
from isthmus.contracts.errors import Code, Fault, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = federation.demo_plan()
VOLUMES = compose_plan.volumes(PLAN)
COMPOSE = Path(__file__).parents[3] / "deploy" / "compose.yaml"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Note who is given what: a test need not be root."""
    owners: dict[str, int] = {}
    monkeypatch.setattr(os, "chown", lambda path, user, _: owners.update({str(path): user}))
    return owners


@pytest.fixture
def root(tmp_path: Path, given: dict[str, int]) -> Path:
    for volume in VOLUMES:
        (tmp_path / volume.name).mkdir()
    return tmp_path


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def fill(root: Path) -> bool:
    return compose_volumes.fill(root, PLAN, VOLUMES)


def test_it_fills_new_volumes_and_then_changes_nothing(root: Path) -> None:
    assert fill(root)
    before = content(root)
    assert not fill(root)
    assert content(root) == before


def test_every_secret_can_be_read_by_its_owner_alone(root: Path, given: dict[str, int]) -> None:
    fill(root)
    secret = {p for p in root.rglob("*") if p.is_file() and {"keys", "tokens", "s3", "people"} & set(p.parts)}
    assert len(secret) > 50
    assert [p for p in secret if stat.S_IMODE(p.stat().st_mode) & 0o077] == []
    owner = {volume.name: volume.owner for volume in VOLUMES}
    assert [p for p in secret if given[str(p)] != owner[p.relative_to(root).parts[0]]] == []


def test_a_zones_sealing_key_is_in_its_keepers_volume_alone(root: Path) -> None:
    fill(root)
    for site in ("hq", "cn-shanghai", "us-texas"):
        for key in ("sealing.key", "signing.seeds"):
            held = (root / f"{site}-keeper" / "keys" / key).read_bytes()
            holders = [name.split("/")[0] for name, data in content(root).items() if data == held]
            assert holders == [f"{site}-keeper"]


def test_a_gate_holds_no_token_and_no_key_but_the_links(root: Path) -> None:
    fill(root)
    for site in ("hq", "cn-shanghai", "us-texas"):
        held = {str(p.relative_to(root / f"{site}-gate")) for p in (root / f"{site}-gate").rglob("*") if p.is_file()}
        archive = set() if site == "hq" else {"s3/border.json"}
        links = {"keys/link.key", "keys/link.pem", "keys/pinned.pem"}
        assert held == {".isthmus", "settings.toml", "genesis.json"} | links | archive


def test_a_token_is_with_the_keeper_and_its_holders(root: Path) -> None:
    fill(root)
    found = content(root)
    expected = {
        "compute": {"cn-shanghai-keeper", "cn-shanghai-zone"},
        "ingest": {"cn-shanghai-keeper", "cn-shanghai-operator"},
        "officer": {"cn-shanghai-keeper", "cn-shanghai-officers"},
        "auditor": {"cn-shanghai-keeper", "cn-shanghai-officers"},
        "submitter": {"cn-shanghai-keeper"},
    }
    for role, holders in expected.items():
        token = found[f"cn-shanghai-keeper/tokens/{role}"]
        assert {name.split("/")[0] for name, data in found.items() if token in data} == holders


def test_a_run_cut_short_before_anything_was_ready_begins_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = compose_volumes._put
    calls = iter(range(100))

    def dies(*arguments: object) -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt
        put(*arguments)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(compose_volumes, "_put", dies)
    with pytest.raises(KeyboardInterrupt):
        fill(root)
    monkeypatch.setattr(compose_volumes, "_put", put)
    assert fill(root)
    assert not fill(root)


def test_a_run_cut_short_while_it_gave_files_away_is_finished_with_the_same_secrets(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = compose_volumes._give
    calls = iter(range(100))

    def dies(*arguments: object) -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt
        give(*arguments)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(compose_volumes, "_give", dies)
    with pytest.raises(KeyboardInterrupt):
        fill(root)
    key = (root / "hq-keeper" / "keys" / "sealing.key").read_bytes()
    monkeypatch.setattr(compose_volumes, "_give", give)
    assert fill(root)
    assert (root / "hq-keeper" / "keys" / "sealing.key").read_bytes() == key


def _lose(root: Path) -> None:
    for path in sorted((root / "hq-keeper").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _swap(root: Path) -> None:
    (root / "hq-keeper" / ".isthmus").write_text("0123456789abcdef ready\n")


@pytest.mark.parametrize(("spoil", "named"), [(_lose, "hq-keeper"), (_swap, "several federations")])
def test_a_federation_in_use_is_never_made_again(root: Path, spoil: Callable[[Path], None], named: str) -> None:
    fill(root)
    spoil(root)
    before = content(root)
    with pytest.raises(Refusal) as refused:
        fill(root)
    assert refused.value.code is Code.STATE_CONFLICT
    assert named in refused.value.what
    assert content(root) == before


def test_a_volume_that_holds_something_else_is_left_alone(root: Path) -> None:
    (root / "hq-gate" / "somebody's").write_text("file")
    with pytest.raises(Refusal) as refused:
        fill(root)
    assert refused.value.code is Code.ALREADY_EXISTS
    assert (root / "hq-gate" / "somebody's").read_text() == "file"


def test_a_volume_that_is_not_mounted_is_named(root: Path) -> None:
    (root / "us-texas-zone").rmdir()
    with pytest.raises(Fault) as fault:
        fill(root)
    assert fault.value.code is Code.CONFIGURATION
    assert "us-texas-zone" in fault.value.what


def test_the_settings_are_those_that_each_part_reads(root: Path) -> None:
    from isthmus.border.settings import BorderSettings  # noqa: PLC0415 - what a part loads for itself
    from isthmus.coordinator.settings import CoordinatorSettings  # noqa: PLC0415 - as above
    from isthmus.zone.settings import ZoneSettings  # noqa: PLC0415 - as above

    fill(root)
    keeper, gate = (BorderSettings.load(root / f"us-texas-{half}") for half in ("keeper", "gate"))
    assert (keeper.gate_user, keeper.keeper.name) == (Owner.GATE, gate.keeper.name)
    assert gate.dials == ("hq", f"https://{compose_plan.link_address(PLAN.sites[0].id)}")
    hub = BorderSettings.load(root / "hq-gate")
    assert hub.outside is not None
    assert hub.outside.host not in {"0.0.0.0", "::"}  # noqa: S104 - that is the point
    assert hub.inside.host != hub.outside.host
    assert CoordinatorSettings.load(root / "hq-coordinator").border_token.is_file()
    for volume in ("us-texas-zone", "us-texas-ray", "us-texas-operator/us-texas"):
        zone = ZoneSettings.load(root / volume)
        assert zone.s3 is not None
        assert zone.ray is not None
    worker = ZoneSettings.load(root / "us-texas-zone")
    assert worker.s3 is not None
    assert worker.s3.compute.is_file()
    assert not worker.s3.ingest.exists()


def test_the_compose_file_mounts_every_volume_at_its_name() -> None:
    text = COMPOSE.read_text("utf-8")
    assert [volume.name for volume in VOLUMES if f":/volumes/{volume.name}\n" not in text] == []


def test_the_images_users_are_the_owners() -> None:
    text = (COMPOSE.parent / "Dockerfile").read_text("utf-8")
    assert [owner.name for owner in Owner if f"{owner.name.lower()}:{owner.value}" not in text] == []
