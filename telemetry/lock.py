"""One live driver per run, as long as it lives; fencing of stale drivers is the journal's work.

On a local disk the kernel knows who lives: it drops a dead holder's lock, whatever killed it. In a bucket a driver is
alive while its heartbeat changes; clocks of different machines are never compared.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from telemetry.failures import FencedError, StorageError
from telemetry.store import Store

LOCK = "driver.lock"
HEARTBEATS = "heartbeat"
BEAT_SECONDS = 5.0
"""A bucket's driver counts as dead when its heartbeat has stood still for two of these."""


@contextmanager
def exclusive(store: Store, *, take_over: bool = False) -> Iterator[None]:
    """Holds the lock of a local store; a bucket has none, see `check_dead`.

    Raises StorageError when the store refuses the lock file, FencedError when a driver is alive here. With
    `take_over` its lock is left to it and a new one counts: the next epoch in the journal stops it at its next
    commit, a stopped or unreachable process included.
    """
    path = store.local_path(LOCK)
    if path is None:
        yield
        return
    with _failures(store):
        descriptor = _acquire(path, take_over)
    try:
        with _failures(store):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"host {socket.gethostname()}, pid {os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def check_dead(store: Store, epoch: int, *, period: float = BEAT_SECONDS) -> None:
    """Raises FencedError while the heartbeat of a bucket's last epoch still changes; returns at once if it has none."""
    if store.local_path(LOCK) is not None:
        return
    before = _beat(store, epoch)
    deadline = time.monotonic() + 2 * period
    while before is not None and time.monotonic() < deadline:
        time.sleep(period / 10)
        now = _beat(store, epoch)
        if now is not None and now != before:
            raise FencedError(
                f"{store}: a driver is alive here (host {now['host']}, pid {now['pid']}, epoch {epoch});"
                " wait for it, stop it first, or take over with --take-over"
            )


@contextmanager
def beating(store: Store, epoch: int, *, period: float = BEAT_SECONDS) -> Iterator[None]:
    """Writes this driver's heartbeat until the block ends; nothing on a local store, where the lock says it better."""
    if store.local_path(LOCK) is not None:
        yield
        return
    for key in store.list(HEARTBEATS):
        if key < _key(epoch):
            store.delete(key)
    over = threading.Event()
    thread = threading.Thread(target=_beat_steadily, args=(store, epoch, period, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        # A heartbeat that cannot be removed only makes the next driver wait a little.
        with suppress(StorageError):
            store.delete(_key(epoch))


@contextmanager
def _failures(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{store}/{LOCK}: {error.strerror}{store.free_text()}") from error


def _acquire(path: Path, take_over: bool) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError as error:
            holder = os.read(descriptor, 300).decode("utf-8", "replace").strip()
            if not take_over:
                raise FencedError(
                    f"{path.parent}: a driver is alive here ({holder}); wait for it, stop it first, or take over"
                    " with --take-over"
                ) from error
            if _is_at(path, descriptor):
                path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at the path: who took over has put a new one there."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _key(epoch: int) -> str:
    return f"{HEARTBEATS}/{epoch:06d}.json"


def _beat(store: Store, epoch: int) -> dict[str, object] | None:
    with suppress(KeyError, ValueError):
        beat = json.loads(store.get(_key(epoch)))
        return beat if isinstance(beat, dict) and {"host", "pid"} <= beat.keys() else None
    return None


def _beat_steadily(store: Store, epoch: int, period: float, over: threading.Event) -> None:
    for number in count():
        beat = {"host": socket.gethostname(), "pid": os.getpid(), "beat": number}
        # The heartbeat only tells others that somebody is here; a store in trouble is found by the next commit.
        with suppress(StorageError):
            store.put(_key(epoch), json.dumps(beat).encode())
        if over.wait(period):
            return
