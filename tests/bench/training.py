"""Tokens per second of one training job: the whole job here, and `train()` alone of a bare TRL loop on the same data.

`ours DIR` and `trl DIR` learn from the ledger that the rollout measurement left in DIR.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.builder import find_model
from orchestrator.experience import experience
from orchestrator.fitness import score
from orchestrator.reproduction import Brood, reproduce
from orchestrator.selection import select
from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.seeds import rng
from telemetry.store import open_store
from tests.bench.rollout import configuration
from trainer.config import TrainerConfig
from trainer.examples import decisions, good_decisions
from trainer.job import TrainingJob

EXAMPLES = 48
JOBS = 3


def task(directory: Path) -> tuple[TrainerConfig, TrainingJob, Any]:
    """First birth of the recorded generation under the demo's configuration, with a fixed number of examples."""
    config = configuration()
    store = open_store(directory)
    state = fold(Journal(store).read())
    ledger = Ledger(store)
    lives, steps = (ledger.read(name, version=state.tables[name]) for name in ("lives", "steps"))
    fitness = score(lives, state.population, config.fitness, horizon=60, seed=config.seed)
    selection = select(fitness, config.selection, rng(config.seed, "select", 0))
    births = reproduce(state.population, selection, config.reproduction, Brood(4, config.seed))
    objective = config.trainer.objective.model_copy(update={"max_examples": EXAMPLES, "threshold": 0.0, "epochs": 1})
    lived = experience(steps, lives, config.fitness, horizon=60)
    return config.trainer.model_copy(update={"objective": objective}), births.jobs[0], lived


def ours(directory: Path) -> dict[str, float]:
    """Whole jobs on a trainer that has run one before: crossover, mutation, examples, training, gate, shelf.

    `overhead_seconds` is what a job takes beyond TRL's `train()`.
    """
    from trainer.finetune import Trainer
    from trainer.objectives.learned import ObjectiveTrainer

    config, job, steps = task(directory)
    model = find_model(configuration())
    spent: list[float] = []
    train = ObjectiveTrainer.train

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        begin = time.monotonic()
        outcome = train(self, *args, **kwargs)
        spent.append(time.monotonic() - begin)
        return outcome

    ObjectiveTrainer.train = timed
    with tempfile.TemporaryDirectory() as shelf:
        trainer = Trainer(config, model.card, model.directory, shelf)
        asyncio.run(trainer.run(job, steps))
        results = [asyncio.run(trainer.run(job, steps))[0] for _ in range(JOBS)]
    assert all(result.status == "trained" for result in results), results[0].reason
    seconds = sum(result.seconds for result in results)
    return {
        "tokens_per_second": sum(result.tokens for result in results) / seconds,
        "overhead_seconds": (seconds - sum(spent[1:])) / JOBS,
        "examples": results[0].examples,
    }


def trl(directory: Path) -> dict[str, float]:
    """TRL on the same examples."""
    config, job, steps = task(directory)
    [(tokens, seconds)] = bare(config, [job], steps)
    return {"tokens_per_second": tokens / seconds}


def bare(config: TrainerConfig, jobs: Sequence[TrainingJob], steps: pa.Table) -> list[tuple[int, float]]:
    """Tokens and seconds of `train()` for the examples of each job, which must be of behaviour cloning.

    TRL as its documentation shows it, on tokenised prompts and completions, loss on completions only.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    objective: Any = config.objective
    path = find_model(configuration()).directory
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    lora = config.lora
    spent = []
    for job in jobs:
        examples = good_decisions(decisions(steps, job, objective), objective)
        rows = [
            {"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + [1] * len(answer)}
            for prompt, answer in zip(examples.prompt_ids, examples.completion_ids, strict=True)
        ]
        with tempfile.TemporaryDirectory() as scratch:
            arguments = SFTConfig(
                output_dir=scratch,
                per_device_train_batch_size=objective.batch_size,
                num_train_epochs=objective.epochs,
                learning_rate=job.child.genome.hyperparameters.learning_rate,
                bf16=False,
                use_cpu=True,
                gradient_checkpointing=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            trainer = SFTTrainer(
                model,
                arguments,
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                peft_config=LoraConfig(
                    r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.modules), task_type="CAUSAL_LM"
                ),
            )
            begin = time.monotonic()
            trainer.train()
            spent.append((examples.tokens * objective.epochs, time.monotonic() - begin))
            model = trainer.model.unload()
    return spent


if __name__ == "__main__":
    print(json.dumps({"ours": ours, "trl": trl}[sys.argv[1]](Path(sys.argv[2]))))
