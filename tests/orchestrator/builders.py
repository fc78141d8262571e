"""A plausible run without an engine: selection, reproduction and fold are real, lives and weights are drawn."""

from collections.abc import Callable, Iterator

import numpy as np

from orchestrator.config import RunConfig
from orchestrator.events import (
    FORMAT,
    BirthCommitted,
    EpochOpened,
    Evaluated,
    EvaluationRow,
    Event,
    GenerationCommitted,
    LivesCommitted,
    RunCreated,
    RunFinished,
    dump,
)
from orchestrator.population import founders
from orchestrator.reproduction import Births, Brood, reproduce
from orchestrator.selection import select
from orchestrator.state import RunState, apply
from orchestrator.verdict import Diversity, Fitness
from telemetry.journal import decode, encode
from telemetry.records import BaseModelCard, Individual
from telemetry.seeds import address, rng
from trainer.job import TrainingResult

KINDS = {
    EpochOpened: "epoch",
    LivesCommitted: "lives",
    BirthCommitted: "birth",
    GenerationCommitted: "generation",
    Evaluated: "evaluation",
    RunFinished: "finish",
}
SKILL = {"bold": 15.0, "scout": 13.0, "timid": 7.0}
CAUSES = ("starved", "wolf", "cold")
HORIZON = 40

Listener = Callable[[Event, RunState], None]


def run_config(**changes: object) -> RunConfig:
    """Four generations of six individuals from three founders; any key can be changed."""
    document: dict[str, object] = {
        "name": "first-run",
        "seed": 7,
        "generations": 4,
        "model": "smollm2-135m-instruct",
        "population": {
            "size": 6,
            "lives": 32,
            "founders": [
                {"name": "bold", "strategy": "Walk towards food at once, whatever the weather."},
                {"name": "scout", "strategy": "Look around first, then go where berries were seen."},
                {"name": "timid", "strategy": "Stay where you are safe; eat only what is near."},
            ],
        },
        "selection": {"survivors": 0.5, "elites": 1},
        "metrics": {"port": 0},
    }
    return RunConfig.model_validate(document | changes)


def newborn_run(config: RunConfig) -> RunState:
    """A run whose first driver has just taken over."""
    people = founders(config.population, config.reproduction.hyperparameter_mutation, rng(config.seed, "founders"))
    created = RunCreated(
        format=FORMAT,
        version="0.1.0",
        run=config.name,
        config=config.model_dump(mode="json"),
        model=BaseModelCard(id=config.model, sha256="ab" * 32, modules={"layers.0.q_proj": (576, 576)}),
        founders=people,
    )
    state = RunState(created=created, population=people, everyone={one.id: one for one in people})
    add(state, EpochOpened(host="node-1", pid=4711, opened_at="2026-05-04T10:00:00+00:00", version="0.1.0"))
    return state


def add(state: RunState, event: Event) -> None:
    """Folds one event into the state, as the journal's reader does."""
    data = encode(1, "0" * 64, 1, "0" * 32, KINDS[type(event)], dump(event))
    apply(state, decode(data, 1))


def advance(state: RunState, config: RunConfig, *listeners: Listener) -> Iterator[Event]:
    """Plays the run on from where it stands, one event at a time; the state and all listeners have taken each."""
    for event in _events(state, config):
        add(state, event)
        for listener in listeners:
            listener(event, state)
        yield event


def finished_run(config: RunConfig | None = None, *listeners: Listener) -> tuple[RunState, RunConfig]:
    """A run played to its end."""
    config = config or run_config()
    state = newborn_run(config)
    for _ in advance(state, config, *listeners):
        pass
    return state, config


