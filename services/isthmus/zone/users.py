"""The users of a zone's store, and what each may do.

Rules:
1. Each part of a site is a user of its own, and may do only what it is for. Ingest adds objects under one prefix, and
   neither reads, lists nor deletes. Compute reads, and writes nothing. The border adds to and reads its archive of
   checkpoints, and does not come near the sealed files. Nobody deletes, and nobody administers.
2. A request counts only where it carries its signature in a header: a presigned URL of any of them is worth nothing.
3. That an object is not replaced is the writer's condition; that a replaced one is not lost, versioning's part. AWS has
   a policy key that demands the condition (`s3:if-none-match`); MinIO does not know it.

Pure: policies as values, in the language that AWS and MinIO share.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Any

PREFIX = "files/"
"""Where sealed files stand in the data bucket (`zone.ingest` names them)."""

Statement = dict[str, Any]


@unique
class User(StrEnum):
    """A part of a site that uses its store."""

    INGEST = "ingest"
    COMPUTE = "compute"
    BORDER = "border"


def policy(user: User, bucket: str) -> dict[str, Any]:
    """Return what a user may do.

    Args:
        user: whose policy.
        bucket: the data bucket; for the border, the checkpoints' bucket.

    Returns:
        A policy document, version 2012-10-17.
    """
    allowed: list[Statement]
    match user:
        case User.INGEST:
            allowed = [_allow(("s3:PutObject", "s3:AbortMultipartUpload"), f"{bucket}/{PREFIX}*")]
        case User.COMPUTE:
            # Without the right to list, a store says of a missing object that it is forbidden.
            allowed = [_allow(("s3:GetObject",), f"{bucket}/{PREFIX}*"), _allow(("s3:ListBucket",), bucket)]
        case User.BORDER:
            allowed = [
                _allow(("s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"), f"{bucket}/*"),
                _allow(("s3:ListBucket",), bucket),
            ]
    return {"Version": "2012-10-17", "Statement": [*allowed, _ONLY_SIGNED_HEADERS]}


def policy_on_minio(user: User, bucket: str) -> dict[str, Any]:
    """Return a user's policy with what MinIO would otherwise let it do for itself: make more keys and passwords."""
    document = policy(user, bucket)
    return {**document, "Statement": [*document["Statement"], {"Effect": "Deny", "Action": ["admin:*"]}]}


def _allow(actions: tuple[str, ...], resource: str) -> Statement:
    return {"Effect": "Allow", "Action": list(actions), "Resource": [f"arn:aws:s3:::{resource}"]}


_ONLY_SIGNED_HEADERS: Statement = {
    "Effect": "Deny",
    "Action": ["s3:*"],
    "Resource": ["arn:aws:s3:::*"],
    "Condition": {"StringNotEquals": {"s3:authType": ["REST-HEADER"]}},
}
