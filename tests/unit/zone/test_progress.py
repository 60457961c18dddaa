from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, FileId, JobId, Name, OrderId, SiteId
from isthmus.contracts.orders import DatasetRef, Figures, Predictor
from isthmus.contracts.raw_table import Group
from isthmus.zone.catalogue import Catalogue, Database, StoredFile, StoredGroup
from isthmus.zone.plan import OrderState
from isthmus.zone.progress import Aggregate, Progress
from isthmus.zone.results import ZoneResults, model_path, read_results, results_path, write_results
from unit.zone.test_plan import order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLEET = DatasetRef(dataset=Name("fleet"), snapshot=Name("one"))
FIGURES = Figures(predictor=Predictor.LOCAL_ONLY, ade_um=1, fde_um=2, miss_ppm=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.close()


def stored(number: int, *pseudonyms: str) -> StoredFile:
    file = FileId(f"file-{number:032x}")
    groups = tuple(StoredGroup(g, f"files/{file}/{g.value}.parquet", Digest.of(b""), 10) for g in Group)
    return StoredFile(file, FLEET.dataset, groups, pseudonyms, drives=2, rows=3, raw_bytes=100)


class TestCatalogue:
    def test_files_are_listed_all_or_none(self, database: Database) -> None:
        catalogue = Catalogue(database)
        catalogue.add_files([stored(1, "a", "b")], at=0)
        with pytest.raises(Refusal) as refusal:
            catalogue.add_files([stored(2, "c"), stored(1)], at=0)
        assert refusal.value.code is Code.ALREADY_EXISTS
        assert catalogue.files(FLEET.dataset) == (stored(1).file,)
        assert catalogue.holdings(FLEET.dataset).vehicles == 2

    def test_what_some_files_hold_is_summed_and_vehicles_count_once(self, database: Database) -> None:
        catalogue = Catalogue(database)
        catalogue.add_files([stored(1, "a", "b"), stored(2, "b", "c"), stored(3, "d")], at=0)
        held = catalogue.holdings_of([stored(1).file, stored(2).file, FileId("file-" + "f" * 32)])
        assert (held.files, held.vehicles, held.drives, held.rows) == (2, 3, 4, 6)
        assert (held.raw_bytes, held.stored_bytes) == (200, 2 * len(Group) * 10)

    def test_a_snapshot_never_changes(self, database: Database) -> None:
        catalogue = Catalogue(database)
        catalogue.add_files([stored(1)], at=0)
        catalogue.freeze(FLEET, [stored(1).file], Digest.of(b"first"), at=0)
        with pytest.raises(Refusal) as refusal:
            catalogue.freeze(FLEET, [], Digest.of(b"second"), at=0)
        assert refusal.value.code is Code.ALREADY_EXISTS
        assert catalogue.commitment(FLEET) == Digest.of(b"first")

    def test_two_processes_use_one_catalogue(self, path: Path, database: Database) -> None:
        other = Database(path)
        Catalogue(other).add_files([stored(1)], at=0)
        assert Catalogue(database).files(FLEET.dataset) == (stored(1).file,)
        other.close()

    def test_what_is_committed_is_synced_and_outlives_the_process(self, path: Path) -> None:
        first = Database(path)
        with first.reading() as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        Catalogue(first).add_files([stored(1)], at=0)
        first.close()
        second = Database(path)
        assert Catalogue(second).files(FLEET.dataset) == (stored(1).file,)
        second.close()

    def test_a_broken_catalogue_is_a_fault(self, path: Path) -> None:
        path.write_bytes(b"this is no database, and longer than a header of a hundred bytes would be " * 4)
        with pytest.raises(Fault) as fault:
            Database(path)
        assert fault.value.code is Code.STORAGE_FAILED

    def test_a_failed_change_is_undone(self, database: Database) -> None:
        with pytest.raises(sqlite3.IntegrityError), database.writing() as db:
            db.execute("INSERT INTO vehicles VALUES ('none', 'p')")
        Catalogue(database).add_files([stored(1)], at=0)


class TestProgress:
    def test_the_cursor_never_goes_back(self, database: Database) -> None:
        progress = Progress(database)
        assert progress.cursor() == (0, None)
        progress.advance(3, CrossingId.of(b"three"))
        progress.advance(2, CrossingId.of(b"two"))
        assert progress.cursor() == (3, CrossingId.of(b"three"))
        progress.advance(4, None)
        assert progress.cursor() == (4, None)

    def test_an_order_is_remembered_with_all_that_was_done_for_it(self, path: Path) -> None:
        database = Database(path)
        progress = Progress(database)
        standing = progress.begin(order())
        progress.keep_reference(standing.id, FIGURES)
        progress.keep_training(standing.id, 0, 70)
        progress.keep_training(standing.id, 0, 90)
        progress.keep_training(standing.id, 1, 50)
        aggregate = Aggregate(0, b"payload", Contributors(vehicles=10, windows=20))
        progress.keep_aggregate(standing.id, aggregate)
        database.close()

        database = Database(path)
        progress = Progress(database)
        (found,) = progress.unfinished()
        assert (found.order, found.state, found.reference_kept) == (order(), OrderState.OPEN, True)
        assert found.reference == FIGURES
        assert progress.training_times(found.id) == (70, 50)
        assert progress.aggregates(found.id) == (aggregate,)
        database.close()

    def test_beginning_again_changes_nothing(self, database: Database) -> None:
        progress = Progress(database)
        standing = progress.begin(order())
        progress.move(standing.id, OrderState.CLOSED, Code.FILE_ALTERED)
        again = progress.begin(order())
        assert (again.state, again.code) == (OrderState.CLOSED, Code.FILE_ALTERED)
        assert progress.unfinished() == ()

    def test_a_reference_of_nobody_is_kept_too(self, database: Database) -> None:
        progress = Progress(database)
        standing = progress.begin(order())
        assert not standing.reference_kept
        progress.keep_reference(standing.id, None)
        kept = progress.begin(order())
        assert kept.reference_kept
        assert kept.reference is None

    def test_an_order_that_nobody_gave_is_unknown(self, database: Database) -> None:
        assert Progress(database).standing(OrderId.of(b"none")) is None


class TestResults:
    RESULTS = ZoneResults(
        version=1,
        zone=SiteId("cn-shanghai"),
        job=JobId("job-0123456789abcdef"),
        order=OrderId.of(b""),
        vehicles=1,
        windows=2,
        held_out_vehicles=3,
        held_out_windows=4,
        raw_bytes=5,
        figures=(FIGURES,),
        rounds=6,
        training_us_median=7,
    )

    def test_what_is_written_is_read_and_may_be_written_again(self, tmp_path: Path) -> None:
        folder = tmp_path / "results"
        assert read_results(folder, self.RESULTS.job) is None
        write_results(folder, self.RESULTS, b"first")
        write_results(folder, self.RESULTS, b"model")
        assert read_results(folder, self.RESULTS.job) == self.RESULTS
        assert model_path(folder, self.RESULTS.job).read_bytes() == b"model"
        assert sorted(path.name for path in folder.iterdir()) == [
            f"{self.RESULTS.job}.{e}" for e in ("json", "safetensors")
        ]

    def test_nobody_else_can_read_them(self, tmp_path: Path) -> None:
        write_results(tmp_path, self.RESULTS, b"model")
        for path in (results_path(tmp_path, self.RESULTS.job), model_path(tmp_path, self.RESULTS.job)):
            assert path.stat().st_mode & 0o077 == 0
