"""Answers to questions in SQL, printed: for people, for programs, for spreadsheets."""

import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from orchestrator.console import columns_of
from orchestrator.plain import clean
from telemetry.numerals import number

WIDEST = 10_000
"""Characters of a line into a file or a pipe."""


def print_answer(answer: pa.Table, shape: Literal["table", "json", "csv"], most: int) -> None:
    """Prints all rows; as a table at most so many, and says how many there are.

    As JSON: a list of objects, times in ISO 8601, numbers that are none as null.
    """
    if shape == "csv":
        text = pa.BufferOutputStream()
        pyarrow.csv.write_csv(pa.table([*map(_flat, answer.columns)], answer.column_names), text)
        typer.echo(text.getvalue().to_pybytes().decode(), nl=False)
        return
    if shape == "json":
        typer.echo(json.dumps([_plain(row) for row in _rows(answer)], indent=2, allow_nan=False))
        return
    table = columns_of()
    for field in answer.schema:
        counts = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        table.add_column(Text(clean(field.name)), justify="right" if counts else "left")
    for row in _rows(answer.slice(0, most)):
        table.add_row(*(Text(_text(value)) for value in row.values()))
    console = Console()
    if not console.is_terminal:
        # Nothing is cut where nobody's window ends.
        console.width = max(
            console.width, Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
        )
    console.print(table)
    if answer.num_rows > most:
        console.print(f"{most:,} of {answer.num_rows:,} rows; --rows shows more, --csv and --json all", style="dim")


def _rows(answer: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer.to_pylist(maps_as_pydicts="strict")
    return rows


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as CSV can hold it: lists and objects as JSON."""
    if not pa.types.is_nested(column.type):
        return column
    values = column.to_pylist(maps_as_pydicts="strict")
    return pa.chunked_array([[None if value is None else json.dumps(_plain(value)) for value in values]], pa.string())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | dict | tuple):
        return clean(json.dumps(_plain(value)))
    return clean(str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, str | int) else str(value)
