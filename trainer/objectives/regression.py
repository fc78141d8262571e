"""Regression: forecasts that are read off the distribution over the actions."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from telemetry.failures import UsageError
from telemetry.seeds import rng
from trainer.config_objectives import RegressionConfig
from trainer.examples import Examples, NoExamples, Values, decisions
from trainer.job import TrainingJob
from trainer.objectives.learned import Batch, Learned


class Regression(Learned[RegressionConfig]):
    """Lowers the squared error of the forecast drawn, in expectation."""

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """Decisions drawn at random, and the squared error of every action there, in variances of the outcomes.

        What was said does not matter: once the outcome is known, so is what every other word would have been worth.
        Raises UsageError where the world records no such numbers.
        """
        found, config = decisions(steps, job, self.config), self.config
        states = [json.loads(text) for text in found.table["state"].to_pylist()]
        forecasts, outcomes = numbers(states, "forecast", config.forecast), numbers(states, "outcome", config.outcome)
        choices = found.table["choice_ids"].to_pylist()
        said = [tokens[0] for tokens in found.table["completion_ids"].to_pylist()]
        stands_for = _meaning(said, forecasts)
        known = np.array([bool(one) and stands_for.keys() >= set(one) for one in choices]) & np.isfinite(outcomes)
        if not known.any():
            raise NoExamples("no outcome is known of a choice between actions that the parents all have tried")
        middle, spread = float(outcomes[known].mean()), float(outcomes[known].std()) or 1.0
        actual = np.clip(outcomes, middle - config.clip * spread, middle + config.clip * spread) / spread
        chosen = rng(job.seed, "regression").permutation(np.flatnonzero(known))[: config.max_examples]
        worths = [
            [-((stands_for[token] / spread - actual[index]) ** 2) for token in choices[index]] for index in chosen
        ]
        return replace(found.examples(chosen, np.ones(len(chosen))), worths=worths)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean over the decisions of the squared error to be expected."""
        return -batch.promise.mean()


def numbers(states: Sequence[Any], field: str, member: str) -> Values:
    """[steps]: a number that the world recorded with each; NaN where it recorded null. Raises UsageError."""
    values = [state.get(member, "") if isinstance(state, dict) else "" for state in states]
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(
                f"trainer.objective.{field}: got {member!r}, expected a number that the world records in its hidden"
                " state; `forager replay` shows the state"
            )
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _meaning(said: Sequence[int], forecasts: Values) -> dict[int, float]:
    """Action's token -> the number it stands for. Raises UsageError where it stands for several."""
    stands_for: dict[int, float] = {}
    for token, number in zip(said, forecasts.tolist(), strict=True):
        if np.isfinite(number) and stands_for.setdefault(token, number) != number:
            raise UsageError(
                f"trainer.objective.forecast: one action stood for {stands_for[token]:g} and for {number:g},"
                " expected one number per action; learn this world by another objective"
            )
    return stands_for
