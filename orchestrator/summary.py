"""What a run has come to: the folded state turned into plain rows for people, programs and the report. Pure.

Every class here is also a JSON object that `forager status --json` and the report rely on: its fields are the keys,
their docstrings the meaning. Generations count from 0, as in the ids of individuals.
"""

from collections.abc import Iterable
from statistics import fmean, median
from typing import Any

from orchestrator.budget import generation_of
from orchestrator.config import RunConfig
from orchestrator.events import EvaluationRow, GenerationCommitted, LivesCommitted, ends_of
from orchestrator.lineage import LineageRow, ancestry, lineage_rows, short
from orchestrator.observe import after, culled_by, gap
from orchestrator.population import lineages
from orchestrator.state import RunState
from orchestrator.verdict import Diversity, ranked
from telemetry.records import Record
from trainer.job import TrainingResult


class GenerationRow(Record):
    """One finished generation."""

    generation: int
    individual: str
    """The fittest."""
    lineage: str
    """Its lineage."""
    best: float
    low: float
    """Lower end of the fittest individual's interval."""
    high: float
    mean: float
    median: float
    worst: float
    """Fitness over the individuals of the generation that have one."""
    alive: tuple[str, ...]
    """Lineages that go on."""
    culled: tuple[str, ...]
    """Lineages that ended with this generation."""
    lives: int
    decisions: int
    ends: dict[str, int]
    """Number of lives by `died:<cause>`, `survived`, `censored`."""
    seconds: dict[str, float]
    """Wall time by phase."""
    diversity: Diversity


class TrainingRow(TrainingResult):
    """One ended training job: what its TrainingResult says, the adapter's id shortened, and whose birth it was."""

    generation: int
    """The generation its child was born into."""
    lineage: str | None
    """null until the child's generation lives."""
    parents: tuple[str, ...]


class Totals(Record):
    """Everything committed so far."""

    lives: int
    censored: int
    """Of these, cut short by infrastructure."""
    decisions: int
    prompt_tokens: int
    completion_tokens: int
    rollout_seconds: float
    """Wall time."""
    training_seconds: float
    """Summed over jobs."""
    training_tokens: int
    trained: int
    failed: int
    """Training jobs."""


class Summary(Record):
    """A run so far."""

    run: str
    version: str
    """Of Forager, when the run was created."""
    finished: bool
    seed: int
    model: str
    model_sha256: str
    environment: str
    fitness_kind: str
    """`rmst` is survival time in steps."""
    generation: int
    """The generation that lives now; equals `generations` when all have lived."""
    generations: int
    population: int
    """Individuals per generation."""
    lives_each: int
    """Lives per individual and generation."""
    drivers: int
    """Processes that drove the run: one more than it was resumed."""
    history: tuple[GenerationRow, ...]
    training: tuple[TrainingRow, ...]
    evaluation: tuple[EvaluationRow, ...]
    """Survival on held-out worlds: who, individual, adapter, lives, mean, low, high, ends."""
    champion: str | None
    """The fittest individual of the last finished generation."""
    ancestry: tuple[str, ...]
    """From the founder to the champion by first parents."""
    ratios: dict[str, float]
    """Champion's held-out mean over that of `founder`, `random`, `heuristic`, where measured and not 0."""
    gap: float | None
    """Fitness of the champion where it was selected, less that in held-out worlds, exploring in both; null if unknown.

    Whoever is selected was lucky as well, so a small gap is no fault; a large one is what does not generalise.
    """
    totals: Totals
    lineages: tuple[LineageRow, ...]


def summarize(state: RunState, config: RunConfig) -> Summary:
    """Everything there is to tell about a run, finished or not."""
    champion = _champion(state)
    evaluation = state.evaluation.rows if state.evaluation else ()
    return Summary(
        run=state.created.run,
        version=state.created.version,
        finished=state.finished is not None,
        seed=config.seed,
        model=state.created.model.id,
        model_sha256=state.created.model.sha256,
        environment=config.environment.name,
        fitness_kind=config.fitness.kind,
        generation=state.generation,
        generations=config.generations,
        population=config.population.size,
        lives_each=config.population.lives,
        drivers=state.epochs,
        history=_history(state),
        training=tuple(_training_row(result, state) for result in state.births.values()),
        evaluation=evaluation,
        champion=champion,
        ancestry=ancestry(champion, state) if champion else (),
        ratios=_ratios(evaluation),
        gap=gap(state, evaluation),
        totals=_totals(state),
        lineages=lineage_rows(state),
    )


