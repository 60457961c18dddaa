"""What an unused federation lacks so that a rogue can try everything: drives, and a link that has been opened once."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from isthmus.border.gate.dialer import Dialer
from isthmus.cli import defaults
from isthmus.contracts.identifiers import Digest, FileId
from isthmus.contracts.inside import (
    SIDECAR_TYPE,
    FreezeSnapshot,
    InsideRole,
    RegisterFiles,
    SessionRequest,
    Sidecar,
)
from isthmus.contracts.raw_table import Group
from isthmus.proof import canonical, sealing
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import file_key_context
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from isthmus.cli.demo.rogue import Rogue
    from isthmus.contracts.identifiers import SiteId

FILE_KEY = 32


async def furnish(rogue: Rogue, zone: SiteId) -> None:
    """Register one file of the demo's dataset with a zone's border, with the token of ingest, and freeze it.

    Nothing but its registration exists: no order's data is read here.
    """
    border = rogue.inside(zone, InsideRole.INGEST)
    session = SigningKey.generate()
    to = (await border.start_session(SessionRequest(key=session.verify_key))).sealing
    name = defaults.DATASET.dataset
    file, group, digest = FileId(f"file-{secrets.token_hex(16)}"), Group.MOTION, Digest.of(b"no such object")
    wrapped = sealing.wrap(secrets.token_bytes(FILE_KEY), to, context=file_key_context(name, file, group, digest))
    sidecar = Sidecar(
        version=1,
        dataset=name,
        file=file,
        group=group,
        object_name=f"files/{file}/{group.value}.parquet",
        digest=digest,
        size=1,
        rows=1,
        wrapped_key=to_base64(wrapped),
    )
    envelope = session.sign(SIDECAR_TYPE, canonical.dump(sidecar)).decode()
    await border.register_files(RegisterFiles(envelopes=(envelope,)))
    await border.freeze(FreezeSnapshot(dataset=defaults.DATASET, files=(file,)))


async def meet(rogue: Rogue, zone: SiteId, hub: SiteId) -> None:
    """Let a zone's border open its link to the coordinator's, as it does when it starts: each cosigns the other."""
    border = rogue.borders[zone]
    async with rogue.link(zone, hub) as http:
        await Dialer(border.half, zone, hub, http, border.bell).open()
