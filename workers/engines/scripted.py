"""The engine without a language model: play is a pure function of prompt ids and adapter content.

It stands in for a model in tests and dry runs. Adapters are real LoRA files for the one module `scripted.policy`,
so that crossover, mutation, the gate and the shelf all run as they do for a model. It knows nothing and learns
nothing; how well it plays is chance.
"""

import math
from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from telemetry.failures import UsageError
from telemetry.lora import load_named
from telemetry.records import BaseModelCard
from telemetry.seeds import uniform
from workers.config import ScriptedEngineConfig
from workers.engine import Completion, CompletionRequest, EngineFailure, ModelDescription
from workers.prompt import BYTES

MODULE = "scripted.policy"
OUT, IN = 16, 32
CARD = BaseModelCard(
    id="scripted", sha256=sha256(b"forager scripted engine 1").hexdigest(), modules={MODULE: (OUT, IN)}
)
BASE_SCALE = 0.25
"""Standard deviation of the logits without an adapter: close to uniform play."""
WINDOW = 64
"""Last prompt ids that an adapter's features depend on."""
CONTEXT = 1 << 20

Array = NDArray[np.float64]


class ScriptedEngine:
    """Implements the Engine protocol without a model."""

    def __init__(self, config: ScriptedEngineConfig, adapter_path: Callable[[str], Path]) -> None:
        """`adapter_path` gives the local directory of an adapter by its id."""
        self._capacity = config.capacity
        self._adapter_path = adapter_path
        self._policies: dict[str | None, Array] = {None: np.zeros((OUT, IN))}

    async def describe(self) -> ModelDescription:
        newline = (ord("\n"),)
        return ModelDescription(CARD, BYTES, (), newline, newline, CONTEXT, self._capacity)

    async def load(self, adapters: Sequence[str | None]) -> None:
        """Reads the adapters' weight changes; raises UsageError for more than fit, AdapterRefused for bad files."""
        wanted = dict.fromkeys(adapters)
        if len(wanted) > self._capacity:
            raise UsageError(f"engine.capacity: got {len(wanted)} adapters, expected at most {self._capacity}")
        policies: dict[str | None, Array] = {None: np.zeros((OUT, IN))}
        for adapter in wanted:
            if adapter is not None:
                known = self._policies.get(adapter)
                policies[adapter] = self._read_policy(adapter) if known is None else known
        self._policies = policies

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests. Raises EngineFailure if an adapter named was not loaded."""
        if not requests:
            return []
        logits = self._logits([request.prompt_ids for request in requests], [request.adapter for request in requests])
        return [
            _choose(row, request) if request.choices else self._write(request)
            for request, row in zip(requests, logits, strict=True)
        ]

    async def close(self) -> None:
        self._policies = {}

    def _read_policy(self, adapter: str) -> Array:
        weights = load_named(adapter, self._adapter_path)
        if set(weights.factors) != {MODULE}:
            raise UsageError(f"adapter {adapter}: got weights for {', '.join(weights.factors)}, expected {MODULE}")
        a, b = weights.factors[MODULE]
        return np.asarray(weights.scale * (b.astype(np.float64) @ a.astype(np.float64)))

    def _logits(self, prompts: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> Array:
        """Logits of shape [requests, OUT]; each row depends on its own prompt and adapter only."""
        try:
            policies = np.stack([self._policies[adapter] for adapter in adapters])
        except KeyError as error:
            raise EngineFailure(f"adapter {error.args[0]} is not loaded") from error
        ids = [array("q", prompt).tobytes() for prompt in prompts]
        noise = np.frombuffer(b"".join(blake2b(data, digest_size=2 * OUT).digest() for data in ids), "<u2")
        # 12**0.5 makes the uniform noise one wide in standard deviation.
        base = (noise.reshape(-1, OUT) / 65535 - 0.5) * (12**0.5 * BASE_SCALE)
        tails = b"".join(blake2b(data[-8 * WINDOW :], digest_size=IN // 8).digest() for data in ids)
        signs = np.unpackbits(np.frombuffer(tails, np.uint8)).reshape(-1, 1, IN) * 2.0 - 1.0
        return np.asarray(base + (policies * signs).sum(axis=-1))

    def _write(self, request: CompletionRequest) -> Completion:
        """Free text: letters drawn one by one, each from the logits after all before it."""
        tokens: list[int] = []
        logprobs: list[float] = []
        for position in range(request.max_tokens):
            row = self._logits([(*request.prompt_ids, *tokens)], [request.adapter])[0]
            scores = _log_softmax(row / request.temperature)
            passed = np.cumsum(np.exp(scores))
            index = min(int(np.searchsorted(passed, uniform(request.seed, position), side="right")), OUT - 1)
            tokens.append(ord("a") + index)
            logprobs.append(float(scores[index]))
        return Completion(token_ids=tuple(tokens), logprobs=tuple(logprobs))


def _choose(row: Array, request: CompletionRequest) -> Completion:
    # Plain floats: for a handful of choices numpy's calls cost more than the arithmetic.
    logits: list[float] = row.tolist()
    chosen = [logits[index % OUT] for index in range(len(request.choices))]
    highest = max(chosen)
    total = highest + math.log(sum(math.exp(logit - highest) for logit in chosen))
    return Completion(choice_logprobs=tuple(logit - total for logit in chosen))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
