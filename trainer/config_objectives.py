"""What a child learns from records: one typed config per objective."""

from typing import Annotated, Literal

from pydantic import Field

from telemetry.config import MEMBER, Config


class LearningConfig(Config):
    """What every objective that learns from decisions has in common: their credit, and how the updates are made."""

    likelihood: Literal["legal", "vocabulary"] = "legal"
    """Likelihood of a decision among the legal actions it was drawn from, or among all tokens there are."""
    credit: Literal["energy", "life"] = "energy"
    """What a decision is worth: the change of energy that followed, or the fitness of the whole life it was part of."""
    lookahead: int = Field(default=2, ge=1, le=1000)
    """Steps over which a decision's change of energy is counted."""
    discount: float = Field(default=0.8, gt=0, le=1)
    """Factor per step of lookahead."""
    baseline: Literal["mean", "observation", "successor", "both"] = "mean"
    """Credit is counted from the mean of all decisions, or from what a regression expects of what was observed; or it
    is how much more may be expected after the decision than before, whatever was decided later (no lookahead then); or
    what the first of these and the last (with credit `life`, the second) agree on: nothing where one praises and the
    other blames, else the weaker word of the two."""
    trace: float = Field(default=0.0, ge=0, le=1)
    """Successor, both: factor per further step whose surprises count; 0 trusts the regression, 1 what happened."""
    death: float = Field(default=0.0, ge=0, le=1e6)
    """Energy that dying costs on top of what is lost with it: how much there is to learn from a death."""
    max_examples: int = Field(default=192, ge=1, le=1_000_000)
    """Decisions per job."""
    epochs: int = Field(default=2, ge=1, le=100)
    """Passes over the examples."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Examples per update."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of updates over which the learning rate rises to its peak; it then falls linearly."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000)
    """Gradient clipping."""


class SftConfig(LearningConfig):
    """Filtered, advantage-weighted behaviour cloning of the parents' good decisions.

    Only decisions whose standardised credit lies above the threshold are learned, each weighted by it. (Peng et al.
    2019, advantage-weighted regression; Dong et al. 2023, RAFT.)
    """

    kind: Literal["sft"] = "sft"
    threshold: float = Field(default=1.0, ge=0, le=10)
    """Standard deviations above the mean from which a decision is worth learning."""
    max_weight: float = Field(default=4.0, gt=0, le=100)
    """Cap of a decision's weight, in standard deviations."""


class KtoConfig(LearningConfig):
    """Kahneman-Tversky optimisation: good decisions become likelier than they were, bad ones less, unpaired.

    The reference is the child's start, its parents' weights. (Ethayarajh et al. 2024, arXiv 2402.01306.)
    """

    kind: Literal["kto"] = "kto"
    threshold: float = Field(default=0.5, ge=0, le=10)
    """Standard deviations above the mean from which a decision counts as good; the bad ones are the worst of the same
    actions, or as far below the mean."""
    beta: float = Field(default=0.1, gt=0, le=100)
    """How soon a decision is likely enough: the inverse of the strength of learning far from the reference."""
    balance: float = Field(default=1.0, gt=0, le=100)
    """Weight of all bad decisions together, in weights of all good ones; the authors advise 3/4 to 1."""


class DpoConfig(LearningConfig):
    """Direct preference optimisation of the better of two decisions in the same situation over the worse.

    Situations are the same when the agents saw the same, numbers aside. The reference is the child's start. (Rafailov
    et al. 2023, arXiv 2305.18290.)
    """

    kind: Literal["dpo"] = "dpo"
    gap: float = Field(default=0.5, gt=0, le=10)
    """Standard deviations of credit that must lie between the two."""
    beta: float = Field(default=0.5, gt=0, le=100)
    """How soon the margin between the two is wide enough."""


