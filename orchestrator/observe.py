"""Folds committed events into metrics: live, one by one, and on resume from what the journal says.

The law: both ways lead to the same numbers.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from time import time

from orchestrator.budget import budget_left
from orchestrator.config import RunConfig
from orchestrator.events import (
    BirthCommitted,
    Evaluated,
    EvaluationRow,
    Event,
    GenerationCommitted,
    LivesCommitted,
    RunFinished,
)
from orchestrator.population import lineages
from orchestrator.state import RunState
from orchestrator.verdict import ranked
from telemetry.metrics import Metrics
from telemetry.records import Individual
from trainer.job import TrainingResult


class MetricsListener:
    """Listens to a run on behalf of its metrics."""

    def __init__(self, metrics: Metrics, config: RunConfig, took: Callable[[], float] | None = None) -> None:
        """took: seconds that the last commit took."""
        self._metrics = metrics
        self._config = config
        self._took = took

    def __call__(self, event: Event, state: RunState) -> None:
        """Takes one committed event; `state` already contains it."""
        if isinstance(event, LivesCommitted):
            self._lives(event)
        elif isinstance(event, BirthCommitted):
            self._birth(event.result)
        elif isinstance(event, GenerationCommitted):
            self._generation(event, state)
        elif isinstance(event, Evaluated):
            self._evaluation(event, state)
        elif isinstance(event, RunFinished):
            self._metrics.finish()
        self._metrics.stored(state.stored_bytes)
        self._metrics.committed(time(), self._took() if self._took else None)

    def replay(self, state: RunState) -> None:
        """Brings fresh metrics to where the journal is, and opens them to scrapers.

        The journal's entries carry no time; the last commit is taken to be the driver's take-over, which is one.
        """
        for commit in state.commits:
            self._lives(commit)
        for result in state.births.values():
            self._birth(result)
        for generation in state.history:
            self._generation(generation, state)
        if state.evaluation:
            self._evaluation(state.evaluation, state)
        if state.finished:
            self._metrics.finish()
        self._metrics.stored(state.stored_bytes)
        self._metrics.left(budget_left(state, self._config))
        if state.owner:
            self._metrics.committed(datetime.fromisoformat(state.owner.opened_at).timestamp())
        alive = after(state.history[-1], state) if state.history else state.population
        self._metrics.open(
            version=state.created.version,
            model=state.created.model.id,
            environment=str(state.created.config["environment"]["name"]),
            population=len(alive),
            lineages=len(lineages(alive)),
        )

    def _lives(self, event: LivesCommitted) -> None:
        self._metrics.lives(
            event.ends,
            steps=event.decisions,
            prompt_tokens=event.prompt_tokens,
            completion_tokens=event.completion_tokens,
            seconds=event.seconds,
        )

    def _birth(self, result: TrainingResult) -> None:
        self._metrics.training(
            result.status,
            tokens=result.tokens,
            seconds=result.seconds,
            examples=result.examples,
            losses=(result.loss_first, result.loss_last),
        )

    def _generation(self, event: GenerationCommitted, state: RunState) -> None:
        alive = after(event, state)
        order = ranked(event.fitness)
        self._metrics.generation(
            event.generation + 1,
            [one.value for one in order],
            interval=(order[0].low, order[0].high),
            born=sum(one.id in state.births for one in event.population),
            unselected=len(event.selection.culled),
            suspects=len(event.suspects),
            population=len(alive),
            lineages=len(lineages(alive)),
            culled=len(culled_by(event, state)),
            entropy=event.diversity.entropy,
            behaviour=event.diversity.behaviour,
        )
        self._metrics.left(budget_left(state, self._config))

    def _evaluation(self, event: Evaluated, state: RunState) -> None:
        self._metrics.held_out({row.who: row.mean for row in event.rows}, gap(state, event.rows))


def gap(state: RunState, rows: Iterable[EvaluationRow]) -> float | None:
    """Champion's fitness where it was selected, less that in held-out worlds, exploring in both; None if unknown."""
    held_out = next((row.mean for row in rows if row.who == "champion-exploring"), None)
    if held_out is None or not state.history:
        return None
    return ranked(state.history[-1].fitness)[0].value - held_out


def before(event: GenerationCommitted, state: RunState) -> tuple[Individual, ...]:
    """The population whose lives the event ends."""
    return tuple(state.everyone[one.individual] for one in event.fitness)


def after(event: GenerationCommitted, state: RunState) -> tuple[Individual, ...]:
    """The population that the event leaves alive: after the last generation, the one that lived it."""
    return event.population or before(event, state)


def culled_by(event: GenerationCommitted, state: RunState) -> tuple[str, ...]:
    """Lineages that lost their last member with this generation's selection."""
    alive = set(lineages(after(event, state)))
    return tuple(name for name in lineages(before(event, state)) if name not in alive)
