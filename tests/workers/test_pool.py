"""The worker pool with agents, engines and sinks that fail on schedule: nothing lost, nothing twice, nobody blamed."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from telemetry.failures import NoProgressError, StorageError
from telemetry.ledger import Ledger, Receipt
from telemetry.member import Member
from telemetry.records import EndReason, Genome, Hyperparameters, Individual, LifeSummary
from telemetry.remote import NoAnswer, RemoteLost, ReplyLost
from telemetry.sink import TelemetrySink
from telemetry.store import open_store
from workers import saver
from workers.agent import LostLife, Report
from workers.config import WorkersConfig
from workers.engine import EngineFailure, EngineStats
from workers.guard import EnvironmentFailure
from workers.placement import CHUNK
from workers.pool import WorkerPool
from workers.recorder import LifeRecord, LifeTask, to_tables

Life = tuple[str, int]


def individual(number: int) -> Individual:
    numbers = Hyperparameters(temperature=1.0, epsilon=0.0, learning_rate=0.1)
    genome = Genome(strategy="Live.", hyperparameters=numbers, adapter=f"{number:064x}")
    return Individual(id=f"g000-{number:03d}", generation=0, lineage="one", genome=genome)


def groups(individuals: int, lives: int) -> list[list[LifeTask]]:
    return [
        [LifeTask(individual(number), life, 100 + life, f"{number}-{life}") for life in range(lives)]
        for number in range(individuals)
    ]


def name_of(task: LifeTask) -> Life:
    return task.individual.id, task.life


def row_of(task: LifeTask) -> LifeRecord:
    record = LifeRecord(task)
    record.close(EndReason.SURVIVED, "")
    return record


class Peer:
    """Raises RemoteLost from the moment it is killed, as an actor's handle does."""

    def __init__(self) -> None:
        self.dead = False

    def kill(self) -> None:
        self.dead = True

    async def answers(self) -> bool:
        return not self.dead

    def check(self) -> None:
        if self.dead:
            raise RemoteLost("it is dead")


class Engine(Peer):
    """`fail` is asked at every load."""

    def __init__(self, fail: Callable[["Engine"], None]) -> None:
        super().__init__()
        self.fail = fail
        self.loaded: list[str | None] = []
        self.lives = self.loads = 0
        """Asked of it."""

    async def stats(self) -> EngineStats:
        self.check()
        return EngineStats(answered=self.lives)

    async def load(self, adapters: Sequence[str | None]) -> None:
        self.check()
        await asyncio.sleep(0)
        self.fail(self)
        self.loaded = list(adapters)
        self.loads += 1


class Agent(Peer):
    """Lives every life at once. `fail(agent, tasks)` may raise, or return lives that are lost."""

    descendants = False
    """Every instance has one: a further life of its first individual."""

    def __init__(self, fail: Callable[["Agent", Sequence[LifeTask]], Iterable[LostLife]]) -> None:
        super().__init__()
        self.fail = fail

    async def live(self, tasks: Sequence[LifeTask], engine_name: str, engine: Engine, sink: Any) -> Report:
        self.check()
        engine.lives += len(tasks)
        await asyncio.sleep(0)
        lost = [*self.fail(self, tasks)]
        gone = {one.key for one in lost}
        records = [row_of(task) for task in tasks if task.key not in gone]
        if self.descendants:
            first = {task.attempt: task for task in reversed(tasks)}.values()
            records += [row_of(replace(task, life=task.life + 1_000_000)) for task in first]
        if records and sink is not None:
            try:
                await sink.append(*to_tables(records, run="r", world="w", engine=engine_name))
            except RemoteLost as error:
                lost += [LostLife(one.task.key, str(error), engine=False, sink=True) for one in records]
                records = []
        self.check()
        return Report(tuple(record.summary() for record in records), tuple(lost))

    async def progress(self) -> tuple[int, int]:
        return 1, 10


class Sink(Peer):
    """A real sink that `fail(sink, method)` may end, before or after the call took effect."""

    def __init__(self, place: Path, fail: Callable[["Sink", str], None]) -> None:
        super().__init__()
        self.hosted = TelemetrySink(str(place))
        self.fail = fail

    async def append(self, *tables: Any) -> None:
        self.check()
        self.fail(self, "before append")
        await self.hosted.append(*tables)
        self.fail(self, "after append")

    async def flush(self, transaction: str) -> Receipt | None:
        self.check()
        self.fail(self, "before flush")
        receipt = await self.hosted.flush(transaction)
        self.fail(self, "after flush")
        return receipt


