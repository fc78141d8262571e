"""One live driver per run directory, as long as it lives; fencing of stale drivers is the journal's work."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from telemetry.failures import FencedError


@contextmanager
def exclusive(path: Path | None) -> Iterator[None]:
    """Holds the lock file at `path`; None (an object store) holds nothing. Raises FencedError when it is taken.

    The kernel drops the lock when the holder dies, whatever kills it.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 100).decode("ascii", "replace").strip()
            raise FencedError(
                f"{path.parent}: a driver is alive here (pid {holder}); wait for it or stop it first"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
