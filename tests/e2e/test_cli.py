"""The command line with real processes: set up, run, submit, approve, export, verify; kill, and leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from isthmus.cli import main
from isthmus.cli.screen import Exit
from isthmus.cli.supervisor import Supervisor
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import SiteId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

HQ = SiteId("hq")
OFFICERS = {"cn-shanghai": ("lin.officer", "wu.officer"), "us-texas": ("carter.officer", "diaz.officer")}
GONE_WITHIN_S = 30

JOB = """
name = "small"
algorithm = "motion-forecast-fedavg"
purpose = "forecast-training"
recipients = ["cn-shanghai", "hq", "us-texas"]
training = {{ rounds = 1, epochs = 1, batch_size = 256, learning_rate_micro = 1000, seed = 7, weighting = "vehicles", \
held_out_vehicles = 10, split_salt = "split-1", adaptation_epochs = 0, reference_epochs = 0 }}
zones = [{zones}]
"""
PRIVATE = "privacy = { epsilon_micro = 4000000, delta_exponent = 6, vehicle_norm_micro = 300000, vehicles = 12 }"
ZONE = '{{ zone = "{}", dataset = {{ dataset = "drives", snapshot = "2026q4" }} }}'


class Up:
    """`isthmus up --json` in a process of its own."""

    def __init__(self, home: Path, *sites: str) -> None:
        chosen = [argument for site in sites for argument in ("--site", site)]
        command = [sys.executable, "-m", "isthmus.cli.main", "up", "--home", str(home), "--json", *chosen]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.started: list[dict[str, Any]] = self.line().get("processes", [])
        self.children = [psutil.Process(each["pid"]) for each in self.started]

    def line(self) -> dict[str, Any]:
        """Return the next thing that `up` says, waiting for it."""
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"end": true}')
        return told

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=GONE_WITHIN_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextmanager
def up(home: Path, *sites: str) -> Iterator[Up]:
    running = Up(home, *sites)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli") / "home"
    assert main.run(["setup", "--home", str(made), "--json"]) == Exit.OK
    return made


def commands(home: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what runs a command with --json; it returns its exit code and the objects it wrote, one a line."""

    def run(*arguments: str) -> tuple[int, list[Any]]:
        capsys.readouterr()
        code = main.run([*arguments, "--json", *([] if arguments[0] == "verify" else ["--home", str(home)])])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def isthmus(home: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    return commands(home, capsys)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=GONE_WITHIN_S)[1]


def approve(isthmus: Any, site: str) -> str:
    """Have both officers of a site sign the first release that is held there; return its state."""
    _, [review] = isthmus("review", "list", "--site", site)
    release = review["items"][0]["manifest"]["crossing"]
    status = {"state": "held"}
    for person in OFFICERS[site]:
        assert status["state"] == "held"
        code, [status] = isthmus("review", "approve", release[:20], "--site", site, "--as", person, "--standing")
        assert code == Exit.OK
    return status["state"]


def budget_of(isthmus: Any, site: str) -> dict[str, Any]:
    """Return what a site's border tells of its vehicles' budget."""
    _, [told] = isthmus("ledger", "budget", "--site", site)
    view: dict[str, Any] = told["sites"][site]
    return view


