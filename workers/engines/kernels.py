"""vLLM's own CPU kernels, where its CPU backend uses none. Imports vLLM: for engine processes only.

Uncompiled, that backend normalises by half a dozen elementwise operations of PyTorch, which take a sixth of a small
model's forward pass; its library has a kernel that takes a fifth of that, registered here through vLLM's own doors.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from vllm import ir

PROVIDER = "forager_cpu"
WIDTH = 32
"""Numbers that the kernels take at once, at most: rows must be a multiple."""


@cache
def normalising() -> dict[str, list[str]]:
    """Registers the kernels in this process; returns what `ir_op_priority` of the engine is to be."""
    kernels: Any = torch.ops._C

    @ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_normalises)  # type: ignore[untyped-decorator]
    def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
        output = torch.empty_like(x)
        kernels.rms_norm(output, x, weight, epsilon)
        return output

    @ir.ops.fused_add_rms_norm.register_impl(  # type: ignore[untyped-decorator]
        PROVIDER, supports_args=_adds_and_normalises, inplace=True
    )
    def fused_add_rms_norm(
        x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> tuple[Tensor, Tensor]:
        kernels.fused_add_rms_norm(x, x_residual, weight, epsilon)
        return x, x_residual

    return {"rms_norm": [PROVIDER], "fused_add_rms_norm": [PROVIDER]}


def _normalises(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    """True for what the kernel takes."""
    plain = x.is_contiguous() and x.shape[-1] % WIDTH == 0
    return plain and variance_size is None and weight is not None and weight.dtype == x.dtype


def _adds_and_normalises(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    """True for what the kernel takes."""
    return x_residual.is_contiguous() and _normalises(x, weight, epsilon, variance_size)
