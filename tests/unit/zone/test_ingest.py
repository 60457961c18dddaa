from __future__ import annotations

import asyncio
import base64
import threading
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest, FileId, Name, OrderId
from isthmus.contracts.inside import InsideRole, KeyRequest
from isthmus.contracts.orders import DatasetRef
from isthmus.contracts.raw_table import RAW_GROUPS, Group
from isthmus.contracts.tables import TABLES
from isthmus.kit.clock import ManualClock
from isthmus.proof.sealing import SealingKey
from isthmus.zone.catalogue import Catalogue, Database
from isthmus.zone.ingest import ingest
from isthmus.zone.store import DirectoryStore
from unit.zone.raw import drive, with_value
from unit.zone.sites import NOW, make_borders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from isthmus.zone.ingest import IngestReport
    from unit.zone.sites import Borders

FLEET = DatasetRef(dataset=Name("fleet"), snapshot=Name("2026q3"))
CANARY = "LSVCANARY00000001"


class Zone:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.borders: Borders = make_borders(home / "borders")
        self.store = DirectoryStore(home / "zone/store")
        self.database = Database(home / "zone/catalogue.db")
        self.catalogue = Catalogue(self.database)

    def ingest(
        self,
        tables: Iterable[pa.Table],
        dataset: DatasetRef = FLEET,
        *,
        freeze: bool = True,
        on_file: Callable[[int], None] | None = None,
    ) -> IngestReport:
        return asyncio.run(
            ingest(
                tables,
                dataset=dataset,
                store=self.store,
                catalogue=self.catalogue,
                border=self.borders.zone.client(InsideRole.INGEST),
                clock=ManualClock(NOW),
                freeze=freeze,
                on_file=on_file,
            )
        )


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[Zone]:
    zone = Zone(tmp_path)
    yield zone
    zone.database.close()


def fleet(vehicles: int) -> list[pa.Table]:
    return [
        drive(f"drive-{n:03}", f"{CANARY}-name-{n}", vin=[f"{CANARY}"] * 8, lat=[31.25] * 8) for n in range(vehicles)
    ]


def test_what_was_ingested_is_stored_listed_and_frozen(zone: Zone) -> None:
    report = zone.ingest(fleet(45))
    assert (report.files, report.vehicles, report.drives, report.rows) == (4, 45, 45, 360)
    assert len(list(zone.store.names())) == 3 * len(RAW_GROUPS) + len(TABLES)
    assert report.stored_bytes == sum(zone.store.size(name) for name in zone.store.names())
    assert report.commitment == zone.catalogue.commitment(FLEET)
    holdings = zone.catalogue.holdings(FLEET.dataset)
    assert (holdings.files, holdings.vehicles, holdings.drives, holdings.rows) == (4, 45, 45, 360)
    assert (holdings.raw_bytes, holdings.stored_bytes) == (report.raw_bytes, report.stored_bytes)


def test_no_name_of_a_vehicle_is_in_any_byte_that_is_kept(zone: Zone) -> None:
    zone.ingest(fleet(3))
    kept = [path for path in (zone.home / "zone").rglob("*") if path.is_file()]
    assert len(kept) >= 4
    for path in kept:
        assert CANARY not in str(path)
        content = path.read_bytes()
        for spelling in (CANARY.encode(), base64.b64encode(CANARY.encode())[:-4], CANARY.encode("utf-16-le")):
            assert spelling not in content


def test_object_names_tell_file_and_group_and_nothing_else(zone: Zone) -> None:
    zone.ingest(fleet(2))
    found: dict[FileId, list[str]] = {file: [] for file in zone.catalogue.files(FLEET.dataset)}
    for name in zone.store.names():
        files, file, object_name = name.split("/")
        assert files == "files"
        found[FileId(file)].append(object_name)
    groups = sorted([sorted(RAW_GROUPS), sorted(table.group for table in TABLES.values())])
    assert sorted(found.values()) == [[f"{group.value}.parquet" for group in each] for each in groups]


