"""Copies of the journal in large pieces, so that a long one is not read one small object at a time.

Segment `n` holds the entries from `n * SIZE` on as JSON, one a line, behind a line with the BLAKE2b digest of the rest
(faster than SHA-256 where the processor has no instructions for that). Segments are a cache: made of entries that are
durable already, read only if they are whole, form one chain and end in what the journal itself has in that place, and
passed over otherwise. Deleting any of them at any time costs nothing but time.
"""

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from telemetry.entry import Entry, check_link, check_place, decode, key_of
from telemetry.failures import StateError
from telemetry.store import Store

FOLDER = "journal-cache"
SIZE = 1024
"""Entries of a segment: about a megabyte, three hours of commits."""
HEAD = 65
"""Bytes of the first line."""

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Entry)


def place_of(number: int) -> str:
    """Key of a segment."""
    return f"{FOLDER}/{number:020d}.jsonl"


def save(store: Store, number: int, segment: Sequence[Entry]) -> None:
    """Keep a copy of a whole segment's entries, which are known to be sound. Raises StorageError."""
    lines = _ENCODER.encode_lines(segment)
    store.put(place_of(number), _digest(lines) + lines)


def load(store: Store, number: int, head: Entry | None) -> list[Entry] | None:
    """Entries of a segment, which follow `head`; None if it is missing or not the journal's own."""
    first, last = number * SIZE, (number + 1) * SIZE - 1
    try:
        data = memoryview(store.get(place_of(number)))
        if data[:HEAD] != _digest(data[HEAD:]):
            return None
        segment = _DECODER.decode_lines(data[HEAD:])
        for seq, entry in enumerate(segment, first):
            check_place(entry, seq)
            check_link(head, entry)
            head = entry
        own = head is not None and head == decode(store.get(key_of(last)), last)
    except (KeyError, StateError, msgspec.DecodeError):
        return None
    return segment if own else None


def _digest(lines: bytes | memoryview) -> bytes:
    return blake2b(lines, digest_size=32).hexdigest().encode() + b"\n"
