"""Folds committed events into metrics: live, one by one, and on resume from what the journal says.

The law: both ways lead to the same numbers.
"""

from datetime import datetime
from time import time

from orchestrator.events import BirthCommitted, Event, GenerationCommitted, LivesCommitted, RunFinished
from orchestrator.fitness import ranked
from orchestrator.population import lineages
from orchestrator.state import RunState
from telemetry.metrics import Metrics
from telemetry.records import Individual
from trainer.job import TrainingResult


class MetricsListener:
    """Listens to a run on behalf of its metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, event: Event, state: RunState) -> None:
        """Takes one committed event; `state` already contains it."""
        if isinstance(event, LivesCommitted):
            self._lives(event)
        elif isinstance(event, BirthCommitted):
            self._birth(event.result)
        elif isinstance(event, GenerationCommitted):
            self._generation(event, state)
        elif isinstance(event, RunFinished):
            self._metrics.finish()
        self._metrics.committed(time())

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
        if state.finished:
            self._metrics.finish()
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
        self._metrics.training(result.status, tokens=result.tokens, seconds=result.seconds)

    def _generation(self, event: GenerationCommitted, state: RunState) -> None:
        alive = after(event, state)
        self._metrics.generation(
            event.generation + 1,
            [one.value for one in ranked(event.fitness)],
            population=len(alive),
            lineages=len(lineages(alive)),
            culled=len(culled_by(event, state)),
            entropy=event.diversity.entropy,
            behaviour=event.diversity.behaviour,
        )


def before(event: GenerationCommitted, state: RunState) -> tuple[Individual, ...]:
    """The population whose lives the event ends."""
    return tuple(state.everyone[one.individual] for one in event.fitness)


def after(event: GenerationCommitted, state: RunState) -> tuple[Individual, ...]:
    """The population that the event leaves alive: after the last generation, the one that lived it."""
    return event.population or before(event, state)


def culled_by(event: GenerationCommitted, state: RunState) -> tuple[str, ...]:
    """Lineages that lost their last member with this generation's selection."""
    alive = lineages(after(event, state))
    return tuple(name for name in lineages(before(event, state)) if name not in alive)
