"""How far the generation that lives now has come: a fold over committed events and ticks that displays draw.

The law: a Progress never changes, it is replaced; so a display may draw one while the next is being made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

from orchestrator.config import BudgetConfig, RunConfig
from orchestrator.events import BirthCommitted, Evaluated, Event, GenerationCommitted, LivesCommitted
from orchestrator.state import RunState
from telemetry.records import Individual
from trainer.job import TrainingResult


@dataclass(frozen=True)
class Progress:
    """What is known between two events."""

    run: str
    generations: int
    population: tuple[Individual, ...]
    """The individuals that live now."""
    lives_each: int
    births_planned: int
    """Children of this generation; 0 in the last one."""
    generation: int
    begun: float
    """Monotonic time at which this process began to work on the generation."""
    lives: Mapping[str, int] = field(default_factory=dict)
    """Committed lives of this generation by individual."""
    births: tuple[TrainingResult, ...] = ()
    """Ended training jobs of this generation."""
    alive: int = 0
    rate: float = 0.0
    """Decisions per second."""
    last: GenerationCommitted | None = None
    """The generation before."""
    seconds: tuple[float, ...] = ()
    """Wall time of past generations."""
    evaluated: bool = False
    metered: bool = False
    """A budget may end the run before its last generation."""

    @property
    def lives_done(self) -> int:
        return sum(self.lives.values())

    @property
    def lives_planned(self) -> int:
        return self.lives_each * len(self.population)

    @property
    def phase(self) -> str:
        """What is going on, in one word."""
        if not self.population:
            return "done" if self.evaluated else "evaluating"
        if self.lives_done < self.lives_planned:
            return "living"
        return "training" if self.births_planned else "selecting"

    def remaining(self, now: float) -> float | None:
        """Seconds until the last generation ends, judged by past ones; None before there are any. Evaluation excluded.

        now: monotonic time.
        """
        if not self.seconds or not self.population or self.metered:
            return None
        return max(0.0, fmean(self.seconds) * (self.generations - self.generation) - (now - self.begun))

    def tick(self, alive: int, rate: float) -> "Progress":
        """With the number of lives under way and the decisions per second as of now."""
        return replace(self, alive=alive, rate=rate)


def progress_of(state: RunState, config: RunConfig, now: float) -> Progress:
    """Where a run stands that has just been created or taken over."""
    committed = state.lives.get(state.generation)
    prefix = f"g{state.generation + 1:03d}-"
    return Progress(
        run=state.created.run,
        generations=config.generations,
        population=state.population,
        lives_each=config.population.lives,
        births_planned=_births_planned(config, state.generation),
        generation=state.generation,
        begun=now,
        lives={} if committed is None else {name: committed.count(name) for name in committed.attempts},
        births=tuple(result for result in state.births.values() if result.individual.startswith(prefix)),
        last=state.history[-1] if state.history else None,
        seconds=tuple(_total(event) for event in state.history),
        evaluated=state.evaluation is not None,
        metered=config.budget != BudgetConfig(),
    )


def advance(progress: Progress, event: Event, config: RunConfig, now: float) -> Progress:
    """The progress after a committed event. now: monotonic time."""
    if isinstance(event, LivesCommitted):
        lives = dict(progress.lives)
        for individual, _, _ in event.lives:
            lives[individual] = lives.get(individual, 0) + 1
        return replace(progress, lives=lives)
    if isinstance(event, BirthCommitted):
        return replace(progress, births=(*progress.births, event.result), alive=0, rate=0.0)
    if isinstance(event, GenerationCommitted):
        return replace(
            progress,
            population=event.population,
            births_planned=_births_planned(config, event.generation + 1),
            generation=event.generation + 1,
            begun=now,
            lives={},
            births=(),
            alive=0,
            rate=0.0,
            last=event,
            seconds=(*progress.seconds, _total(event)),
        )
    return replace(progress, evaluated=True, alive=0, rate=0.0) if isinstance(event, Evaluated) else progress


def _births_planned(config: RunConfig, generation: int) -> int:
    last = generation + 1 >= config.generations
    return 0 if last else config.population.size - min(config.selection.elites, config.population.size)


def _total(event: GenerationCommitted) -> float:
    return event.seconds.get("total", sum(event.seconds.values()))
