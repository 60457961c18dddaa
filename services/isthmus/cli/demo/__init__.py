"""The demo: two zones train one model on this machine, what must fail is tried, and the ledgers are checked."""

from isthmus.cli.demo.play import run

__all__ = ["run"]
