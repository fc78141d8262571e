"""Verification: is a stored run whole, unchanged and well formed? Offline, and it writes nothing.

Law: an error is anything that a reader of the run could be misled by; what no reader ever sees (files that a crash
left behind, rows that were never acknowledged) is a note.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.findings import Finding, error, note
from orchestrator.inspection_population import check_populations
from orchestrator.inspection_rows import check_rows
from orchestrator.state import RunState, config_of, fold
from telemetry.adapters import Shelf
from telemetry.failures import StateError
from telemetry.journal import ENTRY_KEY, Entry, Journal, key_of
from telemetry.ledger import Ledger
from telemetry.records import FileRef
from telemetry.store import Store

HOUSEKEEPING = ("report.html", "driver.lock", "heartbeat", "logs", "journal-cache")
"""Top-level names that belong to a run without being part of its record."""


def verify(store: Store) -> list[Finding]:
    """Everything that is wrong with a run, or noteworthy. An empty list means that every check passed.

    Checks the hash chain and the meaning of every journal entry, every object that an entry vouches for, the pinned
    tables and their rows, populations and lineages, and adapters. Raises StorageError when the store fails.
    """
    try:
        entries = Journal(store).read(cached=False)
        state = fold(entries)
        config = config_of(state)
    except StateError as failure:
        return [error("journal", str(failure))]
    vouched = {ref.key: ref for entry in entries for ref in entry.refs}
    findings = [*_check_refs(store, entries, vouched), *check_populations(state, config)]
    findings += _check_adapters(store, state, vouched)
    # Tables whose files are known to be damaged are not parsed: what they would say means nothing.
    if not any(finding.where.startswith("ledger/") for finding in findings):
        findings += _check_tables(store, state, vouched)
        findings += check_rows(state, Ledger(store))
    return findings + list(_leftovers(store, vouched))


def _check_refs(store: Store, entries: Sequence[Entry], vouched: dict[str, FileRef]) -> Iterator[Finding]:
    """Every object that any entry vouches for is there with its size and its sha256."""
    for entry in entries:
        for ref in entry.refs:
            if ref != vouched[ref.key]:
                yield error(key_of(entry.seq), f"vouches for another content of {ref.key} than a later entry")
    with ThreadPoolExecutor(8) as pool:
        yield from (found for found in pool.map(partial(_check_ref, store), vouched.values()) if found)


def _check_ref(store: Store, ref: FileRef) -> Finding | None:
    try:
        size, digest = store.size_and_sha256(ref.key)
    except KeyError:
        return error(ref.key, "missing; restore it from a copy")
    except StateError as failure:
        return error(ref.key, str(failure))
    if size != ref.size:
        return error(ref.key, f"has {size} bytes, the journal vouches for {ref.size}")
    if digest != ref.sha256:
        return error(ref.key, f"has sha256 {digest[:16]}, the journal vouches for {ref.sha256[:16]}")
    return None


def _check_adapters(store: Store, state: RunState, vouched: dict[str, FileRef]) -> Iterator[Finding]:
    """Every adapter that anyone has ever had is on the shelf, hashes to its id, and is vouched for."""
    shelf = Shelf(store)
    adapters = {one.genome.adapter for one in state.everyone.values()}
    adapters |= {result.adapter for result in state.births.values()}
    for adapter in sorted(adapters - {None}, key=str):
        where = f"adapters/{adapter}"
        try:
            shelf.load(str(adapter))
        except StateError as failure:
            yield error(where, str(failure).removeprefix(f"{where}: "))
        if sum(key.startswith(f"{where}/") for key in vouched) != 2:
            yield error(where, "is used, but no journal entry vouches for both of its files")


def _check_tables(store: Store, state: RunState, vouched: dict[str, FileRef]) -> Iterator[Finding]:
    """At the pinned versions the tables consist of the files that were vouched for; others hold only unseen rows."""
    ledger = Ledger(store)
    for name, version in state.tables.items():
        folder = f"ledger/{name}/"
        versions = [commit.tables.get(name, -1) for commit in state.commits]
        if versions != sorted(versions):
            yield error(folder, f"its pinned versions go backwards: {versions}")
        damaged = list(ledger.damaged(name, version, vouched))
        yield from (error(key, f"belongs to nobody, but to the table's log, and {flaw}") for key, flaw in damaged)
        if damaged:
            continue
        active = ledger.named(name, version)
        cache = f"{folder}_delta_log/_last_checkpoint"
        try:
            seen, reason = {f"{folder}{path}": generation for path, generation in ledger.files(name, version)}, ""
        except StateError as failure:
            seen, reason = {}, f": {failure}"
        if seen != active:
            where = cache if store.exists(cache) else folder
            yield error(
                where, f"other tools see another table than its log tells{reason}; delete the log's checkpoints"
            )
        data = {key for key in vouched if key.startswith(folder) and "/_delta_log/" not in key}
        for key in sorted(data - active.keys()):
            yield error(key, f"was acknowledged, but is not part of the table {name} at version {version}")
        acknowledged = {attempt for lives in state.lives.values() for attempt in lives.values()}
        for key in sorted(active.keys() - data):
            yield from _check_stranger(store, key, acknowledged)


def _check_stranger(store: Store, key: str, acknowledged: set[str]) -> Iterator[Finding]:
    """A data file that nobody vouches for must not hold rows that readers would take."""
    try:
        data = store.get(key)
        if key.rpartition("/")[2] != f"{sha256(data).hexdigest()}.parquet":
            yield error(key, "belongs to nobody, but to the table, and is damaged")
            return
        # Whoever wrote it, it must not make this process run its code or eat its memory.
        limits = {"thrift_string_size_limit": 1 << 24, "thrift_container_size_limit": 1 << 16}
        file = pq.ParquetFile(
            pa.BufferReader(data), arrow_extensions_enabled=False, page_checksum_verification=True, **limits
        )
        batches = file.iter_batches(columns=["attempt"])
        attempts = {attempt for rows in batches for attempt in rows["attempt"].cast(pa.string()).to_pylist()}
    except (KeyError, ValueError, OSError, StateError, pa.ArrowException) as failure:
        yield error(key, f"is part of the table, but cannot be read: {failure}")
        return
    if acknowledged & attempts:
        yield error(key, "holds rows of acknowledged lives, but no journal entry vouches for it")


def _leftovers(store: Store, vouched: dict[str, FileRef]) -> Iterator[Finding]:
    """Objects that are part of no run's record."""
    for key in store.list(""):
        if key in vouched or ENTRY_KEY.fullmatch(key) or key.split("/")[0] in HOUSEKEEPING:
            continue
        if not key.startswith("ledger/"):
            yield note(key, "is referenced by no journal entry")
        elif not ("/_delta_log/" in key and ("checkpoint" in key or key.endswith(".crc"))):
            yield note(key, "was appended but never acknowledged; no reader sees its rows")
    journal = store.local_path("journal")
    if journal is not None:
        for path in sorted(journal.parent.rglob(".*")):
            yield note(str(path.relative_to(journal.parent)), "was left behind by an interrupted write")