def test_derived_tables_of_many_files_are_in_few(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.zone.ingest.TABLE_ROWS_PER_FILE", 30)  # two million rows would take minutes to make
    report = zone.ingest([*fleet(65), drive("again", f"{CANARY}-name-0")])
    assert (report.files, report.drives, report.rows) == (6, 66, 66 * 8)
    each = [zone.catalogue.holdings_of([file]) for file in zone.catalogue.files(FLEET.dataset)]
    assert sorted(of_tables.vehicles for of_tables in each if not of_tables.drives) == [26, 40]


def in_heaps(tables: list[pa.Table], size: int = 5) -> list[pa.Table]:
    """Change a type with every few tables: those of one schema alone are checked together."""
    place = tables[0].schema.get_field_index("x")
    rounded = [table.set_column(place, "x", table.column("x").cast("float32")) for table in tables]
    return [(table, other)[n // size % 2] for n, (table, other) in enumerate(zip(tables, rounded, strict=True))]


@pytest.mark.parametrize(("vehicles", "bad"), [(25, 0), (25, 24), (65, 64)])
def test_one_bad_row_anywhere_leaves_nothing(zone: Zone, vehicles: int, bad: int) -> None:
    tables = in_heaps(fleet(vehicles))
    tables[bad] = with_value(tables[bad], "vx", 5, 1e9)
    with pytest.raises(Refusal) as refusal:
        zone.ingest(tables)
    assert refusal.value.code is Code.INPUT_INVALID
    assert f"Row 5 of table {bad}, column vx" in refusal.value.what
    assert list(zone.store.names()) == []
    assert zone.catalogue.files(FLEET.dataset) == ()


class Notes(DirectoryStore):
    """Notes whether the input was at its end at each put."""

    at_end = False
    noted: tuple[bool, ...] = ()

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        self.noted += (self.at_end,)
        super().put(name, data)


def test_nothing_is_stored_before_the_whole_input_was_read(zone: Zone) -> None:
    store = zone.store = Notes(zone.home / "zone/store")

    def tables() -> Iterator[pa.Table]:
        yield from in_heaps(fleet(65))
        store.at_end = True

    assert zone.ingest(tables()).files == 5
    assert store.noted == (True,) * (4 * len(RAW_GROUPS) + len(TABLES))


def test_a_run_that_ends_before_its_last_file_is_sealed_leaves_nothing(zone: Zone) -> None:
    def stopped(sealed: int) -> None:
        if sealed == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        zone.ingest(fleet(65), on_file=stopped)
    assert list(zone.store.names()) == []


def test_a_drive_in_two_tables_is_refused(zone: Zone) -> None:
    with pytest.raises(Refusal) as refusal:
        zone.ingest([*fleet(2), drive("drive-001", "other")])
    assert "Row 0 of table 2, column scene_id" in refusal.value.what


def test_no_input_is_refused(zone: Zone) -> None:
    with pytest.raises(Refusal) as refusal:
        zone.ingest([])
    assert refusal.value.code is Code.INPUT_INVALID


def test_a_frozen_name_is_taken_and_nothing_is_read(zone: Zone) -> None:
    def unread() -> Iterator[pa.Table]:
        raise AssertionError("the input was read")
        yield

    zone.ingest(fleet(1))
    before = list(zone.store.names())
    with pytest.raises(Refusal) as refusal:
        zone.ingest(unread())
    assert refusal.value.code is Code.ALREADY_EXISTS
    assert list(zone.store.names()) == before


def test_a_later_snapshot_holds_earlier_files_too_and_the_earlier_one_stays(zone: Zone) -> None:
    first = zone.ingest(fleet(1)).commitment
    later = DatasetRef(dataset=FLEET.dataset, snapshot=Name("2026q4"))
    second = zone.ingest([drive("another", "another")], later).commitment
    assert first != second
    assert zone.catalogue.commitment(FLEET) == first
    assert zone.catalogue.snapshots() == ((FLEET.dataset, FLEET.snapshot), (FLEET.dataset, later.snapshot))
    assert zone.catalogue.holdings(FLEET.dataset).vehicles == 2


def test_a_vehicle_has_the_same_pseudonym_in_every_run_and_counts_once(zone: Zone) -> None:
    zone.ingest([drive("one", "car")], freeze=False)
    zone.ingest([drive("two", "car")], freeze=False)
    holdings = zone.catalogue.holdings(FLEET.dataset)
    assert (holdings.files, holdings.vehicles, holdings.drives) == (4, 1, 2)


class FillsUp(DirectoryStore):
    """A disk with room for four more objects."""

    room = 4
    lock = threading.Lock()

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        with self.lock:
            if self.room == 0:
                raise Fault(Code.STORAGE_FAILED, "The disk is full.")
            self.room -= 1
        super().put(name, data)


def test_after_a_run_that_died_midway_nothing_of_it_is_listed_and_a_second_run_works(zone: Zone) -> None:
    whole, zone.store = zone.store, FillsUp(zone.home / "zone/store")
    with pytest.raises(Fault):
        zone.ingest(fleet(40))
    assert len(list(zone.store.names())) == 4
    assert zone.catalogue.files(FLEET.dataset) == ()
    assert zone.catalogue.commitment(FLEET) is None
    zone.store = whole
    report = zone.ingest(fleet(40))
    assert (report.vehicles, zone.catalogue.holdings(FLEET.dataset).vehicles) == (40, 40)


def test_ingest_cannot_ask_for_keys(zone: Zone) -> None:
    """Its token opens no route on which a file key comes back, and what it keeps of a key opens at the border alone."""
    zone.ingest(fleet(1))
    run, chips = SealingKey.generate().public, (Name("cpu"),)
    request = KeyRequest(order=OrderId.of(b"any"), groups=(Group.MOTION,), accelerators=chips, run_key=run)
    with pytest.raises(Refusal) as refusal:
        asyncio.run(zone.borders.zone.client(InsideRole.INGEST).keys(request))
    assert refusal.value.code is Code.FORBIDDEN


def test_a_snapshot_of_a_file_that_is_not_listed_is_refused(zone: Zone) -> None:
    zone.ingest(fleet(1), freeze=False)
    other = DatasetRef(dataset=Name("other"), snapshot=Name("s"))
    with pytest.raises(Refusal) as refusal:
        zone.catalogue.freeze(other, zone.catalogue.files(FLEET.dataset), Digest.of(b""), NOW)
    assert refusal.value.code is Code.FILE_UNREGISTERED
    assert zone.catalogue.commitment(other) is None
