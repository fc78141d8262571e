"""A run whose founders begin with what others have made: adapters, and records to learn from.

Law: an adapter is taken only through the gate, in canonical form; records only from a run or from a data set whose
files and rows are sound, lived in the world of the new run. The first entry of the run says what came from where.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator import teaching
from orchestrator.address import driven_at
from orchestrator.builder import Model, find_model
from orchestrator.config import RunConfig
from orchestrator.credentials import prepare
from orchestrator.dataset import DataSet, is_dataset
from orchestrator.digest import digest
from orchestrator.events import Imported
from orchestrator.places import open_run
from orchestrator.population import founders
from orchestrator.run import found
from orchestrator.state import RunState, config_of
from orchestrator.teaching import Chapter, job, learn, told
from telemetry.adapters import AdapterRefused, Shelf, check_files, load, save
from telemetry.failures import StateError, UsageError
from telemetry.foreign_lora import adopt
from telemetry.ledger import Ledger
from telemetry.lora import WEIGHTS
from telemetry.records import FileRef, Individual
from telemetry.seeds import rng
from telemetry.store import Store
from telemetry.tables import TABLES
from trainer.config import LoraConfig
from trainer.config_operators import LinearCrossover
from trainer.crossover import crossover
from workers.config import EnvironmentConfig
from workers.registry import make

MAX_RANK = 512
"""Of an adapter that comes from elsewhere; what the run's own rank does not hold of it is cut off."""


@dataclass(frozen=True)
class Founded:
    """How one founder came to its weights."""

    individual: str
    adapter: str
    how: str
    """In words."""


def found_with(
    written: RunConfig,
    adapters: Mapping[str, Path],
    telemetry: Sequence[str],
    store: Store,
    address: str | None = None,
) -> list[Founded]:
    """Founds a run with `written` in an empty `store`.

    adapters: directory of an adapter by the founder's name; it is fitted to the run's rank. telemetry: runs and data
    sets; the other founders learn from all survivors in them. address: of the cluster to train on. Raises UsageError
    for a founder that is not there or another world, AdapterRefused and StateError for what is no sound adapter or data
    set, or could not be learned; no run is founded then.
    """
    config = driven_at(written, address)
    people = founders(config.population, config.reproduction.hyperparameter_mutation, rng(config.seed, "founders"))
    named = {one.lineage: one for one in people}
    for name in adapters:
        if name not in named:
            raise UsageError(f"--adapter {name}: no such founder; expected one of {', '.join(named)}")
    others = [one for one in people if one.lineage not in adapters] if telemetry else []
    if telemetry and not others:
        raise UsageError("--telemetry: every founder has an adapter, so nobody is left to learn")
    if others:
        teaching.check(config)
    prepare(config.ray)
    model = find_model(config)
    teachers = [_teacher(place, config.environment) for place in telemetry if others]
    made: list[Founded] = []
    refs: list[FileRef] = []
    imported: list[Imported] = []
    for name, directory in adapters.items():
        one, origin = _take(named[name], directory, model, config.trainer.lora, Shelf(store), refs)
        made.append(one)
        imported.append(origin)
    if others:
        lived = told(chain.from_iterable(one.chapters(config) for one in teachers), model)
        who = sorted({name for one in teachers for name in one.survivors})
        results, published = learn([job(one, (), who, config) for one in others], lived, config, model, store)
        refs += published
        made += [
            Founded(one.individual, str(one.adapter), f"{one.examples} examples, {one.seconds:.0f} s")
            for one in results
        ]
        ids = tuple(one.id for one in others)
        imported += [
            Imported(kind="telemetry", name=run, sha256=known, founders=ids)
            for one in teachers
            for run, known in one.runs
        ]
    found(store, written, model.card, {one.individual: one.adapter for one in made}, refs=refs, imported=imported)
    return sorted(made, key=lambda one: one.individual)


