"""Where an S3 store is, and whose credentials open it.

Rules:
1. Whether the way there is encrypted is said outright: TLS, or `insecure = true` for a network of the site's own.
2. Credentials stand in a file that only its owner reads, never in settings, arguments or the environment. What is
   read from it is never shown: neither printed, nor in an error.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from isthmus.contracts.errors import Code, Fault
from isthmus.kit.tokens import read_secret, write_secret

_ENDPOINT = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_BUCKET = r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]"
_KEY = re.compile(r"[\x21-\x7e]{3,128}")


def bucket_name(text: str) -> str:
    """Return `text` where it is a bucket's name: 3 to 63 lower-case letters, digits and hyphens.

    Raises:
        ValueError: it is none.
    """
    if re.fullmatch(_BUCKET, text) is None:
        raise ValueError("a bucket's name has 3 to 63 lower-case letters, digits and hyphens")
    return text


def endpoint_name(text: str) -> str:
    """Return `text` where it is an endpoint: `host` or `host:port`, without a scheme.

    Raises:
        ValueError: it is none.
    """
    if re.fullmatch(_ENDPOINT, text) is None:
        raise ValueError("an endpoint is host:port, without a scheme")
    return text


class S3Place(BaseModel):
    """One bucket of one S3 server.

    Attributes:
        endpoint: `host:port`, without a scheme.
        bucket: the bucket.
        region: the region requests are signed for.
        ca: PEM file of the authority that signed the server's certificate; those the host trusts where None.
        insecure: speak plain HTTP. Credentials are not sent, but whoever is on the way sees names and ciphertext.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, AfterValidator(endpoint_name)]
    bucket: Annotated[str, AfterValidator(bucket_name)]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    ca: Path | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> S3Place:
        if self.insecure and self.ca is not None:
            raise ValueError("`insecure` speaks plain HTTP, where `ca` has no use: give one of them")
        return self


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of an S3 store. Its secret is in no text that is made of it."""

    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def generate(cls, access_key: str) -> Credentials:
        """Make a secret of 240 bits for a user."""
        return cls(access_key, secrets.token_urlsafe(30))


def read_credentials(path: Path) -> Credentials:
    """Return the credentials in a file: JSON with `access_key` and `secret_key`, or two lines in that order.

    Raises:
        Fault: `CONFIGURATION`: it is missing, readable by others, or holds no credentials. Its content is not quoted.
    """
    content = read_secret(path)
    try:
        text = content.decode("ascii")
        found: Any = json.loads(text) if text.lstrip().startswith("{") else _two_lines(text)
        access_key, secret_key = found["access_key"], found["secret_key"]
        if _KEY.fullmatch(access_key) and _KEY.fullmatch(secret_key):
            return Credentials(access_key, secret_key)
    except (ValueError, KeyError, TypeError):
        pass  # what could not be read may be a secret: nothing of it is told
    what = f"The file {path} holds no credentials of a store."
    remedy = "Write JSON with access_key and secret_key, or both in two lines; or run `isthmus storage setup`."
    raise Fault(Code.CONFIGURATION, what, remedy=remedy)


def write_credentials(path: Path, credentials: Credentials) -> None:
    """Write credentials to a new file that only its owner can read."""
    content = {"access_key": credentials.access_key, "secret_key": credentials.secret_key}
    write_secret(path, json.dumps(content).encode() + b"\n")


def _two_lines(text: str) -> dict[str, str]:
    access_key, secret_key = (line.strip() for line in text.strip().splitlines())
    return {"access_key": access_key, "secret_key": secret_key}
