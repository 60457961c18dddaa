"""The archive of checkpoints: what a border's logs have been, kept where the border itself cannot take it back.

Rules:
1. What is archived is known to the site's peers: the newest signed head of each log, and the newest of each that a
   peer has cosigned. No entry of a ledger, and no key, comes near it.
2. A note is named by site, log, size and its own digest, and is written once. So the same note again is no change, and
   another of the same size, which would be a fork, stands beside the first.
3. A store that fails never stops or delays the border: it is logged with its code, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import Field

from isthmus.contracts.errors import Code, IsthmusError
from isthmus.contracts.identifiers import Digest
from isthmus.kit.objects.place import S3Place, read_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import LogView
    from isthmus.kit.objects.port import ObjectStore

EVERY_S = 60.0
SIZE_DIGITS = 16
DIGEST_DIGITS = 16

log = structlog.get_logger(__name__)


class ArchiveSettings(S3Place):
    """Section `[border.archive]` of a site's settings: the bucket (see `S3Place`), whose credentials, and how often.

    Attributes:
        credentials: file with the border's own user of the store.
        every_s: seconds between two looks at the heads.
    """

    credentials: Path = Path("s3/border.json")
    every_s: float = Field(EVERY_S, ge=0.05, le=86_400)

    @classmethod
    def parse(cls, table: Any, folder: Path) -> ArchiveSettings:
        """Read the section's table; paths start at the site's folder.

        Raises:
            ValueError: a setting is wrong.
        """
        settings = cls.model_validate(table)
        ca = folder / settings.ca if settings.ca else None
        return settings.model_copy(update={"credentials": folder / settings.credentials, "ca": ca})

    def store(self) -> ObjectStore:
        """Return the archive's store.

        Raises:
            Fault: `CONFIGURATION`: the credentials' file cannot be used.
        """
        from isthmus.kit.objects.requests import Patience  # noqa: PLC0415 - only a border with an archive loads it
        from isthmus.kit.objects.s3 import S3Store  # noqa: PLC0415 - as above

        patience = Patience(connect_s=2.0, read_s=10.0, attempts=2, deadline_s=5.0)  # it is tried again in any case
        return S3Store(self, read_credentials(self.credentials), patience=patience)


def notes(site: SiteId, views: Iterable[LogView]) -> dict[str, bytes]:
    """Return the notes that show the logs as they stand, by their names in the archive.

    Args:
        site: whose logs.
        views: both logs' heads, with the peers' cosigned notes.
    """
    return {_name(site, view, note): note.encode() for view in views for note in (view.checkpoint, *view.cosigned)}


def archive(site: SiteId, views: Iterable[LogView], store: ObjectStore, written: set[str]) -> None:
    """Write the notes that are not in the archive yet, and add their names to `written`.

    Raises:
        Refusal, Fault: what the store says. Those written before are in `written`.
    """
    for name, note in notes(site, views).items():
        if name not in written:
            with _held_already():
                store.put(name, note)
            written.add(name)


async def archive_heads(
    site: SiteId,
    heads: Callable[[], Iterable[LogView]],
    store: ObjectStore,
    stop: asyncio.Event,
    every_s: float = EVERY_S,
) -> None:
    """Archive own heads at a cadence until `stop` is set, once more then.

    Args:
        site: whose logs.
        heads: returns both logs' heads; may block.
        store: the archive.
        stop: ends it.
        every_s: seconds between two looks.
    """
    written: set[str] = set()
    failing = False
    while True:
        last = stop.is_set()
        failing = await _once(site, heads, store, written, failing=failing)
        if last:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await stop.wait()


async def _once(
    site: SiteId, heads: Callable[[], Iterable[LogView]], store: ObjectStore, written: set[str], *, failing: bool
) -> bool:
    """Archive what is new; tell whether that failed."""
    before = len(written)
    try:
        await asyncio.to_thread(lambda: archive(site, heads(), store, written))
    except IsthmusError as error:
        log.warning("archive_away", code=error.code.value, what=error.what, why=error.why)
        return True
    if failing or len(written) > before:
        log.info("archived", notes=len(written) - before)
    return False


@contextlib.contextmanager
def _held_already() -> Any:
    """Take it well that a note is there: its name holds its digest, so it is this note."""
    try:
        yield
    except IsthmusError as error:
        if error.code is not Code.ALREADY_EXISTS:
            raise


def _name(site: SiteId, view: LogView, note: str) -> str:
    size = int(note.split("\n", 2)[1])
    digest = Digest.of(note.encode()).removeprefix("sha256:")[:DIGEST_DIGITS]
    return f"{site}/{view.log.value}/{size:0{SIZE_DIGITS}}/{digest}.note"
