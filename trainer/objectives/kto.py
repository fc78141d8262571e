"""Kahneman-Tversky optimisation: learn from decisions that went well or badly, each on its own."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from trainer.config_objectives import KtoConfig
from trainer.examples import Codes, Decisions, Examples, NoExamples, decisions, in_rounds
from trainer.job import TrainingJob
from trainer.objectives.learned import Batch, Learned


class Kto(Learned[KtoConfig]):
    """Makes good decisions likelier than under the reference, and bad ones less likely."""

    def compares(self) -> bool:
        """Always."""
        return True

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """As many good as bad decisions, where there are; values are their signed weights."""
        found, config = decisions(steps, job, self.config), self.config
        candidates = np.flatnonzero(found.credit > config.threshold)
        good = in_rounds(candidates, found.credit, found.actions)[: max(1, config.max_examples // 2)]
        if len(good) == 0:
            raise NoExamples(
                f"none of {found.table.num_rows} decisions lies {config.threshold:g} deviations above the mean"
            )
        bad = counterparts(found, good, config.threshold)
        weight = config.balance * len(good) / max(len(bad), 1)
        chosen = np.concatenate([good, bad])
        examples = found.examples(chosen, np.concatenate([np.ones(len(good)), np.full(len(bad), -weight)]))
        return examples if all(examples.choice_ids) and config.likelihood == "legal" else _with_twins(examples)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Equation 7 of the paper; rows of value 0 are twins, which only measure the divergence.

        Where the actions are known the divergence is exact, else estimated on the twins, as the authors do.
        """
        ratio = batch.sums(batch.taken - batch.reference)
        twin = batch.value == 0
        divergence = ratio[twin] if twin.any() else batch.sums(batch.divergence)
        point = divergence.mean().clamp(min=0).detach()
        gain = torch.sigmoid(self.config.beta * batch.value.sign() * (ratio - point))
        return (batch.value.abs() * (1 - gain)).sum() / (~twin).sum()


def counterparts(found: Decisions, good: Codes, threshold: float) -> Codes:
    """As many bad decisions as good ones: of each action as many as are good, the worst, if below the mean.

    So what tells the good from the bad is the situation, not the action, which would otherwise be learned for every
    situation. Where an action has too few, others beyond the threshold take their place, in rounds over the actions.
    """
    actions, order = found.actions, np.argsort(found.credit, kind="stable")
    order = order[found.credit[order] < 0]
    kinds, numbers = np.unique(actions[good], return_counts=True)
    same = np.concatenate([order[actions[order] == kind][:number] for kind, number in zip(kinds, numbers, strict=True)])
    others = np.setdiff1d(np.flatnonzero(found.credit < -threshold), same)
    return np.concatenate([same, in_rounds(others, -found.credit, actions)[: len(good) - len(same)]])


def _with_twins(examples: Examples) -> Examples:
    """Every example followed by its prompt with the completion of another, of value 0."""
    count = len(examples.keys)
    own = [index for index in range(count) for _ in range(2)]
    completions = [(index + twin) % count for index in range(count) for twin in range(2)]
    values = np.zeros(2 * count, np.float32)
    values[::2] = examples.values
    return replace(
        examples,
        keys=[examples.keys[index] for index in own],
        prompt_ids=[examples.prompt_ids[index] for index in own],
        completion_ids=[examples.completion_ids[index] for index in completions],
        choice_ids=[[] for _ in own],
        values=values,
        group=2,
    )
