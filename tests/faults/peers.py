"""Engines, agents, sink and trainers of a simulation: real agent hosts and a real sink among processes that fail.

A peer is called like a `telemetry.actors.Actor`: the answer comes, comes late, or the call raises RemoteLost.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b, sha256
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel

from telemetry.records import BaseModelCard, EndReason, FileRef
from telemetry.remote import NoAnswer, RemoteLost, ReplyLost
from tests.faults.virtual_time import VirtualLoop
from tests.faults.world import Process
from trainer.job import TrainingJob, TrainingResult
from workers.engine import Completion, CompletionRequest, EngineFailure, EngineStats, ModelDescription
from workers.environment import Birth, Observation, Outcome, Turn
from workers.prompt import BYTES

CARD = BaseModelCard(id="scripted", sha256="5" * 64, modules={"policy": (16, 32)})
CAPACITY = 2
"""Adapters that a toy engine serves at once."""
DESCRIPTION = ModelDescription(CARD, BYTES, (), (10,), (10,), 1 << 20, CAPACITY)
CALL_FAULTS = ("late reply", "lost request", "lost reply", "death", "preemption", "hang")
START_TIMEOUT = 30.0
HANG_TIMEOUT = 4.0


class Cluster:
    """The processes that live and die with one driver."""

    def __init__(self, process: Process, loop: VirtualLoop) -> None:
        self.process = process
        self.world = process.world
        self.loop = loop
        self.peers: list[Peer] = []
        self.shared = False
        """Engines are given all adapters of a party, however many."""

    async def start(self, role: str, build: Callable[[], Any], timeout: float) -> "Peer":
        """A new peer that hosts what `build` returns. Raises RemoteLost when it does not start."""
        self.process.check()
        name = f"{role}#{len(self.peers)}"
        await asyncio.sleep(self.world.delay())
        if self.world.strike(f"{name} of driver {self.process.number}", "no start"):
            await asyncio.sleep(START_TIMEOUT)
            raise NoAnswer(f"start: no answer in {START_TIMEOUT:g} s")
        if any(one.role == role and not (one.gone or one.cut_off) for one in self.peers):
            self.world.fail(f"a second {role} is started while the first one lives")
        peer = Peer(self, role, name, build(), timeout)
        self.peers.append(peer)
        return peer


class Peer:
    """One supervised process that hosts an object, as its callers see it."""

    def __init__(self, cluster: Cluster, role: str, name: str, hosted: Any, timeout: float) -> None:
        self.role = role
        self.name = name
        self.gone = False
        """It ended or hangs, whether or not anybody has noticed."""
        self.cut_off = False
        """Told to end, it goes on, but nobody hears from it."""
        self.hosted = hosted
        self._cluster = cluster
        self._timeout = timeout
        self._found: RemoteLost | None = None
        """What every caller is told once supervision has noticed."""
        self._calls: dict[asyncio.Future[Any], asyncio.Task[None]] = {}

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return partial(self._call, method)

    def kill(self) -> None:
        """Ends the process, if the order reaches it."""
        if not self.gone and self._cluster.world.strike(self._where("kill"), "survived kill"):
            self.cut_off = True
            self._notice(RemoteLost(f"{self.name}: killed"))
        else:
            self._end(0.0, RemoteLost(f"{self.name}: killed"))

    async def answers(self) -> bool:
        """True if it gives a sign of life before it counts as hung."""
        await asyncio.sleep(HANG_TIMEOUT if self.gone else self._cluster.world.delay())
        return not self.gone

    async def _call(self, method: str, *args: Any) -> Any:
        self._cluster.process.check()
        if self._found is not None:
            raise self._found
        loop = self._cluster.loop
        reply: asyncio.Future[Any] = loop.create_future()
        late = NoAnswer(f"{method}: no answer in {self._timeout:g} s")
        timer = loop.call_later(self._timeout, _lose, reply, late)
        self._calls[reply] = loop.create_task(self._serve(method, args, reply))
        try:
            return await reply
        finally:
            timer.cancel()

    async def _serve(self, method: str, args: Sequence[Any], reply: "asyncio.Future[Any]") -> None:
        world, loop = self._cluster.world, self._cluster.loop
        fault = world.strike(self._where(method), *CALL_FAULTS)
        await asyncio.sleep(world.delay())
        if self.gone:
            return None
        if fault in ("death", "preemption"):
            error = RemoteLost(f"{self.name}: died", preempted=fault == "preemption")
            loop.call_later(world.delay(), self._end, world.delay(), error)
        elif fault == "hang":
            loop.call_later(world.delay(), self._end, HANG_TIMEOUT, RemoteLost(f"{self.name}: hung"))
        elif fault == "lost request":
            return _lose(reply, ReplyLost(f"{method}: connection lost"))
        try:
            settle = partial(reply.set_result, await getattr(self.hosted, method)(*args))
        except Exception as error:  # noqa: BLE001 - travels back to the caller
            settle = partial(reply.set_exception, error)
        if fault == "late reply":
            await asyncio.sleep(world.dice.random() * 2 * self._timeout)
        if fault == "lost reply":
            _lose(reply, ReplyLost(f"{method}: connection lost"))
        elif not reply.done() and not self.cut_off:
            settle()
        del self._calls[reply]
        return None

    def _end(self, unnoticed: float, error: RemoteLost) -> None:
        """Nothing of it runs on; supervision finds out some seconds later."""
        if self.gone:
            return
        self.gone = True
        for task in self._calls.values():
            task.cancel()
        self._cluster.loop.call_later(unnoticed, self._notice, error)

    def _notice(self, error: RemoteLost) -> None:
        self._found = self._found or error
        for reply in self._calls:
            _lose(reply, self._found)

    def _where(self, method: str) -> str:
        return f"{self.name}.{method} of driver {self._cluster.process.number}"


def _lose(reply: "asyncio.Future[Any]", error: RemoteLost) -> None:
    if not reply.done():
        reply.set_exception(error)


class Settings(BaseModel, extra="forbid"):
    """The toy world has no dials."""


class Toy:
    """Guess each day's side of a coin; two wrong guesses more than right ones are death."""

    name: ClassVar[str] = "toy-v1"
    Settings: ClassVar[type[BaseModel]] = Settings
    rules = "Guess."
    actions = ("heads", "tails")
    horizon = 3

    def __init__(self, settings: Settings) -> None:
        self.energy = self.day = self.coins = 0

    def reset(self, seed: int) -> Observation:
        self.energy, self.day, self.coins = 2, 0, seed
        return self.observe()

    def step(self, action: str) -> Outcome:
        self.energy += 1 if self.actions[self.coins >> self.day & 1] == action else -1
        self.day += 1
        dead = self.energy <= 0
        return Outcome(self.observe(), EndReason.DIED if dead else None, "ruined" if dead else "")

    def observe(self) -> Observation:
        return Observation(f"{self.day} {self.energy}", self.actions, float(self.energy))

    def state(self) -> dict[str, Any]:
        return {"day": self.day}


