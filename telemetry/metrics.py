"""Every metric of a run, declared once, in a registry of its own.

The law: counters hold what the journal says, so they go on after a resume where they stood, and a number on a
dashboard can be recomputed from the run. Three numbers are about this process only and start again with it: lives
in flight, decisions per second, actor restarts. Whatever worlds and plugins say, the number of series is bounded.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from time import monotonic, time
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

MAX_CAUSES = 32
"""Distinct causes of death with a series of their own; the rest is counted as `other`."""
CAUSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""What a cause may look like; any other text of a world is counted as `other`."""
STALE = 10.0
"""Seconds after which a number about work under way is no longer believed: nothing is under way."""


@dataclass(frozen=True)
class Declared:
    """One metric."""

    kind: Literal["gauge", "counter"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


TABLE = (
    Declared("gauge", "forager_run_info", "What runs; always 1.", ("run", "version", "model", "environment")),
    Declared("gauge", "forager_generation", "The generation that lives now, from 0."),
    Declared("gauge", "forager_population_size", "Individuals that live now."),
    Declared("gauge", "forager_lineages_alive", "Lineages with a living member."),
    Declared("counter", "forager_lineages_culled_total", "Lineages that lost their last member."),
    Declared("gauge", "forager_fitness_best", "Fitness of the fittest individual of the last generation."),
    Declared("gauge", "forager_fitness_mean", "Mean fitness over the individuals of the last generation."),
    Declared("gauge", "forager_fitness_median", "Median fitness over the individuals of the last generation."),
    Declared("gauge", "forager_fitness_worst", "Fitness of the least fit individual of the last generation."),
    Declared("gauge", "forager_action_entropy_bits", "Mean entropy of an individual's actions, last generation."),
    Declared(
        "gauge",
        "forager_behaviour_divergence_bits",
        "How differently the last generation's individuals acted; 0: alike.",
    ),
    Declared("counter", "forager_lives_total", "Committed lives by how they ended.", ("end", "cause")),
    Declared("counter", "forager_steps_total", "Decisions of committed lives."),
    Declared("counter", "forager_prompt_tokens_total", "Prompt tokens of committed lives."),
    Declared("counter", "forager_completion_tokens_total", "Completion tokens of committed lives."),
    Declared("counter", "forager_rollout_seconds_total", "Wall time in which committed lives were lived."),
    Declared("counter", "forager_training_jobs_total", "Ended training jobs.", ("status",)),
    Declared("counter", "forager_training_tokens_total", "Tokens that went through the model in training."),
    Declared("counter", "forager_training_seconds_total", "Time spent in training jobs, summed over jobs."),
    Declared("gauge", "forager_last_commit_timestamp_seconds", "Unix time of the last journal entry."),
    Declared("gauge", "forager_lives_in_flight", "Lives under way in this process's cluster."),
    Declared("gauge", "forager_decisions_per_second", "Decisions made per second, over the last ten seconds."),
    Declared("counter", "forager_actor_restarts_total", "Engines and agents replaced since this driver started."),
)
"""All metrics. Prometheus's rules: base units, `_total` on counters, labels with few values."""


class Rate:
    """Events per second over the last ten seconds, from a running total."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, total: int) -> float:
        """Takes the total as of now. A total that fell (an actor was replaced) starts the window again."""
        now = self._clock()
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now - STALE:
            self._seen.popleft()
        begin, before = self._seen[0]
        return (total - before) / (now - begin) if now > begin else 0.0


class Metrics:
    """The registry of one run and the only way to change it. Methods take plain values and raise nothing.

    Nothing is served before `open`: a scrape between a resume and the replay of its journal would take counters
    that are still at zero for a reset.
    """

    def __init__(self, run: str) -> None:
        # A `_created` time would tell Prometheus that a counter which goes on after a resume began at zero again.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.ready = False
        self._run = run
        self._status = "starting"
        self._generation = 0
        self._last_commit: float | None = None
        self._causes: set[str] = set()
        self._decisions = Rate()
        self._in_flight = (float("-inf"), 0, 0.0)
        self._restarts = 0
        self._gauges = {
            one.name: Gauge(one.name, one.help, one.labels, registry=self.registry)
            for one in TABLE
            if one.kind == "gauge"
        }
        self._counters = {
            one.name: Counter(one.name, one.help, one.labels, registry=self.registry)
            for one in TABLE
            if one.kind == "counter"
        }
        for statistic in ("best", "mean", "median", "worst"):
            self._gauges[f"forager_fitness_{statistic}"].set(float("nan"))
        self._gauges["forager_lives_in_flight"].set_function(lambda: self._under_way()[0])
        self._gauges["forager_decisions_per_second"].set_function(lambda: self._under_way()[1])

    def open(self, *, version: str, model: str, environment: str, population: int, lineages: int) -> None:
        """The run is known and its journal replayed: from here on there is something to see."""
        labels = [_label(text) for text in (self._run, version, model, environment)]
        self._gauges["forager_run_info"].labels(*labels).set(1)
        self._gauges["forager_population_size"].set(population)
        self._gauges["forager_lineages_alive"].set(lineages)
        self._status = "running" if self._status == "starting" else self._status
        self.ready = True

    def lives(
        self, ends: Mapping[str, int], *, steps: int, prompt_tokens: int, completion_tokens: int, seconds: float
    ) -> None:
        """Lives were committed. ends: number of lives by `died:<cause>`, `survived`, `censored`."""
        for end, number in sorted(ends.items()):
            reason, _, cause = end.partition(":")
            self._counters["forager_lives_total"].labels(reason, self._cause(cause)).inc(number)
        self._counters["forager_steps_total"].inc(steps)
        self._counters["forager_prompt_tokens_total"].inc(prompt_tokens)
        self._counters["forager_completion_tokens_total"].inc(completion_tokens)
        self._counters["forager_rollout_seconds_total"].inc(seconds)

    def training(self, status: str, *, tokens: int, seconds: float) -> None:
        """A training job ended. status: `trained` or `failed`."""
        self._counters["forager_training_jobs_total"].labels(status).inc()
        self._counters["forager_training_tokens_total"].inc(tokens)
        self._counters["forager_training_seconds_total"].inc(seconds)

    def generation(
        self,
        number: int,
        fitness: Sequence[float],
        *,
        population: int,
        lineages: int,
        culled: int,
        entropy: float,
        behaviour: float,
    ) -> None:
        """A generation ended.

        number: the generation that lives next; fitness: of every individual that lived; population, lineages: alive
        now; culled: lineages that just lost their last member; entropy, behaviour: of its actions, in bits.
        """
        self._gauges["forager_action_entropy_bits"].set(entropy)
        self._gauges["forager_behaviour_divergence_bits"].set(behaviour)
        for statistic, value in (("best", max), ("mean", fmean), ("median", median), ("worst", min)):
            self._gauges[f"forager_fitness_{statistic}"].set(value(fitness))
        self._generation = number
        self._gauges["forager_generation"].set(number)
        self._gauges["forager_population_size"].set(population)
        self._gauges["forager_lineages_alive"].set(lineages)
        self._counters["forager_lineages_culled_total"].inc(culled)

    def committed(self, at: float) -> None:
        """A journal entry became durable. at: Unix time in seconds."""
        self._last_commit = at
        self._gauges["forager_last_commit_timestamp_seconds"].set(at)

    def live(self, alive: int, decisions: int, restarts: int) -> None:
        """About once a second: lives under way, decisions and replaced actors so far in this process."""
        self._in_flight = (monotonic(), alive, self._decisions(decisions))
        self._counters["forager_actor_restarts_total"].inc(max(0, restarts - self._restarts))
        self._restarts = max(self._restarts, restarts)

    def finish(self) -> None:
        """Nothing is left to do."""
        self._status = "finished"

    def health(self) -> dict[str, str | int | float | None]:
        """JSON of /health: status (`starting`, `running`, `finished`), run, generation, last_commit_age_seconds."""
        age = None if self._last_commit is None else round(max(0.0, time() - self._last_commit), 3)
        return {
            "status": self._status,
            "run": self._run,
            "generation": self._generation,
            "last_commit_age_seconds": age,
        }

    def _under_way(self) -> tuple[int, float]:
        at, alive, rate = self._in_flight
        return (alive, rate) if monotonic() - at < STALE else (0, 0.0)

    def _cause(self, cause: str) -> str:
        if not cause or cause in self._causes:
            return cause
        if len(self._causes) >= MAX_CAUSES or not CAUSE.fullmatch(cause):
            return "other"
        self._causes.add(cause)
        return cause


def _label(text: str) -> str:
    """A label value that every scraper accepts."""
    return "".join(character if character.isprintable() else "?" for character in text)[:128]
