"""A store in a bucket, through obstore.

The law: an error never means "not done". After a lost answer the object is read back, and the bytes decide.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from telemetry.failures import StorageError
from telemetry.store_base import Keys, Store, check_key

PUT_TRIES = 6


class ObjectStore(Store):
    """A bucket, through obstore."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._guard(""):
            self._client = _connect(url, retries=8)
            # The library's own retry would hide whether "exists" means another writer or our lost first try.
            self._once = _connect(url, retries=0)

    def __str__(self) -> str:
        return self.url

    def put_if_absent(self, key: str, data: bytes) -> bool:
        ambiguous, reason = False, "conflicting writers"
        for attempt in range(PUT_TRIES):
            if attempt:
                time.sleep(0.05 * 4 ** (attempt - 1) * (1 + secrets.randbelow(100) / 100))
            try:
                obstore.put(self._once, check_key(key), data, mode="create", use_multipart=False)
                return True
            except AlreadyExistsError:
                pass
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise StorageError(f"{self.url}/{key}: {_first_line(error)}") from error
            except (BaseError, OSError) as error:
                ambiguous, reason = True, _first_line(error)
            with suppress(KeyError):
                there = self.get(key)
                return ambiguous and there == data
        raise StorageError(f"{self.url}/{key}: {reason}; gave up after {PUT_TRIES} tries")

    def put(self, key: str, data: bytes) -> None:
        with self._guard(key):
            obstore.put(self._client, check_key(key), data)

    def get(self, key: str) -> bytes:
        with self._guard(key):
            return bytes(obstore.get(self._client, check_key(key)).bytes())

    def size_and_sha256(self, key: str) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        with self._guard(key):
            for piece in obstore.get(self._client, check_key(key)).stream():
                size += len(piece)
                digest.update(piece)
        return size, digest.hexdigest()

    def exists(self, key: str) -> bool:
        with suppress(KeyError), self._guard(key):
            obstore.head(self._client, check_key(key))
            return True
        return False

    def delete(self, key: str) -> None:
        with suppress(KeyError), self._guard(key):
            obstore.delete(self._client, check_key(key))

    def list(self, prefix: str) -> Keys:
        with self._guard(prefix):
            pages = obstore.list(self._client, prefix=check_key(prefix) if prefix else None)
            return sorted(item["path"] for page in pages for item in page)

    def fsync(self, keys: Iterable[str]) -> None:
        pass

    def delta(self, name: str) -> tuple[str, dict[str, str]]:
        options = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
        if _plain_http():
            options["AWS_ALLOW_HTTP"] = "true"
        return f"{self.url}/{check_key(name)}", options | {"aws_conditional_put": "etag", "timeout": "120s"}

    def local_path(self, key: str) -> None:
        return None

    def free_bytes(self) -> None:
        return None

    @contextmanager
    def _guard(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StorageError(f"{self.url}: the bucket does not exist") from error
            raise KeyError(key) from None
        except (BaseError, OSError) as error:
            raise StorageError(f"{self.url}/{key}: {_first_line(error)}") from error


def _connect(url: str, retries: int) -> obstore.store.ObjectStore:
    return from_url(
        url,
        client_options={"allow_http": _plain_http(), "timeout": "120s", "connect_timeout": "10s"},
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=120)},
    )


def _plain_http() -> bool:
    return os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300]
