"""vLLM inside this process: no server, no second process, weights handed over by reference.

Law: an adapter is named by its content id wherever vLLM caches by name; a request is checked before it enters the
engine, because what the engine rejects half-way may take the others with it; and numbers that are not finite stop
the engine, because they stay behind in its key-value cache and reach requests of healthy individuals.
"""

import math
import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from telemetry.failures import UsageError
from telemetry.lora import load_named
from telemetry.records import BaseModelCard
from workers.config import VllmEngineConfig
from workers.engine import Completion, CompletionRequest, EngineFailure, ModelDescription
from workers.engines.chat import skeleton
from workers.engines.loop import CoreThread
from workers.engines.merged import MergedServing, arithmetic

BLOCK = 32
"""Tokens per prefix-cache block: the smallest that the CPU backend takes, since shared prompt prefixes are short."""
MAX_CHOICES = 128


class VllmEngine:
    """Implements the Engine protocol on one vLLM engine core."""

    def __init__(
        self, config: VllmEngineConfig, directory: Path, card: BaseModelCard, adapter_path: Callable[[str], Path]
    ) -> None:
        """Loads the model; `adapter_path` gives the local directory of an adapter by its id.

        Set the variables of `workers.engines.environment` before the process imports torch. Raises UsageError for a
        model or configuration that vLLM cannot serve.
        """
        if config.serving == "merged" and config.gpus > 1:
            raise UsageError("engine.serving: got merged on several GPUs, expected lora when engine.gpus > 1")
        capacity = 1 if config.serving == "merged" else config.max_adapters
        tokenizer = str((directory / "tokenizer.json").resolve())
        self._description = ModelDescription(card, tokenizer, *skeleton(directory), config.context, capacity)
        self._thread = CoreThread(partial(_VllmCore, config, directory, adapter_path))

    async def describe(self) -> ModelDescription:
        return self._description

    async def load(self, adapters: Sequence[str | None]) -> None:
        """Makes exactly these adapters ready. Raises UsageError for more than fit, AdapterRefused for bad files."""
        wanted = list(dict.fromkeys(adapters))
        named = [adapter for adapter in wanted if adapter is not None or self._description.capacity == 1]
        if len(named) > self._description.capacity:
            raise UsageError(
                f"engine: got {len(named)} adapters at once, expected at most {self._description.capacity}"
            )
        await self._thread.load(wanted)

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests. Raises EngineFailure, or UsageError for a request out of bounds."""
        for request in requests:
            _check(request, self._description.context)
        return await self._thread.complete(requests)

    async def close(self) -> None:
        await self._thread.close()


def _check(request: CompletionRequest, context: int) -> None:
    if not request.prompt_ids or len(request.prompt_ids) + request.max_tokens > context or request.max_tokens < 1:
        raise UsageError(
            f"engine.context: got a prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} to answer,"
            f" expected 1 to {context} in all; raise engine.context or shorten rules, strategies and observations"
        )
    if len(request.choices) > MAX_CHOICES or len(set(request.choices)) != len(request.choices):
        raise UsageError(
            f"environment: got {len(request.choices)} legal actions, expected at most {MAX_CHOICES}, all different"
        )
    if not 0 < request.temperature < math.inf:
        raise UsageError(f"engine: got temperature {request.temperature}, expected a positive number")


class _VllmCore:
    """The blocking side: lives in one thread."""

    def __init__(self, config: VllmEngineConfig, directory: Path, adapter_path: Callable[[str], Path]) -> None:
        import torch

        # It would silently take the place of the configured size.
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
        # vLLM freezes the number of threads when its worker starts; OpenMP counts them per starting thread.
        torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
        from vllm.v1.engine.llm_engine import LLMEngine

        self._engine = LLMEngine.from_engine_args(_arguments(config, directory))
        self._vocabulary = self._engine.model_config.get_vocab_size()
        weights = MergedServing if config.serving == "merged" else _Lora
        self._weights: MergedServing | _Lora = weights(self._engine, config, directory, adapter_path)
        self._requests: dict[str, CompletionRequest] = {}

    def busy(self) -> bool:
        return bool(self._requests)

    def check(self, request: CompletionRequest) -> None:
        if max(*request.prompt_ids, *request.choices, 0) >= self._vocabulary:
            raise EngineFailure(f"a request has token ids beyond the model's vocabulary of {self._vocabulary}")
        self._weights.request(request.adapter)

    def add(self, name: str, request: CompletionRequest) -> None:
        from vllm.inputs import tokens_input

        lora, prompt = self._weights.request(request.adapter), tokens_input(list(request.prompt_ids))
        self._engine.add_request(name, prompt, _sampling(request), lora_request=lora)
        self._requests[name] = request

    def step(self) -> list[tuple[str, Completion]]:
        finished = [output for output in self._engine.step() if output.finished]
        return [(output.request_id, self._read(output)) for output in finished]

    def load(self, adapters: Sequence[str | None]) -> None:
        self._weights.load(adapters)

    def close(self) -> None:
        self._engine.engine_core.shutdown()
        del self._engine, self._weights

    def _read(self, output: Any) -> Completion:
        request, answer = self._requests.pop(output.request_id), output.outputs[0]
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


def _arguments(config: VllmEngineConfig, directory: Path) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    cpu = current_platform.is_cpu()
    options: dict[str, Any] = {}
    if config.serving == "lora":
        # vLLM's CPU kernels take slot -1, no adapter, for the last one: a spare slot keeps that one empty.
        slots = config.max_adapters + 1 if cpu else config.max_adapters
        options = {"enable_lora": True, "max_loras": slots, "max_lora_rank": config.max_rank}
    if cpu:
        options["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
    return EngineArgs(
        model=str(directory.resolve()),
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
        disable_log_stats=True,
        trust_remote_code=False,
        **options,
    )


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


def _sampling(request: CompletionRequest) -> Any:
    if request.choices:
        return _choosing(request.choices)
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


class _Lora:
    """Serves many individuals at once from unmerged adapters."""

    def __init__(
        self, engine: Any, config: VllmEngineConfig, directory: Path, adapter_path: Callable[[str], Path]
    ) -> None:
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

    def load(self, adapters: Sequence[str | None]) -> None:
        from vllm.lora.request import LoRARequest

        wanted = [adapter for adapter in adapters if adapter is not None]
        fresh = {name: self._checked(name) for name in wanted if name not in self._requests}
        for name in self._requests.keys() - set(wanted):
            self._engine.remove_lora(self._requests.pop(name).lora_int_id)
        for name, path in fresh.items():
            # A number is never used twice: vLLM would answer with the weights it knows under it.
            request = LoRARequest(name, next(self._numbers), str(path))
            # Read here and not with the first request, where a bad file would end the engine.
            self._engine.add_lora(request)
            # Verified once more before anything is served: vLLM has read the files itself.
            self._adapter_path(name)
            self._requests[name] = request

    def _checked(self, adapter: str) -> Path:
        """Directory of an adapter whose weights are finite and small enough: what is not would harm all others."""
        rank = load_named(adapter, self._adapter_path).rank
        if rank > self._max_rank:
            raise UsageError(f"engine.max_rank: adapter {adapter} has rank {rank}, expected at most {self._max_rank}")
        return self._adapter_path(adapter).resolve()
