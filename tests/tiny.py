"""A real but tiny language model for tests: random Llama weights under the SmolLM2 tokenizer and chat template."""

import json
import shutil
from pathlib import Path

import numpy as np

from telemetry import models
from telemetry.lora import CONFIG, WEIGHTS, LoraWeights, save
from telemetry.records import BaseModelCard

NAME = "smollm2-135m-instruct"


def build(directory: Path, *, layers: int = 2, hidden: int = 64, seed: int = 0) -> Path:
    """Writes the model into `directory` and returns it. Weights are large enough that answers are far from uniform."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).to(torch.float32).save_pretrained(directory)
    source = models.resolve(NAME)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, directory / name)
    return directory


def random_adapter(card: BaseModelCard, *, seed: int, rank: int = 8, size: float = 0.1) -> LoraWeights:
    """An adapter on every linear module, both factors drawn from a normal distribution of this size."""
    rng = np.random.default_rng(seed)
    factors = {
        module: (
            (size * rng.standard_normal((rank, into))).astype(np.float32),
            (size * rng.standard_normal((out, rank))).astype(np.float32),
        )
        for module, (out, into) in card.modules.items()
    }
    return LoraWeights(rank=rank, alpha=2 * rank, factors=factors)


def write_adapter(directory: Path, weights: LoraWeights, card: BaseModelCard) -> Path:
    """Writes the adapter's two files, past the gate, and returns the directory."""
    directory.mkdir(parents=True)
    config, tensors = save(weights, card)
    (directory / CONFIG).write_bytes(config)
    (directory / WEIGHTS).write_bytes(tensors)
    return directory


def vocabulary(directory: Path) -> dict[str, int]:
    """Token text -> id of a model directory's tokenizer."""
    return dict(json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"])
