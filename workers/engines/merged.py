"""Merged weights: a base model plus one adapter as the tensors of an ordinary checkpoint.

Law: every set of tensors is computed from the pristine base files, never from what was served before, so that no
rounding accumulates and the base model comes back exactly.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from telemetry.failures import UsageError
from telemetry.lora import LoraWeights

_IN_LAYER = re.compile(r"\.\d+\.")


class MergedWeights:
    """The numbered layers of a base checkpoint, mapped into memory.

    Adapters change nothing outside them, so embeddings and the output head, a fifth of a small model, stay in place.
    """

    def __init__(self, directory: Path, dtype: Any) -> None:
        """`dtype` is the torch type that merged matrices are rounded to, once."""
        from safetensors import safe_open

        files = sorted(file for file in directory.glob("*.safetensors") if not file.name.startswith("consolidated"))
        self._dtype = dtype
        self._tensors: dict[str, Any] = {}
        for file in files:
            with safe_open(file, framework="pt") as checkpoint:
                for name in filter(_IN_LAYER.search, checkpoint.keys()):
                    self._tensors[name] = checkpoint.get_tensor(name)

    def tensors(self, adapter: LoraWeights | None) -> Iterator[tuple[str, Any]]:
        """(name, tensor) of all layers; `W + alpha/rank * B @ A` in float32 where the adapter changes it."""
        changes = {} if adapter is None else {f"{module}.weight": pair for module, pair in adapter.factors.items()}
        if unknown := changes.keys() - self._tensors.keys():
            raise UsageError(f"adapter: it changes {min(unknown)}, which the model does not have")
        for name, tensor in self._tensors.items():
            pair = changes.get(name)
            yield name, tensor if adapter is None or pair is None else self._merge(tensor, adapter.scale, *pair)

    def _merge(self, base: Any, scale: float, a: Any, b: Any) -> Any:
        import torch

        merged = base.to(torch.float32, copy=True)
        return merged.addmm_(torch.from_numpy(b), torch.from_numpy(a), alpha=scale).to(self._dtype)
