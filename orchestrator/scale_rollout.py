"""A discrete-event simulation of one generation's lives: engines, agents, driver, sink and store, without any of them.

Time passes from one event to the next. The driver is one loop that takes all that has come in and begins lives wherever
there is room; the sink holds up agents when its buffer is full while it writes; the driver waits for the store when it
acknowledges. Lives are counted in parties, as the pool counts them.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from orchestrator.scale_costs import value
from orchestrator.scale_engine import Engine, Part
from orchestrator.scale_placement import Placement
from orchestrator.scale_plant import Plant, Rolled
from orchestrator.scale_queue import Server

BUFFER = 256 << 20
"""Bytes in the sink from which agents wait while it writes, as `telemetry.sink` has it."""
COMMIT_LIVES = 1000
"""As `workers.saver.COMMIT_LIVES`."""
PULSE = 1.0
"""Seconds between two rounds of asking all actors: for a sign of life, and for their progress."""

Act = Callable[[Any], None]
Job = Callable[[Any, float], float]
"""What the driver does from a time on; the seconds that it takes."""


def roll_out(plant: Plant) -> Rolled:
    """Simulates until the last life is acknowledged. Deterministic."""
    return Rollout(plant).run()


class Rollout:
    """One simulation."""

    def __init__(self, plant: Plant) -> None:
        self._plant, self._found = plant, Rolled()
        each = plant.agent_decisions_per_second / len(plant.speeds)
        self._engines = [Engine(plant, speed, each) for speed in plant.speeds.tolist()]
        self._placement = Placement(plant)
        self._to_do = plant.lengths.size
        """Parties whose end the driver does not know yet."""
        self._now = 0.0
        self._events: list[tuple[float, int, Act, Any]] = []
        self._number = 0
        self._inbox: list[tuple[Job, Any, bool]] = []
        self._turning = False
        self._store = Server()
        self._alive = 0
        self._waiting: list[tuple[Part, float]] = []
        """Parts that the sink has no room for, since when."""
        self._flushing = False
        self._timer = 0
        self._rows = self._lives = 0
        self._held = 0.0

    def run(self) -> Rolled:
        """The events one after the other."""
        for number in range(len(self._engines)):
            self._post(self._employ, number)
        if self._plant.asked:
            self._at(PULSE, self._pulse, None)
        self._set_timer(self._plant.commit_seconds)
        while not self._found.seconds:
            self._now, _, act, about = heappop(self._events)
            act(about)
        self._found.parts = self._placement.begun
        self._found.engine_seconds = sum(engine.busy for engine in self._engines)
        self._found.store_seconds = self._store.busy
        return self._found

    def _at(self, time: float, act: Act, about: Any) -> None:
        self._number += 1
        heappush(self._events, (time, self._number, act, about))

    def _post(self, job: Job, about: Any, rings: bool = True) -> None:
        """Something for the driver to do; with `rings`, it then looks for lives to begin."""
        self._inbox.append((job, about, rings))
        if not self._turning:
            self._turning = True
            self._at(self._now, self._turn, None)

    def _turn(self, _: None) -> None:
        """One turn of the driver's loop."""
        inbox, self._inbox = self._inbox, []
        at = self._now
        for job, about, _rings in inbox:
            at += job(about, at)
        if any(rings for _, _, rings in inbox):
            at = self._begin(at) + self._plant.costs.driver.wake_seconds.value + self._look()
        self._found.turns += 1
        self._found.driver_seconds += at - self._now
        self._at(at, self._turned, None)

    def _turned(self, _: None) -> None:
        self._turning = bool(self._inbox)
        if self._turning:
            self._turn(None)

    def _look(self) -> float:
        """Seconds of a look at all engines and agents for lives to begin."""
        costs = self._plant.costs.driver
        return costs.wake_agent_seconds.value * self._plant.agents + (
            costs.wake_engine_seconds.value * self._placement.at_work
        )

    def _begin(self, at: float) -> float:
        """Returns when the last part began. Each is looked for."""
        seconds, looked = value(self._plant.costs.driver.part_seconds), self._look()
        for part, lengths, idle in self._placement.begin():
            at += seconds + looked
            self._at(at, self._join, (part, lengths))
            self._alive += len(lengths) * self._plant.size
            self._dismiss(idle)
        self._found.alive = max(self._found.alive, self._alive)
        return at

    def _dismiss(self, idle: Sequence[int]) -> None:
        for number in idle:
            self._post(self._employ, number)

    def _employ(self, number: int, at: float) -> float:
        costs, batch = self._plant.costs, self._placement.employ(number)
        if batch is not None:
            each = costs.store.adapter_requests.value
            # The files of an adapter one after the other, all adapters at the same time.
            stored = self._ask_store(at, each * batch.adapters, self._plant.adapter_bytes * batch.adapters, each)
            self._at(stored + self._plant.load_seconds, self._loaded, number)
        return costs.driver.wake_batch_seconds.value * len(self._placement.batches)

    def _loaded(self, number: int) -> None:
        self._post(self._stand, number)

    def _stand(self, number: int, at: float) -> float:
        self._dismiss(self._placement.stand(number))
        return 0.0

    def _pulse(self, _: None) -> None:
        self._post(self._ask_all, None, rings=False)

    def _ask_all(self, _: None, at: float) -> float:
        seconds = 2 * value(self._plant.costs.driver.ask_seconds) * (len(self._engines) + self._plant.agents)
        self._at(at + seconds + PULSE, self._pulse, None)
        return seconds

    def _join(self, about: tuple[Part, Sequence[int]]) -> None:
        part, lengths = about
        self._engines[part.engine].join(self._now, part, lengths)
        self._expect(part.engine)

    def _expect(self, number: int) -> None:
        """The next end of a life on an engine becomes an event."""
        engine = self._engines[number]
        if (end := engine.next_end(self._now)) is not None:
            self._at(end, self._end, (number, engine.stamp))

    def _end(self, about: tuple[int, int]) -> None:
        number, stamp = about
        if self._engines[number].stamp == stamp:
            for part in self._engines[number].end(self._now):
                self._append(part)
            self._expect(number)

    def _append(self, part: Part) -> None:
        """An agent sends rows to the sink, and reports."""
        if self._flushing and self._held > BUFFER:
            self._waiting.append((part, self._now))
            return
        self._rows += part.rows
        self._lives += part.parties * self._plant.size
        self._held += part.rows * self._plant.costs.sink.row_memory.value
        self._found.buffered_bytes = max(self._found.buffered_bytes, self._held)
        if self._lives >= COMMIT_LIVES and not self._flushing:
            self._set_timer(0.0)
        self._post(self._report, part)

    def _report(self, part: Part, at: float) -> float:
        self._dismiss(self._placement.end(part))
        self._alive -= part.parties * self._plant.size
        self._to_do -= part.parties
        if not self._to_do:
            self._found.lived_seconds = at
            self._set_timer(0.0)
        return 0.0

    def _set_timer(self, seconds: float) -> None:
        self._timer += 1
        self._at(self._now + seconds, self._flush, self._timer)

    def _flush(self, timer: int) -> None:
        if self._flushing or timer != self._timer:
            return
        if not self._lives:
            if self._to_do:
                self._set_timer(self._plant.commit_seconds)
            else:
                self._post(self._acknowledge, 0, rings=False)
            return
        sink, store = self._plant.costs.sink, self._plant.costs.store
        self._flushing = True
        size = self._rows * sink.row_bytes.value + self._lives * sink.life_row_bytes.value
        computed = sink.flush_seconds.value + self._rows * sink.row_seconds.value
        requests = value(store.flush_requests)
        done = self._ask_store(self._now + computed, requests, size, requests)
        self._found.sink_seconds += done - self._now
        self._at(done, self._flushed, (self._lives, self._held))
        self._rows = self._lives = 0

    def _flushed(self, about: tuple[int, float]) -> None:
        lives, held = about
        self._flushing = False
        self._held -= held
        waiting, self._waiting = self._waiting, []
        for part, since in waiting:
            self._found.held_up_seconds += self._now - since
            self._append(part)
        self._post(self._acknowledge, lives, rings=False)

    def _acknowledge(self, lives: int, at: float) -> float:
        """The journal entry; the driver waits for the store."""
        driver, requests = self._plant.costs.driver, self._plant.costs.store.entry_requests.value
        computed = driver.entry_seconds.value + lives * driver.life_seconds.value
        done = self._ask_store(at + computed, requests, 0.0, requests)
        self._found.commits += 1
        if self._to_do or self._lives or self._flushing:
            self._timer += 1
            pause = self._plant.commit_seconds if self._to_do and self._lives < COMMIT_LIVES else 0.0
            self._at(done + pause, self._flush, self._timer)
        else:
            self._found.seconds = done
        return done - at

    def _ask_store(self, at: float, requests: float, size: float, in_turn: float) -> float:
        """When the store has answered: so many requests, `in_turn` of which wait for each other."""
        rate, flow = self._plant.costs.store.requests_per_second, self._plant.costs.store.bytes_per_second
        taken = (requests / rate.value if rate else 0.0) + (size / flow.value if flow else 0.0)
        self._found.requests += requests
        self._found.bytes += size
        served = self._store.attend(at, taken) if taken else at
        return served + self._plant.store_seconds * in_turn