class Room:
    """A pool and what became of everything it was given."""

    def __init__(
        self,
        place: Path,
        *,
        engine: Callable[[Engine], None] = lambda engine: None,
        agent: Callable[[Agent, Sequence[LifeTask]], Iterable[LostLife]] = lambda agent, tasks: (),
        sink: Callable[[Sink, str], None] = lambda sink, method: None,
        replaced: Callable[[str], Awaitable[None]] | None = None,
        engines: int = 1,
        agents: int = 1,
        capacity: int = 64,
        commit_seconds: float = 0.01,
        together: bool = False,
        **config: Any,
    ) -> None:
        """`replaced` is awaited by every start but the first of a member; it is told the member's role."""
        self.place = place
        self.starts: Counter[str] = Counter()
        self.lived: Counter[Life] = Counter()
        self.lives: list[LifeSummary] = []
        self.versions: dict[str, int] = {}

        def watched(one: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
            self.lived.update(map(name_of, tasks))
            return agent(one, tasks)

        def member(role: str, index: int, build: Callable[[], Peer]) -> Member:
            async def spawn() -> Peer:
                self.starts[role] += 1
                if one.incarnation and replaced is not None:
                    await replaced(role)
                return build()

            one = Member(role, index, spawn, pause=0.001)
            return one

        self.pool = WorkerPool(
            engines=[member("engine", index, lambda: Engine(engine)) for index in range(engines)],
            agents=[member("agent", index, lambda: Agent(watched)) for index in range(agents)],
            sink=member("sink", 0, lambda: Sink(place, sink)),
            capacity=capacity,
            config=WorkersConfig(**config),
            commit_seconds=commit_seconds,
            run="r",
            world="w",
            together=together,
        )

    def acknowledge(self, receipts: Sequence[Receipt], lives: Sequence[LifeSummary], seconds: float) -> None:
        for receipt in receipts:
            assert all(receipt.versions[name] > self.versions.get(name, 0) for name in receipt.versions)
            self.versions = receipt.versions
        self.lives += lives

    def live(self, tasks: Sequence[Sequence[LifeTask]]) -> None:
        """Lives all tasks and checks that exactly they are acknowledged, each with exactly one row."""
        asyncio.run(self.pool.live(tasks, self.acknowledge))
        assert sorted(self.committed()) == sorted(name_of(task) for group in tasks for task in group)

    def committed(self) -> list[Life]:
        """Acknowledged lives; each must have one row of the acknowledged attempt."""
        names = [(one.key.individual, one.key.life) for one in self.lives]
        assert len(set(names)) == len(names), "a life was acknowledged twice"
        if names:
            attempts = [one.attempt for one in self.lives]
            rows = Ledger(open_store(self.place)).read("lives", self.versions["lives"], attempts)
            assert sorted(rows["attempt"].to_pylist()) == sorted(attempts)
        return names


def once(*events: Callable[..., Any]) -> Callable[..., Any]:
    """The events one after the other, one per call, then nothing."""
    left = list(events)
    return lambda *arguments: left.pop(0)(*arguments) if left else ()


def die(peer: Peer, *_: Any) -> None:
    peer.kill()
    peer.check()


def test_many_finished_lives_wait_for_no_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "COMMIT_LIVES", 8)
    room = Room(tmp_path, commit_seconds=3600.0, lives_per_agent=8)
    sizes: list[int] = []

    def acknowledge(receipts: Sequence[Receipt], lives: Sequence[LifeSummary], seconds: float) -> None:
        sizes.append(len(lives))

    asyncio.run(room.pool.live(groups(1, 80), acknowledge))
    assert sum(sizes) == 80
    # By the clock there would be one.
    assert 8 <= sizes[0] < 80


def test_nothing_fails_and_every_life_is_lived_once(tmp_path: Path) -> None:
    room = Room(tmp_path, agents=3)
    room.live(groups(3, 40))
    assert set(room.lived.values()) == {1}
    assert room.pool.restarts == 0
    pulse = asyncio.run(room.pool.pulse())
    assert (pulse.alive, pulse.decisions, pulse.restarts, pulse.retries) == (3, 30, 0, 0)
    assert set(pulse.engines) == {engine.name for engine in room.pool.engines}


