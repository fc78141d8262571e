"""Distillation: a champion's play, or a larger model's, becomes the child's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from telemetry.adapters import LoraWeights
from telemetry.failures import UsageError
from telemetry.seeds import rng
from trainer.config_objectives import DistillConfig
from trainer.examples import Examples, NoExamples, decisions, in_rounds
from trainer.job import TrainingJob
from trainer.objectives import Load
from trainer.objectives.learned import Batch, Learned, Reference
from trainer.policy import Policy


class Distill(Learned[DistillConfig]):
    """Brings the child's distribution over the actions near the teacher's, wherever the parents have been."""

    def __init__(self, config: DistillConfig, policy: Policy, load: Load) -> None:
        """Raises UsageError for a teacher that speaks other tokens."""
        super().__init__(config, policy, load)
        self.larger: Policy | None = None
        if config.teacher is not None:
            self.larger = Policy(policy.config, _same_words(Path(config.teacher), policy.model))

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """Decisions drawn at random, in rounds over the actions; of free text only the teacher's own."""
        found, config = decisions(steps, job, self.config), self.config
        chosen = np.flatnonzero(pc.list_value_length(found.table["choice_ids"]).to_numpy() > 0)
        if config.likelihood == "vocabulary" or len(chosen) == 0:
            teacher = "" if job.teacher is None else job.teacher.individual
            chosen = np.flatnonzero(pc.equal(found.table["individual"], teacher).to_numpy())
        if len(chosen) == 0:
            raise NoExamples("the teacher left no decisions to learn from")
        order = rng(job.seed, "distill").random(found.table.num_rows)
        chosen = in_rounds(chosen, order, found.actions)[: config.max_examples]
        return found.examples(chosen, np.ones(len(chosen)))

    def compares(self) -> bool:
        """Always: with the teacher."""
        return True

    @contextmanager
    def reference(self, start: LoraWeights, job: TrainingJob) -> Iterator[Reference]:
        """The larger model as it is, or the base model with the fittest survivor's adapter."""
        if self.larger is not None:
            yield self.larger, self.larger.base
            return
        adapter = None if job.teacher is None else job.teacher.adapter
        factors = {module: (a, np.zeros_like(b)) for module, (a, b) in start.factors.items()}
        untouched = LoraWeights(start.rank, start.alpha, factors)
        with self.policy.wearing(untouched if adapter is None else self.load(adapter)) as model:
            yield self.policy, model

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean divergence where the actions are known, negative log-likelihood of the teacher's words elsewhere."""
        return torch.where(batch.known, batch.divergence, -batch.taken).mean()


def _same_words(teacher: Path, student: Path) -> Path:
    """The teacher's directory. Raises UsageError unless both have the same tokenizer."""
    files = [directory / "tokenizer.json" for directory in (teacher, student)]
    try:
        same = files[0].read_bytes() == files[1].read_bytes()
    except OSError as error:
        raise UsageError(f"trainer.objective.teacher: {error.filename}: {error.strerror}") from error
    if not same:
        raise UsageError(
            f"trainer.objective.teacher: got {teacher}, expected a model with the tokenizer of {student.name}, because"
            " records are token ids"
        )
    return teacher
