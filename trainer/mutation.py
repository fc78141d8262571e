"""Mutation of LoRA weights: pure numpy, randomness passed in, inputs never changed.

Law: every mutation is relative to what is there. A module that changes nothing yet has nothing to be relative to and
takes Gaussian noise instead, or it would stay dead (PopuLoRA, arXiv 2605.16727, whose M1 to M4 these are).
"""

import math

import numpy as np

from telemetry.adapters import LoraWeights
from telemetry.lora import Array
from trainer.config import LoraConfig
from trainer.config_operators import GaussianMutation, MaskingMutation, MutationConfig, SpectralMutation, spares_all
from trainer.lowrank import Components, Wide, decompose, to_factors

Factors = tuple[Array, Array]
NEGLIGIBLE = 1e-12
"""Singular values below this share of the largest are rounding."""
REVIVAL = GaussianMutation()
"""What happens to a module that changes nothing yet."""


def mutate(weights: LoraWeights, config: MutationConfig, rng: np.random.Generator) -> LoraWeights:
    """A mutant of equal shape; `weights` itself when chance or a strength of 0 leaves it alone."""
    spared = config.rate < 1 and rng.random() >= config.rate
    if spared or spares_all(config):
        return weights
    lora = LoraConfig(rank=weights.rank, alpha=weights.alpha)
    # By name: draws must not depend on the order in which a file lists its tensors.
    modules = sorted(weights.factors.items(), key=lambda item: item[0])
    factors = {module: _mutate_module(pair, config, lora, rng) for module, pair in modules}
    return LoraWeights(weights.rank, weights.alpha, factors)


def _mutate_module(pair: Factors, config: MutationConfig, lora: LoraConfig, rng: np.random.Generator) -> Factors:
    if isinstance(config, GaussianMutation):
        return _gaussian(pair, config, rng)
    a, b = pair
    change = decompose(b.astype(np.float64) * (lora.alpha / lora.rank), a.astype(np.float64))
    alive = change.take(slice(int(np.count_nonzero(change.s > NEGLIGIBLE * change.s[0]))))
    if len(alive.s) == 0:
        return _gaussian(pair, REVIVAL, rng)
    mutant = _disturb(alive, config, rng) if isinstance(config, SpectralMutation) else _thin(alive, config, rng)
    return to_factors(mutant, lora, rng)


def _gaussian(pair: Factors, config: GaussianMutation, rng: np.random.Generator) -> Factors:
    if config.share < 1 and rng.random() >= config.share:
        return pair
    a, b = pair
    return _noisy(a, config.strength, rng), _noisy(b, config.strength, rng)


def _noisy(factor: Array, strength: float, rng: np.random.Generator) -> Array:
    deviation = float(factor.std(dtype=np.float64)) or max(factor.shape) ** -0.5
    return (factor + strength * deviation * rng.standard_normal(factor.shape)).astype(np.float32)


def _disturb(change: Components, config: SpectralMutation, rng: np.random.Generator) -> Components:
    """Singular values times `exp(strength * noise)`; singular vectors turned among themselves by small rotations."""
    u, s, vt = change
    scaled = s * np.exp(config.strength * rng.standard_normal(len(s)))
    turned = u @ _rotation(len(s), config.strength, rng) * scaled
    return decompose(turned, _rotation(len(s), config.strength, rng) @ vt)


def _thin(change: Components, config: MaskingMutation, rng: np.random.Generator) -> Components:
    """A share of the components, drawn at random, is dropped; at least one stays."""
    count = len(change.s)
    stay = max(1, count - math.ceil(config.share * count))
    return change.take(np.sort(rng.choice(count, stay, replace=False)))


def _rotation(size: int, strength: float, rng: np.random.Generator) -> Wide:
    """An orthogonal matrix near the identity: the Cayley transform of a random skew matrix.

    The first-order `I + strength * skew` would change norms as well.
    """
    noise = rng.standard_normal((size, size))
    half = strength * (noise - noise.T) / 4
    return np.asarray(np.linalg.solve(np.eye(size) - half, np.eye(size) + half), dtype=np.float64)
