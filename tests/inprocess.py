"""The `forager` command inside this process: the same `main`, without the seconds that an interpreter takes to start.

Whatever `main` does not turn into an exit code is raised, so that a traceback fails the test that caused it.
"""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from orchestrator.cli import main
from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.store import open_store
from telemetry.tables import VOLATILE
from tests.forager import Result


def forager_here(*arguments: str | Path) -> Result:
    """Runs `forager` to its end; output has no colours."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch("sys.argv", ["forager", *map(str, arguments)]),
        patch.dict("os.environ", {"COLUMNS": "160", "NO_COLOR": "1"}),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return Result(code, out.getvalue(), err.getvalue())


def output(*arguments: str | Path) -> str:
    """What a command says that must succeed."""
    result = forager_here(*arguments)
    assert result.code == 0, f"exit {result.code}\n{result.out}\n{result.err}"
    return result.out


def refused(result: Result, code: int, *words: str) -> str:
    """The line of a command that must have failed with this code, in one printable line that has these words."""
    assert result.code == code, result
    assert result.err.startswith("error: ")
    assert result.err.endswith("\n")
    line = result.err.removesuffix("\n")
    assert line.isprintable(), line
    for word in words:
        assert word in line
    return line


def resumed_from_lives(run: Path, place: Path, generation: int | None = None, *, most: int = 4) -> list[str]:
    """Digests of copies of a finished run that stopped after a commit of lives and were resumed."""
    entries = sorted((run / "journal").glob("*.json"))
    bodies = [json.loads(path.read_bytes()) for path in entries]
    stops = [
        number
        for number, entry in enumerate(bodies)
        if entry["kind"] == "lives" and generation in (None, entry["body"]["generation"])
    ]
    digests = []
    for last in stops[:: -(-len(stops) // most)]:
        copy = place / str(last)
        shutil.copytree(run, copy)
        for path in entries[last + 1 :]:
            (copy / "journal" / path.name).unlink()
        output("resume", copy)
        digests.append(output("digest", copy))
    return digests


def files(directory: Path) -> list[Path]:
    """Everything below a directory that is no directory itself."""
    return [path for path in directory.rglob("*") if not path.is_dir()] if directory.exists() else []


def committed_steps(run: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Steps of every committed life by (individual, life), without what may differ between equal runs."""
    store = open_store(run)
    state, found = fold(Journal(store).read()), dict[tuple[str, int], list[dict[str, Any]]]()
    for generation in state.lives:
        table = Ledger(store).recall("steps", generation, state.vouched(generation), state.attempts(generation))
        for row in table.drop_columns([name for name in table.schema.names if name in VOLATILE]).to_pylist():
            found.setdefault((row["individual"], row["life"]), []).append(row)
    return found
