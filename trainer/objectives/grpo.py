"""Group-relative policy optimisation on recorded decisions."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from trainer.config_objectives import GrpoConfig
from trainer.examples import Codes, Examples, NoExamples, Values, decisions, in_rounds
from trainer.job import TrainingJob
from trainer.objectives.learned import Batch, Learned


class Grpo(Learned[GrpoConfig]):
    """Raises the likelihood of what went better than the group's average in the same world, lowers that of the rest."""

    def compares(self) -> bool:
        """Where the divergence from the start counts."""
        return self.config.beta > 0

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """Decisions far from their group's mean, in rounds over actions and signs; values are their advantages.

        Groups without variance hold nothing to learn from and are dropped (DAPO, arXiv 2503.14476). Of the others the
        extremes on both sides are kept, which keeps most of the signal (PODS, arXiv 2504.13818); on both sides of every
        action, or one that was good once would be learned for every situation.
        """
        found, config = decisions(steps, job, self.config), self.config
        groups = found.table["life"].to_numpy().astype(np.int64)
        advantages, flat = relative(found.credit, groups, scale=config.scale)
        alive = np.flatnonzero(~flat & (np.abs(advantages) >= config.threshold))
        if len(alive) == 0:
            number = len(set(groups.tolist()))
            raise NoExamples(
                f"all {number} groups of decisions did equally well within themselves"
                if flat.all()
                else f"no decision of {number} groups is {config.threshold:g} (threshold) from its group's mean"
            )
        sides = 2 * found.actions + (advantages > 0)
        chosen = in_rounds(alive, np.abs(advantages), sides)[: config.max_examples]
        rows = found.table.take(chosen)
        return replace(
            found.examples(chosen, advantages[chosen]),
            logprobs=_drawn(rows, config),
            temperatures=rows["temperature"].to_pylist(),
            dropped=int(flat.sum()),
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        """Advantage times log-likelihood, weighted by truncated importance ratios; mean over the tokens.

        With `clip` the gradient is that of PPO's clipped surrogate, bounded for bad decisions as well (dual-clip PPO,
        arXiv 1912.09729), and bounds are `max_ratio` and its inverse.
        """
        most, advantage = self.config.max_ratio, batch.value[batch.example]
        drift = (batch.taken - batch.drawn).detach()
        weight = drift.exp().clamp(max=most) * advantage
        if self.config.clip:
            weight = weight.where(drift * advantage.sign() < math.log(most), 0.0)
        gain = (weight * batch.taken).mean()
        return self.config.beta * batch.divergence.mean() - gain if self.config.beta > 0 else -gain


def _drawn(rows: pa.Table, config: GrpoConfig) -> list[list[float]]:
    """Log-probability that each completion token was drawn with. Only choices were ever explored beyond the model."""
    stored: list[list[float]] = rows["completion_logprobs"].to_pylist()
    if config.exploration == "model":
        return stored
    policy = np.log(rows["behaviour_probability"].to_numpy()).tolist()
    choices = rows["choice_ids"].to_pylist()
    return [[one] if chosen else model for one, chosen, model in zip(policy, choices, stored, strict=True)]


def relative(credit: Values, groups: Codes, *, scale: bool) -> tuple[Values, NDArray[np.bool_]]:
    """Credit less the group's mean, over its standard deviation if `scale`; and which rows' groups have no variance."""
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    centred = credit - (np.bincount(member, credit) / sizes)[member]
    deviation = np.sqrt(np.bincount(member, centred**2) / sizes)[member]
    flat = deviation <= 1e-9 * max(1.0, float(np.abs(credit).max()))
    return np.where(flat, 0.0, centred / np.where(flat | (not scale), 1.0, deviation)), flat
