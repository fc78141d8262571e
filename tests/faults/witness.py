"""What an outsider sees of a run, without any of Forager's code, and what must never change of it."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

Life = tuple[int, str, int]


@dataclass
class Sight:
    """What an outsider sees of a run at one moment."""

    entries: dict[str, bytes] = field(default_factory=dict)
    """Journal objects by name."""
    committed: list[Life] = field(default_factory=list)
    """Lives by the journal, in its order."""
    lived: dict[Life, set[str]] = field(default_factory=dict)
    """Attempts of each life in any data file, acknowledged or not."""


def look(run: Path) -> Sight:
    """Reads journal and data files without any of Forager's code; in a fork, because Arrow starts threads."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        try:
            theirs.send(_look(run))
        finally:
            os._exit(0)
    theirs.close()
    try:
        sight = ours.recv()
    finally:
        ours.close()
        os.waitpid(pid, 0)
    assert isinstance(sight, Sight)
    return sight


def _look(run: Path) -> Sight:
    sight = Sight()
    for path in sorted((run / "journal").glob("[0-9]*.json")):
        sight.entries[path.name] = path.read_bytes()
        entry = json.loads(sight.entries[path.name])
        if entry["kind"] == "lives":
            sight.committed += [(entry["body"]["generation"], who, life) for who, life, _ in entry["body"]["lives"]]
    for path in (run / "ledger" / "lives").glob("generation=*/[0-9a-f]*.parquet"):
        rows = pq.ParquetFile(path).read(["individual", "life", "attempt"], use_threads=False)
        for row in rows.to_pylist():
            life = (int(path.parent.name.partition("=")[2]), row["individual"], row["life"])
            sight.lived.setdefault(life, set()).add(row["attempt"])
    return sight


def losses(before: Sight, after: Sight) -> Iterator[str]:
    """What `after` lost, changed or did again of what `before` had committed."""
    for name, data in before.entries.items():
        if after.entries.get(name) != data:
            yield f"{name}: was acknowledged, and is gone or changed"
    for life in before.committed:
        if life not in after.committed:
            yield f"{life}: was committed, and is lost"
        if after.lived.get(life) != before.lived.get(life, {"no rows"}):
            yield f"{life}: was committed, and lived again or has no rows"
