"""What all objectives that learn with gradients share: TRL's trainer on packed rows of the parents' decisions.

Loss is taken on completion tokens only: what the world said is never learned.
"""

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import pyarrow as pa
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from telemetry.adapters import LoraWeights
from telemetry.seeds import rng
from trainer.config_objectives import LearningConfig
from trainer.examples import Examples
from trainer.group import Group
from trainer.job import TrainingJob
from trainer.objectives import Fit, Load, TrainingFailed
from trainer.packing import Likelihoods, Row, collate
from trainer.policy import Policy, weights_of

C = TypeVar("C", bound=LearningConfig)


Reference = tuple[Policy, Any]
"""A policy, and the model of it that wears what is compared with."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loss is made of. Tokens are the completion tokens of all examples, in order."""

    taken: torch.Tensor
    """[tokens]: log-probability of each under the weights in training."""
    example: torch.Tensor
    """[tokens]: number of the example in the batch."""
    value: torch.Tensor
    """[examples]: what the objective made of each."""
    drawn: torch.Tensor
    """[tokens]: log-probability when it was drawn; empty where the objective does not ask."""
    reference: torch.Tensor
    """[tokens]: log-probability before training; empty where the objective does not ask."""
    divergence: torch.Tensor
    """[tokens]: Kullback-Leibler divergence from the reference where each was drawn; empty likewise."""
    known: torch.Tensor
    """[tokens]: true where the choices are known, and the divergence exact."""
    promise: torch.Tensor
    """[tokens]: worth of what would be chosen there, in expectation; empty where the objective does not ask."""

    def sums(self, tokens: torch.Tensor) -> torch.Tensor:
        """[examples]: sum over the tokens of each."""
        return torch.zeros_like(self.value).index_add(0, self.example, tokens)


