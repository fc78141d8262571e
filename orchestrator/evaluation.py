"""Held-out evaluation: how anyone fares in worlds that no run ever learned from, by the run's own fitness.

In a shared world the evaluated player sits in every seat, so that what is measured does not depend on the company;
lives of one instance are not independent, so the instance is the unit of its statistics.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.config import RunConfig
from orchestrator.events import EvaluationRow
from orchestrator.fitness import bootstrap_interval, life_values
from orchestrator.outcomes import FATE, outcomes
from orchestrator.rooms import WorkersRoom
from orchestrator.state import RunState
from orchestrator.verdict import Estimate
from telemetry.failures import UsageError
from telemetry.records import EndReason, Individual
from telemetry.seeds import held_out_world_seed, rng
from telemetry.tables import LIVES
from workers.environment import is_shared
from workers.guard import boundary
from workers.reference import reference, references
from workers.registry import held_out, make

Manner = Literal["drawn", "likeliest", "exploring"]
"""How actions are taken: drawn from the model at the genome's temperature; the likeliest; or as in the run, epsilon and
all."""
COLD = 0.01
"""Temperature at which only the likeliest action is left."""


class Player(NamedTuple):
    """Who is evaluated, and how it takes its actions."""

    who: str
    individual: Individual
    manner: Manner = "drawn"


Keep = Callable[[pa.Table, pa.Table], None]
"""Takes (steps, lives) of held-out lives, under the players' own ids."""
Tell = Callable[[pa.Table], None]
"""Takes what became of every life of one player (schema OUTCOMES)."""
COLUMNS = FATE


@dataclass(frozen=True)
class HeldOut:
    """The held-out worlds of a run."""

    config: RunConfig
    lives: int
    """Seeds, the first ones of a list that is the same for everyone, so that rows can be compared in pairs."""
    tell: Tell | None = None
    """Told of every player that was measured."""

    @property
    def seeds(self) -> list[int]:
        return [held_out_world_seed(index) for index in range(self.lives)]

    @property
    def seats(self) -> int:
        """Lives per seed."""
        return self.config.population.size if is_shared(self.world()) else 1

    def world(self) -> Any:
        """A fresh instance. Raises UsageError for settings that the world does not take."""
        environment = self.config.environment
        settings = held_out(environment.name, environment.settings, self.config.evaluation.settings)
        return make(environment.name, settings)


def reference_row(who: str, worlds: HeldOut) -> EvaluationRow:
    """How a scripted player fares. Raises UsageError when the world has no such player."""
    played = reference(worlds.world(), who, worlds.seeds, seats=worlds.seats)
    return row(who, [{name: getattr(one, name) for name in COLUMNS} for one in played], worlds)


def reference_rows(worlds: HeldOut) -> list[EvaluationRow]:
    """Every scripted player of the world, random play first."""
    return [reference_row(who, worlds) for who in references(worlds.world())]


def model_rows(
    room: WorkersRoom, players: Sequence[Player], worlds: HeldOut, keep: Keep | None = None
) -> list[EvaluationRow]:
    """How models fare, playing by their own genome. `keep` gets the lives of each that are to be kept, in one call."""
    seats = worlds.seats
    tables = [[_seated(one, seat) for seat in range(seats)] for one in players]
    # Whoever is tried out together in a shared world would meet there.
    calls = tables if seats > 1 else [[one for table in tables for one in table]]
    kept = worlds.config.evaluation.kept if keep is not None else 0
    answers = [room.try_out(together, worlds.seeds, {table[0].id: kept for table in tables}) for together in calls]
    summaries = [one for lives, _ in answers for one in lives]
    told = [one for _, rows in answers for one in rows]
    if keep is not None and told:
        names = {table[0].id: player.individual.id for player, table in zip(players, tables, strict=True)}
        keep(*(_renamed(pa.concat_tables(parts), names) for parts in zip(*told, strict=True)))
    rows = []
    for player, seated in zip(players, tables, strict=True):
        seat_of = {one.id: seat for seat, one in enumerate(seated)}
        own = [one for one in summaries if one.key.individual in seat_of and one.founder]
        own.sort(key=lambda one: (one.key.life, seat_of[one.key.individual]))
        lives = [{name: getattr(one, name) for name in COLUMNS} for one in own]
        rows.append(row(player.who, lives, worlds, individual=player.individual))
    return rows


