"""Jobs, steps and cards that several tests of the trainer need."""

import json
from collections.abc import Sequence

import pyarrow as pa

from telemetry.adapters import LoraWeights
from telemetry.records import BaseModelCard, Genome, Hyperparameters, Individual
from trainer.config_operators import GaussianMutation, LinearCrossover
from trainer.examples import EXPERIENCE
from trainer.job import Parent, TrainingJob

SCRIPTED = BaseModelCard(id="scripted", sha256="5" * 64, modules={"scripted.policy": (16, 32)})
Life = tuple[str, int, Sequence[tuple[str, float]]]
"""Individual, life, and (action, change of energy) per step."""


def job(
    *parents: tuple[str, str | None, float], mutation: float = 0.0, seed: int = 7, learning_rate: float = 1e-2
) -> TrainingJob:
    """A birth in generation 1 from parents given as (individual, adapter, weight)."""
    hyperparameters = Hyperparameters(temperature=1.0, epsilon=0.1, learning_rate=learning_rate)
    child = Individual(
        id="g001-000",
        generation=1,
        lineage="ash",
        parents=tuple(name for name, _, _ in parents),
        genome=Genome(strategy="eat", hyperparameters=hyperparameters),
    )
    return TrainingJob(
        child=child,
        parents=tuple(Parent(individual=name, adapter=adapter, weight=weight) for name, adapter, weight in parents),
        crossover=LinearCrossover(),
        mutation=GaussianMutation(strength=mutation),
        seed=seed,
    )


def nobody(adapter: str) -> LoraWeights:
    """A shelf for those who ask for no adapter."""
    raise AssertionError(f"asked for {adapter}")


def steps(lives: Sequence[Life], died: Sequence[int] = ()) -> pa.Table:
    """What was lived through (schema EXPERIENCE); token ids name the row they belong to.

    died: positions of the lives that ended in death. A life's worth is its length.
    """
    rows = []
    for position, (individual, life, decisions) in enumerate(lives):
        energy = 10.0
        for step, (action, change) in enumerate(decisions):
            number = len(rows)
            rows.append(
                {
                    "individual": individual,
                    "life": life,
                    "step": step,
                    "prompt_ids": [1, 2, 3, 10 + number % 50, 20 + life % 50],
                    "completion_ids": [100 + len(action)],
                    "choice_ids": [100 + len(one) for one in ("eat", "rest", "north")],
                    "action": action,
                    "observation": f"step {step} of a walk",
                    "completion_logprobs": [-1.25],
                    "behaviour_probability": 0.25,
                    "temperature": 0.5,
                    "died": position in died,
                    "worth": float(len(decisions)),
                    "energy_before": energy,
                    "energy_after": energy + change,
                    "state": json.dumps({"forecast": len(action), "actual": change}),
                }
            )
            energy += change
    return pa.Table.from_pylist(rows, schema=EXPERIENCE)
