"""The demo as a user runs it: one command, real processes, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from isthmus.border.settings import BorderSettings
from servers.tcpdump import loopback, only_port, tap, what_is_missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from isthmus.kit.serving import Address

pytestmark = pytest.mark.e2e

MOST_DARK = 16 * 1024
LONG_S = 900
DEMO = (sys.executable, "-m", "isthmus.cli.main", "demo")
ATTEMPTS = {
    "raw rows without a permit": ("cn-shanghai", "permit_missing"),
    "an order for an unknown algorithm": ("cn-shanghai", "algorithm_unknown"),
    "a recipient outside the named ones": ("hq", "recipient_not_named"),
    "a replayed crossing": ("cn-shanghai", "replayed"),
    "a key for a column group outside the order": ("cn-shanghai", "group_not_in_order"),
    "a self-approval": ("cn-shanghai", "approval_invalid"),
    "one officer in place of two": ("cn-shanghai", "approval_missing"),
    "a tampered update": ("hq", "payload_altered"),
    "a forked ledger": ("hq", "ledger_forked"),
}


def isthmus(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG_S)


@dataclass(frozen=True)
class Played:
    """A demo that has ended, and what it left in `out`.

    Attributes:
        out: the folder of report, evidence and capture.
        ended: its exit code, and what it wrote.
        everything: all that passed on its loopback, where that can be captured.
        hub: headquarters' end of the link, while there was one.
    """

    out: Path
    ended: subprocess.CompletedProcess[str]
    everything: Path | None
    hub: Address


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    out, witness = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("witness")
    if what_is_missing():
        ended, hub = play(out)
        return Played(out, ended, None, hub)
    everything = witness / "everything.pcap"
    with loopback() as within, tap(within, everything, witness / "tcpdump.log"):
        ended, hub = play(out, within)
    return Played(out, ended, everything, hub)


def play(out: Path, within: Sequence[str] = ()) -> tuple[subprocess.CompletedProcess[str], Address]:
    """Play a demo in a home that it throws away; see where the link is while it stands."""
    # Where every process of this demo says whose it is, what is left over can be told from anything else.
    environment = {**os.environ, "ISTHMUS_DEMO_OF": str(out), "TMPDIR": str(out)}
    command = [*within, *DEMO, "--out", str(out)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    told: list[str] = []
    with subprocess.Popen(command, **pipes) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            told.append(line)
            if line.startswith("3/6"):
                break
        (home,) = out.glob("isthmus-demo-*/home")
        hub = BorderSettings.load(home / "hq").outside
        assert hub is not None
        stdout, stderr = demo.communicate(timeout=LONG_S)
    return subprocess.CompletedProcess(command, demo.returncode, stdout, "".join(told) + stderr), hub


@pytest.fixture(scope="module")
def report(played: Played) -> dict[str, Any]:
    assert played.ended.returncode == 0, played.ended.stdout + played.ended.stderr
    found: dict[str, Any] = json.loads((played.out / "demo-report.json").read_text())
    return found


@pytest.fixture(scope="module")
def hub(played: Played, report: dict[str, Any]) -> Iterator[str]:
    """Return headquarters' end of the link, as `address:port`, once what passed there stands in `link.pcap`."""
    assert report["wire"]["clear"]
    if played.everything is None:
        why = what_is_missing()
        if os.environ.get("ISTHMUS_CI") == "1":
            pytest.fail(why)
        pytest.skip(why)
    link = played.out / "link.pcap"
    only_port(played.everything, played.hub.port, link)
    yield f"{played.hub.host}:{played.hub.port}"
    link.unlink()


def test_everything_that_must_fail_did(report: dict[str, Any]) -> None:
    assert {a["attempt"]: (a["border"], a["code"]) for a in report["refused"]} == ATTEMPTS


def test_federation_helps_whoever_has_few_drives(report: dict[str, Any]) -> None:
    assert report["rounds"] >= 60
    for zone in report["zones"].values():
        assert zone["ade"]["federated"] <= 0.6 * zone["ade"]["constant_velocity"]
    poor = min(report["zones"].values(), key=lambda zone: zone["vehicles"])
    assert poor["ade"]["adapted"] <= 0.9 * poor["ade"]["local_only"]


def test_every_ledger_was_verified(report: dict[str, Any]) -> None:
    assert set(report["ledgers"]) == {"hq", "cn-shanghai", "us-texas"}
    assert all(ledger["verified"] and ledger["size"] > 100 for ledger in report["ledgers"].values())
    sent = report["crossings"]["model_update"]
    assert sent["count"] == 2 * report["rounds"]
    assert report["information_bound_bits"] >= 8 * 119_000 * sent["count"]
    raw = sum(zone["raw_bytes"] for zone in report["zones"].values())
    assert sent["bytes"] < raw / 10


def test_the_bundle_is_accepted_with_its_roots_alone(played: Played, report: dict[str, Any], tmp_path: Path) -> None:
    out = played.out
    bundle, roots = str(out / "demo-evidence"), out / "roots.json"
    accepted = isthmus("verify", bundle, "--roots", str(roots), "--json")
    assert accepted.returncode == 0, accepted.stdout
    assert json.loads(accepted.stdout)["information_bound_bits"] == report["information_bound_bits"]
    assert isthmus("verify", bundle).returncode == 4
    other = tmp_path / "other"
    assert isthmus("setup", "--home", str(other)).returncode == 0
    assert isthmus("verify", bundle, "--roots", str(other / "roots.json")).returncode == 4


