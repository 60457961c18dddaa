"""Serve a border that kills itself (SIGKILL), again and again: `serve_with_kill.py border <folder>`.

It dies at each move that `<folder>/dooms` names, the first time that it comes there. What has struck is written to
`<folder>/struck` before. Each life is a process of its own, forked from one that has only imported: so a new one is
there at once, and has nothing of the last one but its files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.border import app
from isthmus.border.settings import BorderSettings
from isthmus.kit import journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.border.keeper.desk import Move


async def main(folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.run(BorderSettings.load(folder), stop, killing(folder))


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
    while child := os.fork():
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(1)
    journal.configure(f"border {os.getpid()}")
    asyncio.run(main(Path(sys.argv[2])))
