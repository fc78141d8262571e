"""Every metric of a run, declared once: name, type, labels, meaning.

The law: what is declared under `RUN` is what the journal says, so it goes on after a resume where it stood, and a
number on a dashboard can be recomputed from the run. What is declared under `PROCESS` is about this driver and its
actors, and starts again with it.
"""

from dataclasses import dataclass
from typing import Literal

MAX_CAUSES = 32
"""Distinct causes of death with a series of their own; the rest is counted as `other`."""
MAX_PLAYERS = 32
"""Players in held-out worlds with a series of their own; the rest has none."""


@dataclass(frozen=True)
class Declared:
    """One metric."""

    kind: Literal["gauge", "counter", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


RUN = (
    Declared("gauge", "forager_run_info", "What runs; always 1.", ("run", "version", "model", "environment")),
    Declared("gauge", "forager_generation", "The generation that lives now, from 0."),
    Declared("gauge", "forager_population_size", "Individuals that live now."),
    Declared("gauge", "forager_lineages_alive", "Lineages with a living member."),
    Declared("counter", "forager_lineages_culled_total", "Lineages that lost their last member."),
    Declared("gauge", "forager_fitness_best", "Fitness of the fittest individual of the last generation."),
    Declared("gauge", "forager_fitness_best_low", "Lower end of the fittest individual's 95% interval."),
    Declared("gauge", "forager_fitness_best_high", "Upper end of the fittest individual's 95% interval."),
    Declared(
        "gauge",
        "forager_fitness_quantile",
        "Fitness that this share of the last generation's individuals does not exceed.",
        ("quantile",),
    ),
    Declared("gauge", "forager_fitness_mean", "Mean fitness over the individuals of the last generation."),
    Declared("gauge", "forager_fitness_median", "Median fitness over the individuals of the last generation."),
    Declared("gauge", "forager_fitness_worst", "Fitness of the least fit individual of the last generation."),
    Declared("gauge", "forager_action_entropy_bits", "Mean entropy of an individual's actions, last generation."),
    Declared(
        "gauge",
        "forager_behaviour_divergence_bits",
        "How differently the last generation's individuals acted; 0: alike.",
    ),
    Declared("counter", "forager_individuals_born_total", "Children that entered the population."),
    Declared("counter", "forager_individuals_culled_total", "Individuals that were not selected."),
    Declared("counter", "forager_suspects_total", "Fitnesses measured again because they were too good."),
    Declared("gauge", "forager_held_out_fitness", "Mean fitness on held-out worlds, once measured.", ("who",)),
    Declared(
        "gauge",
        "forager_held_out_gap",
        "Champion's fitness where it was selected less that on held-out worlds, exploring in both.",
    ),
    Declared("counter", "forager_lives_total", "Committed lives by how they ended.", ("end", "cause")),
    Declared("counter", "forager_steps_total", "Decisions of committed lives."),
    Declared("counter", "forager_prompt_tokens_total", "Prompt tokens of committed lives."),
    Declared("counter", "forager_completion_tokens_total", "Completion tokens of committed lives."),
    Declared("counter", "forager_rollout_seconds_total", "Wall time in which committed lives were lived."),
    Declared("counter", "forager_training_jobs_total", "Ended training jobs.", ("status",)),
    Declared("counter", "forager_training_tokens_total", "Tokens that went through the model in training."),
    Declared("counter", "forager_training_seconds_total", "Time spent in training jobs, summed over jobs."),
    Declared("counter", "forager_training_examples_total", "Examples that were trained on."),
    Declared("gauge", "forager_training_loss", "Mean loss of the last job's first and last updates.", ("when",)),
    Declared("counter", "forager_stored_bytes_total", "Bytes of the objects that the journal vouches for."),
    Declared("gauge", "forager_budget_left", "What the run may still take; only what is limited.", ("resource",)),
)
"""What the journal says."""
PROCESS = (
    Declared("gauge", "forager_last_commit_timestamp_seconds", "Unix time of the last journal entry."),
    Declared("histogram", "forager_commit_seconds", "Time that an entry took until it was durable in the store."),
    Declared("gauge", "forager_store_free_bytes", "Free space where the run is kept; NaN for a bucket."),
    Declared("gauge", "forager_lives_in_flight", "Lives under way."),
    Declared("gauge", "forager_decisions_per_second", "Decisions made per second, over the last ten seconds."),
    Declared("counter", "forager_actor_restarts_total", "Engines, agents and sinks replaced."),
    Declared("counter", "forager_lives_lost_total", "Lives, or parties of lives, lost to infrastructure and retried."),
    Declared("gauge", "forager_engines", "Engines that answer."),
    Declared("gauge", "forager_engine_requests_running", "Requests in the engines' batches."),
    Declared("gauge", "forager_engine_requests_waiting", "Requests for other weights than those in place."),
    Declared("counter", "forager_engine_requests_total", "Requests that engines have answered."),
    Declared("counter", "forager_engine_prompt_tokens_total", "Prompt tokens of answered requests."),
    Declared("counter", "forager_engine_cached_tokens_total", "Of those, tokens not computed again."),
    Declared("counter", "forager_engine_recalled_total", "Requests answered from memory: same weights, same prompt."),
    Declared("counter", "forager_engine_busy_seconds_total", "Time in which engines computed, summed over engines."),
    Declared("counter", "forager_engine_switches_total", "Changes of the weights that an engine serves."),
)
"""What this driver sees."""
TABLE = (*RUN, *PROCESS)
"""All metrics. Prometheus's rules: base units, `_total` on counters, labels with few values."""


def catalogue() -> str:
    """All metrics as a page in Markdown."""
    parts = [
        "# Metrics",
        "",
        "Served at `metrics.host:metrics.port` under `/metrics` while a run lives, for Prometheus; `/health` answers in"
        " JSON. This page is written by the code that declares them:"
        " `python -m telemetry.catalogue > docs/metrics.md`.",
        "",
    ]
    for title, table in (
        ("What the journal says: it goes on after a resume, and can be recomputed from the run", RUN),
        ("What the driver sees: it starts again with each driver", PROCESS),
    ):
        parts += [f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        parts += [
            f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
            for one in table
        ]
        parts.append("")
    parts.append(
        "No metric has a series per individual, lineage or engine: however many live, there are at most"
        f" {MAX_CAUSES} causes of death, and a few hundred series in all."
    )
    parts += [
        "",
        "## What vLLM says of itself",
        "",
        "`/metrics/engines` passes on vLLM's own metrics (`vllm:...`), names unchanged, with the label `engine`:"
        " `engine-0`, `engine-1`, ... They are read about every ten seconds while lives are lived; of an engine that"
        " does not answer, what it said last is shown. There are about 300 series per engine, and at most a thousand;"
        " the scripted engine has none.",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(catalogue(), end="")