def test_every_byte_between_the_borders_is_accounted_for(report: dict[str, Any]) -> None:
    wire = report["wire"]
    assert (wire["clear"], wire["findings"]) == (True, [])
    assert wire["dark"] <= MOST_DARK
    assert wire["parts"]["payload"] == sum(kind["bytes"] for kind in report["crossings"].values())
    assert sum(wire["parts"].values()) == wire["total"]
    assert {flow["sender"] for flow in wire["flows"]} == {"hq", "cn-shanghai", "us-texas"}
    assert wire["total"] > wire["room"] > wire["parts"]["padding"] > 0


def test_the_capture_is_there_to_be_audited_again(played: Played, report: dict[str, Any]) -> None:
    """The demo prints the command; it says the same as the demo, to the byte, and needs nothing that has ended."""
    out, ended = played.out, played.ended
    printed = ended.stdout[ended.stdout.index("isthmus audit wire ") :].replace("\\\n", " ")
    again = isthmus(*shlex.split(printed)[1:], "--json")
    assert again.returncode == 0, again.stdout
    found = json.loads(again.stdout)
    assert found == {name: report["wire"][name] for name in found}
    assert str(out / "demo-wire.pcap") in printed


def test_the_figures_of_the_wire_are_shown(played: Played, report: dict[str, Any]) -> None:
    shown = played.ended.stdout
    parts = report["wire"]["parts"]
    for words, size in (
        ("sealed payloads", parts["payload"]),
        ("envelopes and receipts", parts["signed"]),
        ("control messages", parts["control"]),
        ("padding of payloads", parts["padding"]),
        ("dark:", report["wire"]["dark"]),
        ("in all", report["wire"]["total"]),
    ):
        (row,) = [line for line in shown.splitlines() if line.strip().startswith(words)]
        assert row.split()[-1] == f"{size:,}"
    assert f"{report['wire']['room']:,}" in shown


def seen_by_a_witness(played: Played, *parties: str) -> tuple[int, dict[str, Any]]:
    """Audit what tcpdump saw on the link, from before its first byte to after its last."""
    named = [word for party in parties for word in ("--party", party)]
    held_against = ("--evidence", str(played.out / "demo-evidence"), "--roots", str(played.out / "roots.json"))
    ended = isthmus("audit", "wire", str(played.out / "link.pcap"), *held_against, *named, "--json")
    found: dict[str, Any] = json.loads(ended.stdout)
    return ended.returncode, found


def test_a_witness_finds_every_byte_accounted_for_the_end_of_the_link_too(
    played: Played, report: dict[str, Any], hub: str
) -> None:
    code, seen = seen_by_a_witness(played, f"hq={hub}", "cn-shanghai,us-texas=127.0.0.1")
    assert seen["findings"] == []
    assert (code, seen["clear"]) == (0, True)
    assert seen["dark"] <= MOST_DARK
    assert sum(seen["parts"].values()) == seen["total"] > report["wire"]["total"]
    assert seen["parts"]["payload"] == sum(kind["bytes"] for kind in report["crossings"].values())


def test_a_party_that_is_not_named_makes_all_it_sent_dark(played: Played, hub: str) -> None:
    code, seen = seen_by_a_witness(played, f"hq={hub}", "cn-shanghai=127.0.0.9")
    assert code == 4
    assert {finding["code"] for finding in seen["findings"]} >= {"unknown_party", "crossing_not_seen"}
    assert seen["dark"] == seen["total"]


def left_of(out: Path) -> list[list[str]]:
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ISTHMUS_DEMO_OF") == str(out):
                left.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return left


def test_nothing_is_left_running_or_lying_about(played: Played) -> None:
    assert left_of(played.out) == []
    assert list(played.out.glob("isthmus-demo-*")) == []


@contextlib.contextmanager
def heard(number: int) -> Iterator[None]:
    """Let children hear a signal: a shell without job control ignores some for what it runs in the background."""
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_a_demo_whose_tap_dies_says_so_and_ends(tmp_path: Path) -> None:
    """As on a full disk: the borders do not reach each other any more, and no job would ever come to its end."""
    command = [*DEMO, "--out", str(tmp_path)]
    environment = {**os.environ, "ISTHMUS_DEMO_OF": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("3/6"):
                break
        (tap,) = [p for p in psutil.Process(demo.pid).children() if "isthmus.cli.demo.tap" in p.cmdline()]
        tap.kill()
        told = demo.stderr.read()
        assert demo.wait(60) == 3, told
    assert "The tap between the borders has died." in told
    assert "Traceback" not in told
    assert left_of(tmp_path) == []


def test_ctrl_c_in_the_middle_stops_everything(tmp_path: Path) -> None:
    command = [*DEMO, "--out", str(tmp_path)]
    environment = {**os.environ, "ISTHMUS_DEMO_OF": str(tmp_path)}
    with (
        heard(signal.SIGINT),
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as demo,
    ):
        assert demo.stderr is not None
        lines = []
        for line in demo.stderr:
            lines.append(line)
            if line.startswith("3/6"):  # six processes, and a job that is being submitted
                break
        else:
            pytest.fail(f"the demo ended by itself: {lines}")
        os.killpg(demo.pid, signal.SIGINT)
        told = demo.stderr.read()
        assert demo.wait(60) == 130, told
    assert "Traceback" not in told
    assert left_of(tmp_path) == []
