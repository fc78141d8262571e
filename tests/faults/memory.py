"""Store and ledger of a simulation: in memory, and in a seed's hands.

They keep the contracts of `telemetry.store_base.Store` and `telemetry.ledger.Ledger` (tests hold them against the
real ones) and ask the dice at every operation.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from telemetry.failures import StorageError
from telemetry.ledger import ORDER, Receipt
from telemetry.records import FileRef
from telemetry.store_base import Keys, Store, check_key
from telemetry.tables import TABLES
from tests.faults.world import Process, World


class Handle(Store):
    """The store as one process reaches it; without a process, as it is."""

    def __init__(self, world: World, process: Process | None = None) -> None:
        self.world = world
        self._process = process

    def __str__(self) -> str:
        return "memory"

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._enter("write", check_key(key))
        created = self.world.create(key, data)
        self._leave(key)
        return created

    def put(self, key: str, data: bytes) -> None:
        if key.startswith("journal/"):
            self.world.fail(f"{key} was overwritten")
        self._enter("write", key)
        self.world.objects[key] = data
        self._leave(key)

    def get(self, key: str) -> bytes:
        self._enter("read", key)
        return self.world.objects[key]

    def size_and_sha256(self, key: str) -> tuple[int, str]:
        data = self.get(key)
        return len(data), sha256(data).hexdigest()

    def size_and_time(self, key: str) -> tuple[int, float]:
        return len(self.get(key)), 0.0

    def exists(self, key: str) -> bool:
        self._enter("read", key)
        return key in self.world.objects

    def delete(self, key: str) -> None:
        if key.startswith("journal/"):
            self.world.fail(f"{key} was deleted")
        self._enter("write", key)
        self.world.objects.pop(key, None)

    def list(self, prefix: str) -> Keys:
        self._enter("read", prefix)
        keys = sorted(key for key in self.world.objects if key.startswith(f"{prefix}/" if prefix else ""))
        if self._process and keys and self.world.strike(f"list {prefix}", "stale list"):
            return keys[: self.world.dice.randrange(len(keys))]
        return keys

    def fsync(self, keys: Iterable[str]) -> None:
        pass

    def delta(self, name: str) -> tuple[str, dict[str, str]]:
        raise NotImplementedError("the ledger of a simulation needs no library")

    def address(self, key: str) -> str:
        raise NotImplementedError("nothing but this process sees its memory")

    def local_path(self, key: str) -> Path | None:
        return None

    def free_bytes(self) -> int | None:
        return None

    def _enter(self, what: str, key: str) -> None:
        if self._process is None:
            return
        process, world = self._process, self.world
        process.check()
        world.haunt()
        kinds = (f"crash before {what}", f"refused {what}", f"take-over before {what}")
        fault = world.strike(f"driver {process.number}, {key}", *kinds)
        if fault.startswith("crash"):
            process.die()
        elif fault.startswith("take-over"):
            world.take_over(process)
        elif fault:
            raise StorageError(f"{key}: refused")

    def _leave(self, key: str) -> None:
        if self._process is None:
            return
        fault = self.world.strike(f"driver {self._process.number}, {key}", "crash after write", "unanswered write")
        if fault.startswith("crash"):
            self._process.die()
        elif fault:
            raise StorageError(f"{key}: no answer")


class MemoryLedger:
    """Steps and lives by version, each append at most once."""

    def __init__(self, store: Handle) -> None:
        self.store = store

    def append(self, steps: pa.Table, lives: pa.Table, transaction: str) -> Receipt:
        world = self.store.world
        fault = world.strike("the sink", "refused append", "half append", "unanswered append")
        if fault == "refused append":
            raise StorageError("ledger: refused")
        versions = {"steps": world.append("steps", steps, transaction)}
        if fault == "half append":
            raise StorageError("ledger: refused half way")
        versions["lives"] = world.append("lives", lives, transaction)
        if fault == "unanswered append":
            raise StorageError("ledger: no answer")
        attempts = sorted(set(lives["attempt"].to_pylist()))
        generations = sorted(set(lives["generation"].to_pylist()))
        files = tuple(file_of(name, at, part) for name, at in versions.items() for part in generations)
        return Receipt(versions=versions, files=files, attempts=tuple(attempts))

    def recall(
        self,
        table: str,
        generation: int,
        files: Iterable[FileRef],
        attempts: Collection[str],
        columns: Sequence[str] | None = None,
        *,
        ordered: bool = True,
    ) -> pa.Table:
        known = self.store.world.recalled
        asked = (table, generation, frozenset(ref.key for ref in files), frozenset(attempts))
        if asked not in known:
            known[asked] = self._recall(*asked)
        return known[asked].select(TABLES[table].names if columns is None else columns)

    def _recall(self, table: str, generation: int, keys: Collection[str], attempts: Collection[str]) -> pa.Table:
        log = self.store.world.commits[table]
        pieces = [rows for at, (_, rows) in enumerate(log, 1) if file_of(table, at, generation).key in keys]
        rows = pa.concat_tables([TABLES[table].empty_table(), *pieces])
        wanted = pc.is_in(rows["attempt"], value_set=pa.array(sorted(attempts), pa.string()))
        rows = rows.filter(pc.and_(wanted, pc.equal(rows["generation"], generation)))
        return rows.sort_by([(name, "ascending") for name in ORDER if name in rows.schema.names])

    def between(self, *versions: object) -> tuple[FileRef, ...]:
        """A ledger without a log."""
        return ()

    def repair(self, versions: Mapping[str, int]) -> tuple[str, ...]:
        return ()


@cache
def file_of(table: str, version: int, generation: int) -> FileRef:
    """The object that holds one append's rows of a generation."""
    key = f"ledger/{table}/generation={generation}/{version:06d}"
    return FileRef(key=key, size=1, sha256=sha256(key.encode()).hexdigest())
