"""Builds what the rooms of a run are staffed with: engines, agents, sink and trainers, on a cluster or in process."""

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from orchestrator.cluster import Start
from orchestrator.config import RunConfig
from orchestrator.serving_choice import served
from telemetry import model_copies, models
from telemetry.actors import Place, own_address
from telemetry.adapters import Shelf
from telemetry.allocation import TENSORS
from telemetry.member import Member
from telemetry.records import BaseModelCard
from telemetry.remote import RemoteLost
from telemetry.sink import TelemetrySink
from telemetry.store import join_store
from trainer.config import TrainerConfig
from trainer.finetune import Trainer
from trainer.launch import TrainerPool
from trainer.team import join
from workers import engines
from workers.agent import AgentHost
from workers.config import VllmEngineConfig
from workers.engine import ModelDescription
from workers.environment import is_shared
from workers.line import Switchboard
from workers.pool import WorkerPool
from workers.registry import find


@dataclass(frozen=True)
class Model:
    """The base model as every room needs it."""

    card: BaseModelCard
    directory: Path | None
    """Local files; None for the scripted engine, which has none."""
    name: str = ""
    """What every machine of a cluster may call it; empty without files."""


def find_model(config: RunConfig) -> Model:
    """The base model of a run, made available on this machine. Raises UsageError when there is no such model."""
    if config.engine.kind == "scripted":
        from workers.engines.scripted import CARD

        return Model(CARD, None)
    directory = models.resolve(config.model)
    card = models.card(directory, config.model)
    return Model(card, directory, model_copies.name_for_all(config.model, directory))


class Builder:
    """Starts the parts of the rooms, each with its place, its log file and its time-outs."""

    def __init__(self, config: RunConfig, model: Model, store_url: str, logs: Path | None, start: Start) -> None:
        self._config = config
        self._model = model
        self._store_url = store_url
        self._logs = logs
        self._start = start
        self._keys = engines.keys_of(config.engine)
        # On this machine alone, nothing of it is to be heard outside.
        self._inside = config.ray.address is None

    async def workers(self) -> WorkerPool:
        """The worker pool with an engine and all agents up; further engines follow as they find room and start."""
        config, restarts = self._config, self._config.workers.restarts
        engines_ = [Member("engine", index, partial(self._engine, index)) for index in range(config.engine.count)]
        description = await _description(await _first(engines_, restarts), restarts)
        sink = Member("sink", 0, self._sink)
        agents = [
            Member("agent", index, partial(self._agent, index, description)) for index in range(config.workers.agents)
        ]
        await asyncio.gather(*(member.start(restarts) for member in (sink, *agents)))
        world = find(config.environment.name)
        return WorkerPool(
            engines=engines_,
            agents=agents,
            sink=sink,
            capacity=description.capacity,
            config=config.workers,
            commit_seconds=config.ledger.commit_seconds,
            run=config.name,
            world=world.name,
            together=is_shared(world),
        )

    def trainers(self) -> TrainerPool:
        """The trainer pool; its actors start with the first jobs."""
        return TrainerPool(self._config.trainer, spawn=self._trainer)

    async def _engine(self, index: int) -> Any:
        config = served(self._config).engine
        build = partial(_build_engine, config, self._model, self._store_url, keys=self._keys, inside=self._inside)
        gpus = config.gpus if isinstance(config, VllmEngineConfig) else 0.0
        environment = engines.environment(config)
        return await self._host(build, f"engine-{index}", gpus=gpus, environment=environment)

    async def _sink(self) -> Any:
        return await self._host(partial(TelemetrySink, self._store_url), "sink-0")

    async def _agent(self, index: int, description: ModelDescription) -> Any:
        config = self._config
        build = partial(
            _build_agent,
            run=config.name,
            run_seed=config.seed,
            environment=config.environment,
            heldout=config.evaluation.settings,
            description=description,
            request_batch=config.workers.request_batch,
        )
        return await self._host(build, f"agent-{index}", call_timeout=config.workers.live_timeout)

    async def _trainer(self, index: int) -> Any:
        config = self._config.trainer
        build = partial(_build_trainer, config, self._model, self._store_url)
        host = partial(self._host, build, gpus=config.gpus_per_job, call_timeout=config.timeout)
        if config.workers == 1:
            return await host(f"trainer-{index}", environment=TENSORS)
        names = [f"trainer-{index}-{rank}" for rank in range(config.workers)]
        host = partial(host, together=names)
        inside = {"GLOO_SOCKET_IFNAME": "lo"} if self._inside else {}
        host = partial(host, environment=TENSORS | inside)
        return await join(names, host, "127.0.0.1" if self._inside else None)

    async def _host(
        self,
        build: Callable[[], Any],
        name: str,
        *,
        gpus: float = 0.0,
        environment: Mapping[str, str] | None = None,
        call_timeout: float | None = None,
        together: Sequence[str] = (),
    ) -> Any:
        # Keys travel to the engine as an argument: plugins, and whatever they start, read the environment.
        known = dict.fromkeys(self._keys, "") | dict(environment or {})
        limits = self._config.workers
        log = self._logs / f"{name}.log" if self._logs else None
        return await self._start(
            build,
            Place(name, gpus=gpus, environment=known, log=log, together=tuple(together)),
            start_timeout=limits.start_timeout,
            call_timeout=call_timeout or limits.call_timeout,
            hang_timeout=limits.hang_timeout,
        )


async def _first(members: Sequence[Member], restarts: int) -> Member:
    """The first that stands; the others go on starting. Raises what kept one from it, if that comes first."""
    starts = {asyncio.create_task(member.start(restarts)): member for member in members}
    done, others = await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)
    for start in others:
        # Whoever needs them starts them again, and is told.
        start.add_done_callback(lambda start: start.cancelled() or start.exception())
    for start in done:
        start.result()
    return starts[done.pop()]


async def _description(engine: Member, restarts: int) -> ModelDescription:
    """What the engine says of its model, however often replies or the engine itself are lost meanwhile."""
    while True:
        peer, incarnation = await engine.start(restarts), engine.incarnation
        try:
            description: ModelDescription = await peer.describe()
        except RemoteLost as error:
            await engine.lost(incarnation, error, restarts)
        else:
            return description


def _files(model: Model) -> Path | None:
    """The model's files on the machine that asks."""
    return model_copies.here(model.name, model.card) if model.directory else None


def _build_agent(**settings: Any) -> AgentHost:
    """An agent host in a process whose collector of garbage seldom looks through what stays: records of many lives."""
    gc.set_threshold(50_000, 20, 50)
    return AgentHost(**settings)


def _build_engine(
    config: engines.AnyEngineConfig, model: Model, store_url: str, keys: Mapping[str, SecretStr], inside: bool
) -> Switchboard:
    """An engine that takes adapters from the run's store; called on whatever node it lives."""
    engine = engines.build(config, _files(model), model.card, Shelf(join_store(store_url)).path, keys)
    return Switchboard(engine, "127.0.0.1" if inside else own_address())


def _build_trainer(config: TrainerConfig, model: Model, store_url: str) -> Trainer:
    """A trainer that publishes into the run's store; called on whatever node it lives."""
    return Trainer(config, model.card, _files(model), store_url)
