"""What every store promises, whatever it keeps its bytes on.

The law: an object is visible whole or not at all, and `put_if_absent` lets exactly one of many writers win. These
are the atomic visibility and mutual exclusion that an append-only log needs of its storage (Armbrust et al. 2020,
"Delta Lake: high-performance ACID table storage over cloud object stores").
"""

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from telemetry.failures import StateError, StorageError

Keys = list[str]
SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+@-]{0,200}")


def check_key(key: str) -> str:
    """The key, if it is a relative path of allow-listed segments. Raises StateError otherwise."""
    if not all(SEGMENT.fullmatch(segment) for segment in key.split("/")) or len(key) > 1000:
        raise StateError(f"store: got the key {key[:100]!r}, expected a relative path of letters, digits and _.=+@-")
    return key


class Store(ABC):
    """Bytes under keys: relative paths with forward slashes.

    Errors: KeyError for an absent key, StateError for a key that is not allowed, StorageError when the store
    refuses a request or cannot be reached.
    """

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """True if this call created the object, False if one was there.

        When the store's answer is lost, the object is read back and equal bytes count as created; callers that race
        must therefore put a nonce of their own into the bytes.
        """

    def put_all_if_absent(self, objects: Sequence[tuple[str, bytes]]) -> int:
        """Create objects of one folder in their order, up to the first that was there; how many were created.

        Each is as durable as by `put_if_absent` when this returns. When it raises, the first of them may be there.
        """
        for number, (key, data) in enumerate(objects):
            if not self.put_if_absent(key, data):
                return number
        return len(objects)

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Create or replace atomically; the last writer wins. For caches and reports only."""

    @abstractmethod
    def get(self, key: str) -> bytes: ...

    @abstractmethod
    def size_and_sha256(self, key: str) -> tuple[int, str]:
        """Bytes and hexadecimal digest, read in pieces."""

    @abstractmethod
    def size_and_time(self, key: str) -> tuple[int, float]:
        """Bytes, and when it was written: Unix time by the store's own clock."""

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def delete(self, key: str) -> None:
        """Absent afterwards; deleting what is absent is no error."""

    @abstractmethod
    def list(self, prefix: str) -> Keys:
        """All keys under a folder (`""` is the whole store), sorted, hidden files left out."""

    def list_after(self, key: str) -> Keys:
        """Keys beside `key`, in the same folder, that come after it; sorted."""
        return [one for one in self.list(key.rpartition("/")[0]) if one > key]

    @abstractmethod
    def fsync(self, keys: Iterable[str]) -> None:
        """Make objects that a library wrote durable, with every directory above them.

        Object stores acknowledge nothing else, so there it does nothing.
        """

    @abstractmethod
    def delta(self, name: str) -> tuple[str, dict[str, str]]:
        """Address and storage options of a Delta table under this store, as deltalake takes them."""

    @abstractmethod
    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine's disk; None on object stores."""

    @abstractmethod
    def address(self, key: str) -> str:
        """Path or URL of an object for libraries that read by themselves, through `filesystem` where there is one."""

    def filesystem(self) -> Any:
        """What such a library reads the addresses with (an fsspec file system); None: the machine's own."""
        return None

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Free space; None where there is no such thing."""

    def free_text(self) -> str:
        """Free space in words, to end an error message with; empty where there is no such thing."""
        return ""

    def staged(self, pattern: re.Pattern[str]) -> Keys:
        """Keys whose last part matches `pattern`: what interrupted writes left behind. Object stores leave nothing."""
        return []

    def discard(self, key: str) -> None:
        """Delete, whatever its name: also what `staged` found."""
        self.delete(key)

    def probe(self) -> None:
        """Raise StorageError unless the store writes, reads, lists, and lets only one of two creators win."""
        key = f"probe/{secrets.token_hex(8)}"
        try:
            if not self.put_if_absent(key, b"first") or not self._holds(key, b"first"):
                raise StorageError(f"{self}: an object that was just written cannot be read back")
            if self.put_if_absent(key, b"second"):
                raise StorageError(f"{self}: two writers can create one object; use a store with conditional writes")
        finally:
            self.delete(key)

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key) == data and key in self.list(key.partition("/")[0])
        except KeyError:
            return False
