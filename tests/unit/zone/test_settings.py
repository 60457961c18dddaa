from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.border.archive import ArchiveSettings
from isthmus.contracts.errors import Code, Fault
from isthmus.zone.settings import S3Settings, ZoneSettings
from isthmus.zone.store import open_store
from isthmus.zone.users import User


def written(folder: Path, text: str) -> Path:
    site = folder / "cn-shanghai"
    site.mkdir()
    (site / "settings.toml").write_text(text, encoding="utf-8")
    return site


def test_paths_start_at_the_sites_folder_and_have_defaults(tmp_path: Path) -> None:
    site = written(tmp_path, '[zone]\nborder_url = "http://127.0.0.1:1"\nstore = "elsewhere"\n')
    settings = ZoneSettings.load(site)
    assert settings.site == "cn-shanghai"
    assert settings.store == site / "elsewhere"
    assert settings.compute_token == site / "tokens/compute"
    assert settings.ingest_token == site / "tokens/ingest"


def test_the_files_own_site_counts(tmp_path: Path) -> None:
    site = written(tmp_path, 'site = "us-texas"\n[zone]\nborder_url = "http://127.0.0.1:1"\n')
    assert ZoneSettings.load(site).site == "us-texas"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "KeyError"),
        ("[zone]\n", "border_url"),
        ('[zone]\nborder_url = "x"\nborder_urls = "y"\n', "border_urls"),
        ('site = "No Site"\n[zone]\nborder_url = "x"\n', "site"),
        ("[zone", "TOMLDecodeError"),
    ],
)
def test_a_setting_at_fault_is_named(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(Fault) as fault:
        ZoneSettings.load(written(tmp_path, text))
    assert fault.value.code is Code.CONFIGURATION
    assert place in fault.value.why


def test_no_settings_at_all_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault) as fault:
        ZoneSettings.load(tmp_path)
    assert fault.value.code is Code.CONFIGURATION


S3 = '[zone]\nborder_url = "x"\n[zone.s3]\nendpoint = "store:9000"\nbucket = "cn-shanghai"\n'


def test_an_s3_store_is_tls_and_has_a_file_for_each_user(tmp_path: Path) -> None:
    site = written(tmp_path, S3 + 'ca = "s3/ca.pem"\n')
    store = ZoneSettings.load(site).s3
    assert store is not None
    assert not store.insecure
    assert (store.ingest, store.compute) == (site / "s3/ingest.json", site / "s3/compute.json")
    assert store.ca == site / "s3/ca.pem"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('ca = "ca.pem"\ninsecure = true', "insecure"),
        ('secret_key = "canary"', "secret_key"),
        ('endpoint = "http://store:9000"', "endpoint"),
        ('bucket = "Not A Bucket"', "bucket"),
    ],
)
def test_an_s3_setting_at_fault_is_named_and_not_quoted(tmp_path: Path, line: str, place: str) -> None:
    kept = [each for each in S3.splitlines() if not each.startswith(line.split(" ", maxsplit=1)[0])]
    with pytest.raises(Fault) as fault:
        ZoneSettings.load(written(tmp_path, "\n".join([*kept, line])))
    assert fault.value.code is Code.CONFIGURATION
    assert place in fault.value.why
    assert "canary" not in str(fault.value)


@pytest.mark.parametrize("text", ["", "user-only\n"])
def test_a_store_without_its_users_credentials_is_not_opened(tmp_path: Path, text: str) -> None:
    site = written(tmp_path, S3)
    settings = ZoneSettings.load(site)
    for user in (User.INGEST, User.COMPUTE):
        (site / "s3").mkdir(exist_ok=True)
        path = site / f"s3/{user.value}.json"
        if text:
            path.touch(0o600)
            path.write_text(text)
        with pytest.raises(Fault) as fault:
            open_store(settings, user)
        assert fault.value.code is Code.CONFIGURATION
        assert str(path) in fault.value.what


def test_the_settings_page_names_every_setting_of_a_store_and_of_the_archive() -> None:
    text = (Path(__file__).parents[3] / "docs/reference/settings-and-files.md").read_text("utf-8")
    for section, settings in (("zone.s3", S3Settings), ("border.archive", ArchiveSettings)):
        rows = "".join(line for line in text.splitlines() if f"`[{section}] " in line)
        assert [name for name in settings.model_fields if f"{name}`" not in rows] == []
