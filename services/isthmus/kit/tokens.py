"""Bearer tokens: made by set-up, kept in files that only their holder reads, compared in constant time."""

from __future__ import annotations

import hmac
import os
import secrets
from typing import TYPE_CHECKING, TypeVar

from isthmus.contracts.errors import Code, Fault, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Holder = TypeVar("Holder")


def write_secret(path: Path, secret: bytes) -> None:
    """Write `secret` to a new file that only its owner can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())


def make_token(path: Path) -> str:
    """Make a token of 256 bits, write it to `path` and return it."""
    token = secrets.token_urlsafe(32)
    write_secret(path, token.encode())
    return token


def read_secret(path: Path) -> bytes:
    """Return the secret in `path`.

    Raises:
        Fault: it is missing, empty, or readable by others than its owner.
    """
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes()
    except OSError as error:
        raise Fault(
            Code.CONFIGURATION,
            f"The secret file {path} cannot be read.",
            why=error.strerror or "",
            remedy="Run `isthmus setup`, or mount the secret.",
        ) from error
    if mode & 0o077:
        raise Fault(
            Code.CONFIGURATION,
            f"The secret file {path} can be read by others than its owner.",
            remedy="Set its mode to 0600.",
        )
    if not secret.strip():
        raise Fault(Code.CONFIGURATION, f"The secret file {path} is empty.", remedy="Run `isthmus setup`.")
    return secret


def read_token(path: Path) -> str:
    """Return the token in `path` (see `read_secret`)."""
    return read_secret(path).decode("ascii").strip()


def holder_of(presented: str, tokens: Mapping[Holder, str]) -> Holder:
    """Return who holds the token `presented`. Every token is compared, so that time says nothing.

    Raises:
        Refusal: nobody does.
    """
    found: Holder | None = None
    for holder, token in tokens.items():
        if hmac.compare_digest(presented.encode(), token.encode()):
            found = holder
    if found is None:
        raise Refusal(
            Code.UNAUTHENTICATED,
            "The request carries no token that is known here.",
            remedy="Send `Authorization: Bearer <token>` with the token of your role.",
        )
    return found