def _events(state: RunState, config: RunConfig) -> Iterator[Event]:
    while state.generation < config.generations:
        generation = state.generation
        for commit in range(2):
            yield _lives(state, config, commit)
        fitness = tuple(_fitness(one, config) for one in state.population)
        selection = select(fitness, config.selection, rng(config.seed, "select", generation))
        size = config.population.size if generation + 1 < config.generations else 0
        births = reproduce(state.population, selection, config.reproduction, Brood(size, config.seed))
        for job in births.jobs:
            yield BirthCommitted(generation=generation, result=_trained(job.child))
        yield GenerationCommitted(
            generation=generation,
            fitness=fitness,
            selection=selection,
            population=_next(state, births),
            diversity=Diversity(entropy=1.5, behaviour=0.25, strategies=3, adapters=4),
            seconds={"rollout": 61.0, "training": 74.5, "total": 141.0},
        )
    yield Evaluated(rows=tuple(_evaluation(state)))
    yield RunFinished(champion=state.history[-1].selection.survivors[0])


def _skill(individual: Individual) -> float:
    talent = SKILL.get(individual.lineage.split("-")[0], 10.0)
    luck = rng(5, "luck", individual.id).normal(0, 1.5)
    return float(np.clip(talent + 3.5 * individual.generation + luck, 1, HORIZON))


def _fitness(individual: Individual, config: RunConfig) -> Fitness:
    value = _skill(individual)
    spread = 8.0 / config.population.lives**0.5
    return Fitness(
        individual=individual.id,
        value=value,
        low=value - 2 * spread,
        high=value + 2 * spread,
        lives=config.population.lives,
        censored=0,
    )


def _lives(state: RunState, config: RunConfig, commit: int) -> LivesCommitted:
    half = config.population.lives // 2
    numbers = range(half) if commit == 0 else range(half, config.population.lives)
    lives = tuple(
        (one.id, life, f"{address('attempt', one.id, life):032x}") for one in state.population for life in numbers
    )
    survivors = min(len(lives), len(lives) * (state.generation + 1) // 12)
    split = rng(3, state.generation, commit).multinomial(len(lives) - survivors, [0.6, 0.3, 0.1])
    ends = {f"died:{cause}": int(number) for cause, number in zip(CAUSES, split, strict=True)} | {"survived": survivors}
    decisions = sum(round(_skill(state.everyone[who])) for who, _, _ in lives)
    return LivesCommitted(
        generation=state.generation,
        tables={"steps": 2 * state.generation + commit, "lives": 2 * state.generation + commit},
        lives=lives,
        decisions=decisions,
        prompt_tokens=decisions * 180,
        completion_tokens=decisions,
        ends={end: number for end, number in ends.items() if number},
        seconds=30.5,
    )


def _trained(child: Individual) -> TrainingResult:
    return TrainingResult(
        individual=child.id,
        adapter=f"{address('adapter', child.id):032x}" * 2,
        status="trained",
        examples=192,
        tokens=73_000,
        seconds=14.9,
        loss_first=1.71 - 0.1 * child.generation,
        loss_last=0.94 - 0.1 * child.generation,
    )


def _next(state: RunState, births: Births) -> tuple[Individual, ...]:
    newborns = tuple(
        job.child.model_copy(
            update={"genome": job.child.genome.model_copy(update={"adapter": state.births[job.child.id].adapter})}
        )
        for job in births.jobs
    )
    return births.elites + newborns


def _evaluation(state: RunState) -> Iterator[EvaluationRow]:
    champion = state.everyone[state.history[-1].selection.survivors[0]]
    founder = next(one for one in state.created.founders if one.lineage == champion.lineage)
    for who, individual, mean in (
        ("random", None, 9.4),
        ("heuristic", None, 33.8),
        ("founder", founder, 12.1),
        ("champion", champion, 25.9),
    ):
        yield EvaluationRow(
            who=who,
            individual=individual.id if individual else None,
            adapter=individual.genome.adapter if individual else None,
            lives=64,
            mean=mean,
            low=mean - 2.2,
            high=mean + 2.3,
            ends={"died:starved": 40, "died:wolf": 64 - 40 - round(mean / 2), "survived": round(mean / 2)},
        )
