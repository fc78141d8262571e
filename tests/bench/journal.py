"""The journal of a very long run: seconds from 100,000 entries to a state, and an acknowledgement against a bare fsync.

To a state: every entry read from the page cache, checked and folded, in a process that has read none before. Once with
the segments that a run leaves behind, once with the entries' own objects only.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from orchestrator.events import FORMAT, LivesCommitted, RunCreated, dump
from orchestrator.population import founders
from orchestrator.runfile import load
from orchestrator.state import fold
from telemetry import segments
from telemetry.journal import GENESIS, NOTHING, Entry, Journal, Writer, decode, encode, key_of
from telemetry.records import BaseModelCard, FileRef
from telemetry.seeds import rng
from telemetry.store import open_store
from tests.bench.__main__ import measure
from tests.forager import SMOKE

ENTRIES = 100_000
LIVES_PER_ENTRY = 4
APPENDS = 200


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "long"
        write(folder)
        result: dict[str, float] = {"entries": ENTRIES}
        for name in ("segments", "objects"):
            result |= measure("tests.bench.journal", name, folder)
        ours, raw = append(Path(scratch) / "short"), fsync(Path(scratch) / "raw")
    print(json.dumps(result | {"append_seconds": ours, "fsync_seconds": raw}))


def resume(name: str, folder: Path) -> dict[str, float]:
    """Seconds to read and check, and to fold, with segments or without; and how many of them on the processor."""
    start, used = time.perf_counter(), time.process_time()
    entries = Journal(open_store(folder)).read(cached=name == "segments")
    read = time.perf_counter()
    state = fold(entries)
    folded, used = time.perf_counter(), time.process_time() - used
    assert sum(map(len, state.lives.values())) == (ENTRIES - 1) * LIVES_PER_ENTRY
    seconds = {"read": read - start, "fold": folded - read, "cpu": used}
    return {f"{name}_{what}_seconds": value for what, value in seconds.items()}


def write(folder: Path) -> None:
    """A journal as a run would leave it, without the waiting: its entries are not fsynced."""
    (folder / "journal").mkdir(parents=True)
    config = load(SMOKE)
    genesis = RunCreated(
        format=FORMAT,
        version="0",
        run="long",
        config=config.model_dump(mode="json"),
        model=BaseModelCard(id="scripted", sha256="0" * 64, modules={}),
        founders=founders(config.population, config.reproduction.hyperparameter_mutation, rng(1, "founders")),
    )
    store, segment, previous = open_store(folder), list[Entry](), NOTHING
    for seq in range(ENTRIES):
        kind, body = (GENESIS, genesis.model_dump(mode="json")) if seq == 0 else ("lives", lives(seq))
        refs = [FileRef(f"ledger/{table}/{seq}", seq, f"{seq:064x}") for table in ("steps", "lives")] if seq else []
        data = encode(seq, previous, 0, "0" * 32, kind, body, refs)
        (folder / key_of(seq)).write_bytes(data)
        segment.append(decode(data, seq))
        previous = segment[-1].sha256
        if len(segment) == segments.SIZE:
            segments.save(store, seq // segments.SIZE, segment)
            segment = []


def lives(seq: int) -> dict[str, object]:
    first = (seq - 1) * LIVES_PER_ENTRY
    event = LivesCommitted(
        generation=0,
        tables={"lives": seq, "steps": seq},
        lives=tuple(("g000-000", first + index, f"{first + index:032x}") for index in range(LIVES_PER_ENTRY)),
        decisions=40,
        prompt_tokens=2400,
        completion_tokens=40,
        ends={"died:starved": LIVES_PER_ENTRY},
        seconds=1.0,
    )
    return dump(event)


def append(folder: Path) -> float:
    """Median seconds of one acknowledgement."""
    writer: Writer = Journal(open_store(folder)).create({"host": "here", "pid": 1})
    seconds = []
    for number in range(APPENDS):
        body = lives(number + 1)
        start = time.perf_counter()
        writer.append("lives", body)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def fsync(folder: Path) -> float:
    """Median seconds of what no durable file can do without: write, fsync, rename, fsync of the directory."""
    folder.mkdir()
    seconds = []
    for number in range(APPENDS):
        start = time.perf_counter()
        with open(folder / "staged", "wb") as file:
            file.write(b"x" * 800)
            file.flush()
            os.fsync(file.fileno())
        os.rename(folder / "staged", folder / f"{number:020d}.json")
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(resume(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
