"""A bundle on disk may come from anyone: names, sizes and numbers are held to limits before anything is unpacked."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from isthmus.cli import bundles
from isthmus.contracts.errors import Code, Fault, Refusal
from world.pair import CN, HQ, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.contracts.inside import Evidence


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[tuple[Evidence, ...]]:
    pair = Pair(tmp_path / "sites")
    yield tuple(pair.keeper(site).evidence() for site in (HQ, CN))
    pair.close()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_what_was_written_is_read(evidence: tuple[Evidence, ...], tmp_path: Path, name: str) -> None:
    bundles.write(tmp_path / name, evidence)
    read = bundles.read(tmp_path / name)
    assert set(read) == {"hq.json", "cn-shanghai.json"}
    with pytest.raises(Refusal) as refused:
        bundles.write(tmp_path / name, evidence[:1])
    assert refused.value.code is Code.ALREADY_EXISTS
    assert bundles.read(tmp_path / name) == read


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"../../hq.json": b"{}"},
        {"/hq.json": b"{}"},
        {"hq": b"{}"},
        {"hq.json.exe": b"{}"},
        {"HQ.json": b"{}"},
        {"hq.json": b"{}", "readme.txt": b""},
        {f"zone-{number}.json": b"{}" for number in range(bundles.MOST_SITES + 1)},
    ],
)
def test_what_is_no_bundle_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        bundles.read(zipped(tmp_path / "bundle.zip", files))
    assert refused.value.code is Code.EVIDENCE_INVALID


def test_a_file_that_unpacks_to_more_than_it_states_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bundle.zip", {"hq.json": b"a" * 1_000_000})
    content = path.read_bytes()
    assert content.count((1_000_000).to_bytes(4, "little")) == 2
    path.write_bytes(content.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(Refusal) as refused:
        bundles.read(path)
    assert refused.value.code is Code.EVIDENCE_INVALID


def test_a_bundle_over_the_limit_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "LARGEST", 1000)
    path = zipped(tmp_path / "bundle.zip", {"hq.json": b"a" * 600, "us-texas.json": b"a" * 600})
    with pytest.raises(Refusal, match="no evidence bundle"):
        bundles.read(path)


def test_a_cut_zip_file_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bundle.zip", {"hq.json": b"{}"})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Refusal) as refused:
        bundles.read(path)
    assert refused.value.code is Code.EVIDENCE_INVALID


def test_a_bundle_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault) as fault:
        bundles.read(tmp_path / "nowhere.zip")
    assert fault.value.code is Code.STORAGE_FAILED
