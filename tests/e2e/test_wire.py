"""The demo's link, tapped: everything that passed is accounted for by the ledgers it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.border.settings import BorderSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

MOST_DARK = 16 * 1024
IP = shutil.which("ip") or "ip"


def require(*programs: str) -> None:
    """Where everything must be there, what is missing is a failure."""
    missing = [program for program in programs if shutil.which(program) is None]
    why = f"not here: {', '.join(missing)}" if missing else "capturing needs root" if os.geteuid() else ""
    if why and os.environ.get("ISTHMUS_CI") == "1":
        pytest.fail(why)
    if why:
        pytest.skip(why)


@contextlib.contextmanager
def loopback() -> Iterator[list[str]]:
    """Yield the beginning of a command that runs on a loopback of its own, where nothing else passes."""
    name = f"isthmus-{uuid.uuid4().hex[:8]}"
    subprocess.run([IP, "netns", "add", name], check=True)
    try:
        subprocess.run([IP, "-n", name, "link", "set", "lo", "up"], check=True)
        yield [IP, "netns", "exec", name]
    finally:
        subprocess.run([IP, "netns", "del", name], check=True)


@contextlib.contextmanager
def tap(within: list[str], target: Path, told: Path) -> Iterator[None]:
    """Capture from before the body begins until it has ended."""
    command = [*within, "tcpdump", "-i", "lo", "-s", "0", "-B", "65536", "-Z", "root", "-w", str(target), "tcp"]
    with told.open("w") as log, subprocess.Popen(command, stderr=log) as capturing:
        try:
            while "listening on" not in told.read_text():
                assert capturing.poll() is None, told.read_text()
                time.sleep(0.05)
            yield
        finally:
            capturing.terminate()
            capturing.wait(20)
    assert "\n0 packets dropped by kernel" in told.read_text()


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Play the demo under a tap; return the folder with capture and evidence, and the link's port."""
    require("tcpdump", "ip")
    out = tmp_path_factory.mktemp("tapped")
    everything, link = out / "everything.pcap", out / "link.pcap"
    with loopback() as within, tap(within, everything, out / "tcpdump.log"):
        demo = [sys.executable, "-m", "isthmus.cli.main", "demo", "--out", str(out), "--home", str(out / "home")]
        played = subprocess.run([*within, *demo], capture_output=True, text=True, check=False, timeout=400)
    assert played.returncode == 0, played.stdout + played.stderr
    outside = BorderSettings.load(out / "home" / "hq").outside
    assert outside is not None
    filtered = ["tcpdump", "-r", str(everything), "-w", str(link), "-Z", "root", "tcp", "port", str(outside.port)]
    subprocess.run(filtered, check=True, capture_output=True, timeout=120)
    everything.unlink()
    yield out, outside.port
    link.unlink()


def audited(out: Path, *parties: str, more: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    named = [word for party in parties for word in ("--party", party)]
    command = [
        *(sys.executable, "-m", "isthmus.cli.main", "audit", "wire", str(out / "link.pcap")),
        *("--evidence", str(out / "demo-evidence"), "--roots", str(out / "roots.json"), *named, *more, "--json"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found: dict[str, Any] = json.loads(ended.stdout)
    return ended.returncode, found


def test_every_byte_of_the_demo_is_accounted_for(tapped: tuple[Path, int]) -> None:
    out, port = tapped
    code, report = audited(out, f"hq=127.0.0.1:{port}", "cn-shanghai,us-texas=127.0.0.1")
    assert report["findings"] == []
    assert (code, report["clear"]) == (0, True)
    assert report["dark"] <= MOST_DARK
    assert sum(report["parts"].values()) == report["total"]
    told = json.loads((out / "demo-report.json").read_text())
    assert report["parts"]["payload"] == sum(kind["bytes"] for kind in told["crossings"].values())


def test_a_party_that_is_not_named_makes_all_it_sent_dark(tapped: tuple[Path, int]) -> None:
    out, port = tapped
    code, report = audited(out, f"hq=127.0.0.1:{port}", "cn-shanghai=127.0.0.9")
    assert code == 4
    assert {finding["code"] for finding in report["findings"]} >= {"unknown_party", "crossing_not_seen"}
    assert report["dark"] == report["total"]
