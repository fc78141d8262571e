"""Regression: the squared error of the number that a word stands for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from telemetry import models
from telemetry.failures import UsageError
from tests import tiny
from tests.trainer.builders import job, nobody, steps
from trainer.config import LoraConfig, TrainerConfig
from trainer.config_objectives import RegressionConfig
from trainer.examples import EXPERIENCE, NoExamples
from trainer.lowrank import fresh
from trainer.objectives import build
from trainer.objectives.learned import _rows
from trainer.objectives.regression import Regression
from trainer.packing import collate

pytestmark = pytest.mark.real

PARENT = job(("g000-000", None, 1.0), learning_rate=2e-2)
LORA = LoraConfig(rank=4, alpha=8)
WORDS = {"eat": 3.0, "rest": 4.0, "north": 5.0}
"""What the words of the builders stand for: their lengths."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


def objective(model: Path, **settings: Any) -> Any:
    config = RegressionConfig(epochs=40, batch_size=6, **settings)
    return build(TrainerConfig(objective=config, lora=LORA, precision="fp32", threads=1), model, nobody)[""]


def walk(outcomes: list[float]) -> pa.Table:
    """All words are said in turn, whatever happens; the outcome is the change of energy."""
    return steps([("g000-000", 0, [(list(WORDS)[place % 3], outcome) for place, outcome in enumerate(outcomes)])])


def with_states(table: pa.Table, states: list[Any]) -> pa.Table:
    position = EXPERIENCE.get_field_index("state")
    return table.set_column(position, EXPERIENCE.field(position), pa.array([json.dumps(one) for one in states]))


def test_every_action_is_worth_its_squared_error() -> None:
    outcomes = [3.0, 4.5, 5.0, 3.5, 4.0, 3.0]
    config = RegressionConfig()
    bare = object.__new__(Regression)
    bare.config = config
    examples = bare.examples(walk(outcomes), PARENT)
    variance = np.var(outcomes)
    assert sorted(key[2] for key in examples.keys) == list(range(6))
    for key, worths in zip(examples.keys, examples.worths, strict=True):
        assert worths == pytest.approx([-((word - outcomes[key[2]]) ** 2) / variance for word in WORDS.values()])


def test_the_loss_is_squared_bias_plus_variance(model: Path) -> None:
    """Of the forecast as it is drawn: the expectation over the actions, not the one that was recorded."""
    one = objective(model)
    examples = one.examples(walk([3.0, 4.5, 5.0]), PARENT)
    start = fresh(models.card(model, "tiny"), LORA, np.random.default_rng(0))
    with one.policy.wearing(start) as wearing, torch.no_grad():
        rows = collate(_rows(examples, True))["parts"]
        loss = float(one.loss(one.batch(wearing, rows)))
        drawn = torch.cat([one.policy.likelihoods(wearing, row).allowed.exp() for row in rows[0]]).numpy()
    spread = np.std([3.0, 4.5, 5.0])
    words = np.array(list(WORDS.values())) / spread
    outcomes = np.array([[3.0, 4.5, 5.0][key[2]] for key in examples.keys]) / spread
    means = drawn @ words
    variances = drawn @ words**2 - means**2
    assert loss == pytest.approx(np.mean((means - outcomes) ** 2 + variances), rel=1e-4)


def test_it_comes_to_forecast_what_the_text_says(model: Path) -> None:
    """Prompts tell apart the steps: each has an outcome of its own, and the mean forecast comes to it."""
    one = objective(model)
    outcomes = [3.0, 5.0, 3.0, 5.0, 5.0, 3.0]
    examples = one.examples(walk(outcomes), PARENT)
    start = fresh(models.card(model, "tiny"), LORA, np.random.default_rng(0))
    fit = one.fit(start, examples, PARENT)
    assert fit.losses[-1] < 0.2 * fit.losses[0]


def test_outliers_count_as_the_clip() -> None:
    bare = object.__new__(Regression)
    bare.config = RegressionConfig(clip=1.0)
    examples = bare.examples(walk([0.0, 0.0, 0.0, 0.0, 0.0, 60.0]), PARENT)
    spread = np.std([0.0] * 5 + [60.0])
    [far] = [worths for key, worths in zip(examples.keys, examples.worths, strict=True) if key[2] == 5]
    assert far == pytest.approx([-(((word - 10.0) / spread - 1.0) ** 2) for word in WORDS.values()])


def test_only_what_is_known_is_learned() -> None:
    """No outcome yet, or an action that nobody has tried: nothing is made up."""
    bare = object.__new__(Regression)
    bare.config = RegressionConfig()
    table = walk([3.0, 4.0, 5.0, 4.0])
    states = [{"forecast": word, "actual": None if step == 1 else 4.0 + step} for step, word in enumerate([3, 4, 5, 3])]
    examples = bare.examples(with_states(table, states), PARENT)
    assert {key[2] for key in examples.keys} == {0, 2, 3}
    untried = steps([("g000-000", 0, [("eat", 1.0), ("eat", 2.0), ("rest", 3.0)])])
    with pytest.raises(NoExamples, match="have tried"):
        bare.examples(untried, PARENT)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({"forecast": 1.0}, "trainer.objective.outcome: got 'actual', expected a number"),
        ({"actual": 1.0, "forecast": True}, "trainer.objective.forecast: got 'forecast', expected a number"),
        ({"actual": 1.0, "forecast": "up"}, "trainer.objective.forecast: got 'forecast', expected a number"),
        ([1.0], "trainer.objective.forecast: got 'forecast', expected a number"),
    ],
)
def test_a_world_without_the_numbers_is_refused(state: Any, line: str) -> None:
    bare = object.__new__(Regression)
    bare.config = RegressionConfig()
    with pytest.raises(UsageError, match=line):
        bare.examples(with_states(walk([1.0, 2.0, 3.0]), [state] * 3), PARENT)


def test_an_action_that_stands_for_two_numbers_is_refused() -> None:
    bare = object.__new__(Regression)
    bare.config = RegressionConfig()
    states = [{"forecast": step, "actual": 1.0} for step in range(4)]
    with pytest.raises(UsageError, match="stood for 0 and for 3"):
        bare.examples(with_states(walk([1.0, 2.0, 3.0, 4.0]), states), PARENT)
