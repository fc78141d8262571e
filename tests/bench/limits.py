"""The table of `docs/scale.md`, and how right the model behind it is.

    python -m tests.bench.limits              # from one node to a thousand: what saturates, and when
    python -m tests.bench.limits --validate   # predicted against measured: two scripted runs on Ray, two minutes

    python -m tests.bench.limits --driver     # the driver's own time, predicted against a real pool on a virtual clock

The table is the model's: nothing in it was run on a cluster. Its engines are scripted ones that take as long for a
decision as the run says; its other figures are those of `orchestrator/unit_costs.yaml`.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator.places import open_run
from orchestrator.runfile import load
from orchestrator.scale import Site, decision_seconds, plant_of, predict
from orchestrator.scale_costs import UnitCosts, shipped
from orchestrator.scale_plant import Plant
from orchestrator.scale_rollout import roll_out
from orchestrator.sight import look
from orchestrator.state import RunState
from telemetry.ledger import Ledger
from telemetry.store import Store
from tests.bench.__main__ import machine
from tests.bench.units_shared import hand_out, handed_out, idle
from tests.forager import SMOKE, ok

ENGINES = 10
"""Of a node."""
LIVES = 100
"""For every engine: the generation grows with the cluster."""
HAZARD = 0.05
"""About nineteen steps a life."""
NODES = (1, 3, 10, 30, 100, 300, 1000)
KINDS = {
    "an engine of 30 decisions/s, an agent for each": (0.033, 1),
    "an engine of 30 decisions/s, an agent for 100 of them": (0.033, 100),
    "an engine of 1,000 decisions/s, an agent for each": (0.001, 1),
    "an engine of 1,000 decisions/s, an agent for 10 of them": (0.001, 10),
}
"""Seconds of a decision, and engines for one agent."""
SHAPES: dict[str, Sequence[str]] = {
    "two engines, eight individuals": (
        "population.size=8",
        "population.lives=24",
        "engine.count=2",
        "engine.capacity=4",
        "engine.seconds=0.02",
        "workers.agents=2",
    ),
    "three engines with one individual each, little room": (
        "population.size=6",
        "population.lives=32",
        "engine.count=3",
        "engine.capacity=1",
        "engine.seconds=0.04",
        "workers.agents=2",
        "workers.lives_per_agent=24",
    ),
}


def row(nodes: int, seconds: float, sharing: int) -> list[str]:
    """One line of the table: a generation that grows with its cluster."""
    engines = nodes * ENGINES
    settings = [
        f"population.size={engines}",
        f"population.lives={LIVES}",
        f"engine.count={engines}",
        f"engine.seconds={seconds}",
        f"workers.agents={-(-engines // sharing)}",
        f"workers.lives_per_agent={2 * LIVES * sharing}",
        "trainer.enabled=false",
    ]
    begin = time.process_time()
    found = predict(load(SMOKE, settings), Site(nodes, hazard=HAZARD, spread=0.1), shipped())
    generation, ideal = found["generation"], seconds * found["generation"]["decisions"] / engines
    return [
        f"{nodes:,}",
        f"{engines:,}",
        f"{generation['lives']:,}",
        f"{generation['rollout_seconds']:,.0f}",
        f"{ideal / generation['rollout_seconds']:.2f}",
        f"{found['busy']['driver']:.2f}",
        f"{found['busy']['sink']:.2f}",
        f"{generation['decisions_per_second']:,.0f}",
        f"{found['store']['requests'] / generation['rollout_seconds']:,.1f}",
        f"{generation['driver_alone_seconds']:,.0f}",
        f"{found['memory_gib']['driver']:,.1f}",
        f"{time.process_time() - begin:.0f}",
    ]


HEAD = (
    "nodes | engines | lives | rollout, s | of the ideal | driver busy | sink busy | rows/s | store requests/s"
    " | driver alone, s | driver, GiB | simulated in, s"
)


def table(nodes: Sequence[int]) -> None:
    for kind, (seconds, sharing) in KINDS.items():
        print(f"\n{kind}\n\n| {HEAD} |\n|{'---|' * (HEAD.count('|') + 1)}")
        for count in nodes:
            print(f"| {' | '.join(row(count, seconds, sharing))} |", flush=True)


def validate() -> None:
    print(
        f"{machine()}\n\n| shape | lives | decisions | measured, s | predicted, s | ratio |\n|---|---|---|---|---|---|"
    )
    for name, settings in SHAPES.items():
        measured, predicted, lived = compared(settings)
        found = f"{measured:.1f} | {predicted:.1f} | {predicted / measured:.2f}"
        print(f"| {name} | {lived.size} | {lived.sum()} | {found} |", flush=True)


def compared(settings: Sequence[str]) -> tuple[float, float, Any]:
    """Seconds of a real generation's lives on Ray, the model's for lives of the same lengths, and these lengths."""
    every = [*settings, "generations=2", "evaluation.lives=1", "metrics.enabled=false"]
    config = load(SMOKE, every)
    with tempfile.TemporaryDirectory() as place:
        ok("run", SMOKE, "--store", place, *(part for one in every for part in ("--set", one)))
        store, state = open_run(f"{place}/smoke")
        lived = lengths_of(store, state, generation=1)
        measured = state.history[1].seconds["rollout"]
    costs, sight = shipped(), look(config)
    seconds, _ = decision_seconds(config, sight, costs)
    if seconds is None:
        raise RuntimeError("the scripted engine's time is unknown")
    plant = replace(plant_of(config, Site(1), costs, sight, seconds), lengths=lived)
    return measured, roll_out(plant).seconds, lived


DRIVERS = ((4, 256, 64), (16, 256, 64), (24, 192, 64), (16, 64, 256), (48, 64, 256))
"""Engines, and as many agents; lives for each engine; room on each agent: scarce, then ample."""


def drivers() -> None:
    """Processor seconds of a real pool without Ray, and the model's with what a call takes without Ray."""
    print("| engines and agents | lives on an engine | room | calls | predicted | seconds | predicted | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    document = shipped().model_dump()
    document["driver"]["part_seconds"] = {"value": handed_out()["driver"]["part_seconds"], "by": "here"}
    costs = UnitCosts.model_validate(document)
    for engines, lives, room in DRIVERS:
        measured, calls = hand_out(engines, lives, room)
        plant = Plant(
            # Every millisecond a decision; nothing else takes time.
            lengths=np.array(
                [[idle(f"{number}/{life}") for life in range(lives)] for number in range(engines)], dtype=np.int32
            ),
            speeds=np.ones(engines),
            decision_seconds=1e-12,
            answer_seconds=0.001,
            request_batch=16,
            capacity=1,
            load_seconds=0.01,
            adapter_bytes=0.0,
            agents=engines,
            room=room,
            agent_decisions_per_second=1e12,
            commit_seconds=1e6,
            store_seconds=0.0,
            costs=costs,
            asked=False,
        )
        found = roll_out(plant)
        seconds = f"{measured:.2f} | {found.driver_seconds:.2f} | {found.driver_seconds / measured:.2f}"
        print(f"| {engines} | {lives} | {room} | {calls} | {found.parts} | {seconds} |", flush=True)


def lengths_of(store: Store, state: RunState, generation: int) -> Any:
    """[individuals, lives]: steps of each life."""
    rows = Ledger(store).recall("lives", generation, state.vouched(generation), state.attempts(generation))
    people = sorted(set(rows["individual"].to_pylist()))
    return np.array(rows["steps"].to_pylist(), dtype=np.int32).reshape(len(people), -1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.limits", description=__doc__.splitlines()[0])
    parser.add_argument("--validate", action="store_true", help="compare with real runs")
    parser.add_argument("--driver", action="store_true", help="compare with a real pool's driver")
    parser.add_argument("--nodes", type=int, nargs="*", default=NODES)
    arguments = parser.parse_args()
    if arguments.validate:
        validate()
    elif arguments.driver:
        drivers()
    else:
        table(arguments.nodes)


if __name__ == "__main__":
    main()
