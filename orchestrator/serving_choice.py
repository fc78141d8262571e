"""`engine.serving: auto`: whether an engine puts one individual's weights in place at a time or batches them all.

Merged weights add no product to a pass, but every individual has passes of its own, which end thin, and a change of
weights before them. Unmerged, everybody shares the passes, at the price of low-rank products for every token and for
every adapter in a batch. Both are sums of unit costs that were measured (`orchestrator/unit_costs.yaml`). On GPUs the
answer is known: weights that are to change must be read again, and vLLM's own kernels take any number of adapters.
"""

from math import ceil

from orchestrator.config import RunConfig
from orchestrator.scale_costs import UnitCosts, shipped
from orchestrator.sight import Sight, look
from workers.config import VllmEngineConfig

LIVED = 1 / 3
"""Of the horizon, by an average life; some life of every individual comes to the horizon."""


def served(config: RunConfig, sight: Sight | None = None) -> RunConfig:
    """The configuration with `auto` replaced. Raises as `look`, unless the world was looked at already."""
    engine = config.engine
    if not isinstance(engine, VllmEngineConfig) or engine.serving != "auto":
        return config
    if engine.gpus:
        serving = "lora"
    elif config.trainer.lora.rank > engine.max_rank:
        serving = "merged"
    else:
        merged, lora = rollout_seconds(config, engine, sight or look(config), shipped())
        serving = "lora" if lora < merged else "merged"
    return config.model_copy(update={"engine": engine.model_copy(update={"serving": serving})})


def rollout_seconds(config: RunConfig, engine: VllmEngineConfig, sight: Sight, costs: UnitCosts) -> tuple[float, float]:
    """Of a generation's lives on one engine on a CPU, (merged, lora); good for a comparison, not for a prediction."""
    cost, lives = costs.engine, config.population.lives
    people = ceil(config.population.size / engine.count)
    steps = LIVED * sight.horizon
    tokens = people * lives * steps * (sight.seen + sight.said)
    token = 1 / cost.prefill_tokens_per_second.value if cost.prefill_tokens_per_second else 0.0
    # A choice ends with the pass of its prompt; a text takes a pass for each token.
    each = max(1, sight.said)
    alone = each * max(sight.horizon, lives * steps / engine.max_sequences)
    together = each * max(sight.horizon, people * lives * steps / engine.max_sequences)
    in_batch = min(people, engine.max_adapters, ceil(engine.max_sequences / max(1.0, lives * LIVED)))
    # In a shared world everybody's weights are needed at every step.
    changes = people * (sight.horizon if sight.shared else 1)
    pass_ = cost.pass_seconds.value if cost.pass_seconds else 0.0
    merged = changes * cost.swap_seconds.value + people * alone * pass_ + tokens * token
    lora = together * (pass_ + in_batch * cost.adapter_seconds.value) + tokens * token * (1 + cost.low_rank_share.value)
    return merged, lora
