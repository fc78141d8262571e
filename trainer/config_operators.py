"""How the weights of parents become the start of a child's: crossover and mutation, one typed config each."""

from typing import Annotated, Literal

from pydantic import Field

from telemetry.config import Config


class LinearCrossover(Config):
    """Weighted sum of the parents' weight changes, exact, then truncated to the adapter's rank."""

    kind: Literal["linear"] = "linear"


class ExtrapolatingCrossover(Config):
    """Beyond the fitter parent, away from the other: weights `1 + r` and `-r` with r drawn up to `reach`."""

    kind: Literal["extrapolation"] = "extrapolation"
    reach: float = Field(default=0.5, gt=0, le=1)
    """How far beyond, as a share of the parents' difference (PopuLoRA, arXiv 2605.16727: 0.5)."""


class TiesCrossover(Config):
    """Trim, elect a sign for each weight, mean of the parents that agree with it (Yadav et al. 2023)."""

    kind: Literal["ties"] = "ties"
    density: float = Field(default=0.2, gt=0, le=1)
    """Share of the largest entries of each parent's change that count."""


class DareCrossover(Config):
    """Drop entries at random, rescale the rest, weighted sum (Yu et al. 2023)."""

    kind: Literal["dare"] = "dare"
    drop: float = Field(default=0.7, ge=0, lt=1)
    """Share of entries dropped."""


class SubspaceCrossover(Config):
    """Each parent's strongest singular components at full strength, as many as its weight is of the whole."""

    kind: Literal["subspace"] = "subspace"


CrossoverConfig = Annotated[
    LinearCrossover | ExtrapolatingCrossover | TiesCrossover | DareCrossover | SubspaceCrossover,
    Field(discriminator="kind"),
]


class GaussianMutation(Config):
    """Noise on the factors, relative to each factor's own standard deviation."""

    kind: Literal["gaussian"] = "gaussian"
    rate: float = Field(default=1.0, ge=0, le=1)
    """Probability that a child mutates."""
    strength: float = Field(default=0.02, ge=0, le=1)
    """Standard deviation of the noise, in standard deviations of the factor."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the modules, drawn at random, that get noise."""


class SpectralMutation(Config):
    """Singular values scaled and singular vectors rotated, each a little."""

    kind: Literal["spectral"] = "spectral"
    rate: float = Field(default=1.0, ge=0, le=1)
    """Probability that a child mutates."""
    strength: float = Field(default=0.1, gt=0, le=1)
    """Standard deviation of the singular values' logarithms, and of the rotations' generators."""


class MaskingMutation(Config):
    """Singular components dropped at random."""

    kind: Literal["masking"] = "masking"
    rate: float = Field(default=0.2, ge=0, le=1)
    """Probability that a child mutates."""
    share: float = Field(default=0.3, gt=0, lt=1)
    """Share of components dropped."""


def spares_all(config: "MutationConfig") -> bool:
    """True for a mutation that leaves everybody alone."""
    return config.rate == 0 or (isinstance(config, GaussianMutation) and config.strength == 0)


MutationConfig = Annotated[GaussianMutation | SpectralMutation | MaskingMutation, Field(discriminator="kind")]
