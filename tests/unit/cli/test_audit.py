"""`isthmus audit wire`: its exit codes, what it shows, and that it needs no more than the base install."""

from __future__ import annotations

import json

import pytest

from isthmus.cli import main
from isthmus.cli.screen import Exit
from security.wire_stage import ADDRESSES, CN, HQ, PORT, US, Wire, honest
from unit.cli.test_light import on_base_install
from world.pair import Pair

PARTIES = ("--party", f"hq={ADDRESSES[HQ]}:{PORT}", "--party", f"cn-shanghai={ADDRESSES[CN]}")
ALL = (*PARTIES, "--party", f"us-texas={ADDRESSES[US]}")


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """An honest capture, with the evidence and the roots, as the verb takes them."""
    folder = tmp_path_factory.mktemp("audit")
    pair = Pair(folder / "sites", (CN, US))
    pair.prepare()
    pair.work(rounds=1)
    evidence = pair.evidence()
    pair.close()
    (folder / "bundle").mkdir()
    for name, content in evidence.items():
        (folder / "bundle" / name).write_bytes(content)
    tap = Wire(evidence)
    honest(tap)
    tap.write(folder / "wire.pcap")
    roots = ("--roots", str(folder / "sites" / "roots.json"))
    return ("audit", "wire", str(folder / "wire.pcap"), "--evidence", str(folder / "bundle"), *roots)


def test_an_honest_capture_is_clear_on_a_base_install(audit: tuple[str, ...]) -> None:
    done = on_base_install(*audit, *ALL, "--json")
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    report = json.loads(done.stdout)
    assert (report["clear"], report["dark"]) == (True, 0)


def test_people_see_the_verdict_the_figures_and_what_is_not_claimed(
    audit: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*audit, *ALL]) == Exit.OK
    shown = capsys.readouterr().out
    assert shown.startswith("CLEAR")
    assert "Dark: 0 bytes; 16384 pass. Room" in shown
    assert "decided before (0) or after (0)." in shown
    assert "Not claimed:" in shown


def test_an_address_that_nobody_named_ends_in_another_exit_code(
    audit: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*audit, *PARTIES]) == Exit.NOT_ACCEPTED
    shown = capsys.readouterr().out
    assert shown.startswith("NOT CLEAR")
    assert "unknown_party" in shown


def test_nothing_is_clear_without_roots(audit: tuple[str, ...]) -> None:
    assert main.run([*audit[:-2], *ALL]) == Exit.NOT_ACCEPTED


@pytest.mark.parametrize("party", ["hq", "hq=", "hq=somewhere:1", "HQ=10.0.0.1", "hq=10.0.0.1:x", "=10.0.0.1"])
def test_a_party_that_is_none_is_refused(
    audit: tuple[str, ...], party: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*audit, "--party", party, "--json"]) == Exit.REFUSED
    assert json.loads(capsys.readouterr().out)["code"] == "input_invalid"
