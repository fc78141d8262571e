"""Unmerged adapters: vLLM's own multi-LoRA, many individuals in one batch.

Law: vLLM never reads an adapter while it answers. The whole working set stays in its cache, which is made larger than
any working set, so that an adapter moves between that cache and the slots of a batch, and never comes from a file that
nobody has checked since.
"""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from telemetry.failures import UsageError
from telemetry.lora import load_named
from workers.config import VllmEngineConfig
from workers.engine import EngineFailure

CACHE = 1 << 20
"""Adapters that vLLM may keep in memory; it sets nothing aside for them."""


def slots(config: VllmEngineConfig) -> dict[str, int]:
    """vLLM's options for how many adapters it serves in one batch and how many it keeps."""
    return {"max_loras": config.max_adapters, "max_cpu_loras": CACHE}


class UnmergedServing:
    """Serves many individuals at once from unmerged adapters."""

    def __init__(self, engine: Any, config: VllmEngineConfig, adapter_path: Callable[[str], Path]) -> None:
        self._engine = engine
        self._adapter_path = adapter_path
        self._max_rank = config.max_rank
        self._numbers = count(1)
        self._requests: dict[str, Any] = {}

    def request(self, adapter: str | None) -> Any:
        if adapter is None:
            return None
        if adapter not in self._requests:
            raise EngineFailure(f"adapter {adapter} is not loaded")
        return self._requests[adapter]

    def serves(self, adapter: str | None) -> bool:
        """True: vLLM itself fills each batch with as many adapters as fit, first come, first served."""
        return True

    def switch(self, adapter: str | None) -> None:
        """Nothing to be done."""

    def load(self, adapters: Sequence[str | None]) -> None:
        wanted = [adapter for adapter in adapters if adapter is not None]
        paths = {name: self._checked(name) for name in wanted if name not in self._requests}
        fresh = {name: self._add(name, path) for name, path in paths.items()}
        for name in fresh:
            # Verified once more before anything is served: vLLM has read the files itself.
            self._adapter_path(name)
        for name in self._requests.keys() - set(wanted):
            self._engine.remove_lora(self._requests.pop(name).lora_int_id)
        self._requests |= fresh

    def _add(self, name: str, path: Path) -> Any:
        from vllm.lora.request import LoRARequest

        # A number is never used twice: vLLM would answer with the weights it knows under it.
        request = LoRARequest(name, next(self._numbers), str(path))
        # Read here and not with the first request, where a bad file would end the engine.
        self._engine.add_lora(request)
        return request

    def _checked(self, adapter: str) -> Path:
        """Directory of an adapter whose weights are finite and small enough: what is not would harm all others."""
        rank = load_named(adapter, self._adapter_path).rank
        if rank > self._max_rank:
            raise UsageError(f"engine.max_rank: adapter {adapter} has rank {rank}, expected at most {self._max_rank}")
        return self._adapter_path(adapter).resolve()