def test_a_job_goes_its_whole_way_by_commands_alone(home: Path, isthmus: Any, tmp_path: Path) -> None:
    with up(home) as running:
        assert {(each["site"], each["process"]) for each in running.started} == {
            ("hq", "border"), ("hq", "coordinator"), ("cn-shanghai", "border"), ("cn-shanghai", "zone"),
            ("us-texas", "border"), ("us-texas", "zone"),
        }  # fmt: skip
        assert {each["state"] for each in running.started} == {"running"}
        assert isthmus("jobs", "list") == (Exit.OK, [{"items": []}])

        for zone in OFFICERS:
            code, [report] = isthmus("ingest", zone, "--fleet", "--vehicles", "22", "--minutes", "0.5")
            assert (code, report["vehicles"]) == (Exit.OK, 22)
        (tmp_path / "job.toml").write_text(JOB.format(zones=", ".join(map(ZONE.format, OFFICERS))))
        code, [job] = isthmus("jobs", "run", str(tmp_path / "job.toml"))
        assert code == Exit.OK
        watching = [sys.executable, "-m", "isthmus.cli.main", "jobs", "watch", job["id"], "--home", str(home), "--json"]
        with subprocess.Popen(watching, stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            for event in map(json.loads, watch.stdout):
                if event.get("code") == "approval_missing":
                    assert approve(isthmus, event["site"]) == "logged"
        assert watch.returncode == Exit.OK
        code, [shown] = isthmus("jobs", "show", job["id"])
        assert (code, shown["job"]["state"], shown["job"]["rounds_done"]) == (Exit.OK, "done", 1)

        model, target = shown["job"]["model"], tmp_path / "model.safetensors"
        assert isthmus("models", "get", model, "--out", str(target))[0] == Exit.OK
        assert target.stat().st_size > 100_000
        assert isthmus("models", "get", model, "--out", str(target))[0] == Exit.REFUSED

        code, [raw] = isthmus("raw", "--zone", "cn-shanghai")
        assert code == Exit.REFUSED
        assert raw["refused"] == [{"border": "cn-shanghai", "code": "permit_missing"}]

        bundle = str(tmp_path / "evidence.zip")
        assert isthmus("ledger", "export", bundle)[0] == Exit.OK
        code, [report] = isthmus("verify", bundle, "--roots", str(home / "roots.json"))
        assert (code, report["accepted"]) == (Exit.OK, True), report["findings"]

        secrets = [file.read_text() for file in (*home.glob("*/tokens/*"), *home.glob("people/*/token"))]
        said = "".join(file.read_text() for file in home.glob("*/log/*.log"))
        said += "".join(" ".join(child.cmdline()) for child in running.children)
        assert "serve zone" in said
        assert [secret for secret in secrets if secret in said] == []

        with pytest.raises(Refusal) as refused:
            Supervisor().start(home)
        assert refused.value.code is Code.STATE_CONFLICT

        assert running.stop() == Exit.INTERRUPTED
        assert all_gone(running.children)


def test_a_private_training_whose_worker_is_killed_leaves_one_noised_update_a_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, bundle = tmp_path / "home", str(tmp_path / "evidence.zip")
    isthmus = commands(home, capsys)
    assert isthmus("setup")[0] == Exit.OK
    plain = JOB.format(zones=", ".join(map(ZONE.format, OFFICERS)))
    (tmp_path / "job.toml").write_text(plain.replace("rounds = 1,", f"rounds = 2, {PRIVATE},"))
    with up(home) as running:
        for zone in OFFICERS:
            assert isthmus("ingest", zone, "--fleet", "--vehicles", "22", "--minutes", "0.5")[0] == Exit.OK
        worker = next(each for each in running.started if (each["site"], each["process"]) == ("us-texas", "zone"))
        code, [job] = isthmus("jobs", "run", str(tmp_path / "job.toml"))
        assert (code, job["privacy"]["epsilon_micro"]) == (Exit.OK, 4_000_000)
        watching = [sys.executable, "-m", "isthmus.cli.main", "jobs", "watch", job["id"], "--home", str(home), "--json"]
        reserved = {}
        with subprocess.Popen(watching, stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            for event in map(json.loads, watch.stdout):
                if event.get("code") == "approval_missing":
                    _, [review] = isthmus("review", "list", "--site", event["site"])
                    assert {item["manifest"]["contributors"] for item in review["items"]} == {None}
                    reserved[event["site"]] = budget_of(isthmus, event["site"])
                    assert approve(isthmus, event["site"]) == "logged"
                if event.get("event") == "round_done" and event["slot"] == 0:
                    os.kill(worker["pid"], signal.SIGKILL)
        assert watch.returncode == Exit.OK
        died, again = running.line(), running.line()
        assert [(each["process"], each["state"]) for each in (died, again)] == [
            ("zone", "waiting"),
            ("zone", "running"),
        ]

        for site in OFFICERS:
            _, [shown] = isthmus("ledger", "show", "--site", site)
            assert [each["count"] for each in shown["sites"][0]["usage"] if each["kind"] == "model_update"] == [2]
        assert {site: budget_of(isthmus, site) for site in OFFICERS} == reserved
        assert all(used["trainings"] >= 1 and used["unprotected"] == 0 for used in reserved.values())
        assert isthmus("ledger", "export", bundle)[0] == Exit.OK
        code, [report] = isthmus("verify", bundle, "--roots", str(home / "roots.json"))
        assert (code, report["accepted"]) == (Exit.OK, True), report["findings"]
        children = [*running.children, psutil.Process(again["pid"])]
        assert running.stop() == Exit.INTERRUPTED
        assert all_gone(children)


def test_what_dies_is_started_again_and_sigterm_leaves_nothing(home: Path) -> None:
    with up(home, "hq") as running:
        (border,) = (each for each in running.started if each["process"] == "border")
        os.kill(border["pid"], signal.SIGKILL)
        died, again = running.line(), running.line()
        assert (died["site"], died["process"], died["state"]) == ("hq", "border", "waiting")
        assert (again["site"], again["process"], again["state"]) == ("hq", "border", "running")
        assert again["pid"] != border["pid"]
        children = [*running.children, psutil.Process(again["pid"])]
        assert running.stop(signal.SIGTERM) == Exit.OK
        assert all_gone(children)


def test_a_supervisor_that_is_killed_leaves_nothing(home: Path) -> None:
    with up(home, "hq") as running:
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
        assert all_gone(running.children)


def test_what_cannot_start_is_told_with_its_reason(tmp_path: Path) -> None:
    home = tmp_path / "home"
    main.run(["setup", "--home", str(home), "--json"])
    (home / "hq" / "genesis.json").write_text("{}")
    with Supervisor() as supervisor:
        supervisor.start(home, [HQ])
        with pytest.raises(Fault) as fault:
            supervisor.wait_healthy()
    assert "border process of hq" in fault.value.what
    assert "The genesis in " in fault.value.why
    assert "border.log" in fault.value.remedy
    assert {view.state for view in supervisor.processes} == {"stopped"}
