"""Births of an evolution strategy: the weighted centre of everybody, plus or minus noise. Pure numpy."""

from collections.abc import Sequence

import numpy as np

from telemetry.adapters import LoraWeights
from telemetry.records import BaseModelCard
from telemetry.seeds import rng
from trainer.config import LoraConfig
from trainer.config_operators import LinearCrossover
from trainer.crossover import crossover
from trainer.job import Perturbation
from trainer.lowrank import fresh


def perturbed(
    parents: Sequence[tuple[LoraWeights | None, float]],
    perturbation: Perturbation,
    card: BaseModelCard,
    lora: LoraConfig,
    seed: int,
) -> tuple[LoraWeights, float]:
    """A child of weighted parents, and the share of the centre that its rank could not hold (0 to 1).

    None is the untouched base model. seed: of the noise, shared by a pair.
    """
    start = fresh(card, lora, rng(perturbation.centre, "centre"))
    known = [(start if one is None else one, weight) for one, weight in parents]
    centre, discarded = _centre(known, lora, perturbation.centre)
    factors = {}
    for module, (a, b) in sorted(centre.factors.items(), key=lambda item: item[0]):
        noise = rng(seed, "noise", module).standard_normal(b.shape)
        factors[module] = (a, (b + perturbation.sign * perturbation.sigma * noise).astype(np.float32))
    return LoraWeights(centre.rank, centre.alpha, factors), discarded


def _centre(parents: Sequence[tuple[LoraWeights, float]], lora: LoraConfig, seed: int) -> tuple[LoraWeights, float]:
    """The weighted sum of weight changes: of the Bs where all have the same A, which is then exact.

    seed: the same for everybody, so that strangers' children have one A.
    """
    first = parents[0][0]
    if not all(_same_projection(first, one) for one, _ in parents):
        return crossover(parents, LinearCrossover(), lora, rng(seed, "crossover"))
    factors = {}
    for module, (a, b) in first.factors.items():
        total = np.zeros(b.shape, np.float64)
        for one, weight in parents:
            total += weight * one.factors[module][1]
        factors[module] = (a, total.astype(np.float32))
    return LoraWeights(first.rank, first.alpha, factors), 0.0


def _same_projection(one: LoraWeights, other: LoraWeights) -> bool:
    alike = (one.rank, one.alpha, one.factors.keys()) == (other.rank, other.alpha, other.factors.keys())
    return alike and all(np.array_equal(a, other.factors[module][0]) for module, (a, _) in one.factors.items())
