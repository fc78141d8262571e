"""What is small about a run, as Arrow tables for questions in SQL: individuals, generations, training, evaluation.

They hold what `forager lineage --json` and the report hold: each row is one of their objects, each column a field.
"""

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa

from orchestrator.events import EvaluationRow
from orchestrator.lineage import LineageRow
from orchestrator.places import open_run as open_stored
from orchestrator.state import RunState, config_of
from orchestrator.summary import GenerationRow, Summary, TrainingRow, summarize
from telemetry.analysis import RunTables
from telemetry.records import Record

_PLAIN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def open_run(place: str) -> RunTables:
    """The tables of a run; what `telemetry.open_run` calls. Raises UsageError and StateError as `places.open_run`."""
    store, state = open_stored(place)
    files = [ref for generation in state.files for ref in state.vouched(generation)]
    attempts = [attempt for generation in state.lives for attempt in state.attempts(generation)]
    return RunTables(store, small_tables(state), files, attempts)


def small_tables(state: RunState) -> dict[str, pa.Table]:
    """By name, in order of birth or of time."""
    summary = summarize(state, config_of(state))
    found: Mapping[str, tuple[type[Record], Iterable[Record]]] = _rows(summary)
    return {
        name: pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], schema=schema(kind))
        for name, (kind, rows) in found.items()
    }


def schema(kind: type[Record]) -> pa.Schema:
    """The Arrow schema of a record's fields."""
    return pa.schema([pa.field(name, _arrow(field.annotation)) for name, field in kind.model_fields.items()])


def _rows(summary: Summary) -> Mapping[str, tuple[type[Record], Iterable[Record]]]:
    return {
        "individuals": (LineageRow, summary.lineages),
        "generations": (GenerationRow, summary.history),
        "training": (TrainingRow, summary.training),
        "evaluation": (EvaluationRow, summary.evaluation),
    }


def _arrow(annotation: Any) -> pa.DataType:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return pa.string()
    if origin is UnionType:
        [inner] = [one for one in arguments if one is not NoneType]
        return _arrow(inner)
    if origin is tuple:
        return pa.list_(_arrow(arguments[0]))
    if origin is dict:
        return pa.map_(pa.string(), _arrow(arguments[1]))
    return pa.struct(schema(annotation))
