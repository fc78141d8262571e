"""Crossover of LoRA weights: pure numpy, randomness passed in, inputs never changed.

Law: operators act on weight changes, not on factors, and the child is the best approximation of their exact result
that fits its rank; what that lost is reported.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from telemetry.adapters import LoraWeights
from telemetry.lora import Array
from trainer.config import LoraConfig
from trainer.config_operators import (
    CrossoverConfig,
    DareCrossover,
    ExtrapolatingCrossover,
    LinearCrossover,
    SubspaceCrossover,
    TiesCrossover,
)
from trainer.lowrank import Components, Wide, decompose, leading, to_factors


class Change(NamedTuple):
    """One parent's change of one module: `left @ right`, and how much of it the child gets."""

    left: Wide
    """[out features, rank], the parent's scale included."""
    right: Wide
    """[rank, in features]."""
    weight: float


Combined = tuple[Components, float]
"""Components of the child's change, strongest first, and the squared Frobenius norm of the exact result."""


def crossover(
    parents: Sequence[tuple[LoraWeights | None, float]],
    config: CrossoverConfig,
    lora: LoraConfig,
    rng: np.random.Generator,
) -> tuple[LoraWeights, float]:
    """The child of weighted parents, and the share of squared Frobenius norm that its rank could not hold (0 to 1).

    None is the untouched base model, which changes nothing. A single parent of weight 1 and equal shape is passed on
    bit by bit. Raises ValueError if every parent is None.
    """
    known = [weights for weights, _ in parents if weights is not None]
    if not known:
        raise ValueError("crossover needs at least one parent with an adapter")
    carriers = [(weights, weight) for weights, weight in parents if weights is not None and weight != 0]
    if len(carriers) == 1 and carriers[0][1] == 1:
        only = carriers[0][0]
        if (only.rank, only.alpha) == (lora.rank, lora.alpha):
            return only, 0.0
    factors, kept, total = {}, 0.0, 0.0
    for module in sorted({module for weights in known for module in weights.factors}):
        changes = _changes(module, carriers) or [_nothing(module, known)]
        components, energy = _combine(changes, config, lora.rank, rng)
        factors[module] = to_factors(components, lora, rng)
        kept += components.take(slice(lora.rank)).energy
        total += energy
    return LoraWeights(lora.rank, lora.alpha, factors), max(0.0, 1 - kept / total) if total > 0 else 0.0


def _combine(changes: Sequence[Change], config: CrossoverConfig, rank: int, rng: np.random.Generator) -> Combined:
    match config:
        case LinearCrossover() | ExtrapolatingCrossover():
            return _sum(changes)
        case TiesCrossover(density=density):
            return _best(_ties(changes, density), rank, rng)
        case DareCrossover(drop=drop):
            return _best(_dare(changes, drop, rng), rank, rng)
        case SubspaceCrossover():
            return _subspace(changes, rank)


def _best(dense: Wide, rank: int, rng: np.random.Generator) -> Combined:
    return leading(dense, rank, rng), float(np.sum(dense**2))


def _changes(module: str, carriers: Sequence[tuple[LoraWeights, float]]) -> list[Change]:
    return [
        Change(_wide(weights.factors[module][1]) * weights.scale, _wide(weights.factors[module][0]), weight)
        for weights, weight in carriers
        if module in weights.factors
    ]


def _nothing(module: str, known: Sequence[LoraWeights]) -> Change:
    a, b = next(weights.factors[module] for weights in known if module in weights.factors)
    return Change(np.zeros((b.shape[0], 1)), np.zeros((1, a.shape[1])), 1.0)


def _wide(factor: Array) -> Wide:
    return factor.astype(np.float64)


def _sum(changes: Sequence[Change]) -> Combined:
    """Weighted sum, `[w1 L1, w2 L2, ...] @ [R1; R2; ...]`: weights on one side only, so that they may be negative."""
    components = decompose(
        np.concatenate([change.left * change.weight for change in changes], axis=1),
        np.concatenate([change.right for change in changes], axis=0),
    )
    return components, components.energy


def _ties(changes: Sequence[Change], density: float) -> Wide:
    """TIES (Yadav et al. 2023, arXiv 2306.01708): trim, elect a sign per entry, mean of those that agree with it.

    The mean is weighted by the parents' weights. PEFT divides the weighted sum by the number that agree, which is the
    same only when every weight is 1.
    """
    trimmed = np.stack([_trim(change.left @ change.right, density) for change in changes])
    weights = np.array([change.weight for change in changes])[:, None, None]
    weighted = weights * trimmed
    elected = np.where(weighted.sum(axis=0) >= 0, 1.0, -1.0)
    agreeing = np.sign(weighted) == elected
    divisor = (agreeing * np.abs(weights)).sum(axis=0)
    merged: Wide = (agreeing * weighted).sum(axis=0) / np.where(divisor > 0, divisor, 1.0)
    return merged


def _trim(dense: Wide, density: float) -> Wide:
    """The share `density` of entries that are largest by magnitude, at least one; the others zero."""
    kept = max(1, int(density * dense.size))
    if kept >= dense.size:
        return dense
    largest = np.argpartition(np.abs(dense), dense.size - kept, axis=None)[dense.size - kept :]
    trimmed = np.zeros_like(dense)
    trimmed.flat[largest] = dense.flat[largest]
    return trimmed


def _dare(changes: Sequence[Change], drop: float, rng: np.random.Generator) -> Wide:
    """DARE (Yu et al. 2023, arXiv 2311.03099): drop entries at random, rescale the rest, weighted sum."""
    merged = np.zeros((changes[0].left.shape[0], changes[0].right.shape[1]))
    for change in changes:
        survives = rng.random(merged.shape) >= drop
        merged += survives * (change.left @ change.right) * (change.weight / (1 - drop))
    return merged


def _subspace(changes: Sequence[Change], rank: int) -> Combined:
    """Each parent's strongest components at full strength, as many as its weight is of the whole (PopuLoRA's X3)."""
    shares = np.cumsum([0.0, *(abs(change.weight) for change in changes)])
    ends = np.rint(rank * shares / shares[-1]).astype(int)
    chosen = [
        decompose(change.left * np.sign(change.weight), change.right).take(slice(end - start))
        for change, start, end in zip(changes, ends[:-1], ends[1:], strict=True)
    ]
    child = decompose(
        np.concatenate([part.u * part.s for part in chosen], axis=1),
        np.concatenate([part.vt for part in chosen], axis=0),
    )
    return child, child.energy
