"""The telemetry of one finished run below a directory, and the record of where it comes from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from shutil import rmtree

from orchestrator.digest import digest
from orchestrator.export_tables import Decode, TableWriter, write_tables
from orchestrator.inspection import verify
from orchestrator.leaks import Scanner
from orchestrator.provenance import SHORT, Provenance, SourceModel, published
from orchestrator.redaction import Redaction
from orchestrator.run import champion
from orchestrator.state import RunState, config_of
from telemetry import models
from telemetry.failures import StateError, StorageError, UsageError
from telemetry.ledger import Ledger
from telemetry.store import Store
from workers.engines import scripted
from workers.prompt import Codec


def check_free(place: Path) -> None:
    """Raises UsageError when something is there already."""
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place}: something is there already; choose another place, or remove it")


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """A hidden directory beside `place`, renamed into it at the end; gone when anything is raised."""
    fresh = place.absolute().parent / f".{place.name}.{token_hex(8)}"
    try:
        fresh.mkdir(parents=True, mode=0o700)
        yield fresh
        check_free(place)
        fresh.rename(place)
    except OSError as error:
        raise StorageError(f"{error.filename or place}: {(error.strerror or str(error)).lower()}") from error
    finally:
        rmtree(fresh, ignore_errors=True)


def check_finished(store: Store, state: RunState) -> None:
    """Raises UsageError for a run that is not finished."""
    if state.finished is None:
        raise UsageError(f"{store}: the run is not finished; `forager resume` it first")


def check_whole(store: Store) -> None:
    """Raises StateError for a run that `verify` finds fault with."""
    errors = [finding for finding in verify(store) if finding.severity == "error"]
    if errors:
        raise StateError(f"{store}: damaged: {errors[0].where}: {errors[0].what}; `forager verify` tells all")


def write_telemetry(
    store: Store,
    state: RunState,
    directory: Path,
    scanner: Scanner,
    redaction: Redaction | None = None,
    licence: str = "unknown",
) -> tuple[Provenance, dict[str, int]]:
    """Writes the tables of a run that is whole; returns where they are from, and their numbers of rows.

    Raises UsageError for a text that must not be published, or a redaction that fails.
    """
    whole = digest(state, Ledger(store))
    writer = TableWriter(directory, whole, scanner, decoder(state), redaction)
    write_tables(writer, store, state)
    config = published(state)
    for founder in config["population"]["founders"] if redaction else ():
        founder["strategy"] = redaction.text("individuals.strategy", founder["strategy"])  # type: ignore[union-attr]
    provenance = Provenance(
        source=whole[:SHORT],
        digest=whole,
        run=state.created.run,
        version=state.created.version,
        model=SourceModel(id=state.created.model.id, sha256=state.created.model.sha256),
        generations=len(state.history),
        champion=champion(state).id,
        licence=licence,
        lives=writer.rows["lives"],
        steps=writer.rows["steps"],
        config=config,
        redacted=dict(redaction.changed) if redaction else None,
    )
    return provenance, writer.rows


def scan_texts(scanner: Scanner, directory: Path, files: Sequence[Path]) -> None:
    """Raises UsageError for a secret in any of these files that is not a table."""
    for path in files:
        if path.suffix != ".parquet":
            scanner.check_file(path, str(path.relative_to(directory)))


def decoder(state: RunState) -> Decode:
    """Tokens of the run's model to text; the tokenizer is looked for when the first tokens come."""
    config, opened = config_of(state), list[Decode]()

    def decode(ids: Sequence[int]) -> str:
        if not opened and config.engine.kind == "scripted":
            opened.append(Codec(scripted.description(1)).decode)
        elif not opened:
            from tokenizers import Tokenizer

            opened.append(Tokenizer.from_file(str(models.resolve(config.model) / "tokenizer.json")).decode)
        return opened[0](ids)

    return decode
