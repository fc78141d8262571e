"""Decisions per second of individuals with adapters of their own through the whole stack, and of raw vLLM.

`ours DIR [COUNT LIVES [REMEMBER [ALIKE]]] [KEY=VALUE ...]` lives 32 lives of each of four individuals on Ray, or as
many as said, and commits every row to a ledger in DIR; with REMEMBER 0 every decision is computed, with ALIKE 1 all
have one strategy, so that a decision costs the same however many they are; `engine.serving=merged` and the like
change the run file.
`raw DIR` feeds the recorded prompts to `vllm.LLM.generate` of the untouched model: individual by individual all at
once, and step by step, as lives need their answers.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.builder import Builder, find_model
from orchestrator.cluster import cluster
from orchestrator.config import RunConfig
from orchestrator.rooms import tasks
from orchestrator.run import Run, create
from orchestrator.runfile import load
from telemetry.adapters import Shelf, save
from telemetry.ledger import Ledger
from telemetry.records import BaseModelCard, Individual
from telemetry.seeds import rng, world_seed
from telemetry.store import open_store
from tests.forager import ROOT
from trainer.config_operators import GaussianMutation
from trainer.lowrank import fresh
from trainer.mutation import mutate

COUNT, LIVES = 4, 32
WARM_UP = 4
CLONING = "trainer.objective={kind: sft, baseline: both, trace: 0.5, max_examples: 48, epochs: 2, batch_size: 8}"


def configuration(
    count: int = COUNT,
    lives: int = LIVES,
    remember: int | None = None,
    alike: bool = False,
    *,
    settings: Sequence[str] = (),
) -> RunConfig:
    """The demo's, with behaviour cloning, which raw TRL has as well, and no metrics port."""
    shape = [f"population.size={count}", f"population.lives={lives}", f"engine.max_adapters={max(8, count)}"]
    if remember is not None:
        shape.append(f"engine.remember={remember}")
    if alike:
        shape.append('population.founders=[{name: one, strategy: "Eat berries here; walk to food.", epsilon: 0.6}]')
    return load(ROOT / "deploy" / "runs" / "demo.yaml", [*shape, CLONING, "metrics.enabled=false", *settings])


def with_adapters(run: Run, card: BaseModelCard) -> list[Individual]:
    """The founders, each with an adapter of its own: noise too small to change how they play."""
    individuals = []
    for number, one in enumerate(run.population):
        weights = mutate(
            fresh(card, run.config.trainer.lora, rng("bench", number)), GaussianMutation(), rng("noise", number)
        )
        adapter, _ = Shelf(run.store).publish_files(save(weights, card))
        genome = one.genome.model_copy(update={"adapter": adapter})
        individuals.append(one.model_copy(update={"genome": genome}))
    return individuals


def ours(
    directory: Path,
    count: int = COUNT,
    lives: int = LIVES,
    remember: int | None = None,
    alike: bool = False,
    *,
    settings: Sequence[str] = (),
) -> dict[str, float]:
    """Wall time of living all lives, every individual with weights of its own, rows committed."""
    config = configuration(count, lives, remember, alike, settings=settings)
    model = find_model(config)
    run = create(open_store(directory), config, model.card)
    individuals = with_adapters(run, model.card)
    seeds, others = ([world_seed(config.seed, turn, life) for life in range(lives)] for turn in (0, 1))
    with cluster(config.ray) as start, asyncio.Runner() as runner:
        pool = runner.run(Builder(config, model, str(run.store), directory / "logs", start).workers())
        runner.run(pool.try_out([tasks(one, others[:WARM_UP]) for one in individuals]))
        before = runner.run(pool.engines[0].peer.stats())
        begin = time.monotonic()
        runner.run(pool.live([tasks(one, seeds) for one in individuals], run.acknowledge))
        seconds = time.monotonic() - begin
        after = runner.run(pool.engines[0].peer.stats())
        begin = time.monotonic()
        runner.run(pool.engines[0].peer.load([individuals[0].genome.adapter]))
        swap = time.monotonic() - begin
    decisions = sum(commit.decisions for commit in run.state.commits)
    return {
        "decisions": decisions,
        "decisions_per_second": decisions / seconds,
        "swap_seconds": swap,
        "recalled_share": (after.recalled - before.recalled) / (after.answered - before.answered),
        "cached_share": (after.cached_tokens - before.cached_tokens) / (after.prompt_tokens - before.prompt_tokens),
        "decoded_per_decision": pc.mean(pc.list_value_length(_steps(directory)["completion_ids"])).as_py(),
    }


def raw(directory: Path) -> dict[str, float]:
    """The same prompts through vLLM's own batch interface, with the same engine settings."""
    return bare(_steps(directory))


def raw_environment() -> dict[str, str]:
    """Variables of a process that measures raw vLLM: all cores, no network."""
    cores = sorted(os.sched_getaffinity(0))
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        # Left alone, vLLM keeps a core free of arithmetic.
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
    }


def bare(steps: pa.Table) -> dict[str, float]:
    """Decisions per second of recorded steps (schema STEPS) in raw vLLM, all at once and step by step."""
    os.environ |= raw_environment()
    from vllm import LLM, SamplingParams

    from workers.engines.merged import arithmetic
    from workers.engines.vllm import BLOCK

    config = configuration()
    engine: Any = config.engine
    sampling = SamplingParams(
        max_tokens=1, temperature=1.0, allowed_token_ids=steps["choice_ids"][0].as_py(), detokenize=False
    )
    llm = LLM(
        model=str(find_model(config).directory),
        dtype=arithmetic(engine),
        max_model_len=engine.context,
        max_num_seqs=engine.max_sequences,
        max_num_batched_tokens=engine.max_batched_tokens,
        kv_cache_memory_bytes=int(engine.kv_cache_gib * 2**30),
        block_size=BLOCK,
        enforce_eager=True,
        disable_log_stats=True,
    )

    def generate(prompts: list[list[int]]) -> None:
        llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)

    people = sorted(set(steps["individual"].to_pylist()))
    own = {name: steps.filter(pc.equal(steps["individual"], name)) for name in people}
    generate(own[people[0]]["prompt_ids"].to_pylist()[:64])
    results = {}
    for name in ("once", "lockstep"):
        seconds = 0.0
        for person in people:
            llm.reset_prefix_cache()
            prompts, step = own[person]["prompt_ids"].to_pylist(), own[person]["step"].to_pylist()
            last = max(step) if name == "lockstep" else -1
            rounds = [[p for p, s in zip(prompts, step, strict=True) if s == now] for now in range(last + 1)]
            begin = time.monotonic()
            for batch in rounds or [prompts]:
                generate(batch)
            seconds += time.monotonic() - begin
        results[name] = steps.num_rows / seconds
    return results


def _steps(directory: Path) -> pa.Table:
    """Every recorded step (schema STEPS)."""
    from orchestrator.state import fold
    from telemetry.journal import Journal

    store = open_store(directory)
    return Ledger(store).read("steps", version=fold(Journal(store).read()).tables["steps"])


if __name__ == "__main__":
    kind, place, *rest = sys.argv[1:]
    numbers = [int(one) for one in rest if "=" not in one]
    settings = [one for one in rest if "=" in one]
    print(json.dumps(raw(Path(place)) if kind == "raw" else ours(Path(place), *numbers, settings=settings)))