def _renamed(rows: pa.Table, names: Mapping[str, str]) -> pa.Table:
    own = pa.array([names[one] for one in rows.column("individual").to_pylist()], pa.string())
    return rows.set_column(rows.schema.get_field_index("individual"), rows.schema.field("individual"), own)


def founder_of(state: RunState, individual: Individual) -> Individual:
    """The founder of an individual's lineage: its strategy on the untouched base model."""
    return next(one for one in state.created.founders if one.lineage == individual.lineage).with_adapter(None)


def in_manner(individual: Individual, who: str, manner: Manner) -> Player:
    """The player `who-manner`."""
    return Player(f"{who}-{manner}", individual, manner)


def player_of(state: RunState, who: str) -> Player:
    """The player meant by `founder`, `champion` or an id, with a manner or without: `champion-likeliest`.

    Raises UsageError when there is none.
    """
    name, _, last = who.rpartition("-")
    for manner in get_args(Manner):
        if name and last == manner:
            return Player(who, find(state, name), manner)
    return Player(who, find(state, who))


def find(state: RunState, who: str) -> Individual:
    """The individual meant by `founder`, `champion` or an id. Raises UsageError when there is none."""
    if who in ("champion", "founder"):
        if not state.history:
            raise UsageError(f"--who {who}: the run has no finished generation yet; wait for one or give an id")
        champion = state.everyone[state.history[-1].champion]
        return champion if who == "champion" else founder_of(state, champion)
    if who not in state.everyone:
        raise UsageError(
            f"--who {who}: no such individual; expected founder, champion, random, heuristic or an id such as"
            f" {next(iter(state.everyone))}"
        )
    return state.everyone[who]


def row(
    who: str, lives: Sequence[Mapping[str, Any]], worlds: HeldOut, *, individual: Individual | None = None
) -> EvaluationRow:
    """Mean fitness of lives with its 95% bootstrap interval over seeds.

    lives: mappings with COLUMNS, by seed and then by seat.
    """
    world = worlds.world()
    values = life_values(_table(lives), worlds.config.fitness, world.horizon)
    if worlds.tell is not None:
        worlds.tell(outcomes(who, individual.id if individual else None, worlds.lives, lives, values))
    means = values.reshape(worlds.lives, -1).mean(axis=1)
    low, high = bootstrap_interval(
        partial(_mean_of, means),
        len(means),
        resamples=10_000,
        confidence=0.95,
        generator=rng(0, "evaluation", len(means)),
    )
    ends = Counter(f"{one['end']}:{one['cause']}" if one["end"] is EndReason.DIED else str(one["end"]) for one in lives)
    return EvaluationRow(
        who=who,
        individual=individual.id if individual else None,
        adapter=individual.genome.adapter if individual else None,
        lives=len(lives),
        mean=float(values.mean()),
        low=low,
        high=high,
        ends=dict(sorted(ends.items())),
        measures=_measures(world, lives),
        values=tuple(means.tolist()),
    )


def _mean_of(values: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(values[index].mean(axis=1))


def _table(lives: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [one[name] for one in lives] for name in COLUMNS}
    columns["end"] = list(map(str, columns["end"]))
    return pa.table({name: pa.array(values, LIVES.field(name).type) for name, values in columns.items()})


def _measures(world: Any, lives: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """What the world reports of its lives' results, if it does."""
    report = getattr(world, "report", None)
    if report is None:
        return {}
    results = [json.loads(one["result"]) for one in lives if one["result"]]
    with boundary(world.name, "its report"):
        found = {str(name): tuple(map(float, numbers)) for name, numbers in report(results).items()}
    return {name: Estimate(value=value, low=low, high=high) for name, (value, low, high) in found.items()}


def _seated(player: Player, seat: int) -> Individual:
    """The genome as it is to play, under an id of its own, so that evaluation draws are not those of the run."""
    individual, manner = player.individual, player.manner
    settled = {"epsilon": 0.0, "novelty": 0.0}
    changes = {"drawn": settled, "likeliest": {**settled, "temperature": COLD}, "exploring": {}}[manner]
    numbers = individual.genome.hyperparameters.model_copy(update=changes)
    genome = individual.genome.model_copy(update={"hyperparameters": numbers})
    own = f"{seat:03d}" if seat else ""
    digit = 9 - get_args(Manner).index(manner)
    return individual.model_copy(update={"id": f"g{digit}{own}{individual.id[1:]}", "genome": genome})