def _take(
    one: Individual, directory: Path, model: Model, lora: LoraConfig, shelf: Shelf, refs: list[FileRef]
) -> tuple[Founded, Imported]:
    """Puts a foreign adapter on the shelf, fitted to the run's rank."""
    try:
        weights = load(adopt(directory, model.card, MAX_RANK))
        fitted, lost = crossover([(weights, 1.0)], LinearCrossover(), lora, rng(0, "import", one.id))
        files = save(fitted, model.card)
        check_files(files, model.card, lora.rank)
    except AdapterRefused as error:
        raise AdapterRefused(f"--adapter {one.lineage}: {directory}: {error}") from error
    adapter, published = shelf.publish_files(files)
    refs += published
    known = sha256((directory / WEIGHTS).read_bytes()).hexdigest()
    how = f"from {directory.name}" + (f", {lost:.1%} of its change lost to rank {lora.rank}" if lost else "")
    return (
        Founded(one.id, adapter, how),
        Imported(kind="adapter", name=directory.absolute().name, sha256=known, founders=(one.id,)),
    )


class _Run:
    """A run to learn from."""

    def __init__(self, store: Store, state: RunState) -> None:
        self._state, self._ledger = state, Ledger(store)
        self._digest = digest(state, self._ledger)
        self.runs = [(state.created.run, self._digest)]
        """(name, digest)."""
        survivors = sorted({one for event in state.history for one in event.selection.survivors})
        self._strategies = {one: state.everyone[one].genome.strategy for one in survivors}
        self.survivors = [_name(self._digest, one) for one in survivors]

    def chapters(self, config: RunConfig) -> Iterator[Chapter]:
        state = self._state
        world = make(config.environment.name, config_of(state).environment.settings)
        for event in state.history:
            vouched, attempts = state.vouched(event.generation), state.attempts(event.generation)
            steps, lives = (self._ledger.recall(name, event.generation, vouched, attempts) for name in TABLES)
            yield _chapter(steps, lives, self._digest, self._strategies, world, config)


class _Published:
    """A data set to learn from."""

    def __init__(self, data: DataSet) -> None:
        self._data = data
        self.runs = [(one.run, one.digest) for one in data.sources.values()]
        self._strategies: dict[str, dict[str, str]] = {}
        for file in data.files("individuals"):
            rows = data.read(file)
            bred = rows.filter(pc.fill_null(rows["survived"], False))
            source = str(rows["source"][0]) if rows.num_rows else ""
            self._strategies[source] = dict(zip(bred["id"].to_pylist(), bred["strategy"].to_pylist(), strict=True))
        self.survivors = [_name(source, one) for source, own in self._strategies.items() for one in own]

    def chapters(self, config: RunConfig) -> Iterator[Chapter]:
        for steps, lives in self._data.generations():
            source = self._data.sources[str(lives["source"][0])]
            # The world is this run's own: nothing that a data set names is loaded.
            world = make(config.environment.name, source.environment.settings)
            own = self._strategies.get(source.source, {})
            bare = steps.drop_columns(["source"]), lives.drop_columns(["source"])
            yield _chapter(*bare, source.source, own, world, config)


def _chapter(
    steps: pa.Table, lives: pa.Table, source: str, strategies: Mapping[str, str], world: Any, config: RunConfig
) -> Chapter:
    """Under names that no two runs share."""
    own = {_name(source, one): text for one, text in strategies.items()}
    return Chapter(_renamed(steps, source), _renamed(lives, source), own, world, config.fitness)


def _renamed(table: pa.Table, source: str) -> pa.Table:
    index = table.schema.get_field_index("individual")
    names = pc.binary_join_element_wise(_name(source, ""), table["individual"], "")
    return table.set_column(index, table.schema.field(index), names)


def _name(source: str, individual: str) -> str:
    return f"{source[:16]}:{individual}"


def _teacher(place: str, environment: EnvironmentConfig) -> _Run | _Published:
    """Who is there to learn from. Raises UsageError for another world, or nobody who was selected."""
    found: _Run | _Published
    if is_dataset(place):
        data = DataSet(Path(place))
        worlds = {one.environment.name for one in data.sources.values()}
        found = _Published(data)
    else:
        store, state = open_run(place)
        worlds = {config_of(state).environment.name}
        found = _Run(store, state)
    if worlds != {environment.name}:
        raise UsageError(f"--telemetry {place}: got the world {min(worlds)}, expected {environment.name}")
    if not found.survivors:
        raise StateError(f"--telemetry {place}: nobody was selected there yet; nothing is to be learned")
    return found
