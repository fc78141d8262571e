"""How a population becomes the next one: who survives, and how births are made."""

from typing import Literal

from pydantic import Field

from telemetry.config import Config
from trainer.config_operators import CrossoverConfig, GaussianMutation, LinearCrossover, MutationConfig


class HalvingConfig(Config):
    """Successive halving: whoever is clearly worse than enough others after some of the lives does not live the rest.

    Compared life by life in the same worlds, and never on a point estimate: only where an interval of the difference
    says so. (Jamieson & Talwalkar 2016, arXiv 1502.07943, with confidence in place of halves.)
    """

    first: float = Field(default=0.25, gt=0, lt=1)
    """Share of the lives before the first comparison; each further one comes after twice as many."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of all comparisons of a generation together."""


class SelectionConfig(Config):
    """Who survives, by fitness."""

    method: Literal["truncation", "tournament", "softmax", "clearing", "lottery"] = "truncation"
    """The fittest; winners of small tournaments; a draw by rank; the fittest of each way of acting; or, as a control, a
    draw. Elites survive with each."""
    contestants: int = Field(default=3, ge=1, le=100_000)
    """Individuals of a tournament."""
    pressure: float = Field(default=0.3, gt=0, le=100)
    """Softmax: share of the population over which the odds to survive fall by a factor of e."""
    niche: float = Field(default=0.02, gt=0, le=1)
    """Clearing: bits by which two ways of acting must differ for both to have a place before any way has two."""
    halving: HalvingConfig | None = None
    """Ends the generation early for the clearly unfit; not in a shared world, where all live together."""
    recheck: float | None = Field(default=None, ge=0, le=1000)
    """Interval widths above the last generation's best from which a fitness is measured again, in fresh worlds."""
    survivors: float = Field(default=0.5, gt=0, le=1)
    """Share of the population that may breed; the rest is culled."""
    elites: int = Field(default=1, ge=0)
    """Fittest individuals that live on unchanged and prove themselves again on the next generation's worlds."""


class ReproductionConfig(Config):
    """How births are made."""

    migration: int = Field(default=5, ge=0, le=1_000_000)
    """Every so many generations the fittest of each island also breeds on the next one; 0 for never."""
    crossover: float = Field(default=0.3, ge=0, le=1)
    """Probability that a child has two parents."""
    learn_from: Literal["parents", "survivors"] = "survivors"
    """Whose records a child is trained on: its own parents', or those of all survivors of the generation."""
    weight_crossover: CrossoverConfig = LinearCrossover()
    """How the weights of two parents are combined."""
    weight_mutation: MutationConfig = GaussianMutation()
    """What happens to a child's weights before they are trained."""
    hyperparameter_mutation: float = Field(default=0.2, ge=0, lt=1)
    """Each hyperparameter is multiplied or divided by one plus this, with equal probability (Jaderberg et al. 2017)."""
    objective_mutation: float = Field(default=0.0, ge=0, le=1)
    """Probability that a child learns by an objective drawn from all of the trainer's, not by its first parent's."""
    epsilon_decay: float = Field(default=0.5, gt=0, le=1)
    """Factor on a child's epsilon and novelty, before mutation: it explores so much less than its first parent."""
    mutate_strategy: bool = True
    """A child with two parents may take over its second parent's strategy text."""
    strategy_mutation: float = Field(default=0.0, ge=0, le=1)
    """Probability that one sentence of a child's strategy is dropped, or replaced or joined by one of the founders'."""
