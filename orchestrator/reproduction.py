"""Reproduction: survivors in, the next generation's elites and training jobs out. Pure: randomness is addressed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.config_evolution import ReproductionConfig
from orchestrator.population import in_order, individual_id, islands, perturb
from orchestrator.strategy import mutate_strategy
from orchestrator.verdict import Selection
from telemetry.records import Genome, Hyperparameters, Individual
from telemetry.seeds import rng, seed63
from trainer.config_objectives import EsConfig
from trainer.config_operators import CrossoverConfig, ExtrapolatingCrossover
from trainer.job import Parent, Perturbation, TrainingJob


@dataclass(frozen=True)
class Births:
    """The next generation before its weights exist."""

    elites: tuple[Individual, ...]
    """Live on with the genome they have."""
    jobs: tuple[TrainingJob, ...]
    """One per newborn."""


@dataclass(frozen=True)
class Brood:
    """What the next generation is to be."""

    size: int
    """Individuals; 0 after the run's last generation."""
    seed: int
    """Of the run."""
    isles: int = 1
    founding: tuple[str, ...] = ()
    """Strategies of the founders, whose sentences mutants may take over."""
    objectives: tuple[str, ...] = ("",)
    """Names of the objectives that mutants may learn by."""
    strategy: EsConfig | None = None
    """The evolution strategy that makes the births, in place of parents who cross, mutate and teach."""


def reproduce(
    population: Sequence[Individual], selection: Selection, config: ReproductionConfig, brood: Brood
) -> Births:
    """The next generation: elites as they are, and a training job for every newborn.

    First parents are taken in turn from the survivors of an island, fittest first, so that every surviving lineage
    breeds and the fittest breed most.
    """
    if brood.size == 0:
        return Births(elites=(), jobs=())
    if brood.strategy is not None:
        return _mirrored(in_order(population), selection, config, brood, brood.strategy)
    generation = population[0].generation + 1
    elites: list[Individual] = []
    jobs: list[TrainingJob] = []
    homes = _by_island(population, selection, brood.isles)
    migrate = brood.isles > 1 and config.migration > 0 and generation % config.migration == 0
    for island, places in enumerate(islands(brood.size, brood.isles)):
        ids = [individual_id(generation, place) for place in places]
        unchanged = [one for one in homes[island] if one.id in selection.elites][: len(ids)]
        elites += [_elite(one, new) for one, new in zip(unchanged, ids, strict=False)]
        parents = homes[island] + (homes[island - 1][:1] if migrate else [])
        newborns = ids[len(unchanged) :]
        jobs += [_birth(parents, born, child, config, brood) for born, child in enumerate(newborns)]
    return Births(elites=tuple(elites), jobs=tuple(jobs))


def _mirrored(
    population: Sequence[Individual], selection: Selection, config: ReproductionConfig, brood: Brood, es: EsConfig
) -> Births:
    """Everybody's successor: the centre of all, weighted by rank, plus or minus noise; neighbours are a pair."""
    generation = population[0].generation + 1
    shares = dict(zip(selection.survivors, utilities(len(selection.survivors), es.step), strict=True))
    everybody = tuple(
        Parent(individual=one.id, adapter=one.genome.adapter, weight=shares.get(one.id, 0.0)) for one in population
    )
    jobs = []
    for place in range(brood.size):
        old, pair = population[place % len(population)], place // 2
        numbers = old.genome.hyperparameters
        decayed = _settled(numbers, config)
        child = Individual(
            id=individual_id(generation, place),
            generation=generation,
            lineage=old.lineage,
            parents=(old.id,),
            genome=Genome(strategy=old.genome.strategy, hyperparameters=decayed),
        )
        jobs.append(
            TrainingJob(
                child=child,
                # The first one's adapter is kept if the job fails.
                parents=(everybody[place % len(population)], *(one for one in everybody if one.individual != old.id)),
                crossover=config.weight_crossover,
                mutation=config.weight_mutation,
                seed=seed63(brood.seed, "es", generation, pair),
                perturbation=Perturbation(
                    centre=seed63(brood.seed, "es"), sigma=es.sigma, sign=1 if place % 2 == 0 else -1
                ),
            )
        )
    return Births(elites=(), jobs=tuple(jobs))


