"""The only source of truth of a run: an append-only, hash-chained, fenced log of small JSON objects.

Entry `seq` lives under `journal/<seq:020d>.json` and is created put-if-absent, so it never changes and exists once.

Fencing: every writer opens an epoch, which is an entry like any other. Whoever finds an entry of somebody else in
the place of its own next one has been replaced, and stops (Kleppmann 2016, "How to do distributed locking").
"""

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any

from telemetry import segments
from telemetry.entry import (
    ENTRY_KEY,
    EPOCH,
    GENESIS,
    NOTHING,
    Entry,
    check_link,
    decode,
    encode,
    identify,
    key_of,
    seal,
)
from telemetry.failures import FencedError, StateError, StorageError, UsageError
from telemetry.records import FileRef
from telemetry.store import Store

__all__ = ["ENTRY_KEY", "GENESIS", "NOTHING", "Entry", "Journal", "Writer", "decode", "encode", "key_of", "seal"]

OPEN_TRIES = 100
READERS = 32
"""Requests under way at once; against a server that computes on this machine, 64 were slower than 32."""
WINDOW = 256
"""Entries asked for before the next ones are, at most."""
PIECE = 1 << 13


class Journal:
    """The journal of the one run that a store holds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._unsaved: list[int] = []
        """Segments that the last reading had to do without."""

    def read(self, cached: bool = True) -> list[Entry]:
        """All entries, oldest first; empty if the store holds no run.

        Walks by key instead of trusting a listing, which may be stale. Raises StateError, naming the object, if
        any entry is damaged, missing, foreign, out of order or of another format. With `cached`, entries that a sound
        segment holds are taken from there: what became of their own objects since is for `forager verify` to find.
        """
        entries: list[Entry] = []
        if not cached:
            return self._extend(entries)
        self._unsaved = []
        while True:
            number = len(entries) // segments.SIZE
            segment = segments.load(self.store, number, entries[-1] if entries else None)
            if segment is not None:
                entries += segment
                continue
            self._extend(entries, segments.SIZE)
            if len(entries) < (number + 1) * segments.SIZE:
                return entries
            self._unsaved.append(number)

    def follow(self, entries: list[Entry]) -> None:
        """Append to the entries read so far what has been acknowledged since, checked as by `read`."""
        self._extend(entries)

    def create(self, body: dict[str, Any], refs: Sequence[FileRef] = ()) -> "Writer":
        """Found a run: the first entry, of kind `run`, which opens epoch 0. Raises UsageError if a run is here.

        refs: objects that are there already and that the entry vouches for.
        """
        taken = f"{self.store}: a run lives here already; resume it, or choose another store"
        if self.read():
            raise UsageError(taken)
        nonce = secrets.token_hex(16)
        data = encode(0, NOTHING, 0, nonce, GENESIS, body, refs)
        if not self.store.put_if_absent(key_of(0), data):
            raise UsageError(taken)
        return Writer(self.store, [decode(data, 0)])

    def open_epoch(self, body: dict[str, Any]) -> "Writer":
        """Become the writer: every earlier writer's next append is refused. The body should name `host` and `pid`.

        Raises StateError if there is no run, FencedError if other writers keep winning the place.
        """
        entries = self.read()
        nonce = secrets.token_hex(16)
        for _ in range(OPEN_TRIES):
            if not entries:
                raise StateError(f"{self.store}: got no journal, expected a run; check the path")
            head = entries[-1]
            data = encode(head.seq + 1, head.sha256, head.epoch + 1, nonce, EPOCH, body)
            if self.store.put_if_absent(key_of(head.seq + 1), data):
                entries.append(decode(data, head.seq + 1))
                for number in self._unsaved:
                    _save(self.store, number, entries[number * segments.SIZE :][: segments.SIZE])
                return Writer(self.store, entries)
            self._extend(entries)
        raise FencedError(f"{self.store}: another driver keeps writing to the run ({identify(entries)})")

    def _extend(self, entries: list[Entry], most: int | None = None) -> list[Entry]:
        """Append what follows the given entries, checked; at most so many."""
        for data in islice(self._walk(len(entries)), most):
            entry = decode(data, len(entries))
            check_link(entries[-1] if entries else None, entry)
            entries.append(entry)
        return entries

    def _walk(self, seq: int) -> Iterator[bytes]:
        """Bytes of every entry from `seq` on. Raises StateError if one is missing while a later one exists."""
        folder = self.store.local_path("journal")
        while True:
            for data in _read_objects(self.store, seq) if folder is None else _read_files(str(folder), seq):
                yield data
                seq += 1
            later = next(filter(ENTRY_KEY.fullmatch, self.store.list_after(key_of(seq))), None)
            if not self.store.exists(key_of(seq)):
                if later is not None:
                    raise StateError(f"{key_of(seq)}: missing, but {later} exists; restore it from a copy")
                return


class Writer:
    """The one writer of a run, until another opens a later epoch. Not for use by several threads."""

    def __init__(self, store: Store, history: Sequence[Entry]) -> None:
        self.store = store
        self.history = tuple(history)
        """All entries up to and including the one that opened this writer's epoch."""
        self.head = history[-1]
        """The last entry, which is this writer's own."""
        self._tail = list(history[len(history) // segments.SIZE * segments.SIZE :])
        """Entries that are in no segment yet."""

    @property
    def epoch(self) -> int:
        """The epoch this writer opened."""
        return self.head.epoch

    def append(self, kind: str, body: dict[str, Any], refs: Sequence[FileRef] = ()) -> Entry:
        """Acknowledge an event: when this returns, it is durable.

        Raises FencedError if another writer has taken over, StorageError if the outcome stays unknown or the store
        fails, ValueError if the body is not JSON. After a StorageError the same call may be made again.
        """
        return self.append_all(kind, [(body, refs)])[0]

    def append_all(self, kind: str, events: Sequence[tuple[dict[str, Any], Sequence[FileRef]]]) -> list[Entry]:
        """Acknowledge events of one kind, bodies and refs, in their order: durable together, sooner than one by one.

        Raises as `append`; the first of them may be in the journal then.
        """
        made: list[tuple[Entry, bytes]] = []
        head = self.head
        for body, refs in events:
            data = encode(head.seq + 1, head.sha256, head.epoch, head.writer, kind, body, refs)
            head = decode(data, head.seq + 1)
            made.append((head, data))
        objects = [(key_of(entry.seq), data) for entry, data in made]
        there = 0
        while (there := there + self.store.put_all_if_absent(objects[there:])) < len(objects):
            self._check_own(*made[there])
            there += 1
        for entry, _ in made:
            self._keep(entry)
        return [entry for entry, _ in made]

    def _check_own(self, entry: Entry, data: bytes) -> None:
        """Raises FencedError unless what lies in the entry's place is what an earlier try wrote."""
        there = self.store.get(key_of(entry.seq))
        if there != data:
            raise FencedError(
                f"{self.store}: another driver took over the run ({identify([decode(there, entry.seq)])})"
            )

    def _keep(self, entry: Entry) -> None:
        self.head = entry
        self._tail.append(entry)
        if len(self._tail) == segments.SIZE:
            _save(self.store, entry.seq // segments.SIZE, self._tail)
            self._tail = []


def _save(store: Store, number: int, entries: Sequence[Entry]) -> None:
    # What is acknowledged stays acknowledged, whatever becomes of a cache.
    with suppress(StorageError, StateError):
        segments.save(store, number, entries)


def _read_files(folder: str, seq: int) -> Iterator[bytes]:
    """Entries in a local directory, as fast as a file system can. Ends at the first absent one."""
    while True:
        path = f"{folder}/{seq:020d}.json"
        try:
            data = _read_file(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.ELOOP):
                raise StateError(f"{key_of(seq)}: not a regular file; restore it from a copy") from error
            raise StorageError(f"{path}: {error.strerror}") from error
        yield data
        seq += 1


def _read_file(path: str) -> bytes:
    # O_NONBLOCK: a pipe planted here must not hang; it reads as empty, which is damage.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        data = piece = os.read(descriptor, PIECE)
        while len(piece) == PIECE:
            piece = os.read(descriptor, PIECE)
            data += piece
        return data
    finally:
        os.close(descriptor)


def _read_objects(store: Store, seq: int) -> Iterator[bytes]:
    """Entries in a bucket, many requests at once. Ends at the first absent one."""

    def get(seq: int) -> bytes | None:
        try:
            return store.get(key_of(seq))
        except KeyError:
            return None

    # Twice as many each time: a short journal is not asked for much that is not there, a long one waits seldom.
    with ThreadPoolExecutor(READERS) as pool:
        window = 4
        while True:
            for data in pool.map(get, range(seq, seq + window)):
                if data is None:
                    return
                yield data
            seq += window
            window = min(2 * window, WINDOW)
