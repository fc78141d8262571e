"""Held-out evaluation: how long anyone survives in worlds that no run ever learned from."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from orchestrator.fitness import bootstrap_interval
from orchestrator.rooms import WorkersRoom
from orchestrator.state import EvaluationRow, RunState
from telemetry.failures import UsageError
from telemetry.records import EndReason, Individual
from telemetry.seeds import held_out_world_seed, rng
from workers.config import EnvironmentConfig
from workers.environment import make
from workers.reference import reference

Reference = Literal["random", "heuristic"]


def held_out(lives: int) -> list[int]:
    """Seeds of the first `lives` held-out worlds; the same for everyone, so that rows can be compared in pairs."""
    return [held_out_world_seed(index) for index in range(lives)]


def reference_row(who: Reference, environment: EnvironmentConfig, lives: int) -> EvaluationRow:
    """Survival of random or heuristic play. Raises UsageError when the world has no heuristic."""
    world = make(environment.name, environment.settings)
    played = reference(world, who, held_out(lives))
    ends = Counter(_label(one.end, one.cause) for one in played)
    return row(who, [one.steps for one in played], dict(ends), horizon=world.horizon)


def model_rows(room: WorkersRoom, players: Sequence[tuple[str, Individual]], lives: int) -> list[EvaluationRow]:
    """Survival of models on the held-out worlds, playing by their own genome without exploration."""
    quiet = {individual.id: _without_exploration(individual) for _, individual in players}
    summaries = room.try_out(list(quiet.values()), held_out(lives))
    rows = []
    for who, individual in players:
        player = quiet[individual.id].id
        own = sorted((one for one in summaries if one.key.individual == player), key=lambda one: one.key.life)
        ends = Counter(_label(one.end, one.cause) for one in own)
        rows.append(row(who, [one.steps for one in own], dict(ends), horizon=room.horizon, individual=individual))
    return rows


def founder_of(state: RunState, individual: Individual) -> Individual:
    """The founder of an individual's lineage: its strategy on the untouched base model."""
    return next(one for one in state.created.founders if one.lineage == individual.lineage)


def find(state: RunState, who: str) -> Individual:
    """The individual meant by `founder`, `champion` or an id. Raises UsageError when there is none."""
    if who in ("champion", "founder"):
        if not state.history:
            raise UsageError(f"--who {who}: the run has no finished generation yet; wait for one or give an id")
        champion = state.everyone[state.history[-1].selection.survivors[0]]
        return champion if who == "champion" else founder_of(state, champion)
    if who not in state.everyone:
        raise UsageError(
            f"--who {who}: no such individual; expected founder, champion, random, heuristic or an id such as"
            f" {next(iter(state.everyone))}"
        )
    return state.everyone[who]


def row(
    who: str, steps: Sequence[int], ends: dict[str, int], *, horizon: int, individual: Individual | None = None
) -> EvaluationRow:
    """Mean survival with its 95% bootstrap interval over lives. steps: [lives]."""
    times = np.minimum(np.asarray(steps, dtype=np.float64), horizon)
    low, high = bootstrap_interval(
        lambda index: times[index].mean(axis=1),
        len(times),
        resamples=10_000,
        confidence=0.95,
        generator=rng(0, "evaluation", len(times)),
    )
    return EvaluationRow(
        who=who,
        individual=individual.id if individual else None,
        adapter=individual.genome.adapter if individual else None,
        lives=len(times),
        mean=float(times.mean()),
        low=low,
        high=high,
        ends=dict(sorted(ends.items())),
    )


def _label(end: EndReason, cause: str) -> str:
    return f"{end}:{cause}" if end is EndReason.DIED else str(end)


def _without_exploration(individual: Individual) -> Individual:
    """The same genome with epsilon 0, under an id of its own, so that evaluation draws are not those of the run."""
    numbers = individual.genome.hyperparameters.model_copy(update={"epsilon": 0.0})
    genome = individual.genome.model_copy(update={"hyperparameters": numbers})
    return individual.model_copy(update={"id": f"g9{individual.id[1:]}", "genome": genome})
