"""Weights of individuals for other tools: LoRA adapters as PEFT reads them, and whole models with an adapter merged in.

Law: an adapter's two files are published byte for byte, so that their hash is still its name; a merged matrix is
`W + alpha / rank * B @ A` in float32, rounded once to the type of `W`.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.evaluation import find
from orchestrator.lineage import ancestry
from orchestrator.run import champion
from orchestrator.state import RunState
from telemetry.adapters import Shelf
from telemetry.failures import UsageError
from telemetry.lora import CONFIG, WEIGHTS, LoraWeights
from telemetry.records import Individual

BESIDE = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""What belongs to a model besides its weights."""


def chosen(state: RunState, who: Sequence[str]) -> tuple[Individual, ...]:
    """Whose adapters are published: those named, or the champion and all that its line has learned, oldest first.

    Raises UsageError for somebody who is not there or has no weights of its own.
    """
    if not who:
        line = (state.everyone[one] for one in ancestry(champion(state).id, state))
        # Elites bear their parent's weights: the last bearer stands for all.
        return tuple({one.genome.adapter: one for one in line if one.genome.adapter}.values())
    found = {one: find(state, one) for one in who}
    for name, one in found.items():
        if one.genome.adapter is None:
            raise UsageError(f"--who {name}: plays by the untouched base model; expected one with weights of its own")
    return tuple({one.id: one for one in found.values()}.values())


def write_adapter(shelf: Shelf, adapter: str, directory: Path) -> None:
    """Copies an adapter's two files, verified. Raises StateError for one that is damaged."""
    source = shelf.path(adapter)
    directory.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(source / name, directory / name)


def write_merged(base: Path, adapter: LoraWeights, directory: Path) -> None:
    """A whole model with an adapter merged in, one file of weights in memory at a time.

    base: directory of the model. Raises UsageError when the adapter changes what that does not have.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    directory.mkdir(parents=True)
    for pattern in BESIDE:
        for path in base.glob(pattern):
            shutil.copyfile(path, directory / path.name)
    changes = {f"{module}.weight": pair for module, pair in adapter.factors.items()}
    for path in sorted(base.glob("*.safetensors")):
        if path.name.startswith("consolidated"):
            continue
        tensors = {}
        with safe_open(path, framework="pt") as checkpoint:
            for name in sorted(checkpoint.keys()):
                tensor = checkpoint.get_tensor(name)
                if name in changes:
                    a, b = map(torch.from_numpy, changes.pop(name))
                    tensor = torch.addmm(tensor.float(), b, a, alpha=adapter.scale).to(tensor.dtype)
                tensors[name] = tensor
        save_file(tensors, directory / path.name, metadata={"format": "pt"})
    if changes:
        raise UsageError(f"--merged: the adapter changes {min(changes)}, which the model in {base} does not have")
