"""Populations: founders, and what a population says about its lineages. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from orchestrator.config import PopulationConfig, lineage_name
from telemetry.records import Genome, Hyperparameters, Individual

if TYPE_CHECKING:
    import numpy as np


def individual_id(generation: int, index: int) -> str:
    """`g<generation>-<index>`: sorts in order and is never used again."""
    return f"g{generation:03d}-{index:03d}"


def in_order(population: Iterable[Individual]) -> tuple[Individual, ...]:
    """By position in the generation, as the ids tell."""
    return tuple(sorted(population, key=position))


def position(one: Individual) -> int:
    """Place in its generation, as the id tells."""
    return int(one.id.partition("-")[2])


def islands(size: int, count: int) -> list[range]:
    """Positions in a population of `size` that make up each of `count` islands: neighbours, as equal as can be."""
    bounds = [island * size // count for island in range(count + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]


def perturb(hyperparameters: Hyperparameters, spread: float, rng: "np.random.Generator") -> Hyperparameters:
    """Each value multiplied or divided by `1 + spread` with equal probability, kept inside its bounds.

    The perturbation of population-based training (Jaderberg et al. 2017, arXiv 1711.09846).
    """
    # Not above: whoever reads a run asks for its lineages, and needs no numerics.
    import numpy as np

    # Nothing is drawn for a novelty of nothing: the draws of runs without it stay what they were.
    factors = np.where(rng.random(4 if hyperparameters.novelty else 3) < 0.5, 1 + spread, 1 / (1 + spread))
    return Hyperparameters(
        temperature=float(np.clip(hyperparameters.temperature * factors[0], 0.05, 10)),
        epsilon=float(np.clip(hyperparameters.epsilon * factors[1], 0, 1)),
        learning_rate=float(np.clip(hyperparameters.learning_rate * factors[2], 1e-7, 1)),
        novelty=float(np.clip(hyperparameters.novelty * factors[-1], 0, 10)),
    )


def founders(config: PopulationConfig, spread: float, rng: "np.random.Generator") -> tuple[Individual, ...]:
    """Generation 0: every founder as configured, then perturbed repeats of them until the population is full.

    Each is a lineage of its own; a repeat of `bold` is called `bold-2`.
    """
    population = []
    for index in range(config.size):
        repeat, position = divmod(index, len(config.founders))
        founder = config.founders[position]
        numbers = Hyperparameters(
            temperature=founder.temperature,
            epsilon=founder.epsilon,
            learning_rate=founder.learning_rate,
            novelty=founder.novelty,
        )
        population.append(
            Individual(
                id=individual_id(0, index),
                generation=0,
                lineage=lineage_name(founder.name, repeat),
                genome=Genome(
                    strategy=founder.strategy,
                    objective=founder.objective,
                    hyperparameters=numbers if repeat == 0 else perturb(numbers, spread, rng),
                ),
            )
        )
    return tuple(population)


def lineages(population: Sequence[Individual]) -> tuple[str, ...]:
    """Lineages with at least one member, in order of first appearance."""
    return tuple(dict.fromkeys(individual.lineage for individual in population))
