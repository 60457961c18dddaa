from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.errors import Code, Fault
from isthmus.zone.settings import ZoneSettings

if TYPE_CHECKING:
    from pathlib import Path


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
