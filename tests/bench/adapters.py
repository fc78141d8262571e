"""Tokens per second at 1, 4, 16 and 64 adapters in a batch, and what adapters cost; on a GPU if there is one.

`ours COUNT [KEY=VALUE ...]` asks the demo's engine, in this process, for decisions of so many individuals at once,
then publishes one more adapter and waits for its first decision. `raw COUNT [...]` gives the same prompts and adapters
to `vllm.LLM.generate`, with the same settings and its own kernels. Without arguments both are measured at all counts,
each in a process of its own, and a table is printed. `costs merged|lora` prints what `engine.serving: auto` counts
with: seconds of a pass, of its tokens, of further adapters in it, and of a change of weights.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from statistics import fmean, median
from threading import Event, Thread
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from orchestrator.builder import Model, find_model
from orchestrator.config import RunConfig
from telemetry.adapters import Shelf, save
from telemetry.seeds import rng
from telemetry.store import open_store
from tests.bench.__main__ import machine, measure
from tests.bench.rollout import configuration, raw_environment
from trainer.config_operators import GaussianMutation
from trainer.lowrank import fresh
from trainer.mutation import mutate
from workers import engines
from workers.config import VllmEngineConfig
from workers.engine import CompletionRequest, ModelDescription
from workers.engines.chat import description
from workers.prompt import Codec

COUNTS = (1, 4, 16, 64)
ROUNDS = 3
CPU_REQUESTS, GPU_REQUESTS = 64, 2048
"""In a round."""
ACTIONS = ("north", "south", "east", "west", "eat", "rest")
STRATEGY = "Eat berries here; walk to food."


def on_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def settings(adapters: int, others: Sequence[str] = ()) -> RunConfig:
    """The demo's engine with room for so many adapters and one more, nothing remembered."""
    gpu = ["engine.gpus=1", "engine.max_sequences=256", "engine.max_batched_tokens=16384"] if on_gpu() else []
    room = ["engine.serving=lora", f"engine.max_adapters={adapters + 1}"]
    return configuration(4, 4, 0, settings=[*room, *gpu, *others])


def publish(shelf: Shelf, config: RunConfig, model: Model, number: int) -> str:
    """An adapter that no other number has, on the shelf."""
    start = fresh(model.card, config.trainer.lora, rng("adapters", number))
    weights = mutate(start, GaussianMutation(strength=0.1), rng("noise", number))
    return shelf.publish_files(save(weights, model.card))[0]


