"""An experiment file: one run file, several arms that differ in what evolution may do, several seeds each. Pure.

Law: an arm is a run file like any other. Everything an arm changes is said here, so that a reader can check it.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from orchestrator.config import Line, RunConfig
from telemetry.config import NAME, Config

REFERENCE = "evolution"
"""The arm that all others are compared with, and whose compute they get."""
MOST_TURNS = 8
"""Generations that an arm may have, in those of the reference: whoever dies young lives more generations."""

Document = dict[str, Any]


class ExperimentConfig(Config):
    """What `forager compare` runs."""

    name: str = Field(pattern=NAME)
    """Name of the experiment; its runs are below it in the store."""
    run: Line = Field(min_length=1, max_length=1000)
    """Run file that all arms vary, relative to this file."""
    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1, max_length=1000)
    """Run seeds: every arm runs once with each."""
    arms: tuple[Literal["rules-only", "random-cull", "no-crossover", "single-lineage", "untouched"], ...] = (
        "rules-only",
        "random-cull",
        "no-crossover",
        "single-lineage",
        "untouched",
    )
    """What full evolution is compared with."""

    @field_validator("seeds", "arms")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"got {list(values)}, expected each once")
        return values


def arm_document(config: RunConfig, arm: str, seed: int, place: int, spent: Mapping[str, int] | None) -> Document:
    """The run file of one arm with one seed, as plain JSON values.

    place: position of the seed, by which `single-lineage` takes founders in turn. spent: the decisions and training
    tokens of the reference with that seed, which the arm may spend as well; None for the reference itself.
    """
    document: Document = json.loads(config.model_dump_json())
    document |= {"name": f"{arm}-{seed}", "seed": seed}
    if spent is not None:
        document["generations"] = MOST_TURNS * config.generations
        document["budget"] = {name: max(1, amount) for name, amount in spent.items()}
    CHANGES[arm](document, place)
    return document


def _evolution(document: Document, place: int) -> None:
    """Everything on."""


def _rules_only(document: Document, place: int) -> None:
    """Weights stay the base model's; the strategy texts evolve, a mutation in every other child."""
    document["trainer"]["enabled"] = False
    document["reproduction"]["weight_mutation"] = {"kind": "gaussian", "strength": 0.0}
    document["reproduction"] |= {"strategy_mutation": 0.5, "mutate_strategy": True}
    document["budget"] = {"decisions": document["budget"].get("decisions")}


def _random_cull(document: Document, place: int) -> None:
    """Who survives is drawn; learning still takes the good decisions of whoever survived."""
    document["selection"] |= {"method": "lottery", "elites": 0, "halving": None}


def _no_crossover(document: Document, place: int) -> None:
    document["reproduction"]["crossover"] = 0.0


def _single_lineage(document: Document, place: int) -> None:
    """One individual, fine-tuned again and again on all that the population would have lived and learned."""
    population, trainer = document["population"], document["trainer"]
    births = population["size"] - min(document["selection"]["elites"], population["size"])
    founders = population["founders"]
    population |= {
        "lives": population["lives"] * population["size"],
        "size": 1,
        "islands": 1,
        "founders": [founders[place % len(founders)]],
    }
    document["selection"] |= {"survivors": 1.0, "elites": 0, "halving": None}
    document["reproduction"]["crossover"] = 0.0
    for objective in [trainer["objective"], *trainer["alternatives"].values()]:
        if "max_examples" in objective:
            objective["max_examples"] *= max(1, births)


CHANGES: dict[str, Callable[[Document, int], None]] = {
    REFERENCE: _evolution,
    "rules-only": _rules_only,
    "random-cull": _random_cull,
    "no-crossover": _no_crossover,
    "single-lineage": _single_lineage,
}
"""What each arm changes. `untouched` is no run: the founders of the reference's champions play without evolution."""
