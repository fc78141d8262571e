"""The driver: takes a run, builds its rooms, turns the loop until nothing is left to do, and cleans up."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from orchestrator.address import driven_at
from orchestrator.builder import Builder, Model, find_model
from orchestrator.cluster import cluster
from orchestrator.config import RunConfig
from orchestrator.credentials import prepare
from orchestrator.display import Display, open_display
from orchestrator.evaluation import HeldOut, Player, founder_of, in_manner, model_rows, reference_rows
from orchestrator.events import EvaluationRow
from orchestrator.fitness import load_function
from orchestrator.generation import Rooms, run_generation
from orchestrator.needs import engine_gpus, trainer_gpus
from orchestrator.observe import MetricsListener
from orchestrator.rooms import Tick, TrainersRoom, WorkersRoom
from orchestrator.run import Run, champion, create, reopen
from orchestrator.state import RunState
from orchestrator.stopwatch import Stopwatch
from orchestrator.trackers import tracked
from telemetry import models, trackers
from telemetry.exporter import serve
from telemetry.failures import StateError, Stopped, StorageError, UsageError
from telemetry.lock import beating, check_dead, exclusive
from telemetry.metrics import Metrics
from telemetry.store import Store
from trainer import launch
from workers.environment import is_shared
from workers.pool import Pulse
from workers.registry import held_out, make, rehearse

GRACE = 30.0
"""Seconds after SIGTERM or SIGHUP until the driver exits, whatever it still waits for."""


def start(store: Store, written: RunConfig, address: str | None = None) -> RunState:
    """Runs a new evolution to its end, on the cluster at `address` if it is not to be the run file's.

    Raises UsageError, leaving nothing behind, when it cannot start.
    """
    config = driven_at(written, address)
    prepare(config.ray)
    _check_plugins(config)
    model = find_model(config)
    store.probe()
    _check_space(store, config)
    with ExitStack() as stack:
        metrics, served = _serve_metrics(stack, config)
        stack.enter_context(exclusive(store))
        run = create(store, written, model.card)
        run.config = config
        stack.enter_context(beating(store, run.epoch))
        return _drive(run, model, metrics, served)


def resume(
    store: Store, state: RunState, config: RunConfig, *, take_over: bool = False, at_generation: int | None = None
) -> RunState:
    """Finishes a run that was interrupted; does nothing to one that is finished.

    take_over: also when its driver seems alive; that one is fenced and stops at its next commit.
    at_generation: go on from right after this committed generation; later ones stay in the journal as a branch.
    """
    if state.finished and at_generation is None:
        return state
    if at_generation is not None and not 0 <= at_generation < len(state.history):
        raise UsageError(
            f"--at-generation: got {at_generation}, expected a committed generation: the run has {len(state.history)},"
            " counted from 0"
        )
    prepare(config.ray)
    _check_plugins(config)
    model = find_model(config)
    if model.card.sha256 != state.created.model.sha256:
        raise StateError(
            f"model {config.model}: its files have sha256 {model.card.sha256[:12]}, the run was started on"
            f" {state.created.model.sha256[:12]}; give it the same files"
        )
    with ExitStack() as stack:
        metrics, address = _serve_metrics(stack, config)
        stack.enter_context(exclusive(store, take_over=take_over))
        if not take_over:
            check_dead(store, state.epochs)
        run = reopen(store, config)
        stack.enter_context(beating(store, run.epoch))
        if at_generation is not None:
            run.rewind(at_generation)
        return _drive(run, model, metrics, address)


@contextmanager
def worker_rooms(store: Store, config: RunConfig, model: Model) -> Iterator[WorkersRoom]:
    """Engines and agents alone, for evaluation outside a run."""
    with cluster(config.ray, engine_gpus(config)) as start_actor, terminable(), asyncio.Runner() as runner:
        builder = Builder(config, model, str(store), log_directory(store, config), start_actor)
        yield WorkersRoom(runner, runner.run(builder.workers()), config, Stopwatch())


def log_directory(store: Store, config: RunConfig) -> Path:
    """Where the processes of a run write their logs: inside a local run directory, else in the user's cache."""
    return store.local_path("logs") or models.cache() / "logs" / config.name