def test_an_agent_lost_under_many_calls_is_replaced_once(tmp_path: Path) -> None:
    agents: list[Agent] = []
    calls: Counter[int] = Counter()

    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> tuple[()]:
        if agent not in agents:
            agents.append(agent)
        calls[agents.index(agent)] += 1
        if agent is agents[0]:
            die(agent)
        return ()

    room = Room(tmp_path, agent=fail, lives_per_agent=4 * CHUNK, restarts=1)
    room.live(groups(1, 4 * CHUNK))
    assert calls[0] > 1
    assert calls[1] == 4
    assert room.starts["agent"] == 2
    assert room.pool.restarts == 1


def test_the_lives_of_a_lost_engine_are_lived_again_on_its_replacement(tmp_path: Path) -> None:
    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
        return [LostLife(task.key, "the engine died", engine=True) for task in tasks[::2]]

    room = Room(tmp_path, agent=once(fail))
    room.live(groups(2, 6))
    assert room.starts["engine"] == 2
    assert sorted(room.lived.values()) == [1] * 6 + [2] * 6


async def never(role: str) -> None:
    """A replacement that does not come."""
    await asyncio.Event().wait()


def test_no_life_waits_for_a_lost_agent(tmp_path: Path) -> None:
    lost: list[Agent] = []

    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> tuple[()]:
        if not lost:
            lost.append(agent)
            die(agent)
        return ()

    room = Room(tmp_path, agent=fail, agents=2, replaced=never)
    room.live(groups(2, 2 * CHUNK))
    assert lost
    assert max(room.lived.values()) == 2
    assert room.pool.restarts == 1


def test_no_life_waits_for_a_lost_engine(tmp_path: Path) -> None:
    async def lose_them(role: str) -> None:
        waited.append(role)
        await never(role)

    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
        return [LostLife(task.key, "the engine died", engine=True) for task in tasks]

    waited: list[str] = []
    room = Room(tmp_path, agent=once(fail), engines=2, capacity=1, replaced=lose_them)
    room.live(groups(2, 3))
    assert waited == ["engine"]
    assert sorted(room.lived.values()) == [1] * 3 + [2] * 3


def test_a_replacement_that_does_not_start_ends_the_run_while_others_work(tmp_path: Path) -> None:
    async def fail_to_start(role: str) -> None:
        raise OSError("no such device")

    lost: list[Agent] = []

    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> tuple[()]:
        if agent in lost or not lost:
            lost.append(agent)
            die(agent)
        return ()

    room = Room(tmp_path, agent=fail, agents=2, replaced=fail_to_start, restarts=2, lives_per_agent=1)
    with pytest.raises(NoProgressError, match=r"^agent-[01]: does not start: OSError: no such device$"):
        room.live(groups(1, 1000))
    assert room.committed(), "what the other agent lived meanwhile stays"


def test_a_replacement_under_way_serves_the_next_generation(tmp_path: Path) -> None:
    async def scenario() -> None:
        await room.pool.live(groups(1, 4), room.acknowledge)
        assert room.starts["agent"] == 3, "under way"
        ready.set()
        await asyncio.sleep(0.01)
        assert all(agent.peer for agent in room.pool.agents)
        await room.pool.live([[replace(task, life=task.life + 4) for task in groups(1, 4)[0]]], room.acknowledge)

    async def until_ready(role: str) -> None:
        await ready.wait()

    ready = asyncio.Event()
    room = Room(tmp_path, agent=once(die), agents=2, replaced=until_ready)
    asyncio.run(scenario())
    assert len(room.committed()) == 8
    assert room.starts["agent"] == 3


@pytest.mark.parametrize("individuals", [1, 3, 4])
def test_engines_that_have_nothing_left_help_the_others(tmp_path: Path, individuals: int) -> None:
    room = Room(tmp_path, engines=3, capacity=1, lives_per_agent=CHUNK)
    room.live(groups(individuals, 60))
    lives = [member.peer.lives for member in room.pool.engines]
    assert sum(lives) == 60 * individuals
    assert min(lives) >= 60 * individuals / 6


def test_engines_with_batches_of_their_own_load_no_other_weights(tmp_path: Path) -> None:
    room = Room(tmp_path, engines=3, capacity=1)
    room.live(groups(3, 60))
    assert [(member.peer.lives, member.peer.loads) for member in room.pool.engines] == [(60, 1)] * 3


