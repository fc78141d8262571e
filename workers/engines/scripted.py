"""The engine without a language model: play is a pure function of prompt ids and adapter content.

It stands in for a model in tests and dry runs. Adapters are real LoRA files for the one module `scripted.policy`,
so that crossover, mutation, the gate and the shelf all run as they do for a model. It knows nothing and learns
nothing; how well it plays is chance.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b, sha256
from itertools import accumulate, pairwise
from math import exp, log
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from telemetry.failures import UsageError
from telemetry.lora import load_named
from telemetry.records import BaseModelCard
from telemetry.seeds import rng
from workers.config import ScriptedEngineConfig
from workers.engine import Completion, CompletionRequest, EngineFailure, EngineStats, ModelDescription
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
END = 1024
"""Token id that ends a text: neither a byte nor an action."""

Array = NDArray[np.float64]


def description(capacity: int) -> ModelDescription:
    """What agents must know of the model that there is none of."""
    newline = (ord("\n"),)
    return ModelDescription(CARD, BYTES, (), newline, newline, CONTEXT, capacity)


class ScriptedEngine:
    """Implements the Engine protocol without a model."""

    def __init__(self, config: ScriptedEngineConfig, adapter_path: Callable[[str], Path]) -> None:
        """`adapter_path` gives the local directory of an adapter by its id."""
        self._capacity = config.capacity
        self._adapter_path = adapter_path
        self._policies: dict[str, Array] = {}
        self._seconds = config.seconds
        self._busy = asyncio.Lock()
        self._waiting = 0
        self._stats = EngineStats()

    async def describe(self) -> ModelDescription:
        return description(self._capacity)

    async def load(self, adapters: Sequence[str | None]) -> None:
        """Reads the adapters' weight changes. Raises UsageError for other modules, AdapterRefused for bad files."""
        policies: dict[str, Array] = {}
        for adapter in dict.fromkeys(adapters):
            if adapter is not None:
                known = self._policies.get(adapter)
                policies[adapter] = self._read_policy(adapter) if known is None else known
        self._policies = policies

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests. Raises EngineFailure if an adapter named was not loaded."""
        if not requests:
            return []
        self._waiting += len(requests)
        try:
            return await self._answer(requests)
        finally:
            self._waiting -= len(requests)

    async def _answer(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        if self._seconds:
            async with self._busy:
                await asyncio.sleep(self._seconds * len(requests))
        began, known = monotonic(), self._stats
        prompts = _wide([request.prompt_bytes() for request in requests])
        logits = _noise(prompts)
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            if request.adapter is not None:
                places.setdefault(request.adapter, []).append(place)
        for adapter, mine in places.items():
            logits[mine] += _tilt([prompts[place] for place in mine], self._policy(adapter))
        answers = [
            _choose(row, request) if request.choices else self._write(prompt, request)
            for request, prompt, row in zip(requests, prompts, logits, strict=True)
        ]
        self._stats = EngineStats(
            answered=known.answered + len(requests),
            prompt_tokens=known.prompt_tokens + sum(len(request.prompt_ids) for request in requests),
            busy_seconds=known.busy_seconds + monotonic() - began + self._seconds * len(requests),
        )
        return answers

    async def stats(self) -> EngineStats:
        return replace(self._stats, running=self._waiting)

    async def close(self) -> None:
        self._policies = {}

    def _read_policy(self, adapter: str) -> Array:
        weights = load_named(adapter, self._adapter_path)
        if set(weights.factors) != {MODULE}:
            raise UsageError(f"adapter {adapter}: got weights for {', '.join(weights.factors)}, expected {MODULE}")
        a, b = weights.factors[MODULE]
        return np.asarray(weights.scale * (b.astype(np.float64) @ a.astype(np.float64)))

    def _policy(self, adapter: str) -> Array:
        try:
            return self._policies[adapter]
        except KeyError as error:
            raise EngineFailure(f"adapter {adapter} is not loaded") from error

    def _write(self, prompt: bytes, request: CompletionRequest) -> Completion:
        """Free text: letters and at last the end, each from logits that depend on the prompt and on where it stands."""
        digest = blake2b(prompt).digest()
        places = [digest + place.to_bytes(8, "little") for place in range(request.max_tokens)]
        logits = _noise(places)
        if request.adapter is not None:
            logits += _tilt(places, self._policy(request.adapter))
        scores = _log_softmax(logits / request.temperature)
        draws = rng(request.seed, "text").random((request.max_tokens, 1))
        drawn = (np.cumsum(np.exp(scores), axis=1) <= draws).sum(axis=1).clip(max=OUT - 1)
        tokens = [ord("a") + index if index < OUT - 1 else END for index in drawn.tolist()]
        size = tokens.index(END) + 1 if END in tokens else len(tokens)
        return Completion(tuple(tokens[:size]), tuple(scores[np.arange(size), drawn[:size]].tolist()))


def _wide(prompts: Sequence[bytes]) -> list[bytes]:
    """Ids of four bytes as the eight that are hashed, all in one go."""
    data = np.frombuffer(b"".join(prompts), np.int32).astype("<i8").tobytes()
    ends = list(accumulate((2 * len(prompt) for prompt in prompts), initial=0))
    return [data[begin:end] for begin, end in pairwise(ends)]


def _noise(prompts: Sequence[bytes]) -> Array:
    """Logits without an adapter, of shape [prompts, OUT]; each row depends on its own prompt only."""
    noise = np.frombuffer(b"".join([blake2b(data, digest_size=2 * OUT).digest() for data in prompts]), "<u2")
    # 12**0.5 makes the uniform noise one wide in standard deviation.
    return np.asarray((noise.reshape(-1, OUT) / 65535 - 0.5) * (12**0.5 * BASE_SCALE))


def _tilt(prompts: Sequence[bytes], policy: Array) -> Array:
    """What a policy, of shape [OUT, IN], adds to the logits; each row depends on its own prompt only."""
    tails = b"".join([blake2b(data[-8 * WINDOW :], digest_size=IN // 8).digest() for data in prompts])
    signs = np.unpackbits(np.frombuffer(tails, np.uint8)).reshape(-1, 1, IN) * 2.0 - 1.0
    # A matrix product might round a row differently beside other rows.
    return np.asarray((policy * signs).sum(axis=-1))


def _choose(row: Array, request: CompletionRequest) -> Completion:
    # Plain floats: for a handful of choices numpy's calls cost more than the arithmetic.
    logits: list[float] = row.tolist()
    count = len(request.choices)
    chosen = (logits * -(-count // OUT))[:count]
    highest = max(chosen)
    total = highest + log(sum([exp(logit - highest) for logit in chosen]))
    return Completion(choice_logprobs=tuple([logit - total for logit in chosen]))


def _log_softmax(logits: Array) -> Array:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
