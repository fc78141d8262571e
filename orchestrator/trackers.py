"""What trackers are told of a run: rows of numbers, made of committed events alone.

The law: the rows that a journal leads to are those that were made live, in the same order and with the same numbers,
so that a tracker which has the first n of them lacks exactly the rest.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from statistics import fmean, median

from orchestrator.budget import generation_of
from orchestrator.events import (
    BirthCommitted,
    Evaluated,
    Event,
    GenerationCommitted,
    LivesCommitted,
    RunFinished,
    ends_of,
)
from orchestrator.observe import after, culled_by, gap
from orchestrator.population import lineages
from orchestrator.run import Listener, Run
from orchestrator.state import RunState
from orchestrator.verdict import ranked
from telemetry import trackers
from telemetry.catalogue import MAX_CAUSES, MAX_PLAYERS
from telemetry.entry import decode, key_of
from telemetry.metrics import CAUSE
from telemetry.store import Store
from telemetry.trackers import About, Row, Tracker
from trainer.job import TrainingResult

GROUPS = ("fitness", "held_out", "lineages", "lives", "training")
"""Metrics that trackers show side by side."""


def name(metric: str, *labels: str) -> str:
    """What trackers call a metric of the catalogue: `fitness/best`, `lives/died/starved`, `steps`."""
    base = metric.removeprefix("forager_").removesuffix("_total")
    group = next((one for one in GROUPS if base.startswith(f"{one}_")), None)
    parts = [base] if group is None else [group, base.removeprefix(f"{group}_")]
    return "/".join([*parts, *filter(None, labels)])


class Rows:
    """Folds events into rows. Takes them in the order of the journal."""

    def __init__(self) -> None:
        self._number = 0
        self._jobs = 0
        self._words: dict[str, set[str]] = {"cause": set(), "player": set()}

    def birth(self, result: TrainingResult) -> Row:
        """An ended training job."""
        self._jobs += 1
        losses = (("first", result.loss_first), ("last", result.loss_last))
        values = {
            name("forager_training_jobs_total", result.status): 1.0,
            name("forager_training_tokens_total"): result.tokens,
            name("forager_training_seconds_total"): result.seconds,
            name("forager_training_examples_total"): result.examples,
            **{name("forager_training_loss", when): loss for when, loss in losses if loss is not None},
        }
        return self._row("job", self._jobs - 1, values)

    def generation(self, event: GenerationCommitted, commits: Iterable[LivesCommitted], state: RunState) -> Row:
        """A finished generation. commits: of its lives."""
        order, commits = ranked(event.fitness), list(commits)
        fitness = [one.value for one in order]
        alive = after(event, state)
        values = {
            name("forager_fitness_best"): order[0].value,
            name("forager_fitness_best_low"): order[0].low,
            name("forager_fitness_best_high"): order[0].high,
            name("forager_fitness_mean"): fmean(fitness),
            name("forager_fitness_median"): median(fitness),
            name("forager_fitness_worst"): fitness[-1],
            name("forager_lineages_alive"): len(lineages(alive)),
            name("forager_lineages_culled_total"): len(culled_by(event, state)),
            name("forager_population_size"): len(alive),
            name("forager_action_entropy_bits"): event.diversity.entropy,
            name("forager_behaviour_divergence_bits"): event.diversity.behaviour,
            name("forager_steps_total"): sum(one.decisions for one in commits),
            name("forager_prompt_tokens_total"): sum(one.prompt_tokens for one in commits),
            name("forager_completion_tokens_total"): sum(one.completion_tokens for one in commits),
            name("forager_rollout_seconds_total"): sum(one.seconds for one in commits),
            name("forager_lives_total", "all"): sum(len(one.lives) for one in commits),
        }
        for end, number in sorted(ends_of(commits).items()):
            reason, _, cause = end.partition(":")
            known = self._known("cause", cause, MAX_CAUSES) if cause else ""
            key = name("forager_lives_total", reason, known)
            values[key] = values.get(key, 0) + number
        return self._row("generation", event.generation, values)

    def evaluation(self, event: Evaluated, state: RunState) -> Row:
        """Held-out worlds were lived; counts as part of the last generation."""
        values = {}
        for row in event.rows:
            if (who := self._known("player", row.who, MAX_PLAYERS)) != "other":
                values[name("forager_held_out_fitness", who)] = row.mean
        gained = gap(state, event.rows)
        if gained is not None:
            values[name("forager_held_out_gap")] = gained
        return self._row("generation", max(0, len(state.history) - 1), values)

    def all(self, state: RunState) -> Iterator[Row]:
        """Everything that the journal leads to so far; to be asked of fresh rows."""
        commits: dict[int, list[LivesCommitted]] = {}
        for commit in state.commits:
            commits.setdefault(commit.generation, []).append(commit)
        births: dict[int, list[TrainingResult]] = {}
        for result in state.births.values():
            births.setdefault(generation_of(result.individual) - 1, []).append(result)
        for event in state.history:
            yield from map(self.birth, births.pop(event.generation, ()))
            yield self.generation(event, commits.get(event.generation, ()), state)
        for generation in sorted(births):
            yield from map(self.birth, births[generation])
        if state.evaluation:
            yield self.evaluation(state.evaluation, state)

    def _row(self, axis: trackers.Axis, step: int, values: Mapping[str, float]) -> Row:
        self._number += 1
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        return Row(self._number - 1, axis, step, finite)

    def _known(self, kind: str, word: str, most: int) -> str:
        """The word, or `other` once there are too many of its kind, or if it is none that trackers take in a name."""
        known = self._words[kind]
        if word not in known and (len(known) >= most or not CAUSE.fullmatch(word)):
            return "other"
        known.add(word)
        return word


class TrackersListener:
    """Listens to a run on behalf of its trackers."""

    def __init__(self, sinks: list[Tracker], rows: Rows) -> None:
        self._sinks = sinks
        self._rows = rows

    def __call__(self, event: Event, state: RunState) -> None:
        """Takes one committed event; `state` already contains it."""
        if isinstance(event, RunFinished):
            for sink in self._sinks:
                sink.finish()
        elif (row := self._row(event, state)) is not None:
            for sink in self._sinks:
                sink.put(row)

    def _row(self, event: Event, state: RunState) -> Row | None:
        if isinstance(event, BirthCommitted):
            return self._rows.birth(event.result)
        if isinstance(event, GenerationCommitted):
            latest = takewhile(lambda commit: commit.generation == event.generation, reversed(state.commits))
            return self._rows.generation(event, latest, state)
        if isinstance(event, Evaluated):
            return self._rows.evaluation(event, state)
        return None


@contextmanager
def tracked(run: Run, logs: Path) -> Iterator[list[Listener]]:
    """What listens on behalf of the run's trackers: told first what the journal says, then every event."""
    if not run.config.trackers:
        yield []
        return
    rows = Rows()
    created = run.state.created
    about = About(identity(run.store, run.state), created.run, created.version, created.model.id, created.config)
    with trackers.tracked(run.config.trackers, about, list(rows.all(run.state)), logs) as sinks:
        if run.state.finished:
            for sink in sinks:
                sink.finish()
        yield [TrackersListener(sinks, rows)]


def identity(store: Store, state: RunState) -> str:
    """Of a run among all runs. A rewound run gets another one: what it left behind stays in trackers as it is."""
    genesis = decode(store.get(key_of(0)), 0).sha256
    return sha256(f"{genesis}/{len(state.branches)}".encode()).hexdigest()[:12]
