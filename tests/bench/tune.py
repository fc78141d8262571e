"""What a generation costs beyond its lives, here and with Ray Tune's population-based training.

The trainable is the same: one individual's lives in `forage` with the scripted engine; weights are neither trained nor
mutated. `ours` is a run, with every step in the ledger, commits, selection and births; `tune` is synchronous
population-based training with a checkpoint per generation. What is left of a generation's wall time after the lives
themselves, lived in one bare process and spread over all cores, is overhead. Both take turns.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.places import open_run
from telemetry.records import Genome, Hyperparameters, Individual
from telemetry.seeds import world_seed
from tests.forager import SMOKE, ok
from workers.agent import AgentHost
from workers.config import EnvironmentConfig, ScriptedEngineConfig
from workers.engines.scripted import ScriptedEngine
from workers.recorder import LifeTask

POPULATION = 8
LIVES = 16
GENERATIONS = 12
ROUNDS = 3
CORES = len(os.sched_getaffinity(0))
WARM_UP = 2
"""Generations left out of both: actors start and import."""


class Lives:
    """One individual's lives in this process."""

    def __init__(self) -> None:
        self._engine = ScriptedEngine(ScriptedEngineConfig(), Path)
        asyncio.run(self._engine.load([None]))
        self._host = AgentHost(
            run="bench",
            run_seed=1,
            environment=EnvironmentConfig(),
            heldout={},
            description=asyncio.run(self._engine.describe()),
            request_batch=64,
        )

    def __call__(self, generation: int, epsilon: float, temperature: float) -> float:
        """Mean survival."""
        numbers = Hyperparameters(temperature=temperature, epsilon=min(1.0, epsilon), learning_rate=0.1)
        genome = Genome(strategy="Explore widely.", hyperparameters=numbers)
        one = Individual(id="g000-000", generation=0, lineage="one", genome=genome)
        tasks = [LifeTask(one, life, world_seed(1, generation, life), f"{life}") for life in range(LIVES)]
        report = asyncio.run(self._host.live(tasks, "engine", self._engine, None))
        return sum(life.steps for life in report.finished) / LIVES


def bare() -> float:
    """Seconds of a generation's lives and nothing else, spread over all cores."""
    live = Lives()
    seconds = []
    for generation in range(GENERATIONS):
        begin = time.perf_counter()
        for _ in range(POPULATION):
            live(generation, 0.5, 1.0)
        seconds.append(time.perf_counter() - begin)
    return median(seconds[WARM_UP:]) / CORES


def ours() -> float:
    """Median wall seconds of a generation of a run."""
    settings = [
        f"population.size={POPULATION}",
        f"population.lives={LIVES}",
        f"generations={GENERATIONS}",
        "evaluation.lives=1",
        "metrics.enabled=false",
        "trainer.enabled=false",
        "reproduction.weight_mutation={kind: gaussian, rate: 0}",
        f"workers.agents={CORES}",
        "workers.request_batch=64",
    ]
    with tempfile.TemporaryDirectory() as store:
        ok("run", SMOKE, "--store", store, *(part for setting in settings for part in ("--set", setting)))
        _, state = open_run(f"{store}/smoke")
    return median(event.seconds["total"] for event in state.history[WARM_UP:-1])


def tune() -> float:
    """Median wall seconds of a generation of population-based training."""
    import ray
    from ray import train
    from ray.tune import RunConfig, Trainable, TuneConfig, Tuner, uniform
    from ray.tune.schedulers import PopulationBasedTraining

    ended: list[float] = []

    class Survivor(Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.live = Lives()

        def step(self) -> dict[str, float]:
            return {"fitness": self.live(self.iteration, self.config["epsilon"], self.config["temperature"])}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            Path(checkpoint_dir, "genome.json").write_text(json.dumps(self.config))

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            json.loads(Path(checkpoint_dir, "genome.json").read_text())

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    class Clock(train.Callback if hasattr(train, "Callback") else ray.tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            ended.append(time.perf_counter())

    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations={"epsilon": uniform(0.1, 0.9), "temperature": uniform(0.5, 2.0)},
        synch=True,
    )
    with tempfile.TemporaryDirectory() as results:
        ray.init(address="local", num_cpus=CORES, include_dashboard=False, log_to_driver=False)
        Tuner(
            ray.tune.with_resources(Survivor, {"cpu": CORES / POPULATION}),
            param_space={"epsilon": uniform(0.3, 0.7), "temperature": uniform(0.8, 1.2)},
            tune_config=TuneConfig(
                num_samples=POPULATION, scheduler=scheduler, metric="fitness", mode="max", reuse_actors=True
            ),
            run_config=RunConfig(
                storage_path=results, stop={"training_iteration": GENERATIONS}, verbose=0, callbacks=[Clock()]
            ),
        ).fit()
        ray.shutdown()
    ends = ended[POPULATION - 1 :: POPULATION]
    return median(later - sooner for sooner, later in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps({"bare": bare, "ours": ours, "tune": tune}[sys.argv[1]]()))
        return
    rounds = [{name: _apart(name) for name in ("bare", "ours", "tune")} for _ in range(ROUNDS)]
    overheads = [{name: one[name] - one["bare"] for name in ("ours", "tune")} for one in rounds]
    found = {name: median(one[name] for one in rounds) for name in ("bare", "ours", "tune")}
    overhead = {name: median(one[name] for one in overheads) for name in ("ours", "tune")}
    ratio = median(one["ours"] / one["tune"] for one in overheads)
    print(json.dumps({**found, "overhead": overhead, "ratio": ratio}))


def _apart(name: str) -> float:
    """A measurement in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.tune", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
