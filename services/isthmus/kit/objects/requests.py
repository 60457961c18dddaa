"""Requests to an S3 server: one at a time, tried again where that cannot do harm, and their failures in our words.

Rules:
1. Trying again is bounded in number and in time. A request that the server may have carried out, though its answer was
   lost, is marked: a later "it exists already" may then speak of this very request.
2. Of a failure only the code that S3 has for it is told: no header, no body, no address with a signature, so nothing
   of the credentials.
3. Nothing is signed into a URL. Whoever holds such a URL holds the right in it, and a server has been seen to read
   other objects for one (CVE-2026-97731).

The `minio` SDK signs and sends. Its public calls take no condition on a put, and none on the end of an upload in
parts, so requests go through its `_execute`, which all its public calls come down to.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from isthmus.contracts.errors import Code, Fault, Refusal

if TYPE_CHECKING:
    from isthmus.kit.objects.place import Credentials, S3Place

CONNECTIONS = 16
PRECONDITION_FAILED = "PreconditionFailed"
STARTING = frozenset({f"XMinio{part}NotInitialized" for part in ("Server", "IAM", "BucketMetadata")})
NOT_CARRIED_OUT = STARTING | {"SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout"}
"""The server is busy or starting, and says so before it does anything."""
WORTH_TRYING = NOT_CARRIED_OUT | {
    "ServiceUnavailable",
    "InternalError",
    "OperationAborted",
    "ConditionalRequestConflict",
}
WRONG_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"})
FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity", "QuotaExceeded"})
SERVER_ERRORS = 500
UNREACHABLE = "no answer"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store is waited for.

    Attributes:
        connect_s: seconds for a connection.
        read_s: seconds between two bytes of an answer.
        attempts: how often a request is made at most.
        pause_s: seconds before the second attempt; each later pause is twice as long.
        deadline_s: seconds after which no further attempt is begun.
    """

    connect_s: float = 5.0
    read_s: float = 30.0
    attempts: int = 5
    pause_s: float = 0.2
    deadline_s: float = 45.0


PATIENT = Patience()


class Failed(Exception):
    """The server said no, or nothing.

    Attributes:
        code: S3's code, such as `NoSuchKey`.
        uncertain: the request, or one before it, may have been carried out all the same.
    """

    def __init__(self, code: str, *, uncertain: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.uncertain = uncertain

    @property
    def is_open(self) -> bool:
        """Whether it is open what came of the request: it may have been carried out, and the code does not tell."""
        return self.uncertain and self.code in WORTH_TRYING | {UNREACHABLE, PRECONDITION_FAILED, "NoSuchUpload"}

    def told(self, what: str) -> Refusal | Fault:
        """Return the failure in our words; `what` says what could not be done."""
        if self.code in WRONG_CREDENTIALS:
            remedy = "Check the credentials' file, or run `isthmus storage setup` again."
            return Refusal(
                Code.UNAUTHENTICATED, what, why=f"The store knows no such user ({self.code}).", remedy=remedy
            )
        if self.code == "AccessDenied":
            why = "The store does not let this user do that, or does not take its credentials."
            remedy = "Each part of a site has its own user: check which file it reads, or run `isthmus storage setup`."
            return Refusal(Code.FORBIDDEN, what, why=why, remedy=remedy)
        if self.code == "NoSuchBucket":
            remedy = "Run `isthmus storage setup`, or correct the bucket's name."
            return Fault(Code.CONFIGURATION, what, why="There is no such bucket.", remedy=remedy)
        if self.code in FULL:
            return Fault(Code.STORAGE_FAILED, what, why=f"The store is full ({self.code}).", remedy="Free space in it.")
        if self.code == UNREACHABLE:
            remedy = "Start the store, or check its address, its certificate and the network; then do this again."
            return Fault(Code.STORAGE_FAILED, what, why="The store gives no answer.", remedy=remedy)
        return Fault(Code.STORAGE_FAILED, what, why=f"The store says {self.code}.", remedy="See the store's log.")


class Requests:
    """Requests to one bucket, as one user."""

    def __init__(self, place: S3Place, credentials: Credentials, patience: Patience = PATIENT) -> None:
        self._patience = patience
        self._client = _Client(place, credentials, patience)

    def ask(
        self,
        method: str,
        key: str | None = None,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> Any:
        """Make a request of an object, or of the bucket where `key` is None; return urllib3's answer, read whole.

        Raises:
            Failed: after the last attempt.
        """
        patience, uncertain, pause = self._patience, False, self._patience.pause_s
        deadline = time.monotonic() + patience.deadline_s
        for attempt in range(1, patience.attempts + 1):
            try:
                return self._client.once(method, key, body, dict(headers or {}), dict(query or {}))
            except Failed as failed:
                worth = failed.code in WORTH_TRYING or failed.code == UNREACHABLE
                uncertain = uncertain or (failed.uncertain and method != "GET")
                if not worth or attempt == patience.attempts or time.monotonic() + pause > deadline:
                    raise Failed(failed.code, uncertain=uncertain) from None
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")


class _Client(Minio):
    """The SDK's client, at the level where a request can carry a condition."""

    def __init__(self, place: S3Place, credentials: Credentials, patience: Patience) -> None:
        self._bucket = place.bucket
        tls = None if place.insecure else ssl.create_default_context(cafile=place.ca)
        super().__init__(
            place.endpoint,
            credentials.access_key,
            credentials.secret_key,
            secure=not place.insecure,
            region=place.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=patience.connect_s, read=patience.read_s),
                maxsize=CONNECTIONS,
                retries=False,
                ssl_context=tls,
            ),
        )

    def once(
        self, method: str, key: str | None, body: bytes | None, headers: dict[str, str], query: dict[str, str]
    ) -> Any:
        """Make one request, once."""
        try:
            return self._execute(
                method,
                self._bucket,
                key,
                body=body,
                headers=dict(headers),
                query_params=dict(query),
            )
        except S3Error as error:
            code = error.code or "an unknown error"
            raise Failed(code, uncertain=code in WORTH_TRYING - NOT_CARRIED_OUT) from None
        except (InvalidResponseError, ServerError) as error:
            # A proxy, or a server in trouble: an answer that is not S3's.
            status = int(error.status_code if isinstance(error, ServerError) else error._code)  # noqa: SLF001
            code = "ServiceUnavailable" if status >= SERVER_ERRORS else f"status {status}"
            raise Failed(code, uncertain=status >= SERVER_ERRORS) from None
        except (NewConnectionError, ConnectTimeoutError):
            raise Failed(UNREACHABLE) from None
        except (HTTPError, OSError):
            raise Failed(UNREACHABLE, uncertain=True) from None
