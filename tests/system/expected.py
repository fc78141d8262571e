"""What metrics, status, report and lineage have to show of a run, from its recomputation alone."""

from typing import Any

import pytest

from telemetry.metrics import QUANTILES
from tests.system.truth import Truth

Samples = dict[tuple[tuple[str, str], ...], float]
"""Value by labels."""


def expected_metrics(truth: Truth) -> dict[str, Samples]:
    """Samples by metric, for all that the journal says."""
    last, told, births = truth.generations[-1], truth.told, truth.births
    values = sorted(one.value for one in last.order)
    means = {row["who"]: row["mean"] for row in truth.evaluation}
    everyone, later = truth.everyone, truth.generations[1:]
    elites = sum(len(one.selection.elites) for one in truth.generations[:-1])
    budget = truth.config.budget
    left = {"generations": truth.config.generations - len(truth.generations)}
    if budget.decisions is not None:
        left["decisions"] = budget.decisions - told["decisions"]
    if budget.training_tokens is not None:
        left["training_tokens"] = budget.training_tokens - sum(birth["tokens"] for birth in births)
    losses = [(birth["loss_first"], birth["loss_last"]) for birth in births]
    one = {
        "generation": len(truth.generations),
        "population_size": len(last.population),
        "lineages_alive": len({one.lineage for one in last.population}),
        "lineages_culled_total": sum(len(one.culled) for one in truth.generations),
        "fitness_best": last.row()["best"],
        "fitness_best_low": last.row()["low"],
        "fitness_best_high": last.row()["high"],
        "fitness_mean": last.row()["mean"],
        "fitness_median": last.row()["median"],
        "fitness_worst": last.row()["worst"],
        "action_entropy_bits": last.diversity.entropy,
        "behaviour_divergence_bits": last.diversity.behaviour,
        "individuals_born_total": sum(len(one.population) for one in later) - elites,
        "individuals_culled_total": len(everyone) - sum(len(one.selection.survivors) for one in truth.generations),
        "suspects_total": sum(len(one.suspects) for one in truth.generations),
        "held_out_gap": last.row()["best"] - means.get("champion-exploring", float("nan")),
        "steps_total": told["decisions"],
        "prompt_tokens_total": told["prompt_tokens"],
        "completion_tokens_total": told["completion_tokens"],
        "rollout_seconds_total": truth.rollout_seconds,
        "training_tokens_total": sum(birth["tokens"] for birth in births),
        "training_seconds_total": sum(birth["seconds"] for birth in births),
        "training_examples_total": sum(birth["examples"] for birth in births),
        "stored_bytes_total": sum((truth.place / key).stat().st_size for key in truth.files),
    }
    genesis = truth.genesis
    info = {"run": genesis["run"], "version": genesis["version"], "model": genesis["model"]["id"]}
    many = {
        "run_info": {**info, "environment": truth.config.environment.name},
        "fitness_quantile": {
            str(share): next(value for place, value in enumerate(values, 1) if place >= share * len(values))
            for share in QUANTILES
        },
        "held_out_fitness": means,
        "lives_total": truth.ends,
        "training_jobs_total": {
            status: sum(birth["status"] == status for birth in births)
            for status in ("trained", "failed")
            if status in {birth["status"] for birth in births}
        },
        "training_loss": {
            when: known[-1]
            for when, some in zip(("first", "last"), zip(*losses, strict=True), strict=True)
            if (known := [loss for loss in some if loss is not None])
        },
        "budget_left": left,
    }
    labels = {"fitness_quantile": "quantile", "held_out_fitness": "who", "training_jobs_total": "status"}
    labels |= {"training_loss": "when", "budget_left": "resource"}
    found: dict[str, Samples] = {name: {(): value} for name, value in one.items()}
    found |= {name: {((label, key),): value for key, value in many[name].items()} for name, label in labels.items()}
    found["run_info"] = {tuple(sorted(many["run_info"].items())): 1}
    ends = {end.partition(":")[::2]: count for end, count in truth.ends.items()}
    found["lives_total"] = {(("cause", cause), ("end", end)): count for (end, cause), count in ends.items()}
    return {f"forager_{name}": samples for name, samples in found.items()}


def expected_summary(truth: Truth) -> dict[str, Any]:
    """As a Summary is dumped."""
    means = {row["who"]: row["mean"] for row in truth.evaluation}
    births, best, genesis, config = truth.births, truth.generations[-1].order[0], truth.genesis, truth.config
    return {
        "run": genesis["run"],
        "version": genesis["version"],
        "finished": True,
        "seed": config.seed,
        "model": genesis["model"]["id"],
        "model_sha256": genesis["model"]["sha256"],
        "environment": config.environment.name,
        "fitness_kind": config.fitness.kind,
        "generation": len(truth.generations),
        "generations": config.generations,
        "population": len(truth.generations[0].population),
        "lives_each": config.population.lives,
        "drivers": truth.drivers,
        "history": [one.row() for one in truth.generations],
        "training": truth.training(),
        "evaluation": truth.evaluation,
        "champion": best.individual,
        "ancestry": truth.ancestry(),
        "ratios": {
            who: means["champion"] / means[who] for who in ("founder", "random", "heuristic") if means.get(who, 0) > 0
        },
        "gap": best.value - means["champion-exploring"] if means else None,
        "totals": {
            **truth.told,
            "censored": truth.ends.get("censored", 0),
            "rollout_seconds": pytest.approx(truth.rollout_seconds),
            "training_seconds": pytest.approx(sum(birth["seconds"] for birth in births)),
            "training_tokens": sum(birth["tokens"] for birth in births),
            "trained": sum(birth["status"] == "trained" for birth in births),
            "failed": sum(birth["status"] == "failed" for birth in births),
        },
        "lineages": truth.individuals(),
    }
