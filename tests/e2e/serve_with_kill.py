"""Serve a border, or a half of one, that is killed (SIGKILL) again and again: `serve_with_kill.py <part> <folder>`.

A border or a keeper dies at each move that `<folder>/dooms` names, the first time that it comes there. What has struck
is written to `<folder>/struck` before. Each life is a process of its own, forked from one that has only imported: so a
new one is there at once, and has nothing of the last one but its files. A keeper also kills its gate, at the moves that
`<folder>/gate-dooms` names: the gate is then in the middle of the call that brought the move about. A border kills the
coordinator behind it at the moves that `<folder>/coordinator-dooms` names, where there are such.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from risen import risen

from isthmus.border import app, gate_app, keeper_app
from isthmus.border.settings import BorderSettings
from isthmus.kit import journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.border.keeper.desk import Move


async def main(part: str, folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = BorderSettings.load(folder)
    if part == "gate":
        (folder / "gate.pid").write_text(str(os.getpid()))
        await gate_app.run(settings, stop)
    else:
        dies = killing(folder)
        kills = killing_another(folder, "gate" if part == "keeper" else "coordinator")

        def observe(move: Move) -> None:
            kills(move)
            dies(move)

        await (keeper_app if part == "keeper" else app).run(settings, stop, observe)


def killing_another(folder: Path, part: str) -> Callable[[Move], None]:
    """Return what watches a border's moves, and kills another part of its site."""
    struck, dooms = folder / f"{part}-struck", folder / f"{part}-dooms"
    struck.touch()
    striking = threading.Lock()
    left = set(dooms.read_text().split() if dooms.exists() else ()) - set(struck.read_text().split())

    def observe(move: Move) -> None:
        here = f"{move.direction}-{move.state}-{move.moment}"
        with striking:
            if here not in left:
                return
            with contextlib.suppress(ProcessLookupError):  # it has died just before, and is not up again: next time
                os.kill(int((folder / f"{part}.pid").read_text().split()[-1]), signal.SIGKILL)
                left.remove(here)
                with struck.open("a") as file:
                    file.write(f"{here}\n")

    return observe


def killing(folder: Path) -> Callable[[Move], None]:
    """Return what watches a border's moves, and kills it."""
    struck = folder / "struck"
    struck.touch()
    striking = threading.Lock()
    left = set((folder / "dooms").read_text().split()) - set(struck.read_text().split())

    def observe(move: Move) -> None:
        here = f"{move.direction}-{move.state}-{move.moment}"
        if here not in left:
            return
        with striking:  # two threads may come here at the same time: one of them strikes, and nobody leaves
            with struck.open("a") as file:
                file.write(f"{here}\n")
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()

    return observe


if __name__ == "__main__":
    risen()
    journal.configure(f"{sys.argv[1]} {os.getpid()}")
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
