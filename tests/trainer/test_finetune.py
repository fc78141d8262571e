"""Whole jobs with the scripted objective and a real store; no model needed."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from telemetry.adapters import LoraWeights, Shelf, check_files, save
from telemetry.failures import StateError
from telemetry.store import open_store
from tests.trainer.builders import SCRIPTED, job, steps
from trainer.config import LoraConfig, TrainerConfig
from trainer.config_objectives import ScriptedConfig, SftConfig
from trainer.config_operators import GaussianMutation
from trainer.examples import decisions, good_decisions
from trainer.finetune import Trainer
from trainer.job import Parent, Perturbation, Trained, TrainingJob, untouched

LIFE = [("wait", 0.0)] * 6 + [("eat", 3.0), ("wait", -1.0)]
TABLE = steps([("g000-000", 0, LIFE), ("g000-000", 1, LIFE), ("g000-001", 0, LIFE[::-1])])
CONFIG = TrainerConfig(objective=ScriptedConfig(), lora=LoraConfig(rank=4, alpha=4))
FROZEN = CONFIG.model_copy(update={"enabled": False})


def run(store: Path, task: TrainingJob, config: TrainerConfig = CONFIG, table=TABLE) -> Trained:
    return asyncio.run(Trainer(config, SCRIPTED, None, str(store)).run(task, table))


def parent(store: Path, seed: int, size: float = 1.0) -> str:
    draw = np.random.default_rng(seed)
    a, b = size * draw.standard_normal((4, 32)), draw.standard_normal((16, 4))
    weights = LoraWeights(4, 4, {"scripted.policy": (a.astype(np.float32), b.astype(np.float32))})
    return Shelf(open_store(store)).publish_files(save(weights, SCRIPTED))[0]


def test_a_job_publishes_what_its_result_names(tmp_path) -> None:
    task = job(("g000-000", None, 1.0))
    result, refs = run(tmp_path, task)
    assert (result.status, result.individual, result.reason) == ("trained", "g001-000", "")
    learned = good_decisions(decisions(TABLE, task, SftConfig()), SftConfig())
    assert (result.examples, result.tokens) == (len(learned.keys), learned.tokens)
    assert result.examples > 1
    store = open_store(tmp_path)
    files = tuple(store.get(ref.key) for ref in refs)
    assert [len(data) for data in files] == [ref.size for ref in refs]
    assert check_files(files, SCRIPTED, max_rank=4) == result.adapter


def test_equal_histories_give_equal_adapters_on_any_store(tmp_path) -> None:
    first = parent(tmp_path / "one", 1)
    assert first == parent(tmp_path / "other", 1)
    task = job(("g000-000", first, 0.6), ("g000-001", None, 0.4), mutation=0.1)
    one, _ = run(tmp_path / "one", task)
    other, _ = run(tmp_path / "other", task, table=TABLE.take(list(reversed(range(TABLE.num_rows)))))
    assert one.adapter == other.adapter


def test_a_child_learns_by_the_objective_of_its_genome(tmp_path) -> None:
    """The name decides, not where it stands."""
    shifts = {"": 0.5, "small": 0.1, "large": 2.0}
    config = CONFIG.model_copy(
        update={"alternatives": {name: ScriptedConfig(shift=shift) for name, shift in shifts.items() if name}}
    )
    for name, shift in shifts.items():
        task = job(("g000-000", None, 1.0))
        genome = task.child.genome.model_copy(update={"objective": name})
        named = task.model_copy(update={"child": task.child.model_copy(update={"genome": genome})})
        alone = CONFIG.model_copy(update={"objective": ScriptedConfig(shift=shift)})
        assert run(tmp_path, named, config)[0].adapter == run(tmp_path, task, alone)[0].adapter


@pytest.mark.parametrize("change", ["seed", "records", "parent", "mutation"])
def test_anything_that_matters_changes_the_adapter(tmp_path, change) -> None:
    first, second = parent(tmp_path, 1), parent(tmp_path, 2)
    before, _ = run(tmp_path, job(("g000-000", first, 1.0)))
    task = {
        "seed": job(("g000-000", first, 1.0), seed=8),
        "records": job(("g000-001", first, 1.0)),
        "parent": job(("g000-000", second, 1.0)),
        "mutation": job(("g000-000", first, 1.0), mutation=0.01),
    }[change]
    assert run(tmp_path, task)[0].adapter != before.adapter


def test_nothing_to_learn_keeps_the_first_parents_adapter(tmp_path) -> None:
    first, second = parent(tmp_path, 1), parent(tmp_path, 2)
    task = job(("g000-000", first, 0.5), ("g000-001", second, 0.5))
    result, refs = run(tmp_path, task, table=TABLE.slice(0, 0))
    assert (result.status, result.adapter, refs) == ("failed", first, ())
    assert result.reason == "the parents have no committed steps"


def test_the_gate_stops_weights_that_would_overflow(tmp_path) -> None:
    first = parent(tmp_path, 1, size=1e6)
    result, refs = run(tmp_path, job(("g000-000", first, 1.0)))
    assert (result.status, result.adapter, refs) == ("failed", first, ())
    assert "lora_A.weight has a value of size" in result.reason


def test_a_lost_parent_is_a_broken_store_not_a_failed_job(tmp_path) -> None:
    with pytest.raises(StateError, match="missing from the store"):
        run(tmp_path, job(("g000-000", "a" * 64, 1.0)))


def test_parents_without_weight_only_teach(tmp_path) -> None:
    first = parent(tmp_path, 1)
    alone, _ = run(tmp_path, job(("g000-000", first, 1.0)), FROZEN)
    taught, _ = run(tmp_path, job(("g000-000", first, 1.0), ("g000-001", "b" * 64, 0.0)), FROZEN)
    assert alone.adapter == taught.adapter == first


def test_frozen_weights_are_inherited_as_they_are(tmp_path) -> None:
    first = parent(tmp_path, 1)
    result, refs = run(tmp_path, job(("g000-000", first, 1.0)), FROZEN)
    assert (result.status, result.adapter, refs) == ("trained", first, ())
    result, refs = run(tmp_path, job(("g000-000", None, 1.0)), FROZEN)
    assert (result.status, result.adapter, refs) == ("trained", None, ())


def test_frozen_weights_still_cross_and_mutate(tmp_path) -> None:
    first, second = parent(tmp_path, 1), parent(tmp_path, 2)
    crossed, refs = run(tmp_path, job(("g000-000", first, 0.5), ("g000-001", second, 0.5)), FROZEN)
    assert crossed.adapter not in (None, first, second)
    assert 0 < crossed.discarded < 1
    assert len(refs) == 2
    mutant, _ = run(tmp_path, job(("g000-000", first, 1.0), mutation=0.1), FROZEN)
    assert mutant.adapter not in (None, first)
    founder, _ = run(tmp_path, job(("g000-000", None, 1.0), mutation=0.1), FROZEN)
    assert founder.adapter is not None


STILL = job(("g000-000", None, 0.7), ("g000-001", None, 0.3))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_untouched_parents_have_untouched_children_without_a_trainer(tmp_path: Path, rate: float) -> None:
    strength = 0.0 if rate else 0.5
    task = STILL.model_copy(update={"mutation": GaussianMutation(rate=rate, strength=strength)})
    result, refs = run(tmp_path, task, FROZEN)
    assert untouched(task, FROZEN) == result.model_copy(update={"seconds": 0.0})
    assert (result.adapter, refs) == (None, ())


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        ({}, CONFIG),
        ({"mutation": GaussianMutation()}, FROZEN),
        ({"parents": (*STILL.parents, Parent(individual="g000-002", adapter="a" * 64, weight=0.1))}, FROZEN),
        ({"perturbation": Perturbation(centre=1, sigma=0.1, sign=1)}, FROZEN),
    ],
    ids=["taught", "mutated", "of a parent with weights", "perturbed"],
)
def test_whoever_gets_weights_needs_a_trainer(changes: dict[str, object], config: TrainerConfig) -> None:
    assert untouched(STILL.model_copy(update=changes), config) is None
