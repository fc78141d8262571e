"""A store in a bucket, through obstore.

The law: an error never means "not done". After a lost answer the object is read back, and the bytes decide. And
nothing waits for ever: every request has its time, and every repetition ends with the budget.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from telemetry.failures import StorageError
from telemetry.store_base import Keys, Store, check_key

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CONNECT_SECONDS = 5.0
"""To open a connection. Data centres need milliseconds, a laptop on a bad line about a second."""
REQUEST_SECONDS = 120.0
"""One request, from its first byte to its last: more than a gigabyte at 10 MB/s. What a hung server costs per try."""
RETRY_SECONDS = 60.0
"""How long a failed request is repeated; then the run stops with exit code 5 and waits to be resumed.

Longer than a storage node takes to restart or a throttled bucket to recover. The last repetition may begin at the
end of this time, so that no single request lasts longer than RETRY_SECONDS + REQUEST_SECONDS.
"""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between repetitions: doubled each time, with jitter, so that many workers do not come back at once."""
UNLIMITED = 1_000
"""Repetitions: time is the budget, not their number."""
BROKEN_OFF = "response body error"
"""What the library says when a connection breaks in the middle of an answer."""

Answer = TypeVar("Answer")


class ObjectStore(Store):
    """A bucket, through obstore."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = _connect(url, retries=UNLIMITED)
        # The library's own retry would hide whether "exists" means another writer or our lost first try.
        self._once = _connect(url, retries=0)

    def __str__(self) -> str:
        return self.url

    def put_if_absent(self, key: str, data: bytes) -> bool:
        check_key(key)
        deadline, ambiguous, tries = time.monotonic() + RETRY_SECONDS, False, 0
        while True:
            tries += 1
            failure: Exception
            try:
                obstore.put(self._once, key, data, mode="create", use_multipart=False)
                return True
            except AlreadyExistsError as error:
                # Also the library's name for a conflict that nobody won: only a look tells.
                failure = error
            except (BaseError, OSError) as error:
                ambiguous, failure = True, self._repeatable(key, error)
            try:
                return bytes(obstore.get(self._once, key).bytes()) == data and ambiguous
            except FileNotFoundError as error:
                self._repeatable(key, error)
            except (BaseError, OSError) as error:
                failure = self._repeatable(key, error)
            if time.monotonic() >= deadline:
                raise StorageError(f"{self.url}/{key}: {_first_line(failure)}; gave up at try {tries}") from failure
            time.sleep(_pause(tries))

    def put(self, key: str, data: bytes) -> None:
        # In one request: a repeated end of a multipart upload would find the upload gone.
        self._ask(key, lambda: obstore.put(self._client, check_key(key), data, use_multipart=False))

    def get(self, key: str) -> bytes:
        return self._ask(key, lambda: bytes(obstore.get(self._client, check_key(key)).bytes()))

    def size_and_sha256(self, key: str) -> tuple[int, str]:
        def read() -> tuple[int, str]:
            size, digest = 0, hashlib.sha256()
            for piece in obstore.get(self._client, check_key(key)).stream():
                size += len(piece)
                digest.update(piece)
            return size, digest.hexdigest()

        return self._ask(key, read)

    def size_and_time(self, key: str) -> tuple[int, float]:
        meta = self._ask(key, lambda: obstore.head(self._client, check_key(key)))
        return meta["size"], meta["last_modified"].timestamp()

    def exists(self, key: str) -> bool:
        with suppress(KeyError):
            self._ask(key, lambda: obstore.head(self._client, check_key(key)))
            return True
        return False

    def delete(self, key: str) -> None:
        with suppress(KeyError):
            self._ask(key, lambda: obstore.delete(self._client, check_key(key)))

    def list(self, prefix: str) -> Keys:
        def read() -> Keys:
            pages = obstore.list(self._client, prefix=check_key(prefix) if prefix else None)
            return sorted(item["path"] for page in pages for item in page)

        return self._ask(prefix, read)

    def list_after(self, key: str) -> Keys:
        def read() -> Keys:
            pages = obstore.list(self._client, prefix=check_key(key).rpartition("/")[0], offset=key)
            return sorted(item["path"] for page in pages for item in page)

        return self._ask(key, read)

    def fsync(self, keys: Iterable[str]) -> None:
        pass

    def delta(self, name: str) -> tuple[str, dict[str, str]]:
        options = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
        if _plain_http():
            options["AWS_ALLOW_HTTP"] = "true"
        return f"{self.url}/{check_key(name)}", options | {
            "aws_conditional_put": "etag",
            "connect_timeout": _duration(CONNECT_SECONDS),
            "timeout": _duration(REQUEST_SECONDS),
            "max_retries": str(UNLIMITED),
            "retry_timeout": _duration(RETRY_SECONDS),
            "backoff_config.init_backoff": _duration(FIRST_PAUSE),
            "backoff_config.max_backoff": _duration(LONGEST_PAUSE),
        }

    def address(self, key: str) -> str:
        return f"{self.url}/{check_key(key)}"

    def filesystem(self) -> Any:
        from obstore.fsspec import FsspecStore

        client_options, retry_config = _options(retries=UNLIMITED)
        scheme: Any = self.url.partition("://")[0]
        return FsspecStore(scheme, client_options=client_options, retry_config=retry_config)

    def local_path(self, key: str) -> None:
        return None

    def free_bytes(self) -> None:
        return None

    def _ask(self, key: str, request: Callable[[], Answer]) -> Answer:
        """Answer to a request that is the same when it is repeated. Raises KeyError or StorageError."""
        deadline, tries = time.monotonic() + RETRY_SECONDS, 0
        while True:
            tries += 1
            try:
                return request()
            except FileNotFoundError as error:
                self._repeatable(key, error)
                raise KeyError(key) from None
            except (BaseError, OSError) as error:
                # The library repeats what fails, but for an answer that breaks off.
                if BROKEN_OFF not in str(error) or time.monotonic() >= deadline:
                    raise StorageError(f"{self.url}/{key}: {_first_line(error)}") from error
            time.sleep(_pause(tries))

    def _repeatable(self, key: str, error: Exception) -> Exception:
        """The error, if the same request may get another answer. Raises StorageError if it cannot."""
        if "NoSuchBucket" in str(error):
            raise StorageError(f"{self.url}: the bucket does not exist") from error
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            raise StorageError(f"{self.url}/{key}: {_first_line(error)}") from error
        return error


def _connect(url: str, retries: int) -> obstore.store.ObjectStore:
    client_options, retry_config = _options(retries)
    try:
        return from_url(url, client_options=client_options, retry_config=retry_config)
    except (BaseError, OSError) as error:
        raise StorageError(f"{url}: {_first_line(error)}") from error


def _options(retries: int) -> "tuple[ClientConfig, RetryConfig]":
    retry_config: RetryConfig = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_PAUSE),
            "max_backoff": timedelta(seconds=LONGEST_PAUSE),
            "base": 2,
        },
    }
    client_options: ClientConfig = {
        "allow_http": _plain_http(),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
    }
    return client_options, retry_config


def _pause(tries: int) -> float:
    """Seconds to wait after so many tries."""
    return min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE) * (0.5 + secrets.randbelow(1000) / 1000)


def _duration(seconds: float) -> str:
    """As delta-rs takes it."""
    return f"{round(seconds * 1000)}ms"


def _plain_http() -> bool:
    return os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300]
