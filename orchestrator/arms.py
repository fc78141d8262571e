"""The experiment that a run is part of, if it is: what `forager compare` found, from beside the run."""

from typing import Any

from pydantic import ValidationError

from orchestrator.comparison import ArmRow
from orchestrator.state import RunState
from telemetry.failures import ForagerError
from telemetry.records import Record
from telemetry.store import Store, open_store

RESULT = "comparison.json"
"""What an experiment came to, in the folder of its runs."""


class Comparison(Record):
    """An experiment that is over."""

    name: str
    environment: str
    model: str
    fitness_kind: str
    seeds: tuple[int, ...]
    worlds: int
    rows: tuple[ArmRow, ...]


def experiment_of(store: Store, state: RunState) -> dict[str, Any] | None:
    """The Comparison as JSON and, as `own`, which of its arms the run belongs to; None for a run of none."""
    folder, _, _ = str(store).rpartition("/")
    if not folder or folder.endswith(("/", ":")):
        return None
    try:
        found = Comparison.model_validate_json(open_store(folder, create=False).get(RESULT))
    except (ForagerError, KeyError, ValidationError):  # a run can be told of without what lies beside it
        return None
    names = {f"{row.arm}-{seed}": row.arm for row in found.rows for seed in found.seeds}
    if state.created.run not in names:
        return None
    return {**found.model_dump(mode="json"), "own": names[state.created.run]}
