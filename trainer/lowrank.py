"""Arithmetic on low-rank weight changes: exact sums, exact truncation, and back to LoRA factors. Pure numpy.

Law: a weight change is the product `scale * B @ A`, never its factors alone, because the mean of products is not the
product of means (huggingface/peft issue 643).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from telemetry.adapters import LoraWeights
from telemetry.failures import UsageError
from telemetry.lora import Array, last_part
from telemetry.records import BaseModelCard
from trainer.config import LoraConfig

Wide = NDArray[np.float64]

OVERSAMPLING = 10
POWER_ITERATIONS = 6


class Components(NamedTuple):
    """Singular value decomposition of a weight change: `u @ diag(s) @ vt`, strongest component first."""

    u: Wide
    """[out features, components], orthonormal columns."""
    s: Wide
    """[components], not negative."""
    vt: Wide
    """[components, in features], orthonormal rows."""

    def take(self, chosen: slice | NDArray[np.int64]) -> "Components":
        """Some of the components."""
        return Components(self.u[:, chosen], self.s[chosen], self.vt[chosen])

    @property
    def energy(self) -> float:
        """Squared Frobenius norm."""
        return float(np.sum(self.s**2))


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
        factors[module] = (kaiming(rng, config.rank, into), np.zeros((out, config.rank), np.float32))
    return LoraWeights(config.rank, config.alpha, factors)


def decompose(left: Wide, right: Wide) -> Components:
    """Exact decomposition of `left @ right`, `[out, k]` times `[k, in]`, through QR of both: `O((out + in) k^2)`."""
    basis_out, core_out = np.linalg.qr(left)
    basis_in, core_in = np.linalg.qr(right.T)
    u, s, vt = np.linalg.svd(core_out @ core_in.T, full_matrices=False)
    return Components(basis_out @ u, s, vt @ basis_in.T)


def leading(dense: Wide, rank: int, rng: np.random.Generator) -> Components:
    """The `rank` strongest components of a matrix that has no small factors.

    Randomised subspace iteration (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1): exact where the matrix has
    at most `rank` plus the oversampling rows or columns, else within a few thousandths of the best approximation of
    the rank even for a flat spectrum.
    """
    width = min(rank + OVERSAMPLING, *dense.shape)
    basis = np.linalg.qr(dense @ rng.standard_normal((dense.shape[1], width)))[0]
    for _ in range(POWER_ITERATIONS if width < min(dense.shape) else 0):
        basis = np.linalg.qr(dense @ np.linalg.qr(dense.T @ basis)[0])[0]
    u, s, vt = np.linalg.svd(basis.T @ dense, full_matrices=False)
    return Components(basis @ u, s, vt).take(slice(rank))


def to_factors(components: Components, config: LoraConfig, rng: np.random.Generator) -> tuple[Array, Array]:
    """(A, B) of the configured rank and scale for at most that many components, the strongest if there are more.

    A's rows come out with the norm of a Kaiming start and B carries the magnitude, so that a child whose parents
    hardly changed anything can still learn; rows without a component are a Kaiming start.
    """
    u, s, vt = components.take(slice(config.rank))
    into = vt.shape[1]
    gauge = 3**-0.5  # norm of a Kaiming-uniform row: each of its `into` entries has variance 1 / (3 * into)
    a = kaiming(rng, config.rank, into)
    b = np.zeros((u.shape[0], config.rank), np.float32)
    a[: len(s)] = gauge * vt
    b[:, : len(s)] = u * s * (config.rank / config.alpha / gauge)
    return a, b


def kaiming(rng: np.random.Generator, rank: int, into: int) -> Array:
    """`torch.nn.init.kaiming_uniform_(a=sqrt(5))`: uniform within `1 / sqrt(fan in)`."""
    return rng.uniform(-1, 1, (rank, into)).astype(np.float32) * np.float32(into**-0.5)
