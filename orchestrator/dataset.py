"""A published data set, read back: its files checked against their sums, its rows against the schemas.

Law: it was written by others. No file is looked at whose checksum is not listed, no extension type is opened, nothing
that it names is imported, and rows of another shape are refused before anybody learns from them.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import file_digest
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.export_tables import DATA, HELD_OUT, published_schema
from orchestrator.inspection_rows import check_once, check_steps
from orchestrator.lineage import LineageRow
from orchestrator.provenance import FILE, SHORT, SUMS, Provenance, read_sources
from orchestrator.summary import GenerationRow, TrainingRow
from orchestrator.tables import schema
from telemetry.failures import StateError, UsageError
from telemetry.tables import TABLES

SCHEMAS = {
    name: published_schema(kind)
    for name, kind in {
        **TABLES,
        "individuals": schema(LineageRow),
        "generations": schema(GenerationRow),
        "training": schema(TrainingRow),
        "held_out": HELD_OUT,
    }.items()
}
"""Of every published table."""
LIMITS = {"thrift_string_size_limit": 1 << 24, "thrift_container_size_limit": 1 << 20}
_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9_./-]*)")


def is_dataset(place: str) -> bool:
    """Whether a directory is a published data set."""
    return "://" not in place and (Path(place) / FILE).is_file()


class DataSet:
    """A directory that `forager export` or `forager merge-ledgers` wrote."""

    def __init__(self, directory: Path) -> None:
        """Raises UsageError where there is none, StateError for one that this version does not read."""
        if not is_dataset(str(directory)):
            raise UsageError(f"{directory}: neither a run nor a published data set: {FILE} is missing")
        self.directory = directory
        self._checked(FILE)
        self.sources: Mapping[str, Provenance] = {one.source: one for one in read_sources(directory).sources}
        """By the value of the column `source`."""

    def files(self, table: str) -> list[str]:
        """Names of a table's files, relative to the directory."""
        folder = re.compile(rf"{DATA}/{table}/[0-9a-f]{{{SHORT}}}(-[0-9]{{5,}})?\.parquet")
        return sorted(filter(folder.fullmatch, self._sums))

    def read(self, name: str) -> pa.Table:
        """All rows of one file (schema SCHEMAS), of one source. Raises StateError, naming it, if it is damaged."""
        path, table = self._checked(name), name.split("/")[1]
        try:
            file = pq.ParquetFile(path, arrow_extensions_enabled=False, page_checksum_verification=True, **LIMITS)
            _check_schema(path, file.schema_arrow, SCHEMAS[table])
            rows = file.read()
            rows.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise StateError(f"{path}: cannot be read: {error}") from error
        for one in rows.schema:
            if not one.nullable and rows[one.name].null_count:
                raise StateError(f"{path}: column {one.name}: {rows[one.name].null_count} rows are null, expected none")
        source = path.name[:SHORT]
        if source not in self.sources:
            raise StateError(f"{path}: is of {source}, which {FILE} does not know")
        if strangers := set(pc.unique(rows["source"]).to_pylist()) - {source}:
            raise StateError(f"{path}: column source: got {min(strangers)!r}, expected {source}")
        return rows

    def generations(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """(steps, lives) of every generation of every source, complete and each row once.

        Raises StateError, naming it, for a file in which they are not.
        """
        for name in self.files("lives"):
            steps, lives = self.read(name.replace("/lives/", "/steps/")), self.read(name)
            findings = [*check_once(lives), *check_steps(lives, steps)]
            if findings:
                raise StateError(f"{self.directory / name}: {findings[0].where} {findings[0].what}")
            yield steps, lives

    def path(self, name: str) -> Path:
        """Where a file is, its checksum found right."""
        return self._checked(name)

    @cached_property
    def _sums(self) -> dict[str, str]:
        path = self.directory / SUMS
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(f"{path}: cannot be read: {error}") from error
        found = [_SUM.fullmatch(line) for line in lines]
        if None in found or any(".." in one[2] for one in found if one):
            raise StateError(f"{path}: expected lines of a sha256 and a relative path")
        return {one[2]: one[1] for one in found if one}

    def _checked(self, name: str) -> Path:
        path = self.directory / name
        if path.is_symlink() or not path.is_file():
            raise StateError(f"{path}: missing, or not a plain file; get the data set again")
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        if digest != self._sums.get(name):
            raise StateError(f"{path}: its checksum is not the one in {SUMS}; get the data set again")
        return path


def _check_schema(path: Path, got: pa.Schema, expected: pa.Schema) -> None:
    for name in dict.fromkeys([*expected.names, *got.names]):
        one, other = (schema.field(name).type if name in schema.names else None for schema in (got, expected))
        if one != other:
            raise StateError(
                f"{path}: column {name}: got {one or 'none'}, expected {other or 'none'}; another version wrote it"
            )
    if got.names != expected.names:
        raise StateError(f"{path}: its columns are in another order than {', '.join(expected.names)}")
