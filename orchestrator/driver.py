"""The driver: takes a run, builds its rooms, turns the loop until nothing is left to do, and cleans up."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from orchestrator.cluster import cluster
from orchestrator.config import RunConfig, engine_gpus, gpus_needed
from orchestrator.display import Display, open_display
from orchestrator.evaluation import founder_of, model_rows, reference_row
from orchestrator.fitness import load_function
from orchestrator.generation import Rooms, run_generation
from orchestrator.observe import MetricsListener
from orchestrator.rooms import Builder, Model, Tick, TrainersRoom, WorkersRoom, find_model
from orchestrator.run import Run, champion, create, reopen
from orchestrator.state import EvaluationRow, RunState
from orchestrator.stopwatch import Stopwatch
from telemetry.exporter import serve
from telemetry.failures import StateError, Stopped, StorageError
from telemetry.lock import exclusive
from telemetry.metrics import Metrics
from telemetry.store import Store
from workers.environment import make


def start(store: Store, config: RunConfig) -> RunState:
    """Runs a new evolution to its end. Raises UsageError, leaving nothing behind, when it cannot start."""
    _check_plugins(config)
    model = find_model(config)
    store.probe()
    _check_space(store, config)
    with ExitStack() as stack:
        metrics, address = _serve_metrics(stack, config)
        stack.enter_context(exclusive(store.local_path("driver.lock")))
        return _drive(create(store, config, model.card), model, metrics, address)


def resume(store: Store, state: RunState, config: RunConfig) -> RunState:
    """Finishes a run that was interrupted; does nothing to one that is finished."""
    if state.finished:
        return state
    _check_plugins(config)
    model = find_model(config)
    if model.card.sha256 != state.created.model.sha256:
        raise StateError(
            f"model {config.model}: its files have sha256 {model.card.sha256[:12]}, the run was started on"
            f" {state.created.model.sha256[:12]}; give it the same files"
        )
    with ExitStack() as stack:
        metrics, address = _serve_metrics(stack, config)
        stack.enter_context(exclusive(store.local_path("driver.lock")))
        return _drive(reopen(store, config), model, metrics, address)


@contextmanager
def worker_rooms(store: Store, config: RunConfig, model: Model) -> Iterator[WorkersRoom]:
    """Engines and agents alone, for evaluation outside a run."""
    with cluster(config.ray, engine_gpus(config)) as start_actor, asyncio.Runner() as runner:
        builder = Builder(config, model, str(store), log_directory(store, config), start_actor)
        yield WorkersRoom(runner, runner.run(builder.workers()), config, Stopwatch())


def log_directory(store: Store, config: RunConfig) -> Path:
    """Where the processes of a run write their logs: inside a local run directory, else in the user's cache."""
    return store.local_path("logs") or Path.home() / ".cache" / "forager" / "logs" / config.name


def _drive(run: Run, model: Model, metrics: Metrics, address: str) -> RunState:
    config = run.config
    listener = MetricsListener(metrics)
    listener.replay(run.state)
    with (
        open_display(config, run.state) as display,
        cluster(config.ray, gpus_needed(config)) as start_actor,
        _terminable(),  # after Ray, which installs a handler of its own
        asyncio.Runner() as runner,
    ):
        run.listeners += [listener, display]
        display.note(f"starting engines and agents; {address}")
        builder = Builder(config, model, str(run.store), log_directory(run.store, config), start_actor)
        pool = runner.run(builder.workers())
        workers = WorkersRoom(runner, pool, config, run.watch)
        workers.tick = _ticker(display, metrics, workers)
        rooms = Rooms(workers, TrainersRoom(runner, builder.trainers(), run.watch))
        run.watch.take()
        while run.generation < config.generations:
            _check_space(run.store, config)
            run_generation(run, rooms, config)
        if run.state.evaluation is None:
            display.note("evaluating founder and champion on held-out worlds")
            run.evaluated(_evaluate(run, workers))
        if run.state.finished is None:
            run.finish(champion(run.state).id)
    return run.state


def _evaluate(run: Run, workers: WorkersRoom) -> list[EvaluationRow]:
    lives, environment = run.config.evaluation.lives, run.config.environment
    best = champion(run.state)
    rows = [reference_row("random", environment, lives)]
    if hasattr(make(environment.name, environment.settings), "heuristic"):
        rows.append(reference_row("heuristic", environment, lives))
    return rows + model_rows(workers, [("founder", founder_of(run.state, best)), ("champion", best)], lives)


def _ticker(display: Display, metrics: Metrics, workers: WorkersRoom) -> Tick:
    def tick(alive: int, decisions: int) -> None:
        display.tick(alive, decisions)
        metrics.live(alive, decisions, workers.pool.restarts)

    return tick


def _check_plugins(config: RunConfig) -> None:
    """Fails on a broken world or fitness function before anything is started."""
    make(config.environment.name, config.environment.settings)
    if config.fitness.kind == "custom":
        load_function(config.fitness.function)


def _check_space(store: Store, config: RunConfig) -> None:
    free = store.free_bytes()
    needed = int(config.ledger.min_free_gib * 2**30)
    if free is not None and free < needed:
        raise StorageError(
            f"{store}: {free >> 20} MiB free, expected at least {needed >> 20} MiB (ledger.min_free_gib);"
            " free some space, then resume"
        )


def _serve_metrics(stack: ExitStack, config: RunConfig) -> tuple[Metrics, str]:
    """The run's metrics, and where they are served in words."""
    metrics = Metrics(run=config.name)
    if not config.metrics.enabled:
        return metrics, "metrics are off"
    port = stack.enter_context(serve(metrics, config.metrics.host, config.metrics.port))
    return metrics, f"metrics at http://{config.metrics.host}:{port}/metrics"


@contextmanager
def _terminable() -> Iterator[None]:
    """Turns SIGTERM into an interrupt, so that finished lives are committed before the driver exits.

    Raises Stopped after either signal.
    """
    terminated = False

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    # A shell starts background jobs with interrupts ignored; the runner listens only to the default handler.
    before_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(signal.SIGTERM if terminated else signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, before_interrupt)
        sys.stdout.flush()
