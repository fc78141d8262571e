"""After the loop: the summary on the console, the report in the store, single evaluations."""

from pathlib import Path
from typing import Any

from orchestrator.address import driven_at
from orchestrator.builder import find_model
from orchestrator.console import print_summary
from orchestrator.driver import worker_rooms
from orchestrator.evaluation import HeldOut, model_rows, player_of, reference_row
from orchestrator.report import figure, report
from orchestrator.state import RunState, config_of
from orchestrator.summary import summarize
from telemetry.failures import UsageError
from telemetry.report.names import FigureFormat, FigureName
from telemetry.store import Store
from workers.reference import references

REPORT = "report.html"
SCRIPTED = ("random", "heuristic")


def conclude(store: Store, state: RunState) -> None:
    """Writes the report of a run and prints its summary."""
    place = write_report(store, state)
    print_summary(summarize(state, config_of(state)), place)


def write_report(store: Store, state: RunState, out: str = "") -> str:
    """Writes the report into a file or, without one, into the run; returns where it is. Raises UsageError."""
    return _write(store, REPORT, report(store, state).encode(), out)


def write_figure(store: Store, state: RunState, name: FigureName, form: FigureFormat, out: str = "") -> str:
    """Writes one figure of the report, as `NAME.FORM` if it goes into the run. Raises UsageError."""
    return _write(store, f"{name}.{form}", figure(store, state, name, form), out)


def _write(store: Store, key: str, data: bytes, out: str) -> str:
    if out:
        try:
            Path(out).write_bytes(data)
        except OSError as error:
            raise UsageError(
                f"--out: got {out}, cannot write there: {(error.strerror or str(error)).lower()}"
            ) from error
        return out
    # Resuming a finished run changes no byte and no time stamp of it.
    if not store.exists(key) or store.get(key) != data:
        store.put(key, data)
    return f"{store.local_path(key) or f'{store}/{key}'}"


def evaluate_one(store: Store, state: RunState, who: str, lives: int, address: str | None = None) -> dict[str, Any]:
    """How one player fares on the held-out worlds, as the JSON of an EvaluationRow.

    address: of the cluster, if it is not to be the run file's.

    Raises UsageError for a player the run does not know.
    """
    config = driven_at(config_of(state), address)
    worlds = HeldOut(config, lives)
    if who in references(worlds.world()) or who in SCRIPTED:
        row = reference_row(who, worlds)
    else:
        one = player_of(state, who)
        with worker_rooms(store, config, find_model(config)) as room:
            [row] = model_rows(room, [one], worlds)
    return row.model_dump(mode="json")
