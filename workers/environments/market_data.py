"""Real daily closing prices, out of files that other packages ship; nothing is downloaded.

Law: the packages are never imported (their code pulls in statsmodels or scikit-learn), and a file counts only with the
content that it had when this was written, so that a seed is the same life everywhere.
"""

import csv
import gzip
import io
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from telemetry.failures import UsageError


@dataclass(frozen=True, eq=False)
class Series:
    """One instrument, day by day."""

    name: str
    dates: tuple[str, ...]
    """Trading days as `YYYY-MM-DD`, ascending."""
    closes: tuple[float, ...]
    """Closing prices, adjusted for splits and dividends where the source does so."""


@dataclass(frozen=True)
class _Source:
    package: str
    version: str
    file: str
    sha256: str
    """Of the unpacked file."""
    column: str | None
    """The column of closing prices, or None where every column but the date is a series of its own."""


_SOURCES = {
    "sp500": _Source(
        "arch",
        "8.0.0",
        "data/sp500/sp500.csv.gz",
        "1c4d0aeed8db9284de8ad71e4063c97f645ad6dd13507f8e305338e96c396ba7",
        "Adj Close",
    ),
    "nasdaq": _Source(
        "arch",
        "8.0.0",
        "data/nasdaq/nasdaq.csv.gz",
        "799ab0bf4a29129f23c27743098215c4033c139ff76dc935a1cd53d1aea9997e",
        "Adj Close",
    ),
    "stocks": _Source(
        "skfolio",
        "1.12.2",
        "datasets/data/sp500_dataset.csv.gz",
        "5f769c6d7be57f62a4dfd1f553995855462a17c92b21a4af4245439c6115617f",
        None,
    ),
}


def missing(name: str) -> str:
    """The package that has to be installed for a data set; empty when it is there."""
    package = _SOURCES[name].package
    return "" if find_spec(package) else package


@cache
def load(name: str) -> tuple[Series, ...]:
    """The series of a data set, read once per process. Raises UsageError when its file is absent or another."""
    source = _SOURCES[name]
    spec = find_spec(source.package)
    folders = spec.submodule_search_locations if spec else None
    try:
        content = gzip.decompress((Path(folders[0]) / source.file).read_bytes()) if folders else b""
    except (OSError, EOFError):
        content = b""
    found = sha256(content).hexdigest()
    if found != source.sha256:
        raise UsageError(
            f"market data {name}: got {f'content {found[:12]}' if content else 'no file'}, expected {source.file} of"
            f" {source.package} {source.version}; pip install {source.package}=={source.version}"
        )
    head, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    dates = tuple(_iso(row[0]) for row in rows)
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    labels = {source.column: name} if source.column else {column: column for column in head[1:]}
    return tuple(Series(label, dates, tuple(map(float, columns[column]))) for column, label in labels.items())


def _iso(day: str) -> str:
    """`1999-01-04` from itself or from `1/4/1999`."""
    if "/" not in day:
        return day
    month, number, year = day.split("/")
    return f"{year}-{month:0>2}-{number:0>2}"
