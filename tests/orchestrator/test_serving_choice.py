"""`engine.serving: auto`: what is taken, where and why."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config import RunConfig
from orchestrator.scale_costs import shipped
from orchestrator.serving_choice import rollout_seconds, served
from orchestrator.sight import Sight
from trainer.config import LoraConfig
from workers.config import VllmEngineConfig

SIGHT = Sight("a world", shared=False, horizon=60, told=40.0, seen=30.0, said=0)


def config(size: int, lives: int, **engine: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "choice",
            "generations": 1,
            "population": {"size": size, "lives": lives, "founders": [{"name": "one", "strategy": "Eat."}]},
            "selection": {"survivors": 1.0},
            "engine": {"kind": "vllm", **engine},
        }
    )


def taken(one: RunConfig, sight: Sight = SIGHT) -> str:
    engine = served(one, sight).engine
    assert isinstance(engine, VllmEngineConfig)
    return engine.serving


def test_many_individuals_with_few_lives_share_batches_and_few_with_many_lives_take_turns() -> None:
    assert taken(config(16, 16)) == "lora"
    assert taken(config(1, 1024)) == "merged"
    assert taken(config(2, 512)) == "merged"


def test_in_a_shared_world_nobody_changes_weights_at_every_step() -> None:
    assert taken(config(2, 32)) == "merged"
    assert taken(config(2, 32), replace(SIGHT, shared=True)) == "lora"


def test_what_is_said_stays() -> None:
    for serving in ("merged", "lora"):
        assert taken(config(16, 16, serving=serving)) == serving


def test_gpus_take_lora_and_ranks_that_do_not_fit_are_merged_or_refused() -> None:
    assert taken(config(1, 1024, gpus=1)) == "lora"
    wide = {"trainer": {"lora": LoraConfig(rank=32, alpha=32).model_dump()}}
    plain = config(16, 16).model_dump()
    assert taken(RunConfig.model_validate(plain | wide)) == "merged"
    with pytest.raises(ValidationError, match=r"expected at most engine\.max_rank 16"):
        RunConfig.model_validate(plain | wide | {"engine": {"kind": "vllm", "gpus": 1}})


def test_dearer_changes_of_weights_speak_for_lora_and_dearer_products_for_merging() -> None:
    one, costs = config(4, 64), shipped()
    engine = one.engine
    assert isinstance(engine, VllmEngineConfig)

    def seconds(**others: float) -> tuple[float, float]:
        kept = costs.engine.model_dump()
        for name, value in others.items():
            kept[name] = kept[name] | {"value": value}
        figures = costs.model_copy(update={"engine": costs.engine.model_validate(kept)})
        return rollout_seconds(one, engine, SIGHT, figures)

    merged, lora = seconds()
    assert seconds(swap_seconds=5.0) == (pytest.approx(merged + 4 * (5.0 - costs.engine.swap_seconds.value)), lora)
    dearer = seconds(low_rank_share=0.5)
    assert dearer[0] == merged
    assert dearer[1] > lora
    assert seconds(adapter_seconds=1.0)[1] > lora
