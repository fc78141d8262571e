"""Behaviour cloning, and what all learned objectives share: TRL and PEFT on a tiny model."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from telemetry import models
from telemetry.adapters import LoraWeights, Shelf, check, load, save
from telemetry.lora import CONFIG, WEIGHTS
from telemetry.records import BaseModelCard
from telemetry.store import open_store
from tests import tiny
from tests.trainer.builders import job, nobody, steps
from trainer.config import LoraConfig, TrainerConfig
from trainer.config_objectives import SftConfig
from trainer.examples import Examples
from trainer.finetune import Trainer
from trainer.lowrank import fresh
from trainer.objectives import TrainingFailed, build

pytestmark = pytest.mark.real

SETTINGS = TrainerConfig(
    objective=SftConfig(epochs=2, batch_size=4), lora=LoraConfig(rank=4, alpha=8), precision="fp32", threads=1
)
JOB = job(("g000-000", None, 1.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def card(model: Path) -> BaseModelCard:
    return models.card(model, "tiny")


@pytest.fixture(scope="module")
def objective(model: Path) -> Any:
    return build(SETTINGS, model, nobody)[""]


@pytest.fixture
def start(card: BaseModelCard) -> LoraWeights:
    return fresh(card, SETTINGS.lora, np.random.default_rng(0))


def examples(count: int, *, longest: int = 1, seed: int = 0) -> Examples:
    """Prompts that share a beginning, of uneven length, with completions of 1 to `longest` tokens."""
    draw = np.random.default_rng(seed)
    shared = draw.integers(5, 49152, 9).tolist()
    return Examples(
        keys=[("g000-000", 0, number) for number in range(count)],
        prompt_ids=[shared + draw.integers(5, 49152, draw.integers(1, 8)).tolist() for _ in range(count)],
        completion_ids=[draw.integers(5, 49152, draw.integers(1, longest + 1)).tolist() for _ in range(count)],
        choice_ids=[[]] * count,
        values=np.ones(count, np.float32),
    )


def losses_and_gradients(objective: Any, start: LoraWeights, batch: Examples, tmp_path: Path) -> list[Any]:
    """(loss, gradients) of our loss and of TRL's own, on the same batch and weights."""
    from datasets import Dataset
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from trainer.objectives.learned import ObjectiveTrainer, _rows
    from trainer.packing import collate

    padded = DataCollatorForLanguageModeling(pad_token_id=2)(
        [
            {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}
            for prompt, completion in zip(batch.prompt_ids, batch.completion_ids, strict=True)
        ]
    )
    arguments = TrlConfig(str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none")
    arguments.remove_unused_columns = False
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    outcomes = []
    rows = _rows(batch, True)
    for kind, inputs in ((ObjectiveTrainer, collate(rows)), (SFTTrainer, padded)):
        with objective.policy.wearing(start) as attached:
            for name, parameter in attached.named_parameters():
                if "lora_B" in name:  # a B of zeros would hide A's gradients
                    torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
            dataset = Dataset.from_list(rows)
            trainer = kind(attached, arguments, collate, dataset, processing_class=objective.policy.tokenizer)
            trainer.objective = objective
            loss = trainer.compute_loss(attached, inputs)
            loss.backward()
            gradients = {name: p.grad.clone() for name, p in attached.named_parameters() if p.grad is not None}
            outcomes.append((loss.item(), gradients))
    return outcomes


@pytest.mark.parametrize("longest", [1, 5])
def test_loss_and_gradients_are_those_of_trl(objective, start, tmp_path, longest) -> None:
    (ours, our_gradients), (theirs, their_gradients) = losses_and_gradients(
        objective, start, examples(6, longest=longest), tmp_path
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    assert our_gradients
    for name, gradient in our_gradients.items():
        assert (gradient - their_gradients[name]).norm() <= 1e-4 * their_gradients[name].norm(), name


def test_every_beginning_is_computed_once_without_changing_loss_or_gradients(objective, start, tmp_path) -> None:
    from trainer import packing
    from trainer.objectives.learned import _rows

    batch = examples(8, longest=4)
    rules, strategy, other = [5, 6, 7, 8], [9, 10, 11], [9, 12]
    batch.prompt_ids[:] = [
        rules + strategy + [20, 21],
        rules + other + [20, 21],
        rules + strategy + [20, 21],
        rules + strategy + [20],
        rules + strategy,
        rules,
        [30, *rules],
        rules + other + [22, 23],
    ]
    [row] = packing.collate(_rows(batch, True))["parts"][0]
    shown = [(p + c)[:-1] for p, c in zip(batch.prompt_ids, batch.completion_ids, strict=True)]
    assert row["input_ids"].numel() == len({tuple(ids[:end]) for ids in shown for end in range(1, len(ids) + 1)})
    (ours, our_gradients), (theirs, their_gradients) = losses_and_gradients(objective, start, batch, tmp_path)
    assert ours == pytest.approx(theirs, rel=1e-5)
    for name, gradient in our_gradients.items():
        assert (gradient - their_gradients[name]).norm() <= 1e-4 * their_gradients[name].norm(), name


def test_rows_are_split_at_their_limit_without_changing_the_loss(objective, start, tmp_path, monkeypatch) -> None:
    from trainer import packing
    from trainer.objectives.learned import _rows

    monkeypatch.setattr(packing, "MAX_ROW", 25)
    batch = examples(6, longest=3)
    assert len(packing.collate(_rows(batch, True))["parts"][0]) > 1
    (ours, _), (theirs, _) = losses_and_gradients(objective, start, batch, tmp_path)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_likelihood_among_choices_is_that_of_the_masked_softmax() -> None:
    from trainer.packing import likelihoods

    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    row = {
        "allowed": torch.tensor([[4, 7, 9], [1, 2, -1], [-1, -1, -1]]),
        "targets": torch.tensor([7, 1, 30]),
        "example": torch.tensor([5, 6, 7]),
        "temperature": torch.tensor([1.0, 0.5, 2.0]),
    }
    taken, allowed = likelihoods(logits, row)
    first, second = torch.log_softmax(logits[0, [4, 7, 9]], 0), torch.log_softmax(logits[1, [1, 2]] / 0.5, 0)
    torch.testing.assert_close(taken, torch.stack([first[1], second[0], torch.log_softmax(logits[2] / 2, 0)[30]]))
    torch.testing.assert_close(allowed[0], first)
    torch.testing.assert_close(allowed[1, :2], second)
    assert allowed[1, 2] == -torch.inf


def test_weights_weigh(objective, start) -> None:
    """An example of weight 0 teaches nothing: what is learned is what the other one teaches."""
    two = examples(2)
    weighted = Examples(two.keys, two.prompt_ids, two.completion_ids, two.choice_ids, np.array([2.0, 0.0], np.float32))
    one = Examples(two.keys[:1], two.prompt_ids[:1], two.completion_ids[:1], two.choice_ids[:1], np.ones(1, np.float32))
    both, alone = objective.fit(start, weighted, JOB), objective.fit(start, one, JOB)
    assert both.losses[0] == pytest.approx(alone.losses[0], rel=1e-5)
    for module, (a, b) in both.weights.factors.items():
        np.testing.assert_allclose(b, alone.weights.factors[module][1], atol=2e-4)
        np.testing.assert_allclose(a, alone.weights.factors[module][0], atol=2e-4)


def test_jobs_one_after_the_other_know_nothing_of_each_other(objective, start, card, monkeypatch) -> None:
    """The layers of an adapter stay on the model: what the last job left in them must not show."""
    from peft import get_peft_model

    made = []
    monkeypatch.setattr("trainer.policy.get_peft_model", lambda *given: made.append(1) or get_peft_model(*given))
    first = objective.fit(start, examples(6), JOB)
    other = fresh(card, SETTINGS.lora.model_copy(update={"rank": 2}), np.random.default_rng(3))
    for weights in (start, other, first.weights):
        objective.fit(weights, examples(4, seed=1), JOB)
    again = objective.fit(start, examples(6), JOB)
    assert again.losses == first.losses
    for module, factors in first.weights.factors.items():
        for one, same in zip(factors, again.weights.factors[module], strict=True):
            np.testing.assert_array_equal(one, same)
    assert len(made) <= 3, "only another shape needs other layers"


@pytest.mark.parametrize(("quantize", "epochs"), [("none", 2), ("nf4", 4)])
def test_it_learns_what_it_is_shown_and_leaves_the_base_as_it_was(
    quantize, epochs, model, start, card, tmp_path
) -> None:
    longer = SETTINGS.objective.model_copy(update={"epochs": epochs})
    objective: Any = build(SETTINGS.model_copy(update={"quantize": quantize, "objective": longer}), model, nobody)[""]
    stored = {weight.dtype for name, weight in objective.policy.base.named_parameters() if "_proj" in name}
    assert stored == {torch.uint8 if quantize == "nf4" else torch.float32}
    before = {name: tensor.clone() for name, tensor in objective.policy.base.state_dict().items()}
    modules = [(name, type(module)) for name, module in objective.policy.base.named_modules()]
    batch = examples(16)
    fit = objective.fit(start, batch, job(("g000-000", None, 1.0), learning_rate=3e-2))
    assert len(fit.losses) == 4 * epochs
    assert fit.losses[-1] < 0.8 * fit.losses[0]
    assert fit.tokens == epochs * batch.tokens
    after = objective.policy.base.state_dict()
    assert list(after) == list(before)
    assert all(bool((after[name] == before[name]).all()) for name in before)
    assert [(name, type(module)) for name, module in objective.policy.base.named_modules()] == modules
    assert "forward" not in objective.policy.base.__dict__
    for name, data in zip((CONFIG, WEIGHTS), save(fit.weights, card), strict=True):
        (tmp_path / name).write_bytes(data)
    check(tmp_path, card, max_rank=4)


def test_equal_jobs_give_equal_weights_whatever_ran_before(objective, start, card) -> None:
    first = save(objective.fit(start, examples(8), JOB).weights, card)
    objective.fit(start, examples(4, seed=5), job(("g000-000", None, 1.0), seed=8))
    assert save(objective.fit(start, examples(8), JOB).weights, card) == first
    assert save(objective.fit(start, examples(8), job(("g000-000", None, 1.0), seed=8)).weights, card) != first


def test_training_continues_from_the_given_weights(objective, start) -> None:
    batch = examples(4)
    once = objective.fit(start, batch, JOB)
    twice = objective.fit(once.weights, batch, JOB)
    assert twice.losses[0] < once.losses[0]


def test_a_loss_that_is_not_finite_stops_the_job_and_not_the_trainer(objective, start) -> None:
    poisoned = {module: (a * np.float32(np.nan), b) for module, (a, b) in start.factors.items()}
    with pytest.raises(TrainingFailed, match="loss of update 1 is not finite"):
        objective.fit(LoraWeights(start.rank, start.alpha, poisoned), examples(4), JOB)
    assert np.isfinite(objective.fit(start, examples(4), JOB).losses).all()


def test_autocast_computes_nearly_the_same(model, start) -> None:
    half = build(SETTINGS.model_copy(update={"precision": "bf16"}), model, nobody)[""]
    full = build(SETTINGS, model, nobody)[""]
    batch = examples(8)
    one, other = half.fit(start, batch, JOB), full.fit(start, batch, JOB)
    assert one.losses != other.losses
    assert one.losses == pytest.approx(other.losses, rel=0.05)


def test_peft_loads_what_is_published_and_computes_the_same_change(model, card, tmp_path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    weights = tiny.random_adapter(card, seed=1)
    directory = tiny.write_adapter(tmp_path / "adapter", weights, card)
    assert check(directory, card, max_rank=8)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    before = {module: base.get_submodule(module).weight.detach().numpy().copy() for module in card.modules}
    merged = PeftModel.from_pretrained(base, directory).merge_and_unload()
    for module, (a, b) in load(directory).factors.items():
        change = merged.get_submodule(module).weight.detach().numpy() - before[module]
        np.testing.assert_allclose(change, weights.scale * b @ a, atol=1e-5)


def test_the_learning_rate_rises_falls_and_never_wastes_an_update() -> None:
    from trainer.objectives.learned import slope

    rates = [slope(step, 20, 0.2) for step in range(20)]
    assert max(rates) == rates[4] == 1.0
    assert all(rate > 0 for rate in rates)
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert [slope(step, 3, 1.0) for step in range(4)] == [0.25, 0.5, 0.75, 0.0]


def test_a_whole_job_from_records_to_shelf(model, card, tmp_path) -> None:
    table = steps([("g000-000", life, [("wait", 0.0)] * 6 + [("eat", 3.0), ("wait", -1.0)]) for life in range(3)])
    trainer = Trainer(SETTINGS, card, model, str(tmp_path))
    task = job(("g000-000", None, 1.0), mutation=0.02)
    result, refs = asyncio.run(trainer.run(task, table))
    assert (result.status, result.reason) == ("trained", "")
    assert result.loss_last < result.loss_first
    assert result.examples > 4
    shelf = Shelf(open_store(tmp_path))
    assert check(shelf.path(result.adapter), card, max_rank=4) == result.adapter
    assert {ref.key.split("/")[1] for ref in refs} == {result.adapter}
    child = job(("g000-000", result.adapter, 0.5), ("g000-001", None, 0.5))
    grandchild, _ = asyncio.run(trainer.run(child, table))
    assert grandchild.status == "trained"
    assert grandchild.adapter != result.adapter
