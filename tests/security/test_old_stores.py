"""A border started on what another release wrote: it says so, with what to do, and changes nothing."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from isthmus.border import app
from isthmus.border.keeper.ledger import LedgerStore
from isthmus.border.settings import BorderSettings
from isthmus.cli import federation
from isthmus.cli.homes import Home
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.ledger import Log

if TYPE_CHECKING:
    from pathlib import Path


OTHERS = {
    "an older one": (
        "ALTER TABLE question DROP COLUMN code",
        "question",
    ),
    "another type": (
        "DROP TABLE charge; CREATE TABLE charge(crossing TEXT PRIMARY KEY, order_id TEXT NOT NULL, bits TEXT NOT NULL)",
        "charge",
    ),
    "a newer one": (
        "CREATE TABLE not_known_yet(id TEXT PRIMARY KEY)",
        "not_known_yet",
    ),
}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    LedgerStore(path).close()
    return path


@pytest.mark.parametrize("which", OTHERS)
def test_a_ledger_of_another_release_is_refused_and_left_as_it_is(ledger: Path, which: str) -> None:
    statements, table = OTHERS[which]
    db = sqlite3.connect(ledger)
    db.executescript(statements)
    db.close()
    before = ledger.read_bytes()
    with pytest.raises(Fault) as refused:
        LedgerStore(ledger)
    assert refused.value.code is Code.CONFIGURATION
    assert table in refused.value.why
    assert "release that wrote it" in refused.value.remedy
    assert ledger.read_bytes() == before


def test_a_ledger_whose_entries_are_of_another_release_is_refused_by_its_format(ledger: Path) -> None:
    db = sqlite3.connect(ledger)
    db.execute("PRAGMA user_version = 0")
    db.close()
    before = ledger.read_bytes()
    with pytest.raises(Fault) as refused:
        LedgerStore(ledger)
    assert refused.value.code is Code.CONFIGURATION
    assert "format is 0" in refused.value.why
    assert ledger.read_bytes() == before


def test_a_ledger_that_only_lacks_later_tables_is_taken_over(ledger: Path) -> None:
    db = sqlite3.connect(ledger)
    db.executescript("DROP TABLE question; DROP TABLE privacy_use")
    db.close()
    store = LedgerStore(ledger)
    with store.reading() as tx:
        assert tx.row("SELECT count(*) n FROM question")["n"] == 0  # type: ignore[index] -- a count has a row
        assert tx.size(Log.INTERNAL) == 0
    store.close()


def test_a_genesis_of_another_release_is_refused_by_name(tmp_path: Path) -> None:
    federation.create(tmp_path / "home", federation.demo_plan())
    folder = tmp_path / "home" / "cn-shanghai"
    genesis = folder / "genesis.json"
    written = json.loads(genesis.read_bytes())
    del written["privacy"]
    genesis.chmod(0o600)
    genesis.write_text(json.dumps(written, separators=(",", ":"), sort_keys=True))
    with pytest.raises(Fault) as refused:
        app.build(BorderSettings.load(folder))
    assert refused.value.code is Code.CONFIGURATION
    assert "another release" in refused.value.why.lower()


def test_the_commands_refuse_it_by_name_too(tmp_path: Path) -> None:
    federation.create(tmp_path / "home", federation.demo_plan())
    genesis = tmp_path / "home" / "hq" / "genesis.json"
    written = json.loads(genesis.read_bytes())
    del written["accelerators"], written["minimum_slot_s"]
    genesis.chmod(0o600)
    genesis.write_text(json.dumps(written, separators=(",", ":"), sort_keys=True))
    with pytest.raises(Fault) as refused:
        Home.open(tmp_path / "home").coordinator.roster()
    assert refused.value.code is Code.CONFIGURATION
    assert "another release" in refused.value.why.lower()
