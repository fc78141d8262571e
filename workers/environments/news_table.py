"""Articles and returns as a user has them: a Parquet or CSV file with the columns `time`, `text` and `return`.

Law: reading is strict. Whatever could make a return count for the wrong text, or be no return at all, is refused in one
line that names the file and the row; nothing is guessed, filled in or left out.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from telemetry.failures import UsageError

COLUMNS = ("time", "text", "return")
DAY = 86_400_000_000
"""Microseconds of a day."""
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows in order of time. Row `i` of every field belongs together."""

    times: NDArray[np.int64]
    """Microseconds since 1970 in UTC, never decreasing."""
    texts: list[str]
    returns: NDArray[np.float64]
    """What was earned after the article, as a fraction."""


def read(path: Path) -> Table:
    """The rows of a .parquet or .csv file, texts with every run of white space as one blank.

    Times are timestamps, dates or ISO 8601 text, in UTC where they name no zone. Raises UsageError.
    """
    try:
        table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    except FileNotFoundError as error:
        raise UsageError(f"{_where(path)}: got no such file, expected one; give its path on every machine") from error
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(f"{_where(path)}: got a file that cannot be read ({error}); write it again") from error
    for name in COLUMNS:
        if table.column_names.count(name) != 1:
            has = ", ".join(table.column_names) or "none"
            _refuse(path, f"the columns {has}", f"one column {name!r}; name the columns {', '.join(COLUMNS)}")
        empty = pc.index(pc.is_null(table[name]), value=True).as_py()
        if empty >= 0:
            _refuse(path, f"no {name}", f"a {name} in every row; remove or complete the row", empty)
    return Table(_times(path, table["time"]), _texts(path, table["text"]), _returns(path, table["return"]))


def _parquet(path: Path) -> pa.Table:
    from pyarrow import parquet

    with path.open("rb") as file:
        source = parquet.ParquetFile(file)
        return source.read(columns=[name for name in source.schema_arrow.names if name in COLUMNS])


def _csv(path: Path) -> pa.Table:
    from pyarrow import csv

    convert = csv.ConvertOptions(
        column_types={"time": pa.string(), "text": pa.string(), "return": pa.float64()}, strings_can_be_null=False
    )
    return csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=convert)


def _times(path: Path, column: pa.ChunkedArray) -> NDArray[np.int64]:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        exact = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
        times = exact.cast(pa.int64()).to_numpy()
    elif _is_text(column.type):
        times = np.array([_parsed(path, row, text) for row, text in enumerate(column.to_pylist())], dtype=np.int64)
    else:
        _refuse(path, f"times of type {column.type}", "timestamps, dates or ISO 8601 text; convert the column")
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        _refuse(path, "a time before that of the row above", "rows in order of time; sort the file", int(back[0]) + 1)
    return np.asarray(times, dtype=np.int64)


def _parsed(path: Path, row: int, text: str) -> int:
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        _refuse(path, f"the time {text[:40]!r}", "one such as 2024-05-17T20:30:00Z; write times in ISO 8601", row)
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _ZERO
    return since.days * DAY + since.seconds * 1_000_000 + since.microseconds


def _texts(path: Path, column: pa.ChunkedArray) -> list[str]:
    if not _is_text(column.type):
        _refuse(path, f"texts of type {column.type}", "text; convert the column")
    try:
        texts = [" ".join(text.split()) for text in column.to_pylist()]
    except UnicodeDecodeError:
        _refuse(path, "a text that is not UTF-8", "UTF-8; write the file again")
    if "" in texts:
        _refuse(path, "an empty text", "words; remove the row", texts.index(""))
    return texts


def _returns(path: Path, column: pa.ChunkedArray) -> NDArray[np.float64]:
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        _refuse(path, f"returns of type {kind}", "numbers; convert the column")
    returns = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(returns))
    if len(bad):
        _refuse(path, f"the return {returns[bad[0]]}", "a finite number; remove the row", int(bad[0]))
    return returns


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _where(path: Path) -> str:
    return f"environment.settings.data: {path}"


def _refuse(path: Path, got: str, expected: str, row: int | None = None) -> NoReturn:
    """`row` is counted from 0 in the table and told as people count, without the header."""
    where = _where(path) if row is None else f"{_where(path)}: row {row + 1}"
    raise UsageError(f"{where}: got {got}, expected {expected}")