def status(state: RunState) -> dict[str, Any]:
    """How far a run is, in few lines.

    JSON keys: those of Summary that are single values, `lives_committed` and `lives_planned` of the generation that
    lives now, `lineages_alive`, `lineages_culled`, `last_generation` (a GenerationRow or null), `ratios`, `totals`.
    """
    config = RunConfig.model_validate(state.created.config)
    summary = summarize(state, config)
    keys = {"history", "training", "evaluation", "ancestry", "lineages", "ratios", "gap", "totals"}
    planned, culled = len(state.population) * config.population.lives, dict.fromkeys(state.culled())
    return {
        **summary.model_dump(mode="json", exclude=keys),
        "lives_committed": len(state.lives.get(state.generation, ())),
        "lives_planned": planned,
        "lineages_alive": [name for name in lineages(state.created.founders) if name not in culled],
        "lineages_culled": list(culled),
        "last_generation": summary.history[-1].model_dump(mode="json") if summary.history else None,
        "ratios": summary.ratios,
        "gap": summary.gap,
        "totals": summary.totals.model_dump(mode="json"),
    }


def _history(state: RunState) -> tuple[GenerationRow, ...]:
    commits: dict[int, list[LivesCommitted]] = {event.generation: [] for event in state.history}
    for commit in state.commits:
        commits.setdefault(commit.generation, []).append(commit)
    return tuple(_generation_row(event, commits[event.generation], state) for event in state.history)


def _generation_row(event: GenerationCommitted, commits: list[LivesCommitted], state: RunState) -> GenerationRow:
    order = ranked(event.fitness)
    values = [one.value for one in order]
    return GenerationRow(
        generation=event.generation,
        individual=order[0].individual,
        lineage=state.everyone[order[0].individual].lineage,
        best=order[0].value,
        low=order[0].low,
        high=order[0].high,
        mean=fmean(values),
        median=median(values),
        worst=values[-1],
        alive=lineages(after(event, state)),
        culled=culled_by(event, state),
        lives=sum(len(commit.lives) for commit in commits),
        decisions=sum(commit.decisions for commit in commits),
        ends=ends_of(commits),
        seconds=event.seconds,
        diversity=event.diversity,
    )


def _training_row(result: TrainingResult, state: RunState) -> TrainingRow:
    child = state.everyone.get(result.individual)
    return TrainingRow(
        generation=generation_of(result.individual),
        lineage=child.lineage if child else None,
        parents=child.parents if child else (),
        adapter=short(result.adapter),
        **result.model_dump(exclude={"adapter"}),
    )


def _champion(state: RunState) -> str | None:
    if state.finished:
        return state.finished.champion
    return state.history[-1].champion if state.history else None


def _ratios(rows: Iterable[EvaluationRow]) -> dict[str, float]:
    means = {row.who: row.mean for row in rows}
    if "champion" not in means:
        return {}
    others = ("founder", "random", "heuristic")
    return {who: means["champion"] / means[who] for who in others if means.get(who, 0) > 0}


def _totals(state: RunState) -> Totals:
    results = list(state.births.values())
    return Totals(
        lives=sum(map(len, state.lives.values())),
        censored=ends_of(state.commits).get("censored", 0),
        decisions=sum(commit.decisions for commit in state.commits),
        prompt_tokens=sum(commit.prompt_tokens for commit in state.commits),
        completion_tokens=sum(commit.completion_tokens for commit in state.commits),
        rollout_seconds=sum(commit.seconds for commit in state.commits),
        training_seconds=sum(result.seconds for result in results),
        training_tokens=sum(result.tokens for result in results),
        trained=sum(result.status == "trained" for result in results),
        failed=sum(result.status == "failed" for result in results),
    )
