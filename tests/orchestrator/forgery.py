"""Forged runs: their hash chain and every reference are in order, only what they say is not what happened."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from telemetry.journal import NOTHING, Journal, decode, encode, key_of
from telemetry.ledger import Ledger
from telemetry.store import Store, open_store

EditBody = Callable[[str, dict[str, Any]], None]
"""Changes the body of an entry of a kind, in place."""
EditRows = Callable[[str, pa.Table], pa.Table]
"""Changes the rows of a table (`steps` or `lives`) that one entry acknowledges."""


def forge(source: Path, target: Path, body: EditBody | None = None, rows: EditRows | None = None) -> Store:
    """A copy of the run at `source` with changed bodies and rows, and a chain and tables made for them."""
    old, new = open_store(source), open_store(target)
    shutil.copytree(source / "adapters", target / "adapters")
    previous = NOTHING
    for entry in Journal(old).read():
        changed, refs = copy.deepcopy(entry.body), entry.refs
        if entry.kind == "lives":
            attempts = [attempt for _, _, attempt in entry.body["lives"]]
            tables = {
                name: Ledger(old).read(name, version, attempts=attempts)
                for name, version in entry.body["tables"].items()
            }
            if rows is not None:
                tables = {name: rows(name, table) for name, table in tables.items()}
            receipt = Ledger(new).append(tables["steps"], tables["lives"], f"forged-{entry.seq}")
            changed["tables"], refs = receipt.versions, receipt.files
        if body is not None:
            body(entry.kind, changed)
        data = encode(entry.seq, previous, entry.epoch, entry.writer, entry.kind, changed, refs)
        new.put_if_absent(key_of(entry.seq), data)
        previous = decode(data, entry.seq).sha256
    return new


def replace(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The table with other values in one column."""
    index = table.schema.names.index(name)
    return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def in_generation(generation: int, edit: Callable[[dict[str, Any]], None], kind: str = "generation") -> EditBody:
    """Applies `edit` to the one entry of a kind that belongs to a generation."""

    def apply(entry_kind: str, body: dict[str, Any]) -> None:
        if entry_kind == kind and body["generation"] == generation:
            edit(body)

    return apply
