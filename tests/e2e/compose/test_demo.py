"""The demo in containers has the quality of the embedded one, and every secret stays where it was put."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from e2e.compose.stack import BORDER_IMAGE, FILE, docker

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.compose.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

GIB = 1 << 30
MOST_MEMORY = 7 * GIB
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": GIB}
ATTEMPTS = 9
MOST_DARK = 16 * 1024
CAP_NET_RAW = 13
SCRATCH = "/tmp"  # noqa: S108 - in a container


@pytest.fixture(scope="module")
def report(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert stack.inspect("demo")["State"]["ExitCode"] == 0, stack.logs("demo")
    out = tmp_path_factory.mktemp("out")
    stack.compose("cp", "demo:/out/demo/.", str(out))
    found: dict[str, Any] = json.loads((out / "demo-report.json").read_text())
    return found


def test_federation_helps_whoever_has_few_drives(report: dict[str, Any]) -> None:
    assert report["rounds"] >= 60
    for zone in report["zones"].values():
        assert zone["ade"]["federated"] <= 0.6 * zone["ade"]["constant_velocity"]
    poor = min(report["zones"].values(), key=lambda zone: zone["vehicles"])
    assert poor["ade"]["adapted"] <= 0.9 * poor["ade"]["local_only"]


def test_everything_that_must_fail_did_and_every_ledger_was_verified(report: dict[str, Any], stack: Stack) -> None:
    assert len(report["refused"]) >= ATTEMPTS
    assert all(attempt["code"] for attempt in report["refused"])
    assert "LET THROUGH" not in stack.logs("demo")
    assert set(report["ledgers"]) == {"hq", "cn-shanghai", "us-texas"}
    assert all(ledger["verified"] and ledger["size"] > 100 for ledger in report["ledgers"].values())


def test_every_byte_between_the_borders_is_accounted_for(report: dict[str, Any], stack: Stack) -> None:
    wire = report["wire"]
    assert (wire["clear"], wire["findings"]) == (True, [])
    assert wire["dark"] <= MOST_DARK
    assert wire["parts"]["payload"] == sum(kind["bytes"] for kind in report["crossings"].values())
    assert sum(wire["parts"].values()) == wire["total"]
    shown = stack.logs("demo")
    for words, size in (
        ("sealed payloads", wire["parts"]["payload"]),
        ("padding of payloads", wire["parts"]["padding"]),
        ("dark:", wire["dark"]),
        ("in all", wire["total"]),
    ):
        (row,) = [line for line in shown.splitlines() if line.strip().startswith(words)]
        assert row.split()[-1] == f"{size:,}"
    assert f"{wire['room']:,}" in shown


def test_the_capture_sees_the_crossing_network_alone_and_holds_one_right(stack: Stack) -> None:
    """Its parties are the gates at their addresses in that network; its process may capture, and nothing else."""
    gates = {"hq": "hq-gate", "cn-shanghai": "cn-gate", "us-texas": "us-gate"}
    told = docker("exec", stack.container("capture"), "cat", "/capture/parties").stdout.split()
    expected = {site: stack.addresses(gate)["crossing"] for site, gate in gates.items()}
    assert told == [f"{site}={at}:8443" if site == "hq" else f"{site}={at}" for site, at in expected.items()]
    status = docker("exec", stack.container("capture"), "cat", "/proc/1/status").stdout
    held = {
        line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs"))
    }
    assert {int(held[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {1 << CAP_NET_RAW}
    assert held["NoNewPrivs"] == "1"
    assert not any(mount["Destination"] != "/capture" for mount in stack.inspect("capture")["Mounts"])


def test_api_clients_reach_the_coordinator_on_this_host(stack: Stack) -> None:
    import httpx2  # noqa: PLC0415 - where there is no engine, nothing is loaded

    base = f"http://127.0.0.1:{stack.api_port}"
    assert httpx2.get(f"{base}/v1/jobs", trust_env=False).status_code == 401
    token = stack.compose(
        *("run", "--rm", "--no-deps", "-T", "--entrypoint", "cat", "demo", "/home/isthmus/people/maya.engineer/token")
    ).stdout
    jobs = httpx2.get(f"{base}/v1/jobs", headers={"authorization": f"Bearer {token.strip()}"}, trust_env=False)
    assert jobs.status_code == 200
    assert jobs.json()["items"]


def test_the_steady_memory_of_the_whole_is_at_most_seven_gib(stack: Stack) -> None:
    ids = [stack.container(service) for service in stack.running()]
    told = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", *ids).stdout
    total = sum(_bytes(line.split("/")[0].strip()) for line in told.splitlines())
    assert 0 < total <= MOST_MEMORY


def _bytes(text: str) -> float:
    unit = next(unit for unit in ("KiB", "MiB", "GiB", "B") if text.endswith(unit))
    return float(text.removesuffix(unit)) * UNITS[unit]


def test_every_service_runs_with_the_least(stack: Stack) -> None:
    """No root, no capability, no writable system, limits; `setup` alone may give files away, and `capture` capture."""
    for name, service in stack.services().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) <= 2 * GIB, name
        assert service["pids_limit"] <= 1024, name
        if name == "capture":
            assert service["cap_add"] == ["NET_RAW"]
        elif name != "setup":
            assert service.get("user", "0:0").split(":")[0] != "0", name
            assert "cap_add" not in service, name
        assert not service.get("privileged"), name


def test_gate_and_keeper_share_a_socket_and_nothing_else(stack: Stack) -> None:
    services = stack.services()
    for site in ("hq", "cn", "us"):
        keeper, gate = services[f"{site}-keeper"], services[f"{site}-gate"]
        mounts = [{volume["source"] for volume in each["volumes"]} for each in (keeper, gate)]
        assert mounts[0] & mounts[1] == {f"{site}-socket"}
        assert keeper["user"] != gate["user"]
        held = docker("exec", stack.container(f"{site}-gate"), "find", "/site", "-type", "f").stdout
        assert not [name for name in ("signing", "sealing", "tokens", "ledger", "policy", "blobs") if name in held]


def test_no_secret_is_in_the_compose_file_an_image_an_argument_or_a_log(stack: Stack) -> None:
    secrets = _secrets(stack)
    assert len(secrets) > 20
    shown = {"the compose file": FILE.read_text("utf-8"), "the configuration": stack.compose("config").stdout}
    for service in (*stack.running(), "demo", "setup", "cn-operator", "cn-officers", "cn-buckets"):
        shown[f"{service}'s description"] = json.dumps(stack.inspect(service))
        shown[f"{service}'s log"] = stack.logs(service)
    for image in (BORDER_IMAGE, "isthmus-zone:0.1.0"):
        shown[image] = docker("image", "inspect", image).stdout + docker("history", "--no-trunc", image).stdout
    assert not [(where, name) for where, text in shown.items() for name, secret in secrets.items() if secret in text]


def _secrets(stack: Stack) -> dict[str, str]:
    """Return every token and password of the stack, by the file it is in."""
    volumes = docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={stack.project}").stdout
    mounts = [part for v in volumes.split() for part in ("-v", f"{v}:/all/{v}:ro")]
    search = "find /all -path '*/tokens/*' -type f -o -path '*/people/*/token' -o -name root.password"
    dump = f'for f in $({search}); do case $f in *.toml) ;; *) echo "$f $(cat $f)";; esac; done'
    told = docker(
        *("run", "--rm", "--network", "none", "--user", "0", *mounts, "--entrypoint", "sh", BORDER_IMAGE, "-c", dump)
    )
    return dict(line.split(" ", 1) for line in told.stdout.splitlines())


MASKED = {
    "hq-keeper": ("keys", ("signing.seeds",)),
    "cn-keeper": ("tokens", ("tokens/",)),
    "cn-gate": ("keys", ("link.key",)),
    "cn-zone": ("tokens", ("compute",)),
    "coordinator": ("tokens", ("submitter", "people")),
    "cn-ray-head": ("tokens", ("ray",)),
    "cn-buckets": ("s3", ("root.json",)),
}
"""For each service, the folder of secrets that is taken away, and the file that it must name."""


@pytest.mark.parametrize("service", MASKED)
def test_a_service_without_its_secrets_names_them_and_ends(stack: Stack, service: str) -> None:
    folder, named = MASKED[service]
    is_on = stack.inspect(service)
    volume = next(m["Name"] for m in is_on["Mounts"] if m["Destination"] == "/site")
    empty = ("--tmpfs", f"/site/{folder}:uid={is_on['Config']['User'].split(':')[0]},mode=0700")
    command = [*(is_on["Config"]["Entrypoint"] or []), *(is_on["Config"]["Cmd"] or [])]
    place = ("--network", "none", "--user", is_on["Config"]["User"], "-v", f"{volume}:/site:ro", *empty)
    ended = docker(
        *("run", "--rm", *place, "--tmpfs", SCRATCH, "--entrypoint", command[0], is_on["Config"]["Image"]),
        *command[1:],
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "configuration" in said, said
    assert any(name in said for name in named), said
    assert "Traceback" not in said


def test_set_up_makes_nothing_again(stack: Stack) -> None:
    before = _secrets(stack)
    assert "stands already" in stack.compose("run", "--rm", "--no-deps", "-T", "setup").stdout
    assert _secrets(stack) == before


def test_two_demos_live_on_one_host(stack: Stack, tmp_path: Path) -> None:
    """A second project, at a port of its own: both answer, each to its own tokens, and one's end leaves the other."""
    import httpx2  # noqa: PLC0415 - as above

    from e2e.compose.stack import Stack as Another  # noqa: PLC0415 - as above

    other = Another(f"isthmus-second-{os.getpid()}")
    try:
        other.compose("up", "--detach", "api", "cn-gate", "us-gate")
        other.healthy("api")
        token = other.compose(
            *("run", "--rm", "--no-deps", "-T", "--entrypoint", "cat", "demo"),
            "/home/isthmus/people/maya.engineer/token",
        ).stdout.strip()
        headers = {"authorization": f"Bearer {token}"}
        answers = [
            httpx2.get(f"http://127.0.0.1:{each.api_port}/v1/jobs", headers=headers, trust_env=False).status_code
            for each in (other, stack)
        ]
        assert answers == [200, 401]
    finally:
        other.down()
    assert other.left() == []
    stack.healthy("api")
