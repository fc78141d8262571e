"""The scale model: against queueing theory where that has closed forms, against the real pool where it has none."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.runfile import load
from orchestrator.scale import Site, lengths, predict
from orchestrator.scale_costs import GIVEN, Measured, Rate, UnitCosts, left_out, shipped
from orchestrator.scale_costs import load as load_costs
from orchestrator.scale_placement import Placement
from orchestrator.scale_plant import Plant
from orchestrator.scale_queue import Server, makespan
from orchestrator.scale_rollout import BUFFER, COMMIT_LIVES, roll_out
from telemetry.config import Config
from telemetry.failures import UsageError
from tests.forager import ROOT, SMOKE
from tests.inprocess import forager_here, output, refused
from tests.orchestrator.real_pool import Shape, really_live


def costs(**changes: float) -> UnitCosts:
    """Everything costs nothing, but for `section__figure`."""
    document = shipped().model_dump(mode="json")
    for section, figures in document.items():
        for name in figures if isinstance(figures, dict) else ():
            figures[name] = None if name.endswith("_per_second") else 0.0
            if f"{section}__{name}" in changes:
                figures[name] = changes[f"{section}__{name}"]
    return UnitCosts.model_validate(document)


def plant(shape: tuple[int, int] = (4, 8), engines: int = 2, **changes: object) -> Plant:
    """Lives of ten steps with engines that answer ten times a second, and nothing else that takes time."""
    base = Plant(
        lengths=np.full(shape, 10, dtype=np.int32),
        speeds=np.ones(engines),
        decision_seconds=0.1,
        answer_seconds=0.0,
        request_batch=16,
        capacity=1,
        load_seconds=0.0,
        adapter_bytes=0.0,
        agents=1,
        room=1_000_000,
        agent_decisions_per_second=1e9,
        commit_seconds=1e6,
        store_seconds=0.0,
        costs=costs(),
        asked=False,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@settings(max_examples=10, deadline=None)
@given(load=st.floats(0.1, 0.7), seed=st.integers(0, 1000))
def test_the_wait_for_one_server_is_that_of_an_m_d_1_queue(load: float, seed: int) -> None:
    # Pollaczek-Khinchine with constant service: half of what exponential service would make of it.
    server, seconds = Server(), 0.01
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(seconds / load, 100_000))
    waits = [server.attend(arrival, seconds) - seconds - arrival for arrival in arrivals.tolist()]
    assert np.mean(waits) == pytest.approx(seconds * load / (2 * (1 - load)), rel=0.1)
    assert server.busy == pytest.approx(seconds * len(waits))


@given(jobs=st.lists(st.floats(0.01, 100), min_size=1, max_size=60), machines=st.integers(1, 12))
def test_a_list_of_jobs_is_done_within_grahams_bound(jobs: list[float], machines: int) -> None:
    seconds, least = makespan(jobs, machines), max(sum(jobs) / machines, *jobs, 0.0)
    assert least <= seconds * (1 + 1e-9)
    assert seconds <= (sum(jobs) / machines + (1 - 1 / machines) * max(jobs)) * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.integers(1, 60), min_size=1, max_size=12), lives=st.integers(1, 8), engines=st.integers(1, 6))
def test_individuals_that_no_engine_can_share_are_jobs_of_a_list(steps: list[int], lives: int, engines: int) -> None:
    # With room for all of its lives at once, only an engine that is free at the same instant helps with an individual.
    individuals = np.repeat(np.array(steps, dtype=np.int32)[:, None], lives, axis=1)
    engines, jobs = min(engines, len(steps)), [0.1 * lives * one for one in steps]
    found = roll_out(plant(engines=engines, lengths=individuals))
    assert sum(jobs) / engines * (1 - 1e-6) <= found.lived_seconds <= makespan(jobs, engines) * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    engines=st.integers(1, 7),
    agents=st.integers(1, 5),
    room=st.integers(1, 50),
    capacity=st.integers(1, 4),
    size=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_every_decision_is_computed_once_and_no_engine_is_faster_than_it_is(
    shape: tuple[int, int], engines: int, agents: int, room: int, capacity: int, size: int, seed: int
) -> None:
    drawn = lengths(shape, 60, 0.05, np.random.default_rng(seed))
    speeds = np.random.default_rng(seed).uniform(0.5, 2, engines)
    one = plant(lengths=drawn, speeds=speeds, agents=agents, room=room, capacity=capacity, size=size)
    found = roll_out(one)
    assert found == roll_out(one)
    decisions = int(drawn.sum()) * size
    assert found.seconds >= decisions * 0.1 / speeds.sum() * (1 - 1e-6)
    assert found.lived_seconds >= drawn.max() * 0.1 * size / speeds.max() * (1 - 1e-6)
    assert found.engine_seconds <= decisions * 0.1 / speeds.min() * (1 + 1e-6)
    assert found.engine_seconds >= decisions * 0.1 / speeds.max() * (1 - 1e-6)
    assert found.alive <= max(agents * room, size * agents)


def test_engines_without_lives_of_their_own_join_the_neediest() -> None:
    scarce = replace(plant(shape=(1, 64), engines=4), agents=4, room=8)
    alone = roll_out(replace(scarce, speeds=np.ones(1))).lived_seconds
    assert roll_out(scarce).lived_seconds == pytest.approx(alone / 4, rel=0.1)


def test_the_driver_is_busy_for_as_long_as_its_parts_say() -> None:
    found = roll_out(
        plant(
            costs=costs(driver__part_seconds=0.01, driver__life_seconds=0.001, driver__entry_seconds=0.1),
            commit_seconds=2.0,
        )
    )
    assert found.driver_seconds == pytest.approx(found.parts * 0.01 + 32 * 0.001 + found.commits * 0.1)


def test_a_look_for_every_call_and_one_in_vain_for_every_turn() -> None:
    one = plant(shape=(8, 64), engines=8, agents=8, room=8, costs=costs(driver__wake_agent_seconds=1e-4))
    found = roll_out(one)
    assert found.parts * 8 * 1e-4 < found.driver_seconds <= (found.parts + found.turns) * 8 * 1e-4 * 1.001


def test_a_slow_sink_holds_up_agents_and_is_the_bottleneck() -> None:
    slow = costs(sink__row_seconds=0.5, sink__row_memory=BUFFER / 100)
    found = roll_out(plant(shape=(8, 64), agents=4, room=16, commit_seconds=1.0, costs=slow))
    assert found.held_up_seconds > 0
    assert found.sink_seconds / found.seconds > 0.9
    assert found.seconds == pytest.approx(8 * 64 * 10 * 0.5, rel=0.1)
    # Whoever is on its way when the buffer is full still comes in when the sink has written.
    assert found.buffered_bytes <= BUFFER * (1 + found.alive * 10 / 100)


def test_a_store_with_limits_is_no_faster_than_they_are() -> None:
    limited = costs(store__requests_per_second=10.0, store__adapter_requests=2.0)
    found = roll_out(plant(shape=(100, 1), engines=100, costs=limited))
    assert found.requests >= 200
    assert found.seconds >= 200 / 10


@pytest.mark.parametrize(
    "shape",
    [
        Shape(individuals=8, lives=24, engines=3, agents=2, room=20, capacity=1, seconds=0.05),
        Shape(individuals=6, lives=40, engines=2, agents=1, room=256, capacity=4, seconds=0.02, flush_seconds=2.0),
        Shape(individuals=2, lives=96, engines=4, agents=3, room=16, capacity=1, seconds=0.1),
    ],
    ids=["more individuals than engines", "several individuals on an engine", "more engines than individuals"],
)
def test_the_real_pool_takes_as_long_as_predicted(shape: Shape) -> None:
    seconds, lived = really_live(shape)
    foreseen = roll_out(
        plant(
            lengths=lived,
            speeds=np.ones(shape.engines),
            decision_seconds=shape.seconds,
            capacity=shape.capacity,
            agents=shape.agents,
            room=shape.room,
            commit_seconds=10.0,
            costs=costs(sink__flush_seconds=shape.flush_seconds),
        )
    )
    assert foreseen.seconds == pytest.approx(seconds, rel=0.15)


def figures(model: Config) -> list[Measured]:
    found = [getattr(model, name) for name in type(model).model_fields]
    inner = [one for section in found if isinstance(section, Config) for one in figures(section)]
    return [one for one in found if isinstance(one, Measured)] + ([] if isinstance(model, Measured) else inner)


def test_every_shipped_figure_says_where_it_is_from() -> None:
    assert len(figures(shipped())) > 20
    for one in figures(shipped()):
        assert one.by.startswith(("python -m tests.bench.", "docs/", "telemetry/", "read off ")), one


def test_a_file_of_ones_own_replaces_single_figures(tmp_path: Path) -> None:
    place = tmp_path / "costs.yaml"
    place.write_text("gpu: true\nengine: {prefill_tokens_per_second: 50000, pass_seconds: {value: 0.02, by: vendor}}\n")
    found = load_costs(place)
    assert found.engine.prefill_tokens_per_second == Rate(value=50000, by=GIVEN)
    assert found.engine.pass_seconds.by == "vendor"
    assert found.driver == shipped().driver
    for text, words in (
        ("engine: {speed: 1}", "engine.speed: unknown key"),
        ("gpu: maybe", "gpu: got 'maybe'"),
        ("store: {requests_per_second: 0}", "greater than 0"),
    ):
        place.write_text(text)
        with pytest.raises(UsageError, match=words):
            load_costs(place)


def test_a_plan_of_a_cluster_is_complete_and_always_the_same() -> None:
    arguments = ("plan", SMOKE, "--nodes", "3", "--engines-per-node", "2", "--dollars-per-node-hour", "1.5", "--json")
    first = output(*arguments)
    assert first == output(*arguments)
    found = json.loads(first)
    assert found["cluster"] == {"nodes": 3, "engines": 6, "agents": 6, "trainers": 6, "gpus": 0.0}
    assert found["generation"]["decisions"] == 4 * 16 * found["horizon_steps"]
    assert found["whole_run"]["dollars"] == pytest.approx(3 * 1.5 * found["whole_run"]["hours"], abs=0.1)
    assert found["missing"] == []
    assert set(found["left_out"]) == set(left_out(shipped()))
    assert set(found["busy"]) == {"engines", "agents", "driver", "sink", "store"}
    assert found["bottleneck"]
    assert found["dial"]
    assert "bottleneck" in output(*arguments[:-1])


def test_figures_that_nobody_measured_are_asked_for_and_not_made_up(tmp_path: Path) -> None:
    config = load(ROOT / "deploy" / "runs" / "cluster.yaml", ["model=smollm2-135m-instruct"])
    found = predict(config, Site(nodes=2, gpus_per_node=4), shipped())
    assert found["generation"] is None
    assert "figures of a GPU" in found["missing"][0]
    place = tmp_path / "costs.yaml"
    place.write_text("gpu: true\nengine: {prefill_tokens_per_second: 50000}\ntrainer: {token_seconds: null}\n")
    found = predict(config, Site(nodes=2, gpus_per_node=3), load_costs(place))
    assert found["generation"]["rollout_seconds"] > 0
    assert found["generation"]["seconds"] is None
    assert found["missing"] == ["8 GPUs needed, the cluster has 6", "trainer.token_seconds"]


def test_options_of_a_cluster_need_a_cluster() -> None:
    refused(forager_here("plan", SMOKE, "--engines-per-node", "2"), 2, "--nodes: missing")
    refused(forager_here("plan", SMOKE, "--nodes", "9000", "--engines-per-node", "9"), 2, "81000 engines")


def test_a_plan_loads_no_heavy_library() -> None:
    program = (
        "import sys, orchestrator.scale, orchestrator.plan;"
        "print(*sorted({'ray', 'torch', 'vllm', 'trl', 'transformers', 'deltalake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_chunks_are_those_of_the_real_placement() -> None:
    from orchestrator import scale_placement
    from telemetry.sink import TelemetrySink
    from workers import placement, saver

    for name in ("CHUNK", "PARTS", "SPREAD"):
        assert getattr(scale_placement, name) == getattr(placement, name)
    assert all(scale_placement.chunk(room) == placement.chunk(room) for room in (1, 64, 2048, 10_000))
    assert COMMIT_LIVES == saver.COMMIT_LIVES
    assert TelemetrySink.__init__.__defaults__ == (BUFFER,)
    assert Placement(plant(shape=(5, 2), engines=2)).batches[0].adapters == 1
