"""An objective that does NOT learn, for tests and dry runs with the scripted engine.

Each job adds a small draw to the weights it starts from. The draw is keyed by a hash of the training set and of the
start, so equal histories give equal adapters and any lost, repeated or reordered record shows up as another id.
"""

import json
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from telemetry.adapters import LoraWeights
from telemetry.seeds import rng
from trainer.config_objectives import ScriptedConfig, SftConfig
from trainer.examples import Examples, decisions, good_decisions
from trainer.job import TrainingJob
from trainer.objectives import Fit


class Scripted:
    """Shifts weights by addressed noise. Needs no model, no torch."""

    def __init__(self, config: ScriptedConfig) -> None:
        self._shift = config.shift

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """Chooses as `sft` does, so that dry runs walk the same path."""
        return good_decisions(decisions(steps, job, SftConfig()), SftConfig())

    def join(self, group: Any) -> None:
        """Nothing to share: each process draws the same."""

    def fit(self, start: LoraWeights, examples: Examples, job: TrainingJob) -> Fit:
        draw = rng(job.seed, "scripted objective", _digest(start, examples))
        factors = {}
        for module, pair in sorted(start.factors.items(), key=lambda item: item[0]):
            a, b = (factor + self._shift * draw.standard_normal(factor.shape) for factor in pair)
            factors[module] = (a.astype(np.float32), b.astype(np.float32))
        return Fit(LoraWeights(start.rank, start.alpha, factors), tokens=examples.tokens)


def _digest(start: LoraWeights, examples: Examples) -> str:
    digest = sha256(json.dumps([examples.keys, examples.prompt_ids, examples.completion_ids]).encode())
    for module, pair in sorted(start.factors.items(), key=lambda item: item[0]):
        digest.update(module.encode())
        for factor in pair:
            digest.update(np.ascontiguousarray(factor, dtype="<f4").tobytes())
    return digest.hexdigest()
