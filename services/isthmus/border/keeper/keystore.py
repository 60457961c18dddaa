"""The border's long-term keys, as a port: a directory of files now, an HSM later.

Nothing outside the border holds a long-term secret.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from isthmus.kit.tokens import read_secret, write_secret
from isthmus.proof.sealing import SealingKey
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from pathlib import Path

SEED = 32


@dataclass(frozen=True, slots=True, repr=False)
class BorderKeys:
    """The keys of one border.

    Attributes:
        signing: signs crossings, receipts and checkpoints.
        sealing: opens what is sealed to this border.
        pseudonym: 32 bytes; keys the hash that stands for a vehicle inside the zone.
    """

    signing: SigningKey
    sealing: SealingKey
    pseudonym: bytes


class KeyStore(Protocol):
    """Where a border's keys are kept."""

    def load(self) -> BorderKeys:
        """Return the keys, or raise `Fault` where there are none."""
        ...


class FileKeyStore:
    """Keys in files that only the border's user reads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self) -> BorderKeys:
        """Make and write new keys. Existing ones are never overwritten."""
        keys = BorderKeys(SigningKey.generate(), SealingKey.generate(), secrets.token_bytes(SEED))
        write_secret(self._directory / "signing.seeds", b"".join(keys.signing.to_seeds()))
        write_secret(self._directory / "sealing.key", keys.sealing.to_bytes())
        write_secret(self._directory / "pseudonym.key", keys.pseudonym)
        return keys

    def load(self) -> BorderKeys:
        """Read the keys."""
        seeds = read_secret(self._directory / "signing.seeds")
        return BorderKeys(
            SigningKey.from_seeds(seeds[:SEED], seeds[SEED:]),
            SealingKey.from_bytes(read_secret(self._directory / "sealing.key")),
            read_secret(self._directory / "pseudonym.key"),
        )
