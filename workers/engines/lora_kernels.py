"""Multi-LoRA on a CPU: the low-rank products of a batch, adapter by adapter. Imports vLLM: for engine processes only.

vLLM's own CPU kernels gather a copy of both factors for every token and take a token without an adapter for one of the
last slot. Here the tokens of an adapter are multiplied together, and those without one are left alone. Nor does an
adapter that passed the gate change embeddings or the output head, for which vLLM would multiply all the same.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

Rows: TypeAlias = slice | Tensor


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc]
    """Implements what vLLM's linear layers ask of multi-LoRA kernels."""

    _groups: Sequence[tuple[int, Rows]] = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Told before every forward pass which slot each token belongs to."""
        super().update_metadata(*args, **kwargs)
        self._groups = groups(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Sequence[Tensor],
        lora_b_stacked: Sequence[Tensor],
        scale: float,
        output_slices: Sequence[int],
        **kwargs: Any,
    ) -> None:
        """Adds to `y` [tokens, out] what adapters make of `x` [tokens, in].

        The factors, one of each per part of a fused layer, are [slots, 1, rank, in] and [slots, 1, part, rank].
        """
        for slot, rows in self._groups:
            # A view where the tokens lie together, else a copy.
            given, changed = x[rows], y[rows]
            start = 0
            for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                changed[:, start : start + size].addmm_(given @ a[slot, 0].T, b[slot, 0, :size].T, alpha=scale)
                start += size
            if isinstance(rows, Tensor):
                y[rows] = changed

    def add_lora_embedding(self, *args: Any, **kwargs: Any) -> None:
        """No adapter has any."""

    def add_lora_logits(self, *args: Any, **kwargs: Any) -> None:
        """No adapter has any."""


def groups(slots: Tensor) -> list[tuple[int, Rows]]:
    """The slots that occur among tokens [tokens], and where; -1 is none."""
    found: list[tuple[int, Rows]] = []
    for slot in slots.unique().tolist():
        if slot >= 0:
            rows = (slots == slot).nonzero().flatten()
            first, last = int(rows[0]), int(rows[-1])
            found.append((slot, slice(first, last + 1) if last - first + 1 == len(rows) else rows))
    return found


def use_grouped_lora() -> None:
    """From now on engines of this process have these kernels."""
    name = f"{GroupedLora.__module__}.{GroupedLora.__qualname__}"
    current_platform.get_punica_wrapper = lambda: name