def _drive(run: Run, model: Model, metrics: Metrics, address: str) -> RunState:
    config = run.config
    listener = MetricsListener(metrics, config, took=lambda: run.append_seconds)
    listener.replay(run.state)
    with (
        tracked(run, log_directory(run.store, config)) as listeners,  # before Ray, which passes the environment on
        open_display(config, run.state) as display,
        cluster(config.ray, engine_gpus(config) + trainer_gpus(config), display.note) as start_actor,
        terminable(),  # after Ray, which installs a handler of its own
        asyncio.Runner() as runner,
    ):
        run.listeners += [listener, *listeners, display]
        display.note(f"starting engines and agents; {address}")
        builder = Builder(config, model, str(run.store), log_directory(run.store, config), start_actor)
        pool = runner.run(builder.workers())
        workers = WorkersRoom(runner, pool, config, run.watch)
        workers.tick = _ticker(display, metrics, run.store)
        rooms = Rooms(workers, TrainersRoom(runner, builder.trainers(), run.watch))
        run.watch.take()
        while run.population:
            _check_space(run.store, config)
            run_generation(run, rooms, config)
        if run.state.evaluation is None:
            display.note("evaluating founder and champion on held-out worlds")
            run.evaluated(_evaluate(run, workers))
        if run.state.finished is None:
            run.finish(champion(run.state).id)
    return run.state


def _evaluate(run: Run, workers: WorkersRoom) -> list[EvaluationRow]:
    worlds, best = HeldOut(run.config, run.config.evaluation.lives, run.tell), champion(run.state)
    players = [Player("founder", founder_of(run.state, best)), Player("champion", best)]
    rows = reference_rows(worlds) + model_rows(workers, players, worlds, run.keep)
    few = min(run.config.evaluation.manners, worlds.lives)
    if few == 0:
        return rows
    manners = [in_manner(best, "champion", manner) for manner in ("likeliest", "exploring")]
    return rows + model_rows(workers, manners, replace(worlds, lives=few))


def _ticker(display: Display, metrics: Metrics, store: Store) -> Tick:
    def tick(pulse: Pulse) -> None:
        display.tick(pulse.alive, pulse.decisions)
        metrics.live(pulse.alive, pulse.decisions, restarts=pulse.restarts, retries=pulse.retries)
        with suppress(StorageError):  # whoever writes next will tell
            metrics.free(store.free_bytes())
        metrics.engines({name: stats.numbers() for name, stats in pulse.engines.items()})
        metrics.foreign.heard({name: stats.own for name, stats in pulse.engines.items()})

    return tick


def _check_plugins(config: RunConfig) -> None:
    """Fails on a broken world or fitness function, or a missing package, before anything is started."""
    trackers.check(config.trackers)
    launch.check(config.trainer)
    environment = config.environment
    rehearse(environment.name, environment.settings)
    rehearse(environment.name, held_out(environment.name, environment.settings, config.evaluation.settings))
    if config.fitness.kind == "custom":
        load_function(config.fitness.function)
    if is_shared(make(environment.name, environment.settings)):
        for name in ("halving", "recheck"):
            if (got := getattr(config.selection, name)) is not None:
                raise UsageError(
                    f"selection.{name}: got {got}, expected null: {environment.name} is a shared world, where all live"
                    " together"
                )


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
def terminable() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into an interrupt, so that finished lives are committed before the driver exits.

    A second signal does not wait for that, nor does anything after GRACE seconds. Raises Stopped after a signal.
    """
    stopping = 0
    watchdogs: list[threading.Timer] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + signum)
        stopping = signum
        watchdog = threading.Timer(GRACE, os._exit, [128 + signum])
        watchdog.daemon = True
        watchdog.start()
        watchdogs.append(watchdog)
        os.kill(os.getpid(), signal.SIGINT)

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, interrupt)
    # Whoever starts a driver under nohup wants it to outlive the terminal.
    if before[signal.SIGHUP] is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
    # A shell starts background jobs with interrupts ignored; the runner listens only to the default handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(stopping or signal.SIGINT) from None
    finally:
        # A caller that outlives the run must not be ended by it later.
        for watchdog in watchdogs:
            watchdog.cancel()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        sys.stdout.flush()
