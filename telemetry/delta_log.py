"""A Delta table's log as its appenders need it: one beginning, entries that survive a power cut, and a search.

Entries `<table>/_delta_log/<version:020d>.json` are written here, as the protocol has them; the tables are read, and
checkpoints made, by delta-rs. What another tool appends to a local disk may be without fsync: such an entry, never
acknowledged, may come back empty or full of zeros after a power cut, and would bar the table to everybody.

Checkpoints are caches of the log that nothing vouches for. Forager's own readers never look at the log, let alone at
its caches; whoever appends does, so that a resumed run begins without them.
"""

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import Schema
from deltalake.exceptions import DeltaError

from telemetry.failures import StateError, StorageError
from telemetry.store import Store

_DECORATION = re.compile(r"\x1b\[\d*m|↳|<[^>]*>|max_retries: \d+, retry_timeout: \w+ +- ")
_BACKTRACE = re.compile(r"\s*\d+: [<\w]")
WORDS = 300
"""Characters of what the library says that are shown."""
Action = dict[str, Any]
"""One line of a log entry, or what it says of a data file."""


def key_of(table: str, version: int) -> str:
    """Key of a log entry."""
    return f"{table}/_delta_log/{version:020d}.json"


@dataclass(frozen=True)
class Definition:
    """What a table is."""

    schema: pa.Schema
    partition: str
    """Its one partition column."""
    settings: Mapping[str, str]

    def actions(self) -> list[Action]:
        """First entry of its log, without what is different for each table: its id and when it was made."""
        metadata = {
            "format": {"provider": "parquet", "options": {}},
            "schemaString": Schema.from_arrow(self.schema).to_json(),
            "partitionColumns": [self.partition],
            "configuration": dict(self.settings),
        }
        return [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": metadata}]


@contextmanager
def failures(store: Store, table: str) -> Iterator[None]:
    """Turns what the library raises into StorageError or StateError, with the key and the cause.

    The library's types do not tell a broken store from a broken log, so the log is looked at.
    """
    try:
        yield
    except DeltaError as error:
        raise _diagnosis(store, table, error) from error
    except OSError as error:
        raise StorageError(f"{store}/{table}: {in_words(error)}{store.free_text()}") from error


def bad(store: Store, table: str, version: int) -> StateError:
    """What is to be raised for a log entry that is missing or damaged."""
    return StateError(f"{store}/{key_of(table, version)}: missing or damaged; restore it from a copy")


def _diagnosis(store: Store, table: str, error: DeltaError) -> StateError | StorageError:
    store.free_bytes()  # raises StorageError if it is the whole store that is gone
    folder = f"{table}/_delta_log"
    newest = max((_version(key) for key in store.list(folder) if key.endswith(".json")), default=-1)
    for version in range(newest + 1):
        try:
            whole = bool(parse(store.get(key_of(table, version))))
        except (KeyError, StateError):
            whole = False
        if not whole:
            return bad(store, table, version)
    return StateError(f"{store}/{table}: {in_words(error)}")


def in_words(error: Exception) -> str:
    """What the library says, on one line: without its colours and its stack, and with both ends of a long chain."""
    lines = []
    for line in str(error).splitlines():
        if _BACKTRACE.match(line):
            break
        lines.append(" ".join(_DECORATION.sub(" ", line).split()))
    text = _DECORATION.sub("", ": ".join(filter(None, lines))) or type(error).__name__
    return text if len(text) <= WORDS else f"{text[: WORDS // 2 - 5]} ... {text[-WORDS // 2 :]}"


def create(store: Store, table: str, definition: Definition) -> None:
    """Make the table if there is none: its first log entry, which only one of several makers can write.

    The library's own creation is not exclusive: makers that race stack several table definitions.
    """
    actions = definition.actions()
    actions[1]["metaData"] |= {"id": str(uuid.uuid4()), "createdTime": int(time.time() * 1000)}
    store.put_if_absent(key_of(table, 0), "\n".join(map(json.dumps, actions)).encode())


def added(store: Store, table: str, version: int) -> Iterator[tuple[str, str]]:
    """Key and partition of the data files that a sound log entry adds."""
    for action in parse(store.get(key_of(table, version))):
        if "add" in action:
            yield f"{table}/{action['add']['path']}", next(iter(action["add"]["partitionValues"].values()))


def damage(store: Store, table: str, version: int, definition: Definition) -> str:
    """What is wrong with a log entry, or with a data file that it adds; empty if nothing is."""
    try:
        actions = parse(store.get(key_of(table, version)))
        sound = actions and all(_is_sound(action, definition.partition) for action in actions)
        if not (_is_beginning(actions, definition) if version == 0 else sound):
            return "is damaged"
    except KeyError:
        return "is missing"
    except (AttributeError, StateError, TypeError, ValueError):
        return "is damaged"
    for add in (action["add"] for action in actions if "add" in action):
        data = f"{table}/{add['path']}"
        try:
            whole = store.size_and_sha256(data) == (add["size"], add["path"].rpartition("/")[2].partition(".")[0])
        except (KeyError, StateError):
            whole = False
        if not whole:
            return f"adds {data}, which is missing or damaged"
    return ""


def _is_beginning(actions: list[Action], definition: Definition) -> bool:
    """True for the entry that makes the table, whatever its id and its time."""
    (protocol, table), (expected, wanted) = actions, definition.actions()
    made, meant = table["metaData"], wanted["metaData"]
    same = all(made[name] == meant[name] for name in meant.keys() - {"schemaString"})
    return same and protocol == expected and json.loads(made["schemaString"]) == json.loads(meant["schemaString"])


def _is_sound(action: dict[str, Any], partition: str) -> bool:
    """True for what an append of ours writes into the log."""
    [(kind, content)] = action.items()
    if kind == "add":
        [(column, value)] = content["partitionValues"].items()
        numbers = (content["size"], content["modificationTime"], json.loads(content["stats"])["numRecords"])
        return (
            column == partition
            and re.fullmatch(rf"{partition}={int(value)}/[0-9a-f]{{64}}\.parquet", content["path"]) is not None
            and all(type(number) is int for number in numbers)
            and content["dataChange"] is True
        )
    if kind == "txn":
        return type(content["appId"]) is str and type(content["version"]) is int
    return kind == "commitInfo" and isinstance(content, dict)


def repair(store: Store, table: str, acknowledged: int, definition: Definition) -> Iterator[str]:
    """Remove damaged log entries beyond the acknowledged version, and all checkpoints; yields the removed keys.

    What follows a damaged entry goes as well, newest first, since a log with a gap cannot be read at all. An entry is
    damaged, too, when a data file that it adds is. The library makes new checkpoints.
    """
    folder = f"{table}/_delta_log"
    if store.local_path(folder) is None:
        return
    keys = store.list(folder)
    log = [key for key in keys if key.endswith(".json") and _version(key) > acknowledged]
    flaws = (damage(store, table, _version(key), definition) for key in log)
    first = next((index for index, flaw in enumerate(flaws) if flaw), len(log))
    checkpoints = [key for key in keys if key.endswith(("/_last_checkpoint", ".parquet"))]
    for key in [*log[:first:-1], *log[first : first + 1], *checkpoints]:
        store.delete(key)
        yield key


def _version(key: str) -> int:
    """Version that a file of the log belongs to; -1 for `_last_checkpoint` and whatever else lies there."""
    number = key.rpartition("/")[2].partition(".")[0]
    return int(number) if number.isdecimal() else -1


def parse(data: bytes) -> list[Action]:
    """Actions of a log entry; none if it is damaged."""
    try:
        actions = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        return []
    return actions if all(isinstance(action, dict) for action in actions) else []
