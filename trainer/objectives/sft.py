"""Advantage-weighted supervised fine-tuning of LoRA weights with TRL and PEFT.

The base model is loaded once and never changes: each job attaches an adapter, trains it and takes it off again.
Loss is taken on completion tokens only, and computed only where it counts. A batch becomes one row: the beginning
that its prompts share (the rules of the world, the strategy) once, then every prompt's own rest, which an attention
mask lets see the shared beginning and itself. That is the same arithmetic as one padded row per example, without the
padding and the repetition; and the softmax over the vocabulary runs only where a completion token is predicted.
"""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from telemetry.adapters import LoraWeights
from telemetry.failures import UsageError
from telemetry.lora import last_part, tensor_name
from telemetry.seeds import rng
from trainer.config import SftConfig, TrainerConfig
from trainer.examples import Examples
from trainer.job import TrainingJob
from trainer.objectives import Fit, TrainingFailed

MAX_ROW = 2048
"""Tokens of a packed row: attention costs the square of it."""


class Sft:
    """Fits training sets one after another on one frozen base model."""

    def __init__(self, config: TrainerConfig, model: Path | None) -> None:
        """`model` is a directory with safetensors weights, `config.json` and `tokenizer.json`."""
        if not isinstance(config.objective, SftConfig):
            raise TypeError(f"objective {config.objective.kind!r} is not sft")
        if model is None:
            raise UsageError("trainer.objective.kind: got sft, expected scripted; the scripted engine has no weights")
        torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
        self._objective = config.objective
        self._on_gpu = config.gpus_per_job > 0
        self._autocast = config.precision == "bf16" or (config.precision == "auto" and _multiplies_bf16(self._on_gpu))
        # TRL insists on a tokenizer although its input is tokenised already; this one needs no other file.
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
        base = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, local_files_only=True, attn_implementation="sdpa"
        )
        others = set(getattr(base.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if others:
            raise UsageError(f"model: got {', '.join(sorted(others))} layers, expected attention in every layer")
        self._base = base.to("cuda" if self._on_gpu else "cpu").requires_grad_(False)

    def fit(self, start: LoraWeights, examples: Examples, job: TrainingJob) -> Fit:
        """Trains `start`. Raises TrainingFailed as soon as a loss is not finite."""
        order = batches(len(examples.prompt_ids), self._objective.epochs, job.seed)
        dataset = _dataset(examples, order, self._objective.likelihood == "legal")
        with self._attached(start) as model, tempfile.TemporaryDirectory() as scratch:
            trainer = self._trainer(model, dataset, job, scratch)
            trainer.train()
            weights = _read(model, start)
        return Fit(weights, examples.tokens * self._objective.epochs, trainer.losses)

    def _trainer(self, model: PeftModel, dataset: Dataset, job: TrainingJob, scratch: str) -> "WeightedSft":
        config = self._objective
        updates = -(-len(dataset) // config.batch_size)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        rate = job.child.genome.hyperparameters.learning_rate
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: slope(step, updates, config.warmup))
        arguments = TrlConfig(
            output_dir=scratch,
            per_device_train_batch_size=config.batch_size,
            num_train_epochs=1,  # the dataset already holds every pass
            train_sampling_strategy="sequential",
            max_grad_norm=config.max_grad_norm,
            seed=job.seed % 2**32,
            bf16=False,  # autocast is entered in compute_loss, which leaves no wrapper on the base model
            use_cpu=not self._on_gpu,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = WeightedSft(
            model, arguments, collate, dataset, processing_class=self._tokenizer, optimizers=(optimizer, schedule)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.autocast = self._autocast
        return trainer

    @contextmanager
    def _attached(self, start: LoraWeights) -> Iterator[PeftModel]:
        targets = sorted({last_part(module) for module in start.factors})
        adapter = LoraConfig(
            r=start.rank, lora_alpha=start.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        model = get_peft_model(self._base, adapter)
        try:
            _write(model, start)
            yield model
        finally:
            self._base = model.unload().requires_grad_(False)
            # TRL replaces the base model's forward by an instance attribute; left there, jobs would nest it.
            self._base.__dict__.pop("forward", None)
            self._base.__dict__.pop("peft_config", None)


class WeightedSft(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with a weight per example and logits only where a completion token is predicted."""

    autocast = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of weight times negative log-likelihood over the number of completion tokens.

        With all weights 1 and no token ruled out this is the loss of SFTTrainer. Raises TrainingFailed if it is not
        finite.
        """
        total, tokens, outputs = torch.zeros(()), 0, []
        for row in inputs["rows"]:
            targets, weights, allowed = row.pop("targets"), row.pop("weights"), row.pop("allowed")
            with torch.autocast(targets.device.type, torch.bfloat16, enabled=self.autocast):
                outputs.append(model(**row, use_cache=False))
            nll = negative_log_likelihood(outputs[-1].logits[0].float(), targets, allowed)
            total = total.to(nll.device) + (nll * weights).sum()
            tokens += len(targets)
        loss = total / tokens
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise TrainingFailed(f"the loss of update {len(self.losses)} is not finite")
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the count would be of another input layout, and it is not reported."""
        return 0


def negative_log_likelihood(logits: torch.Tensor, targets: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """[tokens]: of each target among the allowed tokens of its row, or among all where the row allows none.

    logits: [tokens, vocabulary]; targets: [tokens]; allowed: [tokens, choices], padded with -1.
    """
    among_all = logits.logsumexp(1)
    if allowed.shape[1] > 0:
        scores = logits.gather(1, allowed.clamp(min=0)).masked_fill(allowed < 0, -math.inf)
        among_all = torch.where((allowed >= 0).any(1), scores.logsumexp(1), among_all)
    return among_all - logits.gather(1, targets[:, None]).squeeze(1)


def batches(count: int, epochs: int, seed: int) -> list[int]:
    """Order in which `count` examples are seen: a fresh addressed shuffle per pass."""
    return [int(index) for epoch in range(epochs) for index in rng(seed, "batches", epoch).permutation(count)]


def _multiplies_bf16(on_gpu: bool) -> bool:
    """A CPU without bf16 instructions emulates them, at a quarter of the speed of fp32."""
    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(present is True for name, present in torch.cpu.get_capabilities().items() if "bf16" in name)


def slope(step: int, updates: int, warmup: float) -> float:
    """Share of the peak learning rate at update `step` of `updates`: a linear rise, then a linear fall, never 0."""
    rise = int(warmup * updates)
    return (step + 1) / (rise + 1) if step < rise else max(updates - step, 0) / max(updates - rise, 1)


def collate(examples: list[dict[str, Any]]) -> dict[str, list[dict[str, torch.Tensor]]]:
    """A batch as rows of at most MAX_ROW tokens (a single longer example is a row of its own)."""
    rows: list[list[dict[str, Any]]] = [[]]
    for example in examples:
        if rows[-1] and _packed_length([*rows[-1], example]) > MAX_ROW:
            rows.append([])
        rows[-1].append(example)
    return {"rows": [pack(row) for row in rows]}


def pack(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """One row for several examples; the last token of each is left out, because it predicts nothing.

    `input_ids` and `position_ids` [1, length]; `attention_mask` [1, 1, length, length], true where the second index
    may be seen by the first; `logits_to_keep`, `targets` and `weights` [completion tokens]; `allowed` [completion
    tokens, most choices], padded with -1.
    """
    inputs = [example["prompt_ids"] + example["completion_ids"][:-1] for example in examples]
    shared = _shared(inputs)
    ids, positions, owners = list(inputs[0][:shared]), list(range(shared)), [0] * shared
    keep: list[int] = []
    for number, (tokens, example) in enumerate(zip(inputs, examples, strict=True), 1):
        ids += tokens[shared:]
        positions += range(shared, len(tokens))
        owners += [number] * (len(tokens) - shared)
        keep += range(len(ids) - len(example["completion_ids"]), len(ids))
    owner, position = torch.tensor(owners), torch.tensor(positions)
    choices = [example["choice_ids"] for example in examples for _ in example["completion_ids"]]
    widest = max(map(len, choices))
    visible = (owner[:, None] == owner) | (owner == 0)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": position[None],
        "attention_mask": (visible & (position <= position[:, None]))[None, None],
        "logits_to_keep": torch.tensor(keep),
        "targets": torch.tensor([token for example in examples for token in example["completion_ids"]]),
        "weights": torch.tensor([example["weight"] for example in examples for _ in example["completion_ids"]]),
        "allowed": torch.tensor([[*row, *[-1] * (widest - len(row))] for row in choices], dtype=torch.long),
    }


def _shared(inputs: list[list[int]]) -> int:
    """Length of the longest common beginning that leaves every input a token of its own to predict from."""
    limit = min(map(len, inputs)) - 1
    columns = zip(*(tokens[:limit] for tokens in inputs), strict=True)
    return next((index for index, column in enumerate(columns) if len(set(column)) > 1), limit)


def _packed_length(examples: list[dict[str, Any]]) -> int:
    inputs = [example["prompt_ids"] + example["completion_ids"][:-1] for example in examples]
    return sum(map(len, inputs)) - (len(inputs) - 1) * _shared(inputs)


def _dataset(examples: Examples, order: list[int], among_legal: bool) -> Dataset:
    columns = {
        "prompt_ids": [examples.prompt_ids[index] for index in order],
        "completion_ids": [examples.completion_ids[index] for index in order],
        "choice_ids": [examples.choice_ids[index] if among_legal else [] for index in order],
        "weight": examples.weights[order].tolist(),
    }
    return Dataset.from_dict(columns)


def _write(model: PeftModel, weights: LoraWeights) -> None:
    state = {}
    for module, (a, b) in weights.factors.items():
        state[tensor_name(module, "A")] = torch.from_numpy(a.copy())
        state[tensor_name(module, "B")] = torch.from_numpy(b.copy())
    outcome = set_peft_model_state_dict(model, state)
    if outcome.unexpected_keys:
        raise TrainingFailed(f"the base model has no module for {outcome.unexpected_keys[0]}")


def _read(model: PeftModel, start: LoraWeights) -> LoraWeights:
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    factors = {}
    for module in start.factors:
        a, b = (state[tensor_name(module, factor)].detach().cpu().numpy() for factor in "AB")
        factors[module] = (a.astype(np.float32), b.astype(np.float32))
    return LoraWeights(start.rank, start.alpha, factors)
