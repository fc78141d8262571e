"""The trainer's part of a run file: which objective makes weights out of records, and on what."""

from typing import Annotated, Literal

from pydantic import Field

from telemetry.config import Config


class LoraConfig(Config):
    """Shape of every adapter of the run."""

    rank: int = Field(default=16, ge=1, le=512)
    """Rank of the weight change per module."""
    alpha: int = Field(default=16, ge=1, le=4096)
    """Scale numerator: the weight change is `alpha / rank * B @ A`."""
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Last name parts of the linear modules that get a weight change."""


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


MutationConfig = Annotated[GaussianMutation | SpectralMutation | MaskingMutation, Field(discriminator="kind")]


class SftConfig(Config):
    """Filtered, advantage-weighted behaviour cloning of the parents' good decisions.

    A decision's advantage is its short-horizon discounted change of energy, standardised over the parents'
    decisions of the generation; only decisions above the threshold are learned, each weighted by its advantage.
    (Peng et al. 2019, advantage-weighted regression; Dong et al. 2023, RAFT.)
    """

    kind: Literal["sft"] = "sft"
    likelihood: Literal["legal", "vocabulary"] = "legal"
    """Raise a decision's likelihood among the legal actions it was drawn from, or among all tokens there are."""
    lookahead: int = Field(default=2, ge=1, le=1000)
    """Steps over which a decision's change of energy is counted."""
    discount: float = Field(default=0.8, gt=0, le=1)
    """Factor per step of lookahead."""
    threshold: float = Field(default=1.0, ge=0, le=10)
    """Standard deviations above the mean from which a decision is worth learning."""
    max_weight: float = Field(default=4.0, gt=0, le=100)
    """Cap of a decision's weight, in standard deviations."""
    max_examples: int = Field(default=192, ge=1, le=1_000_000)
    """Decisions per job; the best are taken, balanced over actions."""
    epochs: int = Field(default=2, ge=1, le=100)
    """Passes over the examples."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Examples per update."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of updates over which the learning rate rises to its peak; it then falls linearly."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000)
    """Gradient clipping."""


class ScriptedConfig(Config):
    """No learning at all: a small adapter drawn from a hash of the training set. For tests and dry runs."""

    kind: Literal["scripted"] = "scripted"
    shift: float = Field(default=0.5, gt=0, le=10)
    """Standard deviation of the drawn factors: how far play shifts."""


ObjectiveConfig = Annotated[SftConfig | ScriptedConfig, Field(discriminator="kind")]


class TrainerConfig(Config):
    """How newborns get their weights."""

    enabled: bool = True
    """False freezes the weights: newborns keep their parents' (crossed and mutated) adapters."""
    objective: ObjectiveConfig = SftConfig()
    """What is learned from the records."""
    lora: LoraConfig = LoraConfig()
    """Shape of the adapters."""
    jobs: int = Field(default=1, ge=1, le=10_000)
    """Trainer actors: jobs that run at the same time."""
    gpus_per_job: float = Field(default=0.0, ge=0, le=64)
    """GPUs of each trainer actor; 0 trains on the CPU."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of each job; 0 takes all cores of the machine."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 keeps fp32 weights and computes under bfloat16 autocast; auto does so where the hardware multiplies bf16."""
    retries: int = Field(default=1, ge=0, le=100)
    """Further tries at a failed job; after them the child keeps its first parent's adapter."""
    timeout: float = Field(default=3600.0, gt=0, le=604_800)
    """Seconds one job may take."""
