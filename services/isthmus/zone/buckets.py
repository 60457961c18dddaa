"""Set-up of a site's store: buckets, users, credentials. Run again, it leaves the same state and the same credentials.

Rules:
1. What exists is kept: a bucket, an object, a credentials file. A file that is there says what the user's secret is; a
   user that the store has lost gets that secret again.
2. Both buckets keep versions: who may only add could still write over an object, and then the earlier one is there.
3. The checkpoints' bucket has an object lock in mode COMPLIANCE: until the time is over nobody deletes a version
   through the store, its administrator included. GOVERNANCE would let the administrator, who is one of those the
   archive speaks against. Its cost is stated in `docs/adr/0011-objects-in-an-s3-store.md`.
4. What a broken upload has left is dropped after a day.

The administrator's credentials are read from a file, used here, and given to nothing that serves.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import urllib3
from minio import Minio
from minio.commonconfig import COMPLIANCE, ENABLED, Filter
from minio.credentials.providers import StaticProvider
from minio.error import InvalidResponseError, MinioAdminException, S3Error, ServerError
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule
from minio.minioadmin import MinioAdmin
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.versioningconfig import VersioningConfig

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.kit.objects.place import Credentials, read_credentials, write_credentials
from isthmus.kit.objects.requests import UNREACHABLE, Failed
from isthmus.zone.users import User, policy_on_minio

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from isthmus.kit.objects.place import S3Place

RETENTION_DAYS = 365
STALE_UPLOAD_DAYS = 1
NO_LIFECYCLE = frozenset({"InvalidArgument", "MalformedXML", "NotImplemented"})
NO_LOCK = frozenset({"ObjectLockConfigurationNotFoundError", "InvalidBucketState", "InvalidRequest", "NotImplemented"})
PATIENT = urllib3.Retry(
    total=6,
    connect=2,
    read=2,
    backoff_factor=0.2,
    status_forcelist=(500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)
"""A store that has just started may not answer yet. Every step here may be done twice."""
FORBIDDEN_STATUS = frozenset({"401", "403"})


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """A bucket to be there, and its users.

    Attributes:
        place: the bucket.
        users: the file of each user's credentials.
        retention_days: how long a version is locked, None for a bucket without a lock.
    """

    place: S3Place
    users: Mapping[User, Path]
    retention_days: int | None = None


@dataclass(frozen=True, slots=True)
class BucketReport:
    """What stands after set-up.

    Attributes:
        bucket: the bucket's name.
        made: whether it was made now.
        users: each user's name in the store, and whether its credentials were made now.
    """

    bucket: str
    made: bool
    users: Mapping[User, tuple[str, bool]]


def set_up(plan: BucketPlan, root: Credentials) -> BucketReport:
    """Make a bucket and its users, or bring them to the planned state.

    Args:
        plan: what is to be there.
        root: the store's administrator. It is the only one who may do this.

    Raises:
        Refusal: `UNAUTHENTICATED`, `FORBIDDEN`: the store does not take the administrator's credentials.
        Fault: `STORAGE_FAILED`: the store gives no answer. `CONFIGURATION`: a bucket is there without the lock that it
            needs, or a credentials file cannot be read.
    """
    place = plan.place
    what = f"The bucket {place.bucket} and its users cannot be set up."
    try:
        made = _make_bucket(plan, _client(place, root))
        admin = _admin(place, root)
        _drop_stale_uploads(place.bucket, _client(place, root), admin)
        users = {user: _credentials(f"{place.bucket}-{user.value}", path) for user, path in plan.users.items()}
        _require_different(root, [credentials for credentials, _ in users.values()])
        for user, (credentials, _) in users.items():
            _make_user(user, place.bucket, credentials, admin)
    except S3Error as error:
        raise Failed(error.code or "an unknown error").told(what) from None
    except MinioAdminException as error:
        denied = error._code in FORBIDDEN_STATUS  # noqa: SLF001 - the exception tells its status in no other way
        raise Failed("AccessDenied" if denied else f"status {error._code}").told(what) from None  # noqa: SLF001
    except (InvalidResponseError, ServerError):
        raise Failed("something that is no answer of S3").told(what) from None
    except (urllib3.exceptions.HTTPError, OSError):
        raise Failed(UNREACHABLE).told(what) from None
    names = {user: (credentials.access_key, new) for user, (credentials, new) in users.items()}
    return BucketReport(place.bucket, made, names)


def _client(place: S3Place, root: Credentials) -> Minio:
    return Minio(
        place.endpoint,
        root.access_key,
        root.secret_key,
        secure=not place.insecure,
        region=place.region,
        http_client=_pool(place),
    )


def _admin(place: S3Place, root: Credentials) -> MinioAdmin:
    return MinioAdmin(
        endpoint=place.endpoint,
        credentials=StaticProvider(root.access_key, root.secret_key),
        region=place.region,
        secure=not place.insecure,
        http_client=_pool(place),
    )


def _pool(place: S3Place) -> urllib3.PoolManager:
    tls = None if place.insecure else ssl.create_default_context(cafile=place.ca)
    return urllib3.PoolManager(timeout=urllib3.Timeout(connect=5.0, read=30.0), retries=PATIENT, ssl_context=tls)


def _make_bucket(plan: BucketPlan, client: Minio) -> bool:
    bucket, lock = plan.place.bucket, plan.retention_days is not None
    made = not client.bucket_exists(bucket)
    if made:
        client.make_bucket(bucket, location=plan.place.region, object_lock=lock)
    if lock:
        _lock(bucket, plan.retention_days, client)
    else:
        client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    return made


def _lock(bucket: str, days: int | None, client: Minio) -> None:
    """Lock each new version for `days`; what is there stays locked for as long as it was to be."""
    try:
        client.set_object_lock_config(bucket, ObjectLockConfig(COMPLIANCE, days, DAYS))
    except S3Error as error:
        if error.code not in NO_LOCK:
            raise
        why = "It was made without one, or the store has none."
        remedy = "Name another bucket in [border.archive]; this step makes it."
        what = f"The bucket {bucket} has no object lock, so it cannot keep checkpoints."
        raise Fault(Code.CONFIGURATION, what, why=why, remedy=remedy) from None


def _drop_stale_uploads(bucket: str, client: Minio, admin: MinioAdmin) -> None:
    """Have broken uploads dropped: by the bucket's lifecycle, or on MinIO, which has no such rule, by its setting."""
    rule = Rule(
        status=ENABLED,
        rule_id="drop-broken-uploads",
        rule_filter=Filter(prefix=""),
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(days_after_initiation=STALE_UPLOAD_DAYS),
    )
    try:
        client.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))
    except S3Error as error:
        if error.code not in NO_LIFECYCLE:
            raise
        admin.config_set("api", {"stale_uploads_expiry": f"{24 * STALE_UPLOAD_DAYS}h"})


def _credentials(name: str, path: Path) -> tuple[Credentials, bool]:
    """Return the credentials in `path`, and whether they were made now, because there were none."""
    new = not path.exists()
    if new:
        write_credentials(path, Credentials.generate(name))
    return read_credentials(path), new


def _require_different(root: Credentials, users: list[Credentials]) -> None:
    """Refuse credentials that two share: one of them would then have the rights of both."""
    names = [root.access_key, *(user.access_key for user in users)]
    if len(set(names)) != len(names):
        remedy = "Give each user a file and a name of its own, and none those of the administrator."
        raise Refusal(Code.INPUT_INVALID, "Two users of the store have the same name.", remedy=remedy)


def _make_user(user: User, bucket: str, credentials: Credentials, admin: MinioAdmin) -> None:
    """Make a user, or give it again the secret and the one policy it is to have."""
    policy = f"{bucket}-{user.value}"
    admin.policy_add(policy, policy=policy_on_minio(user, bucket))
    admin.user_add(credentials.access_key, credentials.secret_key)
    admin.policy_set(policy, user=credentials.access_key)