class SharedToy:
    """The same for several at once. Who has won twice bears a child, once."""

    name: ClassVar[str] = "shared-toy-v1"
    Settings: ClassVar[type[BaseModel]] = Settings
    shared: ClassVar[bool] = True
    rules, actions, horizon = Toy.rules, Toy.actions, Toy.horizon

    def __init__(self, settings: Settings) -> None:
        self.energy: dict[int, int] = {}
        self.day = self.coins = 0

    def reset(self, seed: int, seats: int) -> tuple[Observation, ...]:
        self.energy, self.day, self.coins = dict.fromkeys(range(seats), 2), 0, seed
        return tuple(map(self.observe, range(seats)))

    def step(self, actions: Mapping[int, str]) -> Turn:
        side = self.actions[self.coins >> self.day & 1]
        self.day += 1
        outcomes, born = {}, {}
        for seat, action in actions.items():
            self.energy[seat] += 1 if action == side else -1
            dead = self.energy[seat] <= 0
            outcomes[seat] = Outcome(self.observe(seat), EndReason.DIED if dead else None, "ruined" if dead else "")
        for seat in actions:
            if self.energy[seat] == 4:
                child = len(self.energy)
                self.energy[child], self.energy[seat] = 1, 3
                born[child] = Birth(seat, self.observe(child))
        return Turn(outcomes, born)

    def observe(self, seat: int) -> Observation:
        return Observation(f"{self.day} {self.energy[seat]}", self.actions, float(self.energy[seat]))

    def state(self, seat: int) -> dict[str, Any]:
        return {"day": self.day, "seats": len(self.energy)}


class ToyEngine:
    """Implements the Engine protocol: an answer is a hash of prompt and adapter."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loaded: frozenset[str | None] = frozenset()

    async def describe(self) -> ModelDescription:
        return DESCRIPTION

    async def load(self, adapters: Sequence[str | None]) -> None:
        if len(set(adapters)) > CAPACITY and not self._cluster.shared:
            self._cluster.world.fail(f"an engine for {CAPACITY} adapters was given {len(set(adapters))}")
        self._loaded = frozenset(adapters)

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        if any(request.adapter not in self._loaded for request in requests):
            raise EngineFailure("an adapter is not loaded")
        if self._cluster.world.strike("an engine", "engine failure"):
            raise EngineFailure("numbers that are not finite")
        return [_answer(request) for request in requests]

    async def stats(self) -> EngineStats:
        return EngineStats()

    async def close(self) -> None:
        pass


def _answer(request: CompletionRequest) -> Completion:
    seed = bytes(request.prompt_ids) + (request.adapter or "").encode()
    heads = (blake2b(seed, digest_size=1).digest()[0] + 0.5) / 256
    return Completion(choice_logprobs=(math.log(heads), math.log(1 - heads)))


class ToyTrainer:
    """Weights are a hash of the job and of what it may learn from."""

    async def run(self, job: TrainingJob, steps: pa.Table) -> tuple[TrainingResult, tuple[FileRef, ...]]:
        order = [(name, "ascending") for name in ("individual", "life", "step")]
        lessons = steps.sort_by(order).select(["individual", "life", "step", "action", "energy_after"]).to_pydict()
        adapter = sha256(f"{job.model_dump_json()} {lessons}".encode()).hexdigest()
        result = TrainingResult(
            individual=job.child.id, adapter=adapter, status="trained", examples=steps.num_rows, seconds=0.0
        )
        return result, (FileRef(key=f"adapters/{adapter}", size=1, sha256=adapter),)
