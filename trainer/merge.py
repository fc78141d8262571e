"""Crossover and mutation of LoRA weights: pure numpy, randomness passed in, inputs never changed.

Law: operators act on the weight change `scale * B @ A`, never on the factors alone, because the mean of products is
not the product of means (huggingface/peft issue 643).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from telemetry.adapters import LoraWeights
from telemetry.failures import UsageError
from telemetry.lora import Array, last_part
from telemetry.records import BaseModelCard
from trainer.config import LoraConfig

Wide = NDArray[np.float64]


def targets(card: BaseModelCard, config: LoraConfig) -> list[str]:
    """Modules that get a weight change, sorted. The scripted card has a single module, which always does."""
    names = sorted(name for name in card.modules if card.id == "scripted" or last_part(name) in config.modules)
    if not names:
        known = sorted({last_part(name) for name in card.modules})
        raise UsageError(f"trainer.lora.modules: got {', '.join(config.modules)}, expected some of {', '.join(known)}")
    return names


def fresh(card: BaseModelCard, config: LoraConfig, rng: np.random.Generator) -> LoraWeights:
    """An adapter that changes nothing yet: A is Kaiming-uniform and B zero, as PEFT starts them."""
    factors = {}
    for module in targets(card, config):
        out, into = card.modules[module]
        factors[module] = (_kaiming(rng, config.rank, into), np.zeros((out, config.rank), np.float32))
    return LoraWeights(config.rank, config.alpha, factors)


def crossover(
    parents: Sequence[tuple[LoraWeights | None, float]], config: LoraConfig, rng: np.random.Generator
) -> tuple[LoraWeights, float]:
    """Weighted sum of the parents' weight changes, truncated to the config's rank; None is a zero change.

    Returns the child and the share of squared Frobenius norm that truncation discarded (0 to 1). The sum is exact
    before truncation: `sum w s B A = [w1 s1 B1, ...] @ [A1; ...]`, weights and scales on one side only so that they
    may be negative; QR of both factors and an SVD of the small core give the best approximation of the rank
    (Eckart and Young 1936). A single parent of weight 1 and equal shape is passed on bit by bit.

    A's rows come out with the norm of a Kaiming start and B carries the magnitude, so that a child whose parents
    hardly changed anything can still learn. Raises ValueError if every parent is None.
    """
    carriers = [(weights, factor) for weights, factor in parents if weights is not None and factor != 0]
    known = [weights for weights, _ in parents if weights is not None]
    if not known:
        raise ValueError("crossover needs at least one parent with an adapter")
    if len(carriers) == 1 and carriers[0][1] == 1:
        only = carriers[0][0]
        if (only.rank, only.alpha) == (config.rank, config.alpha):
            return only, 0.0
    factors, kept, total = {}, 0.0, 0.0
    for module in sorted({module for weights in known for module in weights.factors}):
        left, right = _stack(module, carriers, known)
        core, singular = _truncate(left, right, config, rng)
        factors[module] = core
        kept += float(np.sum(singular[: config.rank] ** 2))
        total += float(np.sum(singular**2))
    return LoraWeights(config.rank, config.alpha, factors), 1 - kept / total if total > 0 else 0.0


def mutate(weights: LoraWeights, sigma: float, rng: np.random.Generator) -> LoraWeights:
    """Gaussian noise on every factor, `sigma` times that factor's own standard deviation.

    A factor that is all zero (a B that was never trained) has none of its own and takes `1 / sqrt(features)` of its
    module side instead, or mutation would leave it dead (PopuLoRA, arXiv 2605.16727). `sigma` 0 changes nothing.
    """
    if sigma == 0:
        return weights
    factors = {module: (_noisy(a, sigma, rng), _noisy(b, sigma, rng)) for module, (a, b) in _ordered(weights)}
    return LoraWeights(weights.rank, weights.alpha, factors)


def _ordered(weights: LoraWeights) -> list[tuple[str, tuple[Array, Array]]]:
    """Modules by name: draws must not depend on the order in which a file lists its tensors."""
    return sorted(weights.factors.items(), key=lambda item: item[0])


def _noisy(factor: Array, sigma: float, rng: np.random.Generator) -> Array:
    deviation = float(factor.std(dtype=np.float64)) or max(factor.shape) ** -0.5
    return (factor + sigma * deviation * rng.standard_normal(factor.shape)).astype(np.float32)


def _kaiming(rng: np.random.Generator, rank: int, into: int) -> Array:
    """`torch.nn.init.kaiming_uniform_(a=sqrt(5))`: uniform within `1 / sqrt(fan in)`."""
    return rng.uniform(-1, 1, (rank, into)).astype(np.float32) * np.float32(into**-0.5)


def _stack(module: str, carriers: list[tuple[LoraWeights, float]], known: list[LoraWeights]) -> tuple[Wide, Wide]:
    """Factors of the exact sum for one module: [out, total rank] and [total rank, in]."""
    lefts, rights = [], []
    for weights, factor in carriers:
        if module in weights.factors:
            a, b = weights.factors[module]
            lefts.append(b.astype(np.float64) * (factor * weights.scale))
            rights.append(a.astype(np.float64))
    if not lefts:
        a, b = next(weights.factors[module] for weights in known if module in weights.factors)
        return np.zeros((b.shape[0], 1)), np.zeros((1, a.shape[1]))
    return np.concatenate(lefts, axis=1), np.concatenate(rights, axis=0)


def _truncate(
    left: Wide, right: Wide, config: LoraConfig, rng: np.random.Generator
) -> tuple[tuple[Array, Array], NDArray[np.float64]]:
    """(A, B) of the configured rank nearest to `left @ right`, and all singular values of the product."""
    basis_out, core_out = np.linalg.qr(left)
    basis_in, core_in = np.linalg.qr(right.T)
    u, singular, vt = np.linalg.svd(core_out @ core_in.T, full_matrices=False)
    rank, into = min(config.rank, len(singular)), right.shape[1]
    gauge = 3**-0.5  # norm of a Kaiming-uniform row: each of its `into` entries has variance 1 / (3 * into)
    a = _kaiming(rng, config.rank, into)
    b = np.zeros((left.shape[0], config.rank), np.float32)
    a[:rank] = gauge * (vt[:rank] @ basis_in.T)
    b[:, :rank] = (basis_out @ u[:, :rank]) * singular[:rank] * (config.rank / config.alpha / gauge)
    return (a, b), singular
