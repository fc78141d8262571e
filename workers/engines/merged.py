"""Merged weights: a base model plus one adapter as the tensors of an ordinary checkpoint.

Law: every set of tensors is computed from the pristine base files, never from what was served before, so that no
rounding accumulates and the base model comes back exactly.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from telemetry.arithmetic import prefers_bfloat16
from telemetry.failures import UsageError
from telemetry.lora import LoraWeights, load_named
from workers.config import VllmEngineConfig
from workers.engine import EngineFailure

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
        self._merged: dict[str, Any] = {}
        self._exact: dict[tuple[int, ...], Any] = {}
        for file in files:
            with safe_open(file, framework="pt") as checkpoint:
                for name in filter(_IN_LAYER.search, checkpoint.keys()):
                    self._tensors[name] = checkpoint.get_tensor(name)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights, [out, in] where they are matrices, by module."""
        ends = ".weight"
        return {
            name.removesuffix(ends): tuple(tensor.shape)
            for name, tensor in self._tensors.items()
            if name.endswith(ends)
        }

    def tensors(self, adapter: LoraWeights | None) -> Iterable[tuple[str, Any]]:
        """(name, tensor) of all layers, changed by the adapter.

        The tensors are to be copied before the next call, which may write into them.
        """
        changed = {} if adapter is None else {f"{module}.weight": module for module in adapter.factors}
        return (
            (name, self._merge(name, changed[name], adapter) if name in changed else tensor)
            for name, tensor in self._tensors.items()
        )

    def fill(self, module: str, adapter: LoraWeights | None, matrix: Any) -> None:
        """Writes `W + alpha/rank * B @ A` into `matrix` [out, in], from float32; `W` if the adapter leaves it alone."""
        import torch

        base = self._tensors[f"{module}.weight"]
        if adapter is None or module not in adapter.factors:
            matrix.copy_(base)
            return
        a, b = map(torch.from_numpy, adapter.factors[module])
        if matrix.dtype == torch.float32:
            matrix.copy_(base).addmm_(b, a, alpha=adapter.scale)
        else:
            # Kept for the next: the system takes longer to hand out fresh memory than the arithmetic does.
            exact = self._exact.get(base.shape)
            if exact is None:
                exact = self._exact[base.shape] = torch.empty_like(base, dtype=torch.float32)
            matrix.copy_(exact.copy_(base).addmm_(b, a, alpha=adapter.scale))

    def check(self, name: str, adapter: LoraWeights) -> None:
        """Raises UsageError when the adapter called `name` changes what the model does not have, or in other shapes."""
        for module, (a, b) in adapter.factors.items():
            base = self._tensors.get(f"{module}.weight")
            if base is None or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != tuple(base.shape):
                raise UsageError(f"adapter {name}: it changes {module} in a shape that the model does not have")

    def _merge(self, name: str, module: str, adapter: LoraWeights | None) -> Any:
        import torch

        merged = self._merged.get(name)
        if merged is None:
            merged = self._merged[name] = torch.empty_like(self._tensors[name], dtype=self._dtype)
        self.fill(module, adapter, merged)
        return merged


class MergedServing:
    """Serves individuals in turns: one adapter at a time is merged into the weights in place.

    The working set stays in memory as low-rank factors, so that a turn reads nothing and can refuse nothing.
    """

    def __init__(
        self, engine: Any, config: VllmEngineConfig, directory: Path, adapter_path: Callable[[str], Path]
    ) -> None:
        import torch

        from workers.engines.packed import PackedLayers

        self._engine = engine
        self._adapter_path = adapter_path
        dtype = getattr(torch, arithmetic(config))
        self._base = MergedWeights(directory, dtype)
        [self._packed] = engine.apply_model(
            lambda model: PackedLayers(model, self._base.shapes(), dtype, self._base.fill)
        )
        self._placed: LoraWeights | None = None
        self._working: dict[str | None, LoraWeights | None] = {None: None}
        self._serving: str | None = None
        # It warns of every module outside the layers, which are left as they are on purpose.
        logging.getLogger("vllm.model_executor.model_loader.reload").setLevel(logging.ERROR)

    def request(self, adapter: str | None) -> None:
        if adapter not in self._working:
            raise EngineFailure(f"adapter {adapter} is not loaded")

    def serves(self, adapter: str | None) -> bool:
        return adapter == self._serving

    def switch(self, adapter: str | None) -> None:
        weights = self._working[adapter]
        changed = {module for one in (self._placed, weights) if one is not None for module in one.factors}
        if self._packed.cover(changed):
            self._packed.put(weights, changed)
        else:
            tensors = self._base.tensors(weights)
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": tensors})
        self._serving, self._placed = adapter, weights

    def load(self, adapters: Sequence[str | None]) -> None:
        self._working = {name: self._known_or_read(name) for name in adapters}
        if self._working and self._serving not in self._working:
            self.switch(adapters[0])

    def _known_or_read(self, adapter: str | None) -> LoraWeights | None:
        if adapter is None or adapter in self._working:
            return self._working.get(adapter)
        weights = load_named(adapter, self._adapter_path)
        self._base.check(adapter, weights)
        return weights


def arithmetic(config: VllmEngineConfig) -> str:
    """Name of the torch type to compute in."""
    import torch

    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if prefers_bfloat16(on_gpu=torch.cuda.is_available()) else "float32"
