"""Every command and every option stands in the reference page, and the page names no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from isthmus.cli import main
from isthmus.cli.screen import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
TEXT = PAGE.read_text("utf-8")
EVERYWHERE = {"--help"}


def commands(command: Any, path: str = "isthmus") -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name; groups are not commands of their own."""
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(main.app)))


def section(name: str) -> str:
    """Return the page's text on a command: from the heading of its first two words to the next."""
    heading = " ".join(name.split()[:2])
    found = re.search(rf"^## {heading}\b.*?(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"{PAGE.name} has no section on {heading}"
    return found.group()


def options(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }


def test_every_command_is_described() -> None:
    assert len(COMMANDS) > 15
    assert [name for name in COMMANDS if name not in section(name)] == []


def test_every_option_is_described() -> None:
    missing = [
        f"{name} {option}"
        for name, command in COMMANDS.items()
        for option in options(command) - EVERYWHERE
        if f"`{option}" not in section(name) and f" {option}" not in section(name)
    ]
    assert missing == []


def test_no_option_is_described_that_is_not_there() -> None:
    known = {option for command in COMMANDS.values() for option in options(command)} | EVERYWHERE
    assert set(re.findall(r"--[a-z][a-z-]*", TEXT)) - known == set()


def test_every_exit_code_is_described() -> None:
    assert [code for code in Exit if f"| {code.value} |" not in TEXT] == []


def test_every_command_says_what_it_does() -> None:
    assert [name for name, command in COMMANDS.items() if not command.help] == []
