"""What the scale model found, in numbers and words: which part is busiest, and which key of the run file moves it."""

from typing import TYPE_CHECKING, Any

from orchestrator.config import RunConfig
from orchestrator.scale_costs import UnitCosts, value
from orchestrator.scale_placement import chunk
from orchestrator.scale_plant import Rolled
from orchestrator.sight import Sight

if TYPE_CHECKING:
    from orchestrator.scale import After, Crew, Site

BUSY = 0.7
"""Share of its time from which a part holds up the others."""

HELD_UP = {
    "engines": ("engines answer as fast as they can", "engine.count: more engines, and nodes to hold them"),
    "agents": ("agents live lives as fast as they can", "workers.agents"),
    "driver": (
        "the driver, one process, is what all wait for",
        "engine.count and workers.agents: fewer of both with more lives on each (engine.max_sequences,"
        " workers.lives_per_agent), since at each report every engine looks at every agent",
    ),
    "sink": (
        "the sink, one process, writes rows as fast as it can",
        "none adds a second sink; less to write is population.lives, more at once is ledger.commit_seconds",
    ),
    "store": ("the store is at its limits", "ledger.commit_seconds, and trainer.lora.rank for adapters' bytes"),
    "tail": (
        "nobody: lives wait for their own answers, and at the end a few engines for the last of them",
        "population.lives or population.size: more lives per engine; or a smaller engine.count",
    ),
    "training": (
        "training takes longer than the lives",
        "trainer.jobs; or less to learn: trainer.objective.max_examples, trainer.objective.epochs",
    ),
    "alone": (
        "the driver works alone after the lives: it reads all rows, scores them and gives them out",
        "reproduction.learn_from: parents; then population.size and population.lives",
    ),
    "": ("unknown: see missing", "--unit-costs"),
}


def tell(
    config: RunConfig,
    site: "Site",
    costs: UnitCosts,
    sight: Sight,
    people: "Crew",
    rolled: Rolled | None,
    after: "After | None",
    decisions: int,
) -> dict[str, Any]:
    """generation, busy, store, whole_run, limits, bottleneck and dial; nulls where nothing was simulated."""
    limits = _limits(costs, people, config.workers.lives_per_agent)
    if rolled is None or after is None:
        none = dict.fromkeys(("generation", "busy", "store", "whole_run"))
        return {**none, "limits": limits, **_verdict("")}
    known = costs.trainer.token_seconds is not None or not after.training_tokens
    total = rolled.seconds + after.driver + after.training
    busy = {
        "engines": rolled.engine_seconds / people.engines / rolled.seconds,
        "agents": decisions * costs.agent.decision_seconds.value / people.agents / rolled.seconds,
        "driver": rolled.driver_seconds / rolled.seconds,
        "sink": rolled.sink_seconds / rolled.seconds,
        "store": rolled.store_seconds / rolled.seconds,
    }
    requests, moved = rolled.requests + after.requests, rolled.bytes + after.bytes
    dollars = None
    if site.dollars_per_node_hour is not None and known:
        dollars = total / 3600 * site.nodes * site.dollars_per_node_hour
    return {
        "generation": {
            "seconds": round(total, 2) if known else None,
            "rollout_seconds": round(rolled.seconds, 2),
            "last_commit_seconds": round(rolled.seconds - rolled.lived_seconds, 2),
            "driver_alone_seconds": round(after.driver, 2),
            "training_seconds": round(after.training, 2) if known else None,
            "driver_seconds": round(rolled.driver_seconds + after.driver, 2),
            "held_up_by_sink_seconds": round(rolled.held_up_seconds, 2),
            "lives": config.population.size * config.population.lives,
            "decisions": decisions,
            "decisions_per_second": round(decisions / rolled.seconds, 1),
            "prompt_tokens": int(decisions * sight.prompt),
            "training_tokens": int(after.training_tokens),
            "commits": rolled.commits,
            "calls_to_agents": rolled.parts,
            "dollars": None if dollars is None else round(dollars, 2),
        },
        "busy": {name: min(1.0, round(share, 3)) for name, share in busy.items()},
        "store": {
            "requests": round(requests),
            "requests_per_second": round(requests / total, 2),
            "gigabytes": round(moved / 1e9, 3),
        },
        "whole_run": {
            "hours": round(config.generations * total / 3600, 2) if known else None,
            "dollars": None if dollars is None else round(dollars * config.generations, 2),
        },
        "limits": limits,
        **_verdict(_held_up_by(rolled, after, busy)),
    }


def _limits(costs: UnitCosts, people: "Crew", room: int) -> dict[str, float | None]:
    """Decisions per second that each part could take if all others were infinitely fast, waking left out."""
    rows, agents = costs.sink.row_seconds.value, costs.agent.decision_seconds.value
    return {
        "sink_rows_per_second": round(1 / rows) if rows else None,
        "agents_decisions_per_second": round(people.agents / agents) if agents else None,
        "driver_lives_per_second": _rate(
            value(costs.driver.part_seconds) / chunk(room) + costs.driver.life_seconds.value
        ),
    }


def _rate(seconds: float) -> float | None:
    return round(1 / seconds) if seconds else None


def _held_up_by(rolled: Rolled, after: "After", busy: dict[str, float]) -> str:
    """The longest phase; of the lives, the busiest part."""
    phases = {"rollout": rolled.seconds, "training": after.training, "alone": after.driver}
    longest = max(phases, key=lambda name: phases[name])
    if longest != "rollout":
        return longest
    part = max(busy, key=lambda name: busy[name])
    return part if busy[part] >= BUSY else "tail"


def _verdict(what: str) -> dict[str, str]:
    bottleneck, dial = HELD_UP[what]
    return {"bottleneck": bottleneck, "dial": dial}
