"""What became of every single held-out life: one file that the journal's entry of the evaluation vouches for.

Runs of earlier versions have none; of them the journal knows each player's fitness by world.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from telemetry.failures import StateError
from telemetry.ledger import HELD_OUT
from telemetry.records import FileRef
from telemetry.store import Store
from telemetry.tables import LIVES

FOLDER = f"{HELD_OUT}/outcomes"
FATE = ("steps", "end", "cause", "energy", "result")
OUTCOMES = pa.schema(
    [
        pa.field("who", pa.string(), nullable=False),
        pa.field("individual", pa.string()),
        pa.field("world_index", pa.int32(), nullable=False),
        pa.field("seat", pa.int32(), nullable=False),
        pa.field("fitness", pa.float64(), nullable=False),
        *(LIVES.field(name) for name in FATE),
    ]
)
"""One row per held-out life, by player, world and seat."""


def outcomes(
    who: str, individual: str | None, worlds: int, lives: Sequence[Mapping[str, Any]], values: NDArray[Any]
) -> pa.Table:
    """Lives of one player as rows (schema OUTCOMES). lives: mappings with FATE, by world and then by seat."""
    seats = len(lives) // worlds
    rows = [
        {
            "who": who,
            "individual": individual,
            "world_index": number // seats,
            "seat": number % seats,
            "fitness": float(value),
            **{name: one[name] for name in FATE},
            "end": str(one["end"]),
        }
        for number, (one, value) in enumerate(zip(lives, values, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=OUTCOMES)


def keep(store: Store, tables: Sequence[pa.Table]) -> FileRef:
    """Writes all players' rows into one file, named by its content."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables), sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    digest = sha256(data).hexdigest()
    ref = FileRef(key=f"{FOLDER}/{digest}.parquet", size=len(data), sha256=digest)
    if not store.put_if_absent(ref.key, data) and store.get(ref.key) != data:
        # Its name says what it must hold: anything else is damage.
        store.put(ref.key, data)
    return ref


def recall(store: Store, refs: Iterable[FileRef]) -> pa.Table | None:
    """The rows that an evaluation vouches for; None for one that kept none. Raises StateError for a damaged file."""
    found = [ref for ref in refs if ref.key.startswith(f"{FOLDER}/")]
    if not found:
        return None
    try:
        data = store.get(found[0].key)
    except KeyError:
        raise StateError(f"{store}/{found[0].key}: missing; restore it from a copy") from None
    if sha256(data).hexdigest() != found[0].sha256:
        raise StateError(f"{store}/{found[0].key}: damaged (its checksum does not match); restore it from a copy")
    return pq.ParquetFile(pa.BufferReader(data), arrow_extensions_enabled=False).read().cast(OUTCOMES)
