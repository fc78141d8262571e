"""Merged weights straight into the layers of vLLM's CPU backend, twice as fast as its own reloading.

That backend packs the matrix of a linear layer for its kernels and throws the matrix away; reloading rebuilds every
parameter of the model on the way to packing again. Here only the layers that change are filled and packed.
Law: a layer is taken only if it multiplies as the checkpoint's matrices do, in the order in which they lie in it; the
others are left to vLLM, whose loader may turn what it reads.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from telemetry.lora import LoraWeights

Fill: TypeAlias = Callable[[str, LoraWeights | None, Tensor], None]
"""(module of the checkpoint, adapter, matrix to fill)."""

_PROBES = 4


@dataclass(frozen=True)
class _Layer:
    linear: Any
    """vLLM's module."""
    parts: Mapping[str, int]
    """Modules of the checkpoint that are one matrix in vLLM, in its order, and how many rows each has."""


class PackedLayers:
    """The layers of a model that can be filled and packed one by one."""

    def __init__(self, model: Any, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, fill: Fill) -> None:
        """`model` serves the untouched checkpoint; `shapes` of its matrices, [out, in], by module."""
        self._dtype = dtype
        self._fill = fill
        self._scratch: dict[tuple[int, int], Tensor] = {}
        self._layers = {
            layer.linear: layer for layer in _candidates(model, shapes) if self._multiplies_as_the_checkpoint(layer)
        }
        self._home = {module: layer.linear for layer in self._layers.values() for module in layer.parts}

    def cover(self, modules: Collection[str]) -> bool:
        """True when all of these modules of the checkpoint lie in layers that can be filled here."""
        return all(module in self._home for module in modules)

    def put(self, adapter: LoraWeights | None, modules: Collection[str]) -> None:
        """Fills the layers of these modules with the base weights, changed by `adapter`."""
        for linear in {self._home[module]: None for module in modules}:
            layer = self._layers[linear]
            matrix = self._filled(layer, adapter)
            linear.weight = torch.nn.Parameter(matrix, requires_grad=False)
            linear.quant_method.process_weights_after_loading(linear)
            if linear.weight.numel():
                # Not packed but kept, so that the next layer needs memory of its own.
                del self._scratch[matrix.shape[0], matrix.shape[1]]

    def _filled(self, layer: _Layer, adapter: LoraWeights | None) -> Tensor:
        shape = sum(layer.parts.values()), layer.linear.input_size_per_partition
        matrix = self._scratch.get(shape)
        if matrix is None:
            matrix = self._scratch[shape] = torch.empty(shape, dtype=self._dtype)
        for module, rows in zip(layer.parts, matrix.split(list(layer.parts.values())), strict=True):
            self._fill(module, adapter, rows)
        return matrix

    def _multiplies_as_the_checkpoint(self, layer: _Layer) -> bool:
        matrix = self._filled(layer, None)
        probes = torch.randn(_PROBES, matrix.shape[1], generator=torch.Generator().manual_seed(0)).to(self._dtype)
        with torch.inference_mode():
            found = layer.linear.quant_method.apply(layer.linear, probes, None)
            expected = torch.nn.functional.linear(probes, matrix)
        tolerance = 16 * torch.finfo(self._dtype).eps * expected.abs().max().item()
        return bool(torch.allclose(found, expected, rtol=0.0, atol=tolerance))


def _candidates(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[_Layer]:
    """Linear layers whose matrix vLLM has packed away, and which have all their parts in the checkpoint."""
    from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
    from vllm.platforms import current_platform

    fused: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", {})
    # Its kernels may keep looking at the matrix that they were given.
    modules = () if current_platform.is_zen_cpu() else model.named_modules()
    for name, module in modules:
        if not isinstance(module, LinearBase) or not isinstance(module.quant_method, UnquantizedLinearMethod):
            continue
        weight = getattr(module, "weight", None)
        parent, dot, own = name.rpartition(".")
        parts = [f"{parent}{dot}{part}" for part in fused.get(own, [own])]
        known = [shapes[part] for part in parts if part in shapes]
        if weight is None or weight.numel() or len(known) != len(parts) or any(len(shape) != 2 for shape in known):
            continue
        whole = module.output_size_per_partition, module.input_size_per_partition
        if sum(rows for rows, _ in known) == whole[0] and {columns for _, columns in known} == {whole[1]}:
            yield _Layer(module, {part: rows for part, (rows, _) in zip(parts, known, strict=True)})
