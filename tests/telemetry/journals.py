"""Small journals, and entries that somebody planted in them."""

import json
from pathlib import Path
from typing import Any

from telemetry.journal import Journal, Writer, encode
from telemetry.records import FileRef
from telemetry.store import Store


def driver(pid: int) -> dict[str, Any]:
    return {"host": "node", "pid": pid}


def ref(name: str) -> FileRef:
    return FileRef(key=f"ledger/{name}", size=3, sha256="ab" * 32)


def write_run(store: Store, entries: int = 6) -> Writer:
    Journal(store).create({"seed": 7})
    writer = Journal(store).open_epoch(driver(1))
    for number in range(entries - 2):
        writer.append("lives", {"number": number}, (ref(f"part-{number}"),))
    return writer


def rewrite(path: Path, **changes: Any) -> None:
    """A well-formed entry with other content, as somebody who knows the format would plant it."""
    members = {**json.loads(path.read_bytes()), **changes}
    members.pop("sha256")
    members.pop("format")
    members["refs"] = [FileRef(**ref) for ref in members["refs"]]
    path.write_bytes(encode(**members))
