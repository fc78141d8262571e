"""The only source of truth of a run: an append-only, hash-chained, fenced log of small JSON objects.

Entry `seq` lives under `journal/<seq:020d>.json` and is created put-if-absent, so it never changes and exists once.
Its bytes are canonical JSON (sorted keys, no spaces, no NaN, floats as Python's repr) whose last member is the
SHA-256 of everything before it; each entry names the one of the entry before. A damaged entry is therefore found
and named, the newest one included, and a foreign entry does not fit the chain.

Fencing: every writer opens an epoch, which is an entry like any other. Whoever finds an entry of somebody else in
the place of its own next one has been replaced, and stops (Kleppmann 2016, "How to do distributed locking").
"""

import errno
import gc
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field
from msgspec.structs import asdict

from telemetry.failures import FencedError, StateError, StorageError, UsageError
from telemetry.records import FileRef
from telemetry.store import Store

FORMAT = 1
GENESIS = "run"
EPOCH = "epoch"
NOTHING = "0" * 64
ENTRY_KEY = re.compile(r"journal/\d{20}\.json")
OPEN_TRIES = 100
WINDOW = 64
PIECE = 1 << 13
SEAL = 77
"""Bytes of an entry's last member, the closing brace included."""


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One acknowledged event of a run."""

    format: int
    """Version of the journal's format."""
    seq: Annotated[int, Meta(ge=0)]
    """Position, without gaps, from 0."""
    previous_sha256: str
    """The `sha256` of the entry before; zeros for the first."""
    epoch: Annotated[int, Meta(ge=0)]
    """Which writer's reign; never falls."""
    writer: str
    """Nonce of the writer, so that no two writers can produce the same bytes."""
    kind: Annotated[str, Meta(min_length=1)]
    """What happened: `run` opens the journal, `epoch` opens a reign, the rest is the orchestrator's business."""
    raw_body: Raw = field(name="body")
    """The event itself: JSON that its reader decodes when the kind is known."""
    refs: tuple[FileRef, ...]
    """Objects of the store that this entry vouches for."""
    sha256: str
    """Of the entry's bytes up to this member."""

    @property
    def body(self) -> dict[str, Any]:
        """The event as plain values, decoded anew."""
        return json.loads(bytes(self.raw_body))  # type: ignore[no-any-return]


_DECODER = msgspec.json.Decoder(Entry)


class Journal:
    """The journal of the one run that a store holds."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self) -> list[Entry]:
        """All entries, oldest first; empty if the store holds no run.

        Walks by key instead of trusting a listing, which may be stale. Raises StateError, naming the object, if
        any entry is damaged, missing, foreign, out of order or of another format.
        """
        return self._extend([])

    def create(self, body: dict[str, Any]) -> "Writer":
        """Found a run: the first entry, of kind `run`, which opens epoch 0. Raises UsageError if a run is here."""
        taken = f"{self.store}: a run lives here already; resume it, or choose another store"
        if self.read():
            raise UsageError(taken)
        nonce = secrets.token_hex(16)
        data = encode(0, NOTHING, 0, nonce, GENESIS, body)
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
                return Writer(self.store, entries)
            self._extend(entries)
        raise FencedError(f"{self.store}: another driver keeps writing to the run ({identify(entries)})")

    def _extend(self, entries: list[Entry]) -> list[Entry]:
        """Append what follows the given entries, checked."""
        # Nothing here makes cycles, and collecting 100,000 live entries again and again doubles the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for data in self._walk(len(entries)):
                entry = decode(data, len(entries))
                check_link(entries[-1] if entries else None, entry)
                entries.append(entry)
        finally:
            if collecting:
                gc.enable()
        return entries

    def _walk(self, seq: int) -> Iterator[bytes]:
        """Bytes of every entry from `seq` on. Raises StateError if one is missing while a later one exists."""
        folder = self.store.local_path("journal")
        while True:
            for data in _read_objects(self.store, seq) if folder is None else _read_files(str(folder), seq):
                yield data
                seq += 1
            newest = next(filter(ENTRY_KEY.fullmatch, reversed(self.store.list("journal"))), "")
            if not self.store.exists(key_of(seq)):
                if newest > key_of(seq):
                    raise StateError(f"{key_of(seq)}: missing, but {newest} exists; restore it from a copy")
                return


class Writer:
    """The one writer of a run, until another opens a later epoch. Not for use by several threads."""

    def __init__(self, store: Store, history: Sequence[Entry]) -> None:
        self.store = store
        self.history = tuple(history)
        """All entries up to and including the one that opened this writer's epoch."""
        self.head = history[-1]
        """The last entry, which is this writer's own."""

    @property
    def epoch(self) -> int:
        """The epoch this writer opened."""
        return self.head.epoch

    def append(self, kind: str, body: dict[str, Any], refs: Sequence[FileRef] = ()) -> Entry:
        """Acknowledge an event: when this returns, it is durable.

        Raises FencedError if another writer has taken over, StorageError if the outcome stays unknown or the store
        fails, ValueError if the body is not JSON. After a StorageError the same call may be made again.
        """
        head = self.head
        data = encode(head.seq + 1, head.sha256, head.epoch, head.writer, kind, body, refs)
        entry = decode(data, head.seq + 1)
        if not self.store.put_if_absent(key_of(entry.seq), data):
            there = self.store.get(key_of(entry.seq))
            if there != data:
                raise FencedError(
                    f"{self.store}: another driver took over the run ({identify([decode(there, entry.seq)])})"
                )
        self.head = entry
        return entry


