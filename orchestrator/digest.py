"""One sha256 of what matters in a run: equal runs have equal digests, wherever and with how many workers they ran.

Law: only committed generations count, in canonical order, and nothing volatile: no times, no attempts, no losses
(floating-point sums that depend on the machine), no place. Table cells are hashed by value, never by their
layout in memory, so chunking, offsets and the bytes under nulls do not matter.
"""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.config import semantic
from orchestrator.events import GenerationCommitted
from orchestrator.state import RunState
from telemetry.ledger import Ledger
from telemetry.records import Record
from telemetry.tables import TABLES, VOLATILE

VERSION = 1
"""Of the digest: two versions' digests must not be compared, so it is hashed too."""
BLOCK = 1 << 16
"""Rows hashed at a time; part of the digest's definition."""


def digest(state: RunState, ledger: Ledger) -> str:
    """Hexadecimal digest of the committed generations. Holds one generation's rows in memory at a time."""
    sha = sha256()
    sha.update(
        _framed(
            {
                "digest": VERSION,
                "config": semantic(state.created.config),
                "model": state.created.model.sha256,
                "founders": _dump(state.created.founders),
            }
        )
    )
    for event in state.history:
        sha.update(_framed(_decisions(state, event)))
        attempts = state.attempts(event.generation)
        for name, schema in TABLES.items():
            columns = [column for column in schema.names if column not in VOLATILE]
            table = ledger.recall(name, event.generation, state.vouched(event.generation), attempts, columns)
            sha.update(hash_table(table.select(columns)))
    return sha.hexdigest()


def _decisions(state: RunState, event: GenerationCommitted) -> dict[str, Any]:
    """What a generation came to, and how the training jobs of the next one's newborns ended."""
    results = [state.births[one.id] for one in event.population if one.id in state.births]
    return {
        "generation": event.generation,
        "fitness": _dump(event.fitness),
        "selection": event.selection.model_dump(mode="json"),
        "population": _dump(event.population),
        "training": [
            [result.individual, result.adapter, result.status, result.examples, result.tokens] for result in results
        ],
    }


def _dump(records: Sequence[Record]) -> list[dict[str, Any]]:
    dumped = [record.model_dump(mode="json") for record in records]
    for one in dumped:
        numbers = one.get("genome", {}).get("hyperparameters", {})
        # A gene that earlier versions did not have: who is without it is who he was.
        if numbers.get("novelty") == 0:
            del numbers["novelty"]
    return dumped


def _framed(part: object) -> bytes:
    """Canonical JSON behind its length, so that no two sequences of parts have the same bytes."""
    data = json.dumps(part, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return len(data).to_bytes(8, "big") + data


def hash_table(table: pa.Table) -> bytes:
    """sha256 of names, types and cells in order; independent of chunks, offsets and what lies under nulls.

    Takes columns of integers, floats, booleans, strings, and lists of them.
    """
    sha = sha256()
    for field, column in zip(table.schema, table.columns, strict=True):
        sha.update(_framed([field.name, str(field.type), len(column)]))
        for start in range(0, len(column), BLOCK):
            for piece in _pieces(column.slice(start, BLOCK).combine_chunks()):
                sha.update(piece)
    return sha.digest()


def _pieces(array: pa.Array) -> Iterator[bytes | memoryview]:
    """Validity, lengths and values of an array, each in one fixed encoding (little-endian, bits packed)."""
    yield _packed(array.is_valid())
    if pa.types.is_list(array.type):
        yield _numbers(pc.list_value_length(array))
        yield from _pieces(array.flatten())
    elif pa.types.is_string(array.type):
        yield _numbers(pc.binary_length(array))
        yield _text(array.fill_null(""))
    elif pa.types.is_boolean(array.type):
        yield _packed(array.fill_null(False))
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        yield _numbers(array)
    else:
        raise TypeError(f"no canonical bytes for {array.type}")


def _packed(array: pa.Array) -> bytes:
    return np.packbits(array.to_numpy(zero_copy_only=False)).tobytes()


def _numbers(array: pa.Array) -> bytes:
    values: np.ndarray[Any, Any] = array.fill_null(0).to_numpy(zero_copy_only=False)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _text(array: pa.Array) -> bytes | memoryview:
    """UTF-8 bytes of all strings, one after the other."""
    if len(array) == 0:
        return b""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[ends[0] : ends[-1]] if data is not None else b""
