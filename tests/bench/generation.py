"""Wall time of a whole generation, and of its lives and its training alone in raw vLLM and raw TRL.

`ours DIR` runs three generations of eight lineages and takes the second, when everything stands and somebody is bred.
`vllm DIR` and `trl DIR` do its arithmetic again, packed without a gap: the recorded prompts, fed in whichever way is
faster, and one `train()` after the other on what its births learned from.
"""

import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.budget import next_brood
from orchestrator.experience import experience
from orchestrator.places import open_run
from orchestrator.reproduction import reproduce
from orchestrator.state import RunState, config_of
from telemetry.ledger import Ledger
from tests.bench import rollout, training
from tests.forager import ROOT, ok

POPULATION, LIVES = 8, 16
GENERATION = 1


def ours(directory: Path) -> dict[str, Any]:
    """Seconds of the generation by phase, and how much was done in them."""
    settings = [
        f"population.size={POPULATION}",
        f"population.lives={LIVES}",
        rollout.CLONING,
        "evaluation.lives=1",
        "evaluation.manners=0",
        "metrics.enabled=false",
    ]
    given = [part for setting in settings for part in ("--set", setting)]
    ok("run", ROOT / "deploy" / "runs" / "demo.yaml", "--store", directory, *given, timeout=3600)
    _, state = open_run(str(directory / "demo"))
    event = state.history[GENERATION]
    decisions = sum(commit.decisions for commit in state.commits if commit.generation == GENERATION)
    return {"seconds": event.seconds["total"], "phases": event.seconds, "decisions": decisions}


def vllm(directory: Path) -> dict[str, float]:
    """Seconds of its lives."""
    ledger, state = _opened(directory)
    steps = ledger.recall("steps", GENERATION, state.vouched(GENERATION), state.attempts(GENERATION))
    return {"seconds": steps.num_rows / max(rollout.bare(steps).values())}


def trl(directory: Path) -> dict[str, float]:
    """Seconds of its training."""
    ledger, state = _opened(directory)
    config, vouched, attempts = config_of(state), state.vouched(GENERATION), state.attempts(GENERATION)
    steps, lives = (ledger.recall(name, GENERATION, vouched, attempts) for name in ("steps", "lives"))
    lived = experience(steps, lives, config.fitness, horizon=60)
    population = state.history[GENERATION - 1].population
    brood = next_brood(state, GENERATION, config)
    jobs = reproduce(population, state.history[GENERATION].selection, config.reproduction, brood).jobs
    spent = training.bare(config.trainer, jobs, lived)
    return {"seconds": sum(seconds for _, seconds in spent), "tokens": sum(tokens for tokens, _ in spent)}


def _opened(directory: Path) -> tuple[Ledger, RunState]:
    store, state = open_run(str(directory / "demo"))
    return Ledger(store), state


if __name__ == "__main__":
    print(json.dumps({"ours": ours, "vllm": vllm, "trl": trl}[sys.argv[1]](Path(sys.argv[2]))))
