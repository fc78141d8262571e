"""vLLM inside this process: no server, no second process, weights handed over by reference.

Law: an adapter is named by its content id wherever vLLM caches by name; a request is checked before it enters the
engine, because what the engine rejects half-way may take the others with it; and numbers that are not finite stop
the engine, because they stay behind in its key-value cache and reach requests of healthy individuals.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from telemetry.failures import UsageError
from telemetry.foreign import Teller
from telemetry.records import BaseModelCard
from workers.config import VllmEngineConfig
from workers.engine import MAX_CHOICES, Completion, CompletionRequest, EngineFailure, EngineStats, ModelDescription
from workers.engines.batches import Line
from workers.engines.chat import description, end_of_turn
from workers.engines.loop import CoreThread
from workers.engines.memo import Memo
from workers.engines.merged import MergedServing, arithmetic
from workers.engines.unmerged import UnmergedServing, slots

BLOCK = 32
"""Tokens per prefix-cache block: the smallest that the CPU backend takes, since shared prompt prefixes are short."""


class VllmEngine:
    """Implements the Engine protocol on one vLLM engine core."""

    def __init__(
        self, config: VllmEngineConfig, directory: Path, card: BaseModelCard, adapter_path: Callable[[str], Path]
    ) -> None:
        """Loads the model; `adapter_path` gives the local directory of an adapter by its id.

        Set the variables of `workers.engines.environment` before the process imports torch. Raises UsageError for a
        model or configuration that vLLM cannot serve.
        """
        if config.serving == "auto":
            raise UsageError("engine.serving: got auto, expected merged or lora where an engine is built")
        if config.serving == "merged" and config.gpus > 1:
            raise UsageError("engine.serving: got merged on several GPUs, expected lora when engine.gpus > 1")
        capacity = 1 if config.serving == "merged" else config.max_adapters
        self._description = description(directory, card, context=config.context, capacity=capacity)
        self._thread = CoreThread(partial(_VllmCore, config, directory, card, adapter_path))
        self._memo = Memo(self._thread.complete, config.remember)
        self._teller = Teller(REGISTRY, "vllm:")

    async def describe(self) -> ModelDescription:
        return self._description

    async def load(self, adapters: Sequence[str | None]) -> None:
        """Declares the working set. Raises UsageError for adapters that do not fit, AdapterRefused for bad files."""
        await self._thread.load(list(dict.fromkeys(adapters)))
        self._memo.keep(set(adapters))

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests. Raises EngineFailure, or UsageError for a request out of bounds."""
        for request in requests:
            request.check(self._description.context)
        return await self._memo.complete(requests)

    async def stats(self) -> EngineStats:
        stats, memo = self._thread.stats(), self._memo
        return replace(
            stats,
            answered=stats.answered + memo.recalled,
            prompt_tokens=stats.prompt_tokens + memo.tokens,
            cached_tokens=stats.cached_tokens + memo.tokens,
            recalled=memo.recalled,
            own=self._teller(),
        )

    async def close(self) -> None:
        await self._thread.close()


