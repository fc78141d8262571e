"""The base model of a trainer process: loaded once and never changed, with one adapter on it at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast

from telemetry.adapters import LoraWeights
from telemetry.arithmetic import prefers_bfloat16
from telemetry.failures import UsageError
from telemetry.lora import last_part, tensor_name
from trainer.config import TrainerConfig
from trainer.group import Group
from trainer.objectives import TrainingFailed
from trainer.packing import FORWARD, Likelihoods, Row, likelihoods

Shape = tuple[int, float, tuple[str, ...]]
"""Rank, alpha and modules of an adapter."""


class Policy:
    """A frozen language model, and adapters that are put on it and taken off again."""

    def __init__(self, config: TrainerConfig, model: Path) -> None:
        """`model` is a directory with safetensors weights, `config.json` and `tokenizer.json`."""
        self.config, self.model = config, model
        self.group = Group()
        """With whom jobs are shared."""
        torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
        self.on_gpu = config.gpus_per_job > 0
        faster = config.precision == "auto" and prefers_bfloat16(on_gpu=self.on_gpu)
        self.autocast = config.precision == "bf16" or faster
        # TRL insists on a tokenizer although its input is tokenised already; this one needs no other file.
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
        device = "cuda" if self.on_gpu else "cpu"
        base = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=torch.float32,
            local_files_only=True,
            attn_implementation="sdpa",
            **_quantization(config, device, torch.bfloat16 if self.autocast else torch.float32),
        )
        others = set(getattr(base.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if others:
            raise UsageError(f"model: got {', '.join(sorted(others))} layers, expected attention in every layer")
        # Quantised, it is there already.
        self._base = (base if config.quantize != "none" else base.to(device)).requires_grad_(False)
        self._worn: tuple[Shape, PeftModel] | None = None

    @property
    def sharded(self) -> bool:
        """The base model is spread over the group, which has to run it in step."""
        return self.config.shard and self.group.size > 1

    def join(self, group: Group) -> None:
        """Shares every further job with a group."""
        if self.group is group:
            return
        self.group = group
        if self.sharded:
            group.shard(self.base, self.base.get_decoder().layers)

    @property
    def base(self) -> Any:
        """The model as it was loaded; takes off what it wears."""
        if self._worn is not None:
            self._base = self._worn[1].unload().requires_grad_(False)
            self._base.__dict__.pop("peft_config", None)
            self._worn = None
        return self._base

    @contextmanager
    def wearing(self, adapter: LoraWeights) -> Iterator[PeftModel]:
        """The model with an adapter on it that can be trained; one at a time.

        Its layers stay in place for the next adapter of the same shape: making them takes longer than filling them.
        """
        shape = (adapter.rank, adapter.alpha, tuple(sorted(adapter.factors)))
        if self._worn is None or self._worn[0] != shape:
            self._worn = (shape, self._dressed(adapter))
        model = self._worn[1]
        try:
            _write(model, adapter)
            yield model
        finally:
            model.zero_grad(set_to_none=True)
            # TRL replaces the base model's forward by an instance attribute; left there, jobs would nest it.
            self._base.__dict__.pop("forward", None)

    def _dressed(self, adapter: LoraWeights) -> PeftModel:
        targets = sorted({last_part(module) for module in adapter.factors})
        config = LoraConfig(
            r=adapter.rank, lora_alpha=adapter.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        return get_peft_model(self.base, config)

    def likelihoods(self, model: PeftModel, row: Row) -> Likelihoods:
        """Of the completion tokens of a packed row, which lies on the model's device."""
        with torch.autocast(row["input_ids"].device.type, torch.bfloat16, enabled=self.autocast):
            output = model(**{name: row[name] for name in FORWARD}, use_cache=False)
        return likelihoods(output.logits[0].float(), row)


def weights_of(model: PeftModel, like: LoraWeights) -> LoraWeights:
    """The adapter that a model wears, in numpy; `like` names its modules."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    factors = {}
    for module in like.factors:
        a, b = (state[tensor_name(module, factor)].detach().cpu().numpy() for factor in "AB")
        factors[module] = (a.astype(np.float32), b.astype(np.float32))
    return LoraWeights(like.rank, like.alpha, factors)


def _write(model: PeftModel, weights: LoraWeights) -> None:
    state = {}
    for module, (a, b) in weights.factors.items():
        state[tensor_name(module, "A")] = torch.from_numpy(a.copy())
        state[tensor_name(module, "B")] = torch.from_numpy(b.copy())
    outcome = set_peft_model_state_dict(model, state)
    if outcome.unexpected_keys:
        raise TrainingFailed(f"the base model has no module for {outcome.unexpected_keys[0]}")


def _quantization(config: TrainerConfig, device: str, arithmetic: torch.dtype) -> dict[str, Any]:
    """How the base model is loaded (Dettmers et al. 2023, "QLoRA", arXiv 2305.14314)."""
    if config.quantize == "none":
        return {}
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=arithmetic,
    )
    return {"quantization_config": four_bits, "device_map": device}
