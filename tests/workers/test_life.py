"""Lives with a real scripted engine: choices, free text, tool calls, paid thinking, and parties with descendants."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from msgspec.structs import replace
from pydantic import BaseModel

from telemetry.records import EndReason, Genome, Hyperparameters, Individual
from telemetry.tables import LIVES, STEPS
from workers.action import ParseOutcome, read_call
from workers.agent import AgentHost
from workers.config import EnvironmentConfig, ScriptedEngineConfig
from workers.engine import Completion, CompletionRequest
from workers.engines.scripted import ScriptedEngine
from workers.environment import Birth, Observation, Outcome, Tool, Turn
from workers.guard import EnvironmentFailure
from workers.life import STRIDE, live, live_together
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask, to_tables
from workers.reference import play_together


class NoDials(BaseModel):
    pass


class Price(BaseModel):
    amount: int


class Shop:
    """Free text: what is said is remembered, and every token costs."""

    name: ClassVar[str] = "shop-v1"
    Settings: ClassVar[type[BaseModel]] = NoDials
    rules = "Sell."
    horizon = 3
    actions: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()

    def __init__(self, settings: NoDials) -> None:
        self.said: list[str] = []
        self.energy = 100.0

    def reset(self, seed: int) -> Observation:
        return self._observe()

    def pay(self, prompt_tokens: int, completion_tokens: int) -> None:
        assert prompt_tokens > 0
        self.energy -= completion_tokens

    def step(self, action: str) -> Outcome:
        self.said.append(action)
        return Outcome(self._observe())

    def state(self) -> Mapping[str, Any]:
        return {"said": self.said}

    def result(self) -> Mapping[str, Any]:
        return {"score": len(self.said)}

    def _observe(self) -> Observation:
        return Observation("Customer.", (), self.energy, max_tokens=5)


class Market(Shop):
    """Three actions that all come to the same."""

    horizon = 9
    actions = ("ask", "bid", "wait")

    def _observe(self) -> Observation:
        return Observation("Market.", self.actions, self.energy)


class Till(Shop):
    tools = (Tool("sell", "Sells.", Price),)


class Family:
    """Shared: whoever says `breed` pays 2 and gets a child in the next seat; 1 per turn is the cost of living."""

    name: ClassVar[str] = "family-v1"
    Settings: ClassVar[type[BaseModel]] = NoDials
    shared: ClassVar[bool] = True
    rules = "Breed or rest."
    horizon = 6
    actions = ("breed", "rest")

    def __init__(self, settings: NoDials) -> None:
        self.energy: list[int] = []
        self.turn = 0

    def reset(self, seed: int, seats: int) -> tuple[Observation, ...]:
        self.energy, self.turn = [6 + (seed + seat) % 3 for seat in range(seats)], 0
        return tuple(map(self._observe, range(seats)))

    def step(self, actions: Mapping[int, str]) -> Turn:
        self.turn += 1
        outcomes, born = {}, {}
        for seat, action in actions.items():
            self.energy[seat] -= 1
            if action == "breed" and self.energy[seat] > 3:
                self.energy[seat] -= 2
                self.energy.append(3)
                born[len(self.energy) - 1] = Birth(seat, self._observe(len(self.energy) - 1))
            dead = self.energy[seat] <= 0
            outcomes[seat] = Outcome(self._observe(seat), EndReason.DIED if dead else None, "tired" if dead else "")
        return Turn(outcomes, born)

    def state(self, seat: int) -> Mapping[str, Any]:
        return {"turn": self.turn, "energy": self.energy[seat]}

    def result(self, seat: int) -> Mapping[str, Any]:
        return {"seat": seat}

    def _observe(self, seat: int) -> Observation:
        return Observation(f"Turn {self.turn}, energy {self.energy[seat]}.", self.actions, float(self.energy[seat]))


def individual(number: int, epsilon: float = 0.5, novelty: float = 0.0) -> Individual:
    numbers = Hyperparameters(temperature=1.0, epsilon=epsilon, learning_rate=0.1, novelty=novelty)
    return Individual(
        id=f"g000-{number:03d}", generation=0, lineage="one", genome=Genome(strategy="Live.", hyperparameters=numbers)
    )


def task(number: int = 0, life: int = 0, attempt: str = "a") -> LifeTask:
    return LifeTask(individual(number), life, 11 + life, attempt)


@pytest.fixture
def engine() -> ScriptedEngine:
    engine = ScriptedEngine(ScriptedEngineConfig(), lambda adapter: pytest.fail("no adapter here"))
    asyncio.run(engine.load([None]))
    return engine


def codec(engine: ScriptedEngine) -> Codec:
    return Codec(asyncio.run(engine.describe()))


def asking(engine: ScriptedEngine) -> Any:
    async def ask(request: CompletionRequest) -> Completion:
        return (await engine.complete([request]))[0]

    return ask


def lived(engine: ScriptedEngine, world: Any) -> LifeRecord:
    return asyncio.run(live(task(), world, codec(engine), asking(engine), 7))


def party(engine: ScriptedEngine, tasks: Sequence[LifeTask]) -> list[LifeRecord]:
    return asyncio.run(live_together(tasks, Family(NoDials()), codec(engine), asking(engine), 7))


def test_free_text_reaches_the_world_as_it_was_written_and_costs_what_it_took(engine: ScriptedEngine) -> None:
    record = lived(engine, world := Shop(NoDials()))
    assert record.action == world.said
    taken = [len(ids) for ids in record.completion_ids]
    assert all(1 <= count <= 5 for count in taken)
    assert record.parse == [ParseOutcome.TEXT] * 3
    assert record.legal == record.choice_ids == [()] * 3
    assert record.energy_after == [100.0 - sum(taken[: step + 1]) for step in range(3)]
    assert all(0 < one <= 1 for one in record.behaviour_probability)
    assert not any(record.explored)
    assert [len(one) for one in record.completion_logprobs] == taken
    assert json.loads(record.result) == {"score": 3}
    assert record.end is EndReason.SURVIVED


def test_free_text_is_drawn_from_addressed_seeds(engine: ScriptedEngine) -> None:
    assert lived(engine, Shop(NoDials())).action == lived(engine, Shop(NoDials())).action
    assert len(set(lived(engine, Shop(NoDials())).action)) > 1


def test_novelty_counts_what_this_life_has_done_so_far(engine: ScriptedEngine) -> None:
    restless = replace(task(), individual=individual(0, epsilon=0.0, novelty=10.0))
    for _ in range(2):
        record = asyncio.run(live(restless, Market(NoDials()), codec(engine), asking(engine), 7))
        assert Counter(record.action) == {"ask": 3, "bid": 3, "wait": 3}


def test_letters_are_no_call(engine: ScriptedEngine) -> None:
    record = lived(engine, Till(NoDials()))
    assert record.parse == [ParseOutcome.NO_CALL] * 3
    assert record.action == [""] * 3


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('{"name": "sell", "arguments": {"amount": 3}}', '{"arguments":{"amount":3},"name":"sell"}'),
        ('Yes: <call>{"name":"sell","arguments":{"amount":3}}</call>', '{"arguments":{"amount":3},"name":"sell"}'),
        ('{"name": "sell", "arguments": {"amount": "many"}}', ""),
        ('{"name": "buy", "arguments": {"amount": 3}}', ""),
        ('{"name": "sell"}', ""),
        ('{"name": ["sell"], "arguments": 3}', ""),
        ('{"name": "sell", "arguments": {"amount": NaN}}', ""),
        ("{" * 100_000, ""),
        ("sell 3", ""),
        ("[1]", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_call_is_the_first_object_that_fits_a_tool(text: str, call: str) -> None:
    assert read_call(text, Till.tools) == call


def test_descendants_live_on_as_lives_of_their_parents_individual(engine: ScriptedEngine) -> None:
    records = party(engine, [task(0), task(1)])
    founders, born = records[:2], records[2:]
    assert born
    assert [one.seat for one in records] == list(range(len(records)))
    assert all(one.parent_seat is None and one.born == 0 for one in founders)
    for one in born:
        parent = records[one.parent_seat or 0]
        assert one.born > parent.born
        assert one.task.individual == parent.task.individual
        assert one.task.attempt == "a"
        assert one.task.world_seed == parent.task.world_seed
    keys = [one.task.key for one in records]
    assert len(set(keys)) == len(keys)
    first = [one.task.life for one in born if one.task.individual.id == born[0].task.individual.id]
    assert first == [STRIDE * (number + 1) for number in range(len(first))]
    assert all(json.loads(one.result) == {"seat": one.seat} for one in records)
    assert all(not one.summary().founder for one in born)


def test_a_party_is_what_the_same_policies_make_of_the_world() -> None:
    # Everybody rests: nobody is born, and energy alone says how long each lives.
    played = play_together(Family(NoDials()), 11, [lambda seen: "rest"] * 3)
    assert [one.steps for one in played] == [6, 6, 6]
    played = play_together(Family(NoDials()), 11, [lambda seen: "breed"] * 3)
    assert [one.end for one in played] == [EndReason.SURVIVED if one.steps == 6 else EndReason.DIED for one in played]


def test_parties_become_tables(engine: ScriptedEngine) -> None:
    records = party(engine, [task(0), task(1)])
    steps, lives = to_tables(records, run="r", world="family-v1", engine="e")
    assert steps.schema == STEPS
    assert lives.schema == LIVES
    assert lives["parent_seat"].null_count == 2
    assert lives["seat"].to_pylist() == list(range(len(records)))
    assert steps.num_rows == sum(lives["steps"].to_pylist())


def hosting(engine: ScriptedEngine, environment: EnvironmentConfig) -> AgentHost:
    return AgentHost(
        run="r",
        run_seed=7,
        environment=environment,
        heldout={},
        description=asyncio.run(engine.describe()),
        request_batch=16,
    )


def test_rows_reach_the_sink_while_others_of_the_same_call_live_on(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.outbox.GATHER", 0.0)
    host = hosting(engine, EnvironmentConfig())
    alive, sent = [], []

    class Sink:
        async def append(self, steps: pa.Table, lives: pa.Table) -> None:
            alive.append((await host.progress())[0])
            sent.extend(lives["attempt"].to_pylist())

    tasks = [task(0, life, attempt=str(life)) for life in range(24)]
    report = asyncio.run(host.live(tasks, "e", engine, Sink()))
    assert not report.lost
    assert [one.attempt for one in report.finished] == [one.attempt for one in tasks]
    assert sorted(sent) == sorted(one.attempt for one in tasks)
    assert alive[0] > 0
    assert alive[-1] == 0


def test_an_agent_lives_tasks_of_one_attempt_in_one_instance(engine: ScriptedEngine) -> None:
    host = hosting(engine, EnvironmentConfig(name="tests.workers.test_life:Family"))
    tasks = [task(number, life, attempt=f"party {life}") for life in range(2) for number in range(2)]
    report = asyncio.run(host.live(tasks, "e", engine, None))
    assert not report.lost
    apart = [one.summary() for life in range(2) for one in party(engine, tasks[2 * life : 2 * life + 2])]
    assert list(report.finished) == apart


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (Turn({}), "outcomes"),
        (Turn({0: Outcome(Observation("", ("rest",), 1.0))}, {5: Birth(0, Observation("", ("rest",), 1.0))}), "seat 1"),
        (Turn({0: Outcome(Observation("", ("rest",), 1.0))}, {1: Birth(3, Observation("", ("rest",), 1.0))}), "parent"),
        (Turn({0: Outcome(Observation("", ("fly",), 1.0))}), "legal"),
        (Turn({0: Outcome(Observation("", (), 1.0))}), "legal"),
        (Turn({0: Outcome(Observation("", (), 1.0, max_tokens=9999))}), "max_tokens"),
        (None, "a Turn"),
    ],
)
def test_a_shared_world_that_breaks_its_contract_is_named(engine: ScriptedEngine, turn: Any, words: str) -> None:
    class Broken(Family):
        name = "broken-v1"

        def step(self, actions: Mapping[int, str]) -> Turn:
            return turn  # type: ignore[no-any-return]

    with pytest.raises(EnvironmentFailure, match=f"broken-v1: turn 0.*{words}"):
        asyncio.run(live_together([task()], Broken(NoDials()), codec(engine), asking(engine), 7))
