"""The inner loop: observe, prompt, complete, act, record - one life, or one party of lives, from birth to its end."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from telemetry.records import EndReason
from telemetry.seeds import Stem
from workers.action import Decision, choose, describe, write
from workers.engine import Completion, CompletionRequest
from workers.environment import Environment, Observation, SharedEnvironment
from workers.guard import EnvironmentFailure, Guard, SharedGuard
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask

Ask = Callable[[CompletionRequest], Awaitable[Completion]]
"""Gets one completion from whatever engine serves the individual."""
STRIDE = 1_000_000
"""Descendants of life 7 are lives 1000007, 2000007, ... of the same individual."""
MOST_DESCENDANTS = 2**31 // STRIDE - 1


class Mind:
    """One individual's way from an observation to a decision, in one life."""

    def __init__(self, task: LifeTask, codec: Codec, run_seed: int, world: Guard | SharedGuard) -> None:
        genome = task.individual.genome
        self._adapter = genome.adapter
        self._codec = codec
        self._seeds = Stem(run_seed, "decision", task.individual.id, task.life)
        self._tools = world.tools
        self._numbers = genome.hyperparameters
        self._taken: Counter[str] = Counter()
        self.sources: set[str] = set()
        """Those without trust who answered it."""
        self._system = " ".join(part for part in (world.rules, describe(world.tools), genome.strategy) if part)

    def ask(self, seen: Observation, step: int) -> tuple[CompletionRequest, int]:
        """What to ask the engine, and the seed behind the decision: every step draws from an address of its own."""
        prompt = self._codec.prompt(self._system, seen.text)
        seed = self._seeds.seed63(step)
        if seen.legal:
            return CompletionRequest(prompt, self._adapter, self._codec.choices(seen.legal)), seed
        temperature = self._numbers.temperature
        return CompletionRequest(
            prompt, self._adapter, max_tokens=seen.max_tokens, temperature=temperature, seed=seed
        ), seed

    def decide(self, seen: Observation, request: CompletionRequest, answer: Completion, seed: int) -> Decision:
        """What the answer to a request comes to."""
        if answer.source:
            self.sources.add(answer.source)
        if not seen.legal:
            return write(answer, self._codec.decode(answer.token_ids), self._tools)
        decision = choose(answer, seen.legal, request.choices, self._numbers, taken=self._taken, seed=seed)
        self._taken[decision.action] += 1
        return decision


async def live(task: LifeTask, environment: Environment, codec: Codec, ask: Ask, run_seed: int) -> LifeRecord:
    """Lives one life. Raises EnvironmentFailure when the world breaks, or whatever `ask` raises.

    The world is reset with the task's seed; the record depends on nothing but the task and the engine's answers.
    """
    world = Guard(environment)
    mind = Mind(task, codec, run_seed, world)
    record = LifeRecord(task, sources=mind.sources)
    seen = world.reset(task.world_seed)
    for step in range(world.horizon):
        request, seed = mind.ask(seen, step)
        decision = mind.decide(seen, request, await ask(request), seed)
        world.pay(step, len(request.prompt_ids), len(decision.token_ids))
        outcome = world.step(step, decision.action)
        record.add(seen, request, decision, seed, outcome.observation.energy, world.state(step))
        seen = outcome.observation
        if outcome.end is not None:
            record.close(outcome.end, outcome.cause, world.result())
            return record
    record.close(EndReason.SURVIVED, "", world.result())
    return record


async def live_together(
    tasks: Sequence[LifeTask], environment: SharedEnvironment, codec: Codec, ask: Ask, run_seed: int
) -> list[LifeRecord]:
    """Lives one instance of a shared world: seat `n` is `tasks[n]`'s; then come its descendants, by birth.

    Raises as `live`. All living seats decide at the same time; who answers first makes no difference.
    """
    party = _Party(tasks, SharedGuard(environment), codec, run_seed)
    for turn in range(party.world.horizon):
        if not party.seen:
            break
        await party.move(turn, ask)
    party.survive()
    return party.records


class _Party:
    """The agents of one instance."""

    def __init__(self, tasks: Sequence[LifeTask], world: SharedGuard, codec: Codec, run_seed: int) -> None:
        self.world = world
        self.records: list[LifeRecord] = []
        self._minds: list[Mind] = []
        self._mind: Callable[[LifeTask], Mind] = lambda task: Mind(task, codec, run_seed, world)
        self._descendants: dict[tuple[str, int], int] = {}
        self.seen: dict[int, Observation] = {}
        """What each living seat sees now."""
        for task, observation in zip(tasks, world.reset(tasks[0].world_seed, len(tasks)), strict=True):
            self._sit(LifeRecord(task, seat=len(self.records)), observation)

    async def move(self, turn: int, ask: Ask) -> None:
        """One turn of everybody who lives."""
        world, seen, records, minds = self.world, self.seen, self.records, self._minds
        seats = sorted(seen)
        asked = [minds[seat].ask(seen[seat], len(records[seat].action)) for seat in seats]
        answers = await asyncio.gather(*(ask(request) for request, _ in asked))
        decided = [
            (request, minds[seat].decide(seen[seat], request, answer, seed), seed)
            for seat, (request, seed), answer in zip(seats, asked, answers, strict=True)
        ]
        for seat, (request, decision, _) in zip(seats, decided, strict=True):
            world.pay(seat, turn, len(request.prompt_ids), len(decision.token_ids))
        moved = world.step(turn, {seat: decision.action for seat, (_, decision, _) in zip(seats, decided, strict=True)})
        self.seen = {}
        for seat, (request, decision, seed) in zip(seats, decided, strict=True):
            outcome = moved.outcomes[seat]
            records[seat].add(seen[seat], request, decision, seed, outcome.observation.energy, world.state(turn, seat))
            if outcome.end is None:
                self.seen[seat] = outcome.observation
            else:
                records[seat].close(outcome.end, outcome.cause, world.result(seat))
        for seat in sorted(moved.born):
            birth = moved.born[seat]
            record = LifeRecord(self._descendant(birth.parent), seat, born=turn + 1, parent_seat=birth.parent)
            self._sit(record, birth.observation)

    def survive(self) -> None:
        """Ends the lives that still go on."""
        for seat in self.seen:
            self.records[seat].close(EndReason.SURVIVED, "", self.world.result(seat))

    def _sit(self, record: LifeRecord, seen: Observation) -> None:
        self.records.append(record)
        mind = self._mind(record.task)
        record.sources = mind.sources
        self._minds.append(mind)
        self.seen[record.seat] = seen

    def _descendant(self, parent: int) -> LifeTask:
        """A life of the parent's individual, numbered after those born before it."""
        task = self.records[parent].task
        founder = (task.individual.id, task.life % STRIDE)
        count = self._descendants[founder] = self._descendants.get(founder, 0) + 1
        if count > MOST_DESCENDANTS:
            raise EnvironmentFailure(
                f"environment {self.world.name}: {task.individual.id} has more than {MOST_DESCENDANTS} descendants"
                " in one instance; let birth cost more"
            )
        return replace(task, life=founder[1] + count * STRIDE)