class Prompts:
    """Requests of which no two are alike."""

    def __init__(self, description: ModelDescription) -> None:
        self._codec = Codec(description)
        self._days = count(10_000)

    def of(self, adapters: Sequence[str | None], number: int) -> list[CompletionRequest]:
        """So many, those of an adapter side by side."""
        return [self._one(adapters[index * len(adapters) // number]) for index in range(number)]

    def _one(self, adapter: str | None) -> CompletionRequest:
        sight = f"Energy 10. Here: berries. Food: east 2, north 3. Danger: none. Day {next(self._days)}."
        return CompletionRequest(self._codec.prompt(STRATEGY, sight), adapter, self._codec.choices(ACTIONS))


def ours(adapters: int, others: Sequence[str]) -> dict[str, Any]:
    config = settings(adapters, others)
    model = find_model(config)
    os.environ.update(engines.environment(config.engine))
    with tempfile.TemporaryDirectory() as place:
        shelf = Shelf(open_store(place))
        names = [publish(shelf, config, model, number) for number in range(adapters)]
        engine = engines.build(config.engine, model.directory, model.card, shelf.path)
        prompts = Prompts(asyncio.run(engine.describe()))
        asyncio.run(engine.load(names))

        def answer(requests: Sequence[CompletionRequest]) -> int:
            async def ask() -> int:
                before = await engine.stats()
                await engine.complete(requests)
                after = await engine.stats()
                return after.prompt_tokens - after.cached_tokens - before.prompt_tokens + before.cached_tokens

            return asyncio.run(ask())

        figures = _rounds(prompts, names, answer)
        begin = time.monotonic()
        new = publish(shelf, config, model, adapters)
        asyncio.run(engine.load([*names, new]))
        answer(prompts.of([new], 1))
        figures["publish_to_first_seconds"] = time.monotonic() - begin
        asyncio.run(engine.close())
    return figures


def raw(adapters: int, others: Sequence[str]) -> dict[str, Any]:
    config = settings(adapters, others)
    engine = config.engine
    assert isinstance(engine, VllmEngineConfig)
    model = find_model(config)
    os.environ |= raw_environment()
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    from workers.engines.merged import arithmetic
    from workers.engines.vllm import BLOCK

    assert model.directory is not None
    with tempfile.TemporaryDirectory() as place:
        shelf = Shelf(open_store(place))
        names = [publish(shelf, config, model, number) for number in range(adapters)]
        loras = {name: LoRARequest(name, number, str(shelf.path(name))) for number, name in enumerate(names, 1)}
        llm = LLM(
            model=str(model.directory),
            dtype=arithmetic(engine),
            max_model_len=engine.context,
            max_num_seqs=engine.max_sequences,
            max_num_batched_tokens=engine.max_batched_tokens,
            enable_lora=True,
            max_loras=engine.max_adapters,
            max_lora_rank=engine.max_rank,
            block_size=BLOCK,
            enforce_eager=not on_gpu(),
            disable_log_stats=True,
            **({} if on_gpu() else {"kv_cache_memory_bytes": int(engine.kv_cache_gib * 2**30)}),
        )
        prompts = Prompts(description(model.directory, model.card, context=engine.context, capacity=adapters))
        sampling = SamplingParams(
            max_tokens=1,
            allowed_token_ids=list(prompts.of([None], 1)[0].choices),
            detokenize=False,
        )

        def answer(requests: Sequence[CompletionRequest]) -> int:
            given: Any = [{"prompt_token_ids": list(one.prompt_ids)} for one in requests]
            asked = [loras[one.adapter] for one in requests if one.adapter]
            outputs = llm.generate(given, sampling, use_tqdm=False, lora_request=asked)
            return sum(len(one.prompt_token_ids or ()) - (one.num_cached_tokens or 0) for one in outputs)

        return _rounds(prompts, names, answer)


def costs(serving: str) -> dict[str, Any]:
    """Seconds of a pass with nothing in it, of a token, and of one more adapter in the batch or a change of weights."""
    from workers.engines.vllm import _VllmCore

    found: dict[str, Any] = {}
    config = settings(16, [f"engine.serving={serving}"])
    engine = config.engine
    assert isinstance(engine, VllmEngineConfig)
    model = find_model(config)
    os.environ.update(engines.environment(engine))
    assert model.directory is not None
    with tempfile.TemporaryDirectory() as place:
        shelf = Shelf(open_store(place))
        names = [publish(shelf, config, model, number) for number in range(16)]
        core = _VllmCore(engine, model.directory, model.card, shelf.path)
        prompts = Prompts(description(model.directory, model.card, context=engine.context, capacity=16))
        numbers = map(str, count())
        core.load(names)
        core.switch(names[0])

        def once(size: int, who: Sequence[str]) -> tuple[int, float]:
            for request in prompts.of(who, size):
                core.add(next(numbers), request)
            before, begin = core.tokens(), time.perf_counter()
            while core.busy():
                core.step()
            seconds, after = time.perf_counter() - begin, core.tokens()
            return after[0] - after[1] - before[0] + before[1], seconds

        def several(size: int, who: Sequence[str]) -> tuple[float, float]:
            once(size, who)
            tries = [once(size, who) for _ in range(7)]
            return median(tokens for tokens, _ in tries), median(seconds for _, seconds in tries)

        passes = [several(size, names[:1]) for size in (1, 4, 16, 64)]
        token, empty = np.polyfit([tokens for tokens, _ in passes], [seconds for _, seconds in passes], 1)
        found |= {"pass_seconds": float(empty), "token_seconds": float(token)}
        if serving == "lora":
            one, many = (several(64, names[:number])[1] for number in (1, 16))
            found["adapter_seconds"] = (many - one) / 15
        else:
            switches = []
            for number in range(9):
                begin = time.perf_counter()
                core.switch(names[number])
                switches.append(time.perf_counter() - begin)
            found["swap_seconds"] = median(switches)
        core.close()
    return found


def _rounds(
    prompts: Prompts, names: Sequence[str], answer: Callable[[Sequence[CompletionRequest]], int]
) -> dict[str, Any]:
    """Tokens computed per second, and how busy the GPU was meanwhile, in percent."""
    number = GPU_REQUESTS if on_gpu() else CPU_REQUESTS
    answer(prompts.of(names, number))
    rates = []
    with _gpu_share() as shares:
        for _ in range(ROUNDS):
            requests = prompts.of(names, number)
            begin = time.monotonic()
            tokens = answer(requests)
            rates.append(tokens / (time.monotonic() - begin))
    return {"tokens_per_second": median(rates), "gpu_busy_percent": fmean(shares) if shares else None}


@contextmanager
def _gpu_share() -> Iterator[list[float]]:
    """Utilisation of the first GPU, looked at four times a second; nothing without one."""
    shares: list[float] = []
    over = Event()

    def look() -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
        while not over.wait(0.25):
            shares.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    if not on_gpu():
        yield shares
        return
    looking = Thread(target=look)
    looking.start()
    try:
        yield shares
    finally:
        over.set()
        looking.join()


def gpu_name() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if on_gpu() else machine()


def main() -> None:
    table = Table("adapters", "tokens/s", "raw vLLM", "ratio", "GPU busy, %", "raw", "new adapter, s", title=gpu_name())
    for number in COUNTS:
        mine, theirs = (measure("tests.bench.adapters", side, number) for side in ("ours", "raw"))
        rates = [one["tokens_per_second"] for one in (mine, theirs)]
        busy = ["" if (share := one["gpu_busy_percent"]) is None else f"{share:.0f}" for one in (mine, theirs)]
        first = f"{mine['publish_to_first_seconds']:.2f}"
        table.add_row(str(number), *(f"{rate:.0f}" for rate in rates), f"{rates[0] / rates[1]:.2f}", *busy, first)
    Console(width=110).print(table)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:] or ["all"]
    if kind == "all":
        main()
    elif kind == "costs":
        print(json.dumps(costs(*rest)))
    else:
        print(json.dumps({"ours": ours, "raw": raw}[kind](int(rest[0]), rest[1:])))