class _VllmCore:
    """The blocking side: lives in one thread."""

    def __init__(
        self, config: VllmEngineConfig, directory: Path, card: BaseModelCard, adapter_path: Callable[[str], Path]
    ) -> None:
        import torch

        # It would silently take the place of the configured size.
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
        # vLLM freezes the number of threads when its worker starts; OpenMP counts them per starting thread.
        torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
        from vllm.v1.engine.llm_engine import LLMEngine

        self._engine = LLMEngine.from_engine_args(_arguments(config, directory, card.id))
        _bound(self._engine.logger_manager.stat_loggers)
        self._vocabulary = self._engine.model_config.get_vocab_size()
        self._end_of_turn = end_of_turn(self._engine.get_tokenizer())
        self._weights: MergedServing | UnmergedServing
        if config.serving == "merged":
            self._weights = MergedServing(self._engine, config, directory, adapter_path)
        else:
            self._weights = UnmergedServing(self._engine, config, adapter_path)
        self._requests: dict[str, CompletionRequest] = {}
        """All that are unanswered."""
        self._given = 0
        """How many of them vLLM has."""
        self._size = config.max_sequences
        self._line = Line(self._size)
        self._prompt_tokens = self._cached_tokens = 0

    def busy(self) -> bool:
        return bool(self._requests)

    def check(self, request: CompletionRequest) -> None:
        if max(*request.prompt_ids, *request.choices, 0) >= self._vocabulary:
            raise EngineFailure(f"a request has token ids beyond the model's vocabulary of {self._vocabulary}")
        self._weights.request(request.adapter)

    def serves(self, adapter: str | None) -> bool:
        return self._weights.serves(adapter)

    def switch(self, adapter: str | None) -> None:
        self._weights.switch(adapter)

    def add(self, name: str, request: CompletionRequest) -> None:
        self._requests[name] = request
        self._line.add(name, request.adapter)

    def step(self) -> list[tuple[str, Completion]]:
        for name in self._line.take(self._size - self._given):
            self._give(name, self._requests[name])
            self._given += 1
        finished = [output for output in self._engine.step() if output.finished]
        self._given -= len(finished)
        return [(output.request_id, self._read(output)) for output in finished]

    def tokens(self) -> tuple[int, int]:
        return self._prompt_tokens, self._cached_tokens

    def load(self, adapters: Sequence[str | None]) -> None:
        self._weights.load(adapters)

    def close(self) -> None:
        self._engine.engine_core.shutdown()
        del self._engine, self._weights

    def _give(self, name: str, request: CompletionRequest) -> None:
        from vllm.inputs import tokens_input

        # No adapter meets what another one left in the prefix cache, and what it left itself is still good when its
        # turn comes again.
        prompt = tokens_input(list(request.prompt_ids), cache_salt=request.adapter or "base")
        sampling = _choosing(request.choices) if request.choices else _writing(request, self._end_of_turn)
        self._engine.add_request(name, prompt, sampling, lora_request=self._weights.request(request.adapter))

    def _read(self, output: Any) -> Completion:
        request, answer = self._requests.pop(output.request_id), output.outputs[0]
        self._prompt_tokens += len(request.prompt_ids)
        self._cached_tokens += output.num_cached_tokens or 0
        if request.choices:
            found = answer.logprobs[0]
            scores = [found[token].logprob for token in request.choices]
            completion = Completion(choice_logprobs=_normalised(scores))
        else:
            tokens = tuple(answer.token_ids)
            steps = zip(tokens, answer.logprobs, strict=True)
            completion = Completion(tokens, tuple(scores[token].logprob for token, scores in steps))
        if not all(map(math.isfinite, completion.choice_logprobs or completion.logprobs)):
            raise EngineFailure(f"adapter {request.adapter}: the model's log-probabilities are not finite")
        return completion


def _normalised(scores: Sequence[float]) -> tuple[float, ...]:
    highest = max(scores)
    total = highest + math.log(sum(math.exp(score - highest) for score in scores))
    return tuple(score - total for score in scores)


def _arguments(config: VllmEngineConfig, directory: Path, name: str) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    cpu = current_platform.is_cpu()
    options: dict[str, Any] = {}
    if config.serving == "lora":
        options = {"enable_lora": True, "max_lora_rank": config.max_rank, **slots(config)}
    if cpu:
        from workers.engines.kernels import normalising
        from workers.engines.lora_kernels import use_grouped_lora

        use_grouped_lora()
        options["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
        options["ir_op_priority"] = normalising()
    return EngineArgs(
        model=str(directory.resolve()),
        served_model_name=name,
        dtype=arithmetic(config),
        seed=0,
        max_model_len=config.context,
        max_num_seqs=config.max_sequences,
        max_num_batched_tokens=max(config.max_batched_tokens, config.context),
        gpu_memory_utilization=config.gpu_memory_fraction,
        tensor_parallel_size=max(1, int(config.gpus)),
        block_size=BLOCK,
        enable_prefix_caching=True,
        # A seeded request whose prompt is split over steps ends the CPU engine.
        enable_chunked_prefill=not cpu,
        # Compilation takes longer than it saves on a CPU.
        enforce_eager=cpu,
        logprobs_mode="processed_logprobs",
        max_logprobs=MAX_CHOICES,
        disable_log_stats=False,
        trust_remote_code=False,
        **options,
    )


def _bound(loggers: Sequence[Any]) -> None:
    """Takes away the one metric that has a series for every set of adapters that ever met in a batch."""
    for logger in loggers:
        logger.gauge_lora_info = None


@lru_cache(maxsize=4096)
def _choosing(choices: tuple[int, ...]) -> Any:
    """Asks for one token and the log-probabilities of the choices; the token itself is not used.

    At temperature 0 those are taken over the whole vocabulary at temperature 1, so that normalising them over the
    choices gives the distribution restricted to the choices, without masking logits and without sampling.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprob_token_ids=list(choices),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _writing(request: CompletionRequest, end_of_turn: tuple[int, ...]) -> Any:
    """Asks for free text, which also ends at what the model's own configuration says."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
        stop_token_ids=list(end_of_turn),
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