class GrpoConfig(LearningConfig):
    """Group-relative policy optimisation, off-policy: credit relative to the group of lives in the same world.

    Importance ratios are of the stored log-probabilities that the decisions were drawn with. (Shao et al. 2024, arXiv
    2402.03300, with process supervision.)
    """

    kind: Literal["grpo"] = "grpo"
    likelihood: Literal["legal"] = "legal"
    """Only that: what was stored when a decision was drawn is its likelihood among the legal actions."""
    threshold: float = Field(default=0.0, ge=0, le=10)
    """Smallest advantage, for better or worse, that is learned from."""
    max_ratio: float = Field(default=8.0, ge=1, le=100)
    """Where importance ratios are truncated."""
    clip: bool = True
    """What went well is learned until it is `max_ratio` times as likely as it was drawn, what went badly until it is so
    many times less likely, neither any further (PPO, arXiv 1707.06347); false never stops (CISPO, arXiv 2506.13585)."""
    scale: bool = True
    """Divide by the group's standard deviation; false only subtracts its mean (Liu et al. 2025, Dr. GRPO)."""
    exploration: Literal["model", "policy"] = "policy"
    """Ratio to the probability that the decision was drawn with, or to the model's own, exploration left out."""
    beta: float = Field(default=0.0, ge=0, le=100)
    """Weight of the divergence from the child's start."""


class RegressionConfig(LearningConfig):
    """Forecasts: the least squared error of the number that a decision stands for against what came to be.

    The head is the distribution over the actions, which stand for numbers: what is minimised is the squared error of
    the forecast drawn from it, in expectation, its variance included. Numbers and outcomes are members of the hidden
    state that the world recorded after the step. (Imani & White 2018, arXiv 1806.04613, regression by a distribution.)
    """

    kind: Literal["regression"] = "regression"
    likelihood: Literal["legal"] = "legal"
    """Only that: what is forecast is a distribution over the actions."""
    forecast: str = Field(default="forecast", pattern=MEMBER)
    """Member of the hidden state: the number that the action stood for."""
    outcome: str = Field(default="actual", pattern=MEMBER)
    """Member of the hidden state: what came to be."""
    clip: float = Field(default=4.0, gt=0, le=1000)
    """Outcomes further from their mean than so many standard deviations count as these."""


class DistillConfig(LearningConfig):
    """Do as the fittest would: its distribution over the actions becomes the child's, wherever the parents have been.

    Minimises the divergence from teacher to student, KL(student || teacher) (Gu et al. 2024, arXiv 2306.08543); free
    text is learned from the teacher's own lives (Kim & Rush 2016, arXiv 1606.07947).
    """

    kind: Literal["distill"] = "distill"
    teacher: str | None = Field(default=None, min_length=1, max_length=1000)
    """Directory of a larger model with the same tokenizer; null is the fittest survivor."""


class EsConfig(Config):
    """An evolution strategy: no gradient, only lives. Everybody is one centre plus or minus noise, in mirrored pairs.

    The next centre moves towards the fitter by rank. Noise is on B only: with A in common, the mean of the weight
    changes is the mean of the Bs, exactly. (Salimans et al. 2017, arXiv 1703.03864; ranks as in Wierstra et al. 2014,
    natural evolution strategies; low-rank noise as in EGGROLL, arXiv 2511.16652.)
    """

    kind: Literal["es"] = "es"
    sigma: float = Field(default=0.3, gt=0, le=10)
    """Standard deviation of the noise on every entry of B. A starts small, so it takes much to change a decision: of a
    model of 135M parameters, a third of them at rank 4 and 0.8, one in ten at 0.4, one in a hundred at 0.08."""
    step: float = Field(default=1.0, gt=0, le=3)
    """How far the centre moves: 1 is to the mean of everybody weighted by rank."""


class ScriptedConfig(Config):
    """No learning at all: a small adapter drawn from a hash of the training set. For tests and dry runs."""

    kind: Literal["scripted"] = "scripted"
    shift: float = Field(default=0.5, gt=0, le=10)
    """Standard deviation of the drawn factors: how far play shifts."""


ObjectiveConfig = Annotated[
    SftConfig | KtoConfig | DpoConfig | GrpoConfig | RegressionConfig | DistillConfig | EsConfig | ScriptedConfig,
    Field(discriminator="kind"),
]