@pytest.mark.parametrize("moment", ["before append", "after append", "before flush", "after flush"])
def test_lives_whose_rows_were_lost_with_the_sink_are_lived_again(tmp_path: Path, moment: str) -> None:
    deaths: list[str] = []

    def fail(sink: Sink, method: str) -> None:
        if method == moment and not deaths:
            deaths.append(method)
            die(sink)

    room = Room(tmp_path, sink=fail, lives_per_agent=CHUNK)
    room.live(groups(3, 2 * CHUNK))
    assert deaths
    assert room.starts["sink"] == 2
    assert max(room.lived.values()) == 2


@pytest.mark.parametrize("moment", ["after append", "after flush"])
def test_a_lost_reply_of_the_sink_replaces_nobody_and_doubles_nothing(tmp_path: Path, moment: str) -> None:
    lost: list[str] = []

    def fail(sink: Sink, method: str) -> None:
        if method == moment and len(lost) < 2:
            lost.append(method)
            raise ReplyLost("connection reset")

    room = Room(tmp_path, sink=fail)
    room.live(groups(2, CHUNK))
    assert len(lost) == 2
    assert room.pool.restarts == 0


def test_a_store_that_does_not_answer_is_the_stores_fault(tmp_path: Path) -> None:
    def fail(sink: Sink, method: str) -> None:
        if method == "before flush":
            raise NoAnswer("flush: no answer in 600 s")

    room = Room(tmp_path, sink=fail)
    with pytest.raises(StorageError, match="no answer in 600 s"):
        room.live(groups(1, 2))
    assert room.pool.restarts == 0


def test_a_sink_that_always_dies_ends_the_run(tmp_path: Path) -> None:
    room = Room(tmp_path, sink=lambda sink, method: die(sink), restarts=2, life_retries=100)
    with pytest.raises(NoProgressError, match=r"sink-0: replaced 2 times without progress; last failure: it is dead"):
        room.live(groups(1, 2))
    assert room.starts["sink"] == 3


def poison(*lives: Life) -> Callable[[Agent, Sequence[LifeTask]], Iterable[LostLife]]:
    """Lives that end whatever agent lives them."""

    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> tuple[()]:
        if any(name_of(task) in lives for task in tasks):
            die(agent)
        agent.check()
        return ()

    return fail


def test_a_life_that_ends_every_agent_stops_the_run_and_costs_no_other_life(tmp_path: Path) -> None:
    room = Room(tmp_path, agent=poison(("g000-001", 3)))
    with pytest.raises(NoProgressError, match=r"life 3 of g000-001 \(world w, seed 103\) was lost 4 times.*it is dead"):
        asyncio.run(room.pool.live(groups(2, 2 * CHUNK), room.acknowledge))
    assert room.lived["g000-001", 3] == 4
    assert len(room.committed()) >= CHUNK


def test_a_life_that_ends_every_agent_is_censored_alone(tmp_path: Path) -> None:
    room = Room(tmp_path, agent=poison(("g000-001", 3)), when_spent="censor")
    room.live(groups(2, 2 * CHUNK))
    [lost] = [one for one in room.lives if one.end is EndReason.CENSORED]
    assert (lost.key.individual, lost.key.life, lost.steps) == ("g000-001", 3, 0)
    assert max(count for life, count in room.lived.items() if life != ("g000-001", 3)) <= 3


def test_a_generation_of_which_nobody_could_be_lived_is_not_committed(tmp_path: Path) -> None:
    room = Room(tmp_path, agent=poison(("g000-000", 0)), when_spent="censor")
    with pytest.raises(NoProgressError, match="every life was lost 4 times to infrastructure; see the logs"):
        room.live(groups(1, 1))
    assert room.lives == []


def test_the_only_life_left_of_a_generation_can_be_censored(tmp_path: Path) -> None:
    room = Room(tmp_path, agent=poison(("g000-000", 0)), when_spent="censor")
    asyncio.run(room.pool.live(groups(1, 1), room.acknowledge, begun=True))
    assert [one.end for one in room.lives] == [EndReason.CENSORED]


