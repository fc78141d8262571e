"""KTO, DPO, GRPO and distillation: which decisions they learn, their losses by the papers, and that they learn."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from telemetry import models
from telemetry.failures import UsageError
from tests import tiny
from tests.trainer.builders import job, nobody, steps
from trainer.config import LoraConfig, TrainerConfig
from trainer.config_objectives import DistillConfig, DpoConfig, GrpoConfig, KtoConfig, LearningConfig, SftConfig
from trainer.examples import Examples, NoExamples, decisions
from trainer.job import Parent
from trainer.lowrank import fresh
from trainer.objectives import build
from trainer.objectives.dpo import Dpo, pairs
from trainer.objectives.grpo import Grpo, relative
from trainer.objectives.kto import Kto
from trainer.objectives.learned import Batch

pytestmark = pytest.mark.real

PARENTS = job(("g000-000", None, 0.5), ("g000-001", None, 0.5))
GOOD, BAD = [("wait", 0.0), ("eat", 5.0), ("north", 0.0)], [("wait", 0.0), ("north", -5.0), ("rest", 0.0)]
LORA = LoraConfig(rank=4, alpha=8)
WALKS = [("g000-000", 0, GOOD), ("g000-001", 0, BAD), ("g000-000", 1, GOOD), ("g000-001", 1, GOOD)]


def bare(kind: Any, config: LearningConfig) -> Any:
    """The objective without a model: what it chooses and its loss need none."""
    objective = object.__new__(kind)
    objective.config = config
    return objective


def batch(examples: int, tokens: int = 1, seed: int = 0, **columns: torch.Tensor) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    count = examples * tokens
    made = {
        "taken": -3 * torch.rand(count, generator=draw),
        "example": torch.arange(examples).repeat_interleave(tokens),
        "value": torch.ones(examples),
        "drawn": -3 * torch.rand(count, generator=draw),
        "reference": -3 * torch.rand(count, generator=draw),
        "divergence": torch.rand(count, generator=draw),
        "known": torch.ones(count, dtype=torch.bool),
        "promise": -torch.rand(count, generator=draw),
    }
    return Batch(**(made | columns))


def test_kto_is_the_equation_of_the_paper() -> None:
    values = torch.tensor([1.0, 1.0, -0.7, -0.7])
    one = batch(4, value=values)
    ratio = one.taken - one.reference
    point = one.divergence.mean()
    sigmoid = torch.sigmoid
    expected = [1 - sigmoid(0.3 * (ratio[index] - point)) for index in (0, 1)]
    expected += [0.7 * (1 - sigmoid(0.3 * (point - ratio[index]))) for index in (2, 3)]
    loss = bare(Kto, KtoConfig(beta=0.3)).loss(one)
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_dpo_is_the_equation_of_the_paper() -> None:
    one = batch(4, tokens=2)
    ratio = (one.taken - one.reference).reshape(4, 2).sum(1)
    margins = torch.stack([ratio[0] - ratio[1], ratio[2] - ratio[3]])
    expected = -torch.log(torch.sigmoid(0.3 * margins)).mean()
    torch.testing.assert_close(bare(Dpo, DpoConfig(beta=0.3)).loss(one), expected)


def test_grpo_weighs_by_truncated_ratios_that_are_not_differentiated() -> None:
    one = batch(3, value=torch.tensor([1.5, -1.0, 0.5]))
    taken = one.taken.clone().requires_grad_()
    loss = bare(Grpo, GrpoConfig(max_ratio=1.2, clip=False, beta=0.1)).loss(batch(3, taken=taken, value=one.value))
    ratio = (one.taken - one.drawn).exp().clamp(max=1.2)
    expected = -(ratio * one.value * one.taken).mean() + 0.1 * one.divergence.mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    torch.testing.assert_close(taken.grad, -ratio * one.value / 3)


def test_grpo_clipped_has_the_gradient_of_the_papers_surrogate() -> None:
    drawn, drift = torch.full((8,), -1.5), torch.tensor([-1.5, -0.5, 0.5, 1.5] * 2)
    value = torch.tensor([1.5] * 4 + [-0.5] * 4)
    mine, surrogate = ((drawn + drift).requires_grad_() for _ in range(2))
    bare(Grpo, GrpoConfig(max_ratio=2.0)).loss(batch(8, taken=mine, drawn=drawn, value=value)).backward()
    ratio = (surrogate - drawn).exp()
    pessimistic = torch.minimum(ratio * value, ratio.clamp(1 / 2, 2) * value)
    (-pessimistic.mean()).backward()
    wanted = surrogate.grad.clone()
    assert (wanted == 0).sum() == 2
    wanted[7] = -2 * value[7] / 8  # a bad decision far more likely than drawn: weighed by 2, not by exp(1.5)
    torch.testing.assert_close(mine.grad, wanted)


def test_groups_are_worlds_and_those_without_variance_are_dropped() -> None:
    table = steps([*WALKS, ("g000-000", 2, [("wait", -1.0)] * 4), ("g000-001", 2, [("wait", -1.0)] * 3)])
    examples = bare(Grpo, GrpoConfig(lookahead=1, exploration="model")).examples(table, PARENTS)
    assert {life for _, life, _ in examples.keys} == {0, 1}
    assert examples.dropped == 7
    assert examples.logprobs == [[-1.25]] * len(examples.keys)
    assert examples.temperatures == [0.5] * len(examples.keys)
    explored = bare(Grpo, GrpoConfig(lookahead=1)).examples(table, PARENTS)
    assert explored.logprobs[0] == [pytest.approx(np.log(0.25))]
    flat = steps([("g000-000", 0, [("wait", 1.0)]), ("g000-000", 1, [("wait", 2.0)])])
    with pytest.raises(NoExamples, match="all 2 groups"):
        bare(Grpo, GrpoConfig(lookahead=1)).examples(flat, PARENTS)


def test_an_action_is_learned_from_both_its_sides() -> None:
    walk = [("eat", 9.0), ("eat", 8.0), ("eat", 7.0), ("eat", -1.0), ("north", -6.0), ("north", -5.0), ("north", -4.0)]
    table = steps([("g000-000", 0, walk)])
    examples = bare(Grpo, GrpoConfig(lookahead=1, max_examples=4, threshold=0)).examples(table, PARENTS)
    assert sorted(step for _, _, step in examples.keys) == [0, 1, 3, 4]
    assert [value > 0 for value in examples.values] == [step < 3 for _, _, step in examples.keys]


def test_what_is_near_the_mean_is_not_learned_from() -> None:
    walk = [("eat", 9.0), ("eat", -1.0), ("north", -6.0), ("north", 0.5)]
    table = steps([("g000-000", 0, walk)])
    examples = bare(Grpo, GrpoConfig(lookahead=1, threshold=0.5)).examples(table, PARENTS)
    assert sorted(step for _, _, step in examples.keys) == [0, 2]
    with pytest.raises(NoExamples, match=r"is 9 \(threshold\) from"):
        bare(Grpo, GrpoConfig(lookahead=1, threshold=9)).examples(table, PARENTS)


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_relative_to_the_group(scale: bool) -> None:
    draw = np.random.default_rng(0)
    credit, groups = draw.standard_normal(60), draw.integers(0, 7, 60)
    credit[groups == 3] = 4.0
    found, flat = relative(credit, groups, scale=scale)
    for group in set(groups.tolist()):
        own = credit[groups == group]
        wanted = (own - own.mean()) / (own.std() if scale and group != 3 else 1)
        np.testing.assert_allclose(found[groups == group], wanted, atol=1e-9)
    assert (flat == (groups == 3)).all()


@pytest.mark.parametrize(
    ("others", "bad"),
    [
        ([("north", -5.0)] * 6, 2 * [{2, 3, 4, 5, 6, 7}]),
        ([("north", -5.0), ("eat", -2.0), ("eat", -1.0), ("eat", -3.0)], [{5}, {3}]),
        ([("north", -5.0), ("eat", -2.0), ("north", -6.0)], [{3}, {4}]),
    ],
)
def test_kto_takes_bad_decisions_of_the_actions_that_are_good_elsewhere(
    others: list[tuple[str, float]], bad: list[set[int]]
) -> None:
    table = steps([("g000-000", 0, [("eat", 5.0)] * 2 + others + [("wait", 0.0)] * 8)])
    examples = bare(Kto, KtoConfig(lookahead=1, max_examples=8, balance=0.75)).examples(table, PARENTS)
    steps_of = {
        sign: [key[2] for key, value in zip(examples.keys, examples.values, strict=True) if value * sign > 0]
        for sign in (1, -1)
    }
    assert sorted(steps_of[1]) == [0, 1]
    assert len(set(steps_of[-1])) == 2
    assert all(step in wanted for step, wanted in zip(steps_of[-1], bad, strict=True))
    assert examples.values[examples.values < 0].sum() == pytest.approx(-0.75 * 2)
    assert examples.group == 1


def test_free_text_gets_twins_that_measure_the_divergence() -> None:
    table = steps([("g000-000", 0, [("eat", 5.0), ("rest", -5.0), ("north", 0.0)])])
    config = KtoConfig(lookahead=1, likelihood="vocabulary")
    examples = bare(Kto, config).examples(table, PARENTS)
    assert examples.group == 2
    assert examples.values.tolist() == [1.0, 0.0, -1.0, 0.0]
    assert examples.prompt_ids[0] == examples.prompt_ids[1] != examples.prompt_ids[2]
    assert examples.completion_ids == [[103], [104], [104], [103]]
    one = batch(4, value=torch.from_numpy(examples.values))
    ratio = one.taken - one.reference
    point = ((ratio[1] + ratio[3]) / 2).clamp(min=0)
    beta = config.beta
    expected = (1 - torch.sigmoid(beta * (ratio[0] - point)) + 1 - torch.sigmoid(beta * (point - ratio[2]))) / 2
    torch.testing.assert_close(bare(Kto, config).loss(one), expected)


def test_pairs_are_made_in_the_same_situation() -> None:
    found = decisions(steps(WALKS), PARENTS, LearningConfig(lookahead=1))
    better, worse = pairs(found, 0.5)
    observed = [text.split(" ", 2)[2] for text in found.table["observation"].to_pylist()]
    actions = found.table["action"].to_pylist()
    assert len(better) > 0
    for one, other in zip(better, worse, strict=True):
        assert observed[one] == observed[other], "a number is no difference, a word is"
        assert actions[one] != actions[other]
        assert found.credit[one] - found.credit[other] >= 0.5
    examples = bare(Dpo, DpoConfig(lookahead=1)).examples(steps(WALKS), PARENTS)
    assert examples.group == 2
    assert examples.prompt_ids[::2] == examples.prompt_ids[1::2]
    with pytest.raises(NoExamples, match="no two of 3 decisions"):
        bare(Dpo, DpoConfig(lookahead=1)).examples(
            steps([("g000-000", 0, [("eat", 1.0), ("eat", 2.0), ("eat", 3.0)])]), PARENTS
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "config",
    [
        KtoConfig(epochs=12, batch_size=4, beta=0.1),
        KtoConfig(epochs=12, batch_size=4, likelihood="vocabulary"),
        DpoConfig(epochs=12, batch_size=4),
        GrpoConfig(epochs=12, batch_size=4, beta=0.01),
    ],
    ids=lambda config: f"{config.kind}-{config.likelihood}",
)
def test_what_went_well_becomes_likelier_and_what_went_badly_less(config: Any, model: Path) -> None:
    card = models.card(model, "tiny")
    settings = TrainerConfig(objective=config, lora=LORA, precision="fp32", threads=1)
    objective: Any = build(settings, model, nobody)[""]
    start = fresh(card, settings.lora, np.random.default_rng(0))
    task = job(("g000-000", None, 0.5), ("g000-001", None, 0.5), learning_rate=2e-2)
    table = steps([("g000-000", life, [("eat", 5.0), ("north", -5.0)] * 3) for life in range(4)])
    examples = objective.examples(table, task)
    fit = objective.fit(start, examples, task)
    assert np.isfinite(fit.losses).all()

    assert odds(objective, examples, fit.weights) > odds(objective, examples, start) + 0.5


def odds(objective: Any, examples: Examples, weights: Any) -> float:
    """How much likelier `eat` is than `north` at the first prompt."""
    from trainer.objectives.learned import _rows
    from trainer.packing import collate

    rows = _rows(examples, objective.config.likelihood == "legal")[:1]
    pair = [rows[0] | {"completion_ids": [100 + len(action)]} for action in ("eat", "north")]
    with objective.policy.wearing(weights) as wearing, torch.no_grad():
        found = [objective.policy.likelihoods(wearing, row) for row in collate(pair)["parts"][0]]
    taken = torch.cat([one.taken for one in found])
    return float(taken[0] - taken[1])


def test_a_student_comes_to_play_as_the_fittest_does(model: Path) -> None:
    """What was recorded does not matter: the records are of bad decisions, the teacher likes to eat."""
    card = models.card(model, "tiny")
    good_decisions = SftConfig(epochs=12, batch_size=4, lookahead=1, threshold=0.5)
    sft = TrainerConfig(objective=good_decisions, lora=LORA, precision="fp32", threads=1)
    task = job(("g000-000", None, 1.0), learning_rate=2e-2)
    start = fresh(card, LORA, np.random.default_rng(0))
    good = steps([("g000-000", life, [("eat", 5.0), ("north", -5.0)] * 3) for life in range(4)])
    cloning: Any = build(sft, model, nobody)[""]
    champion = cloning.fit(start, cloning.examples(good, task), task).weights
    settings = sft.model_copy(update={"objective": DistillConfig(epochs=12, batch_size=4)})
    objective: Any = build(settings, model, {"champion": champion}.__getitem__)[""]
    bad = steps([("g000-000", life, [("north", -5.0), ("rest", 1.0)] * 3) for life in range(4)])
    taught = task.model_copy(update={"teacher": Parent(individual="g000-003", adapter="champion", weight=0.0)})
    examples = objective.examples(bad, taught)
    fit = objective.fit(start, examples, taught)
    assert odds(objective, examples, fit.weights) > 0.5 * odds(objective, examples, champion)
    assert odds(objective, examples, champion) > odds(objective, examples, start) + 1
    assert fit.losses[-1] < 0.3 * fit.losses[0]
    untaught = objective.fit(start, examples, task.model_copy(update={"teacher": None}))
    assert abs(untaught.losses[0]) < 1e-5, "the untouched model has nothing to teach itself"


def test_a_larger_teacher_must_know_the_same_words(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    settings = TrainerConfig(objective=DistillConfig(teacher=str(other)), lora=LORA, precision="fp32", threads=1)
    objective: Any = build(settings, model, nobody)[""]
    assert objective.larger is not None
    examples = objective.examples(steps(WALKS), PARENTS)
    task = PARENTS
    fit = objective.fit(fresh(models.card(model, "tiny"), LORA, np.random.default_rng(0)), examples, task)
    assert abs(fit.losses[0]) < 1e-5, "it is the same model"
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    with pytest.raises(UsageError, match=r"objective\.teacher: got .*other, expected a model with the tokenizer"):
        build(settings, model, nobody)
    with pytest.raises(UsageError, match="No such file"):
        build(settings.model_copy(update={"objective": DistillConfig(teacher=str(tmp_path / "none"))}), model, nobody)