def key_of(seq: int) -> str:
    """Key of an entry."""
    return f"journal/{seq:020d}.json"


def encode(
    seq: int,
    previous_sha256: str,
    epoch: int,
    writer: str,
    kind: str,
    body: dict[str, Any],
    refs: Sequence[FileRef] = (),
) -> bytes:
    """Canonical bytes of an entry. Raises ValueError for a body that is not plain, finite JSON."""
    entry = {
        "body": body,
        "epoch": epoch,
        "format": FORMAT,
        "kind": kind,
        "previous_sha256": previous_sha256,
        "refs": [asdict(ref) for ref in refs],
        "seq": seq,
        "writer": writer,
    }
    payload = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return payload + seal(payload)


def decode(data: bytes, seq: int) -> Entry:
    """The entry in these bytes. Raises StateError unless they are whole, of this format, and say they are `seq`."""
    if data[-SEAL:] != seal(memoryview(data)[:-SEAL]):
        raise StateError(f"{key_of(seq)}: damaged (its checksum does not match); restore it from a copy")
    try:
        entry = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise StateError(f"{key_of(seq)}: {error}; not an entry of this version's journal") from error
    if entry.format != FORMAT:
        raise StateError(f"{key_of(seq)}: written in format {entry.format}, this version reads {FORMAT}")
    if entry.seq != seq:
        raise StateError(f"{key_of(seq)}: says it is entry {entry.seq}; restore it from a copy")
    return entry


def check_link(head: Entry | None, entry: Entry) -> None:
    """Raise StateError unless `entry` follows `head` in one chain under the rules of epochs."""
    problem = ""
    if head is None:
        if (entry.kind, entry.epoch, entry.previous_sha256) != (GENESIS, 0, NOTHING):
            problem = f"got kind {entry.kind!r}, expected the entry that founds a run"
    elif entry.previous_sha256 != head.sha256:
        problem = f"does not follow {key_of(head.seq)} (hash chain broken); it belongs to another run"
    elif entry.kind == GENESIS:
        problem = "founds a run a second time"
    elif entry.epoch != head.epoch + (entry.kind == EPOCH):
        problem = f"got epoch {entry.epoch} after {head.epoch} in an entry of kind {entry.kind!r}"
    elif (entry.writer == head.writer) != (entry.epoch == head.epoch):
        problem = f"got writer {entry.writer}, which is not the writer of epoch {entry.epoch}"
    if problem:
        raise StateError(f"{key_of(entry.seq)}: {problem}")


def identify(entries: Sequence[Entry]) -> str:
    """Who wrote the last of these entries, for people."""
    opened = next((entry for entry in reversed(entries) if entry.kind in (EPOCH, GENESIS)), entries[-1])
    host, pid = opened.body.get("host", "unknown"), opened.body.get("pid", "unknown")
    return f"epoch {opened.epoch}, host {host}, pid {pid}"


def seal(payload: bytes | memoryview) -> bytes:
    """The last member of an entry: the checksum of all bytes before it."""
    return b',"sha256":"' + sha256(payload).hexdigest().encode() + b'"}'


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

    with ThreadPoolExecutor(16) as pool:
        window = 4
        while True:
            for data in pool.map(get, range(seq, seq + window)):
                if data is None:
                    return
                yield data
            seq += window
            window = WINDOW
