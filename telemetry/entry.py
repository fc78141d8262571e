"""What a journal is made of: entries, each bound to the one before.

The bytes of an entry are canonical JSON (sorted keys, no spaces, no NaN, floats as Python's repr) whose last member is
the SHA-256 of everything before it; each entry names the one of the entry before. A damaged entry is therefore found
and named, the newest one included, and a foreign entry does not fit the chain.
"""

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field
from msgspec.structs import asdict

from telemetry.failures import StateError
from telemetry.records import FileRef

FORMAT = 1
GENESIS = "run"
EPOCH = "epoch"
NOTHING = "0" * 64
ENTRY_KEY = re.compile(r"journal/\d{20}\.json")
SEAL = 77
"""Bytes of an entry's last member, the closing brace included."""


# gc=False, here and in what entries hold: nothing in them is part of a cycle, and going through 100,000 of them again
# and again takes the collector longer than it takes to read them.
class Entry(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
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
    check_place(entry, seq)
    return entry


def check_place(entry: Entry, seq: int) -> None:
    """Raise StateError unless the entry is of this format and says it is `seq`."""
    if entry.format != FORMAT:
        raise StateError(f"{key_of(seq)}: written in format {entry.format}, this version reads {FORMAT}")
    if entry.seq != seq:
        raise StateError(f"{key_of(seq)}: says it is entry {entry.seq}; restore it from a copy")


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