def utilities(count: int, step: float) -> list[float]:
    """What each of `count` ranks, best first, contributes to the next centre; they add up to 1.

    With a step of 1 the better half counts, more the better it was, and the rest not at all.
    """
    raw = np.maximum(0.0, np.log(count / 2 + 1) - np.log(np.arange(1, count + 1)))
    weights: list[float] = (1 / count + step * (raw / raw.sum() - 1 / count)).tolist()
    return weights


def _by_island(population: Sequence[Individual], selection: Selection, isles: int) -> list[list[Individual]]:
    """The survivors of each island, fittest first."""
    everyone, rank = in_order(population), {one: place for place, one in enumerate(selection.survivors)}
    parts = [everyone[part.start : part.stop] for part in islands(len(everyone), isles)]
    return [sorted((one for one in part if one.id in rank), key=lambda one: rank[one.id]) for part in parts]


def _elite(old: Individual, new: str) -> Individual:
    return Individual(id=new, generation=old.generation + 1, lineage=old.lineage, parents=(old.id,), genome=old.genome)


def _birth(
    survivors: Sequence[Individual], born: int, child_id: str, config: ReproductionConfig, brood: Brood
) -> TrainingJob:
    draw = rng(brood.seed, "reproduce", child_id)
    first = survivors[born % len(survivors)]
    others = [one for one in survivors if one is not first]
    second = others[draw.integers(len(others))] if others and draw.random() < config.crossover else None
    weights = _weights(survivors, first, second, config.weight_crossover, draw) if second else {first.id: 1.0}
    parents = [first, second] if second else [first]
    teachers = [one for one in survivors if one.id not in weights] if config.learn_from == "survivors" else []
    child = Individual(
        id=child_id,
        generation=first.generation + 1,
        lineage=first.lineage,
        parents=tuple(weights),
        genome=_inherit(first, second, config, brood, draw),
    )
    return TrainingJob(
        child=child,
        parents=tuple(
            Parent(individual=one.id, adapter=one.genome.adapter, weight=weights.get(one.id, 0.0))
            for one in [*parents, *teachers]
        ),
        crossover=config.weight_crossover,
        mutation=config.weight_mutation,
        teacher=Parent(individual=survivors[0].id, adapter=survivors[0].genome.adapter, weight=0.0),
        seed=seed63(brood.seed, "train", child_id),
    )


def _weights(
    survivors: Sequence[Individual],
    first: Individual,
    second: Individual,
    config: CrossoverConfig,
    draw: np.random.Generator,
) -> dict[str, float]:
    """How much of each parent's weight change the child gets, the first parent first."""
    if isinstance(config, ExtrapolatingCrossover):
        reach = float(draw.uniform(0.0, config.reach))
        fitter = survivors.index(first) < survivors.index(second)
        return {first.id: 1 + reach, second.id: -reach} if fitter else {first.id: -reach, second.id: 1 + reach}
    share = float(draw.uniform(0.5, 1.0))
    return {first.id: share, second.id: 1.0 - share}


def _inherit(
    first: Individual,
    second: Individual | None,
    config: ReproductionConfig,
    brood: Brood,
    draw: np.random.Generator,
) -> Genome:
    decayed = _settled(first.genome.hyperparameters, config)
    strategy = first.genome.strategy
    if second and config.mutate_strategy and draw.random() < 0.5:
        strategy = second.genome.strategy
    perturbed = perturb(decayed, config.hyperparameter_mutation, draw)
    if config.strategy_mutation > 0 and draw.random() < config.strategy_mutation:
        strategy = mutate_strategy(strategy, brood.founding, draw)
    objective = first.genome.objective
    if config.objective_mutation > 0 and draw.random() < config.objective_mutation:
        objective = brood.objectives[draw.integers(len(brood.objectives))]
    return Genome(strategy=strategy, hyperparameters=perturbed, objective=objective)


def _settled(numbers: Hyperparameters, config: ReproductionConfig) -> Hyperparameters:
    """A child's before mutation: it explores less than its parent."""
    decay = config.epsilon_decay
    return numbers.model_copy(update={"epsilon": numbers.epsilon * decay, "novelty": numbers.novelty * decay})
