"""What a person or a machine is told, and how a command ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.cli import main, setup
from isthmus.cli.screen import Exit, Screen, exit_for, exit_of, printable, table
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest

if TYPE_CHECKING:
    from pathlib import Path


@given(st.text())
def test_nothing_that_is_shown_can_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_a_hostile_text_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(machine=False)
    screen.result({}, "\x1b]0;owned\x07[red]plain[/red]")
    screen.note("\x1b[2J")
    screen.error(Refusal(Code.MALFORMED, "\x1b[2J", why="\x1b[2J", remedy="\x9b"))
    captured = capsys.readouterr()
    assert "[red]plain[/red]" in captured.out
    assert not {"\x1b", "\x07", "\x9b"} & set(captured.out + captured.err)


def test_an_id_in_a_table_can_be_copied_however_narrow_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    digest, job, prose = Digest.of(b"a"), "job-0123456789abcdef", "a remark that says a little more " * 4
    columns = ("what it is", "root", "job", "code", "remark")
    rows = [("a first column", digest, job, "recipient_not_named", prose)]
    Screen(machine=False).result({}, table("Wide", columns, rows))
    shown = capsys.readouterr().out
    for whole in ("a first column", digest, job, "recipient_not_named"):
        assert whole in shown
    assert prose.strip() not in shown
    Screen(machine=False).result({}, table("Narrow", ("job", "remark"), [(job, prose)]))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_an_error_has_four_parts(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(machine=False).error(Refusal(Code.NOT_FOUND, "It is away.", why="It left.", remedy="Wait."))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.strip() for line in captured.err.splitlines()] == [
        "not_found: It is away.",
        "why: It left.",
        "do:  Wait.",
    ]


def test_a_machine_gets_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(machine=True)
    screen.note("on the way")
    with screen.waiting("waiting"), screen.progress("progress", 3) as bar:
        bar.at(2)
    screen.error(Fault(Code.PEER_UNREACHABLE, "It does not answer."))
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "code": "peer_unreachable",
        "what": "It does not answer.",
        "why": "",
        "remedy": "",
    }


def test_exit_codes_tell_rules_from_machines() -> None:
    assert exit_of(Refusal(Code.POLICY_DENIED, "")) == Exit.REFUSED
    assert exit_of(Fault(Code.STORAGE_FAILED, "")) == Exit.FAILED
    assert exit_for(Code.PERMIT_MISSING) == Exit.REFUSED
    assert exit_for(Code.COMPUTE_FAILED) == Exit.FAILED
    assert exit_for(None) == Exit.OK


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["jobs"],
        ["jobs", "show", "not-a-job"],
        ["jobs", "run"],
        ["jobs", "run", "file.toml", "--demo"],
        ["ingest", "cn-shanghai"],
        ["ingest", "cn-shanghai", "--fleet", "--tracks", "file.csv"],
        ["ingest", "cn-shanghai", "--fleet", "--vehicles", "0"],
        ["review", "list"],
        ["review", "approve", "abcdef", "--site", "cn-shanghai"],
        ["models", "show", "sha256:12"],
        ["raw", "--zone", "../etc"],
        ["serve", "console", "."],
    ],
)
def test_what_is_not_understood_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*arguments, "--json"]) == Exit.USAGE
    told = json.loads(capsys.readouterr().out)
    assert told["code"] == "input_invalid"
    assert told["what"]


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == Exit.OK
    assert "verify" in capsys.readouterr().out


def test_a_home_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["jobs", "list", "--home", str(tmp_path)]) == Exit.FAILED
    error = capsys.readouterr().err
    assert "configuration" in error
    assert "isthmus setup" in error


def test_setup_overwrites_nothing_and_prints_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    assert main.run(["setup", "--home", str(home), "--json"]) == Exit.OK
    shown = capsys.readouterr().out
    assert {site["site"] for site in json.loads(shown)["sites"]} == {"hq", "cn-shanghai", "us-texas"}
    tokens = [file.read_text() for file in (*home.glob("*/tokens/*"), *home.glob("people/*/token"))]
    assert len(tokens) > 15
    assert not [token for token in tokens if token in shown]
    before = (home / "roots.json").read_bytes()
    assert main.run(["setup", "--home", str(home)]) == Exit.REFUSED
    assert (home / "roots.json").read_bytes() == before


def test_setup_writes_what_the_geneses_are_to_permit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    chips = ["--accelerator", "us-texas=h100", "--accelerator", "us-texas=cpu"]
    assert main.run(["setup", "--home", str(home), *chips, "--minimum-slot", "30", "--json"]) == Exit.OK
    geneses = {site: json.loads((home / site / "genesis.json").read_bytes()) for site in ("cn-shanghai", "us-texas")}
    assert {site: genesis["accelerators"] for site, genesis in geneses.items()} == {
        "cn-shanghai": ["cpu"],
        "us-texas": ["cpu", "h100"],
    }
    assert {genesis["minimum_slot_s"] for genesis in geneses.values()} == {30}
    capsys.readouterr()
    other = ["setup", "--home", str(tmp_path / "other"), "--accelerator"]
    for said, ended, told in (
        ("de-berlin=cpu", Exit.REFUSED, "Use one of: cn-shanghai, us-texas."),
        ("us-texas", Exit.USAGE, "us-texas=h100"),
        ("us-texas=H 100", Exit.USAGE, "us-texas=h100"),
    ):
        assert main.run([*other, said]) == ended
        assert told in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_what_nobody_foresaw_is_told_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(setup.Home, "open", broken)
    monkeypatch.delenv("ISTHMUS_TRACE", raising=False)
    assert main.run(["setup", "--home", str(tmp_path / "home")]) == Exit.FAILED
    error = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in error
    assert "Traceback" not in error


def test_a_service_that_is_away_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(tmp_path / "home")
    main.run(["setup", "--home", home, "--json"])
    capsys.readouterr()
    for arguments in (["jobs", "list"], ["models", "list"], ["ledger", "show"], ["review", "list", "--site", "hq"]):
        assert main.run([*arguments, "--home", home, "--json"]) == Exit.FAILED
        assert json.loads(capsys.readouterr().out)["code"] == "peer_unreachable"
