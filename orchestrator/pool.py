"""One data set out of many: the telemetry of runs and of published data sets, for somebody to learn from.

Law: every row says where it is from and no life is there twice. The same run under two names, a branch beside the run
that it left, a copy that went on by itself: all of them share lives, and are refused.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import copyfile

import pyarrow as pa

from orchestrator.columns import COLUMNS
from orchestrator.dataset import DataSet, is_dataset
from orchestrator.export_cards import data_card
from orchestrator.export_telemetry import (
    check_finished,
    check_free,
    check_whole,
    scan_texts,
    staged,
    write_telemetry,
)
from orchestrator.leaks import Scanner, scanner
from orchestrator.places import open_run
from orchestrator.provenance import Provenance, write_sources, write_sums
from telemetry.failures import UsageError


def merge(out: Path, places: Sequence[str], licence: str) -> tuple[Provenance, ...]:
    """Writes the data set `out` from runs and data sets; returns where its rows are from.

    licence: of those that are runs. Raises UsageError for a place that is taken, a run twice, or other worlds than the
    first one's; StateError for a run or a data set that is damaged, or has another schema.
    """
    check_free(out)
    with staged(out) as fresh:
        pool = _Pool(fresh, scanner())
        for place in places:
            pool.add(place, licence)
        return pool.close()


class _Pool:
    """A data set under way."""

    def __init__(self, directory: Path, scanner: Scanner) -> None:
        self._directory = directory
        self._scanner = scanner
        self._sources: dict[str, tuple[Provenance, str]] = {}
        """By source, and the place that it came from."""
        self._rows = dict.fromkeys(COLUMNS, 0)
        self._attempts: dict[str, str] = {}
        """Of every life, and the place that it came from."""

    def add(self, place: str, licence: str) -> None:
        """Takes over what is there."""
        if is_dataset(place):
            self._take(DataSet(Path(place)), place)
            return
        store, state = open_run(place)
        check_finished(store, state)
        check_whole(store)
        for generation in state.lives:
            self._note(place, state.attempts(generation))
        source, rows = write_telemetry(store, state, self._directory, self._scanner, licence=licence)
        self._know(source, place)
        self._count(rows.items())

    def _take(self, data: DataSet, place: str) -> None:
        for source in data.sources.values():
            self._know(source, place)
        for _, lives in data.generations():
            self._note(place, lives["attempt"].to_pylist())
        for table in COLUMNS:
            for name in data.files(table):
                rows = data.read(name)
                self._scan(name, rows)
                target = self._directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                copyfile(data.path(name), target)
                self._count([(table, rows.num_rows)])

    def close(self) -> tuple[Provenance, ...]:
        """Writes what belongs to the data set besides its tables."""
        sources = tuple(one for one, _ in self._sources.values())
        write_sources(self._directory, sources)
        (self._directory / "README.md").write_text(data_card(sources, self._rows, None, path=self._directory))
        files = [path for path in self._directory.rglob("*") if path.is_file()]
        scan_texts(self._scanner, self._directory, files)
        write_sums(self._directory, files)
        return sources

    def _know(self, source: Provenance, place: str) -> None:
        if source.source in self._sources:
            other = self._sources[source.source][1]
            raise UsageError(
                f"{place}: holds the run {source.run} ({source.source}), which {other} holds too; give one"
            )
        for first, other in list(self._sources.values())[:1]:
            if source.environment.name != first.environment.name:
                raise UsageError(
                    f"{place}: its world is {source.environment.name}, that of {other} is {first.environment.name};"
                    " pool runs of one world"
                )
        self._sources[source.source] = source, place

    def _note(self, place: str, attempts: Sequence[str]) -> None:
        for attempt in attempts:
            # Lives of one instance of a shared world have one attempt, but never in two places.
            other = self._attempts.setdefault(attempt, place)
            if other != place:
                raise UsageError(
                    f"{place}: has lives that {other} has too; they are one run at two times; give one of them"
                )

    def _count(self, rows: Iterable[tuple[str, int]]) -> None:
        for table, number in rows:
            self._rows[table] += number

    def _scan(self, name: str, rows: pa.Table) -> None:
        for field in rows.schema:
            if pa.types.is_string(field.type):
                self._scanner.check(f"{name}: column {field.name}", rows[field.name].combine_chunks())
