"""One URL to a place that keeps bytes: a local directory, or a bucket behind s3://, gs:// or az://.

Object stores take credentials, region and endpoint from the usual environment variables (`AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, ...); none of them is ever written down.
"""

from pathlib import Path
from urllib.parse import urlsplit

from telemetry.failures import StorageError, UsageError
from telemetry.local_store import LocalStore
from telemetry.store_base import Store

__all__ = ["Store", "join_store", "open_store"]

SCHEMES = ("s3", "gs", "az")


def open_store(url: str | Path, create: bool = True) -> Store:
    """Store of a directory or an s3://, gs://, az:// URL. Raises UsageError for anything else.

    With `create` a missing directory is made (0700); without, it is a UsageError.
    """
    text = str(url)
    if "://" not in text:
        return LocalStore(Path(text), create)
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        raise UsageError(f"store: got {parts.scheme}://, expected a directory or one of {', '.join(SCHEMES)}")
    if parts.username or parts.query or parts.fragment or not parts.netloc:
        raise UsageError(f"store: expected {parts.scheme}://bucket/prefix; credentials belong into the environment")
    # Not above: a run in a directory needs nothing of it, and whoever only looks at one is in a hurry.
    from telemetry.object_store import ObjectStore

    return ObjectStore(text.rstrip("/"))


def join_store(url: str | Path) -> Store:
    """Store of a run under way, as its workers open it: a directory that somebody deletes must not come back.

    Raises StorageError when it is gone, or this machine does not see it.
    """
    try:
        return open_store(url, create=False)
    except UsageError as error:
        raise StorageError(f"{error}; it is gone, or not shared with this machine") from error
