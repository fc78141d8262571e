"""Advantage-weighted behaviour cloning: supervised fine-tuning on the good decisions."""

import pyarrow as pa
import torch

from trainer.config_objectives import SftConfig
from trainer.examples import Examples, decisions, good_decisions
from trainer.job import TrainingJob
from trainer.objectives.learned import Batch, Learned


class Sft(Learned[SftConfig]):
    """Raises the likelihood of what went well."""

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """Decisions above the threshold with their weights."""
        return good_decisions(decisions(steps, job, self.config), self.config)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of weight times negative log-likelihood over the number of completion tokens.

        With all weights 1 and no token ruled out this is the loss of TRL's SFTTrainer.
        """
        return -(batch.taken * batch.value[batch.example]).sum() / len(batch.taken)