def test_a_censored_life_that_is_lost_with_the_sink_at_the_very_end_is_recorded_again(tmp_path: Path) -> None:
    deaths: list[str] = []

    def fail(sink: Sink, method: str) -> None:
        # Once somebody is acknowledged, the only rows still to come are those of the censored life.
        if method == "after append" and room.lives and not deaths:
            deaths.append(method)
            die(sink)

    room = Room(tmp_path, agent=poison(("g000-000", 1)), sink=fail, when_spent="censor")
    room.live(groups(1, 2))
    assert deaths
    assert [one.end for one in room.lives] == [EndReason.SURVIVED, EndReason.CENSORED]


def test_agents_that_lose_every_life_end_the_run_even_when_lives_may_be_censored(tmp_path: Path) -> None:
    everybody = [("g000-000", life) for life in range(40)]
    room = Room(tmp_path, agent=poison(*everybody), when_spent="censor")
    with pytest.raises(NoProgressError, match="agent-0: replaced 3 times without progress"):
        room.live(groups(1, 40))


def test_weights_that_end_every_engine_cost_only_their_own_lives(tmp_path: Path) -> None:
    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
        # One engine serves all adapters at once: the bad one takes all others with it.
        if any(task.individual.id == "g000-001" for task in tasks):
            return [LostLife(task.key, "not finite", engine=True) for task in tasks]
        return ()

    room = Room(tmp_path, agent=fail, when_spent="censor")
    room.live(groups(3, 4))
    ends = Counter((one.key.individual, one.end) for one in room.lives)
    assert ends == {
        ("g000-000", EndReason.SURVIVED): 4,
        ("g000-001", EndReason.CENSORED): 4,
        ("g000-002", EndReason.SURVIVED): 4,
    }


def test_evaluation_never_censors(tmp_path: Path) -> None:
    room = Room(tmp_path, agent=poison(("g000-000", 0)), when_spent="censor")
    with pytest.raises(NoProgressError, match="life 0 of g000-000"):
        asyncio.run(room.pool.try_out(groups(1, 2)))


def test_an_engine_that_never_loads_ends_the_run(tmp_path: Path) -> None:
    def fail(engine: Engine) -> None:
        raise EngineFailure("out of memory")

    room = Room(tmp_path, engine=fail, restarts=2)
    with pytest.raises(NoProgressError, match=r"engine-0: replaced 2 times .*: EngineFailure: out of memory"):
        room.live(groups(1, 2))
    assert room.starts["engine"] == 3
    assert not room.lived, "no life is charged for an engine that never served it"


def test_progress_resets_the_budget(tmp_path: Path) -> None:
    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> tuple[()]:
        if any(room.lived[name_of(task)] == 1 for task in tasks):
            die(agent)
        return ()

    async def one_after_the_other() -> None:
        for group in groups(6, 2):
            await room.pool.live([group], room.acknowledge)

    room = Room(tmp_path, agent=fail, restarts=1)
    asyncio.run(one_after_the_other())
    assert len(room.committed()) == 12
    assert room.pool.restarts == 6


def test_preemption_is_charged_to_nobody(tmp_path: Path) -> None:
    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> tuple[()]:
        agent.kill()
        raise RemoteLost("the node was drained", preempted=True)

    room = Room(tmp_path, agent=once(*[fail] * 5), restarts=0, life_retries=0)
    room.live(groups(1, 4))
    assert room.pool.restarts == 5


def test_a_broken_world_is_nobodys_retry(tmp_path: Path) -> None:
    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
        return [LostLife(tasks[0].key, "environment w: step 3 raised ValueError: no", engine=False)]

    room = Room(tmp_path, agent=fail)
    with pytest.raises(EnvironmentFailure, match="step 3 raised ValueError"):
        room.live(groups(1, 3))
    assert max(room.lived.values()) == 1
    assert len(room.committed()) == 2


def test_pauses_grow_up_to_a_limit_and_differ_between_members() -> None:
    async def spawn() -> Peer:
        return Peer()

    members = [Member("agent", index, spawn, failures=failures) for failures in range(12) for index in range(2)]
    pauses = [member._pause() for member in members]
    assert pauses[:4] == [0.0] * 4, "the first replacement is not held up"
    for one, other, most in zip(pauses[4::2], pauses[5::2], [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30], strict=True):
        assert most / 2 <= min(one, other) < max(one, other) <= most


def test_a_member_that_does_not_start_says_why() -> None:
    async def spawn() -> Peer:
        raise OSError("no such device")

    with pytest.raises(NoProgressError, match=r"^engine-7: does not start: OSError: no such device$"):
        asyncio.run(Member("engine", 7, spawn, pause=0.001).start(2))