class Learned(ABC, Generic[C]):
    """Fits training sets one after another on one frozen base model."""

    def __init__(self, config: C, policy: Policy, load: Load) -> None:
        self.config = config
        self.policy = policy
        self.load = load

    def join(self, group: Group) -> None:
        """From now on every fit is shared with the processes of the group, which call it alike."""
        self.policy.join(group)

    def compares(self) -> bool:
        """True where the loss compares with a reference."""
        return False

    @contextmanager
    def reference(self, start: LoraWeights, job: TrainingJob) -> Iterator[Reference]:
        """What the loss compares with: where the child starts."""
        with self.policy.wearing(start) as model:
            yield self.policy, model

    @abstractmethod
    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """The training set of a job out of committed steps (schema EXPERIENCE). Raises NoExamples."""

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar to be minimised."""

    def fit(self, start: LoraWeights, examples: Examples, job: TrainingJob) -> Fit:
        """Trains `start`. Raises TrainingFailed as soon as a loss is not finite."""
        rows = _rows(examples, self.config.likelihood == "legal")
        if self.compares():
            with self.reference(start, job) as (policy, model):
                self._refer(policy, model, rows)
        with self.policy.wearing(start) as model, tempfile.TemporaryDirectory() as scratch:
            order = batches(len(rows) // examples.group, self.config.epochs, job.seed)
            members = range(examples.group)
            dataset = Dataset.from_list([rows[index * examples.group + one] for index in order for one in members])
            trainer = self._trainer(model, dataset, examples.group, job, scratch)
            trainer.train()
            weights = weights_of(model, start)
        return Fit(weights, examples.tokens * self.config.epochs, trainer.losses)

    def _refer(self, policy: Policy, model: Any, rows: list[dict[str, Any]]) -> None:
        """Notes what the reference would do. Every process of a group does so for all rows: there is no gradient."""
        size = self.config.batch_size
        with torch.no_grad():
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                for packed in collate(part)["parts"][0]:
                    row = {name: tensor.to(model.device) for name, tensor in packed.items()}
                    found = policy.likelihoods(model, row)
                    for example, taken, allowed in zip(row["example"].tolist(), *found, strict=True):
                        count = len(part[example]["choice_ids"])
                        part[example]["reference"].append(float(taken))
                        part[example]["reference_allowed"] = allowed[:count].tolist()

    def batch(self, model: PeftModel, parts: list[list[Row]]) -> Batch:
        """A collated batch under the weights in training; each process of a group runs the model on its own part."""
        group = self.policy.group
        rows = [row for part in parts for row in part]
        own = parts[group.rank]
        found = [self.policy.likelihoods(model, row) for row in own]
        idle = max(map(len, parts)) - len(own) if self.policy.sharded else 0
        in_step = [self.policy.likelihoods(model, rows[0]).taken[:0] for _ in range(idle)]
        tokens = [sum(len(row["targets"]) for row in part) for part in parts]

        def gathered(values: list[torch.Tensor], present: bool) -> torch.Tensor:
            # A process without rows takes part with nothing, but in the graph: its gradient is zero.
            nothing = next(one for one in model.parameters() if one.requires_grad).flatten()[:0]
            return group.gather(torch.cat([nothing, *in_step, *values]), tokens if present else [0] * len(tokens))

        joined = {
            name: torch.cat([row[name] for row in rows]) for name in ("example", "value", "logprobs", "reference")
        }
        divergences = [_divergence(one, row) for one, row in zip(found, own, strict=True)]
        promises = [_promise(one, row) for one, row in zip(found, own, strict=True)]
        return Batch(
            taken=gathered([one.taken for one in found], True),
            example=joined["example"],
            value=joined["value"],
            drawn=joined["logprobs"],
            reference=joined["reference"],
            divergence=gathered(divergences, len(joined["reference"]) > 0),
            known=torch.cat([(row["allowed"] >= 0).any(1) for row in rows]),
            promise=gathered(promises, rows[0]["worth"].shape[1] > 0),
        )

    def _trainer(
        self, model: PeftModel, dataset: Dataset, group: int, job: TrainingJob, scratch: str
    ) -> "ObjectiveTrainer":
        config = self.config
        size = config.batch_size * group
        updates = -(-len(dataset) // size)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        rate = job.child.genome.hyperparameters.learning_rate
        exact = [parameter.data for parameter in parameters]
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: slope(step, updates, config.warmup))
        arguments = TrlConfig(
            output_dir=scratch,
            per_device_train_batch_size=size,
            num_train_epochs=1,  # the dataset already holds every pass
            train_sampling_strategy="sequential",
            max_grad_norm=config.max_grad_norm,
            seed=job.seed % 2**32,
            bf16=False,  # autocast is entered by the policy, which leaves no wrapper on the base model
            use_cpu=not self.policy.on_gpu,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = ObjectiveTrainer(
            model,
            arguments,
            partial(collate, parts=self.policy.group.size),
            dataset,
            processing_class=self.policy.tokenizer,
            optimizers=(optimizer, schedule),
        )
        # On a quantised model TRL rounds what is learned to bfloat16.
        for parameter, data in zip(parameters, exact, strict=True):
            parameter.data = data
        trainer.remove_callback(PrinterCallback)
        trainer.objective = self
        return trainer


class ObjectiveTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the loss of an objective."""

    objective: Learned[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective's loss of a batch. Raises TrainingFailed if it is not finite."""
        loss = self.objective.loss(self.objective.batch(model, inputs["parts"]))
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise TrainingFailed(f"the loss of update {len(self.losses)} is not finite")
        return (loss, {}) if return_outputs else loss

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One step back, over the processes of the group."""
        loss: torch.Tensor = super().training_step(model, *args, **kwargs)
        self.objective.policy.group.add_up(model.parameters())
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the count would be of another input layout, and it is not reported."""
        return 0


def batches(count: int, epochs: int, seed: int) -> list[int]:
    """Order in which `count` examples are seen: a fresh addressed shuffle per pass."""
    return [int(index) for epoch in range(epochs) for index in rng(seed, "batches", epoch).permutation(count)]


def slope(step: int, updates: int, warmup: float) -> float:
    """Share of the peak learning rate at update `step` of `updates`: a linear rise, then a linear fall, never 0."""
    rise = int(warmup * updates)
    return (step + 1) / (rise + 1) if step < rise else max(updates - step, 0) / max(updates - rise, 1)


def _divergence(found: Likelihoods, row: Row) -> torch.Tensor:
    """[tokens]: KL(now || reference), exact over the choices, else estimated from the token (Schulman's k3)."""
    reference = row["reference"]
    if not len(reference):
        return reference
    gap = reference - found.taken
    estimate = gap.exp() - gap - 1
    if not found.allowed.shape[1]:
        return estimate
    present = row["allowed"] >= 0
    change = torch.where(present, found.allowed - row["reference_allowed"].nan_to_num(neginf=0.0), 0.0)
    return torch.where(present.any(1), (found.allowed.exp() * change).sum(1), estimate)


def _promise(found: Likelihoods, row: Row) -> torch.Tensor:
    """[tokens]: expected worth of the choice; empty where nobody knows what the others would have been worth."""
    worth = row["worth"]
    return (found.allowed.exp() * worth).sum(1) if worth.shape[1] else worth.new_empty(0)


def _rows(examples: Examples, among_legal: bool) -> list[dict[str, Any]]:
    count = len(examples.keys)
    return [
        {
            "prompt_ids": examples.prompt_ids[index],
            "completion_ids": examples.completion_ids[index],
            "choice_ids": examples.choice_ids[index] if among_legal else [],
            "value": float(examples.values[index]),
            "worths": examples.worths[index] if examples.worths else [],
            "temperature": examples.temperatures[index] if examples.temperatures else 1.0,
            "logprobs": examples.logprobs[index] if examples.logprobs else [],
            "reference": [],
            "reference_allowed": [],
        }
        for index in range(count)
    ]
