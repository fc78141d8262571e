"""Every metric of a run, declared once, in a registry of its own.

The law: what is declared under `RUN` is what the journal says, so it goes on after a resume where it stood, and a
number on a dashboard can be recomputed from the run. What is declared under `PROCESS` is about this driver and its
actors, and starts again with it. Whatever worlds and plugins say, the number of series is bounded.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median
from time import monotonic, time
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

MAX_CAUSES = 32
"""Distinct causes of death with a series of their own; the rest is counted as `other`."""
CAUSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""What a cause may look like; any other text of a world is counted as `other`."""
STALE = 10.0
"""Seconds after which a number about work under way is no longer believed: nothing is under way."""


@dataclass(frozen=True)
class Declared:
    """One metric."""

    kind: Literal["gauge", "counter", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


RUN = (
    Declared("gauge", "forager_run_info", "What runs; always 1.", ("run", "version", "model", "environment")),
    Declared("gauge", "forager_generation", "The generation that lives now, from 0."),
    Declared("gauge", "forager_population_size", "Individuals that live now."),
    Declared("gauge", "forager_lineages_alive", "Lineages with a living member."),
    Declared("counter", "forager_lineages_culled_total", "Lineages that lost their last member."),
    Declared("gauge", "forager_fitness_best", "Fitness of the fittest individual of the last generation."),
    Declared("gauge", "forager_fitness_best_low", "Lower end of the fittest individual's 95% interval."),
    Declared("gauge", "forager_fitness_best_high", "Upper end of the fittest individual's 95% interval."),
    Declared(
        "gauge",
        "forager_fitness_quantile",
        "Fitness that this share of the last generation's individuals does not exceed.",
        ("quantile",),
    ),
    Declared("gauge", "forager_fitness_mean", "Mean fitness over the individuals of the last generation."),
    Declared("gauge", "forager_fitness_median", "Median fitness over the individuals of the last generation."),
    Declared("gauge", "forager_fitness_worst", "Fitness of the least fit individual of the last generation."),
    Declared("gauge", "forager_action_entropy_bits", "Mean entropy of an individual's actions, last generation."),
    Declared(
        "gauge",
        "forager_behaviour_divergence_bits",
        "How differently the last generation's individuals acted; 0: alike.",
    ),
    Declared("counter", "forager_individuals_born_total", "Children that entered the population."),
    Declared("counter", "forager_individuals_culled_total", "Individuals that were not selected."),
    Declared("counter", "forager_suspects_total", "Fitnesses measured again because they were too good."),
    Declared("gauge", "forager_held_out_fitness", "Mean fitness on held-out worlds, once measured.", ("who",)),
    Declared(
        "gauge",
        "forager_held_out_gap",
        "Champion's fitness where it was selected less that on held-out worlds, exploring in both.",
    ),
    Declared("counter", "forager_lives_total", "Committed lives by how they ended.", ("end", "cause")),
    Declared("counter", "forager_steps_total", "Decisions of committed lives."),
    Declared("counter", "forager_prompt_tokens_total", "Prompt tokens of committed lives."),
    Declared("counter", "forager_completion_tokens_total", "Completion tokens of committed lives."),
    Declared("counter", "forager_rollout_seconds_total", "Wall time in which committed lives were lived."),
    Declared("counter", "forager_training_jobs_total", "Ended training jobs.", ("status",)),
    Declared("counter", "forager_training_tokens_total", "Tokens that went through the model in training."),
    Declared("counter", "forager_training_seconds_total", "Time spent in training jobs, summed over jobs."),
    Declared("counter", "forager_training_examples_total", "Examples that were trained on."),
    Declared("gauge", "forager_training_loss", "Mean loss of the last job's first and last updates.", ("when",)),
    Declared("counter", "forager_stored_bytes_total", "Bytes of the objects that the journal vouches for."),
    Declared("gauge", "forager_budget_left", "What the run may still take; only what is limited.", ("resource",)),
)
"""What the journal says."""
PROCESS = (
    Declared("gauge", "forager_last_commit_timestamp_seconds", "Unix time of the last journal entry."),
    Declared("histogram", "forager_commit_seconds", "Time that an entry took until it was durable in the store."),
    Declared("gauge", "forager_store_free_bytes", "Free space where the run is kept; NaN for a bucket."),
    Declared("gauge", "forager_lives_in_flight", "Lives under way."),
    Declared("gauge", "forager_decisions_per_second", "Decisions made per second, over the last ten seconds."),
    Declared("counter", "forager_actor_restarts_total", "Engines, agents and sinks replaced."),
    Declared("counter", "forager_lives_lost_total", "Lives, or parties of lives, lost to infrastructure and retried."),
    Declared("gauge", "forager_engines", "Engines that answer."),
    Declared("gauge", "forager_engine_requests_running", "Requests in the engines' batches."),
    Declared("gauge", "forager_engine_requests_waiting", "Requests for other weights than those in place."),
    Declared("counter", "forager_engine_requests_total", "Requests that engines have answered."),
    Declared("counter", "forager_engine_prompt_tokens_total", "Prompt tokens of answered requests."),
    Declared("counter", "forager_engine_cached_tokens_total", "Of those, tokens that the prefix cache held."),
    Declared("counter", "forager_engine_busy_seconds_total", "Time in which engines computed, summed over engines."),
    Declared("counter", "forager_engine_switches_total", "Changes of the weights that an engine serves."),
)
"""What this driver sees."""
TABLE = (*RUN, *PROCESS)
"""All metrics. Prometheus's rules: base units, `_total` on counters, labels with few values."""

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
COMMIT_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds: a local disk needs milliseconds, a bucket tenths of a second, one in trouble its whole patience."""
_OF_ENGINES = {
    "answered": "forager_engine_requests_total",
    "prompt_tokens": "forager_engine_prompt_tokens_total",
    "cached_tokens": "forager_engine_cached_tokens_total",
    "busy_seconds": "forager_engine_busy_seconds_total",
    "switches": "forager_engine_switches_total",
}
"""Counters by member of an engine's statistics."""


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
        self._seen: dict[tuple[str, str], float] = {}
        """Running totals of others as they were last told: (whose, which)."""
        self._players: set[str] = set()
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
        self._commits = Histogram(
            "forager_commit_seconds",
            next(one.help for one in TABLE if one.kind == "histogram"),
            buckets=COMMIT_BUCKETS,
            registry=self.registry,
        )
        for statistic in ("fitness_best", "fitness_best_low", "fitness_best_high", "fitness_mean", "fitness_median"):
            self._gauges[f"forager_{statistic}"].set(float("nan"))
        for unknown in ("fitness_worst", "held_out_gap"):
            self._gauges[f"forager_{unknown}"].set(float("nan"))
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

    def training(
        self,
        status: str,
        *,
        tokens: int,
        seconds: float,
        examples: int = 0,
        losses: tuple[float | None, float | None] = (None, None),
    ) -> None:
        """A training job ended. status: `trained` or `failed`; losses: of its first and of its last updates."""
        self._counters["forager_training_jobs_total"].labels(status).inc()
        self._counters["forager_training_tokens_total"].inc(tokens)
        self._counters["forager_training_seconds_total"].inc(seconds)
        self._counters["forager_training_examples_total"].inc(examples)
        for when, loss in zip(("first", "last"), losses, strict=True):
            if loss is not None:
                self._gauges["forager_training_loss"].labels(when).set(loss)

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
        interval: tuple[float, float] = (float("nan"), float("nan")),
        born: int = 0,
        unselected: int = 0,
        suspects: int = 0,
    ) -> None:
        """A generation ended.

        number: the generation that lives next; fitness: of every individual that lived and has one; population,
        lineages: alive now; culled: lineages that just lost their last member; entropy, behaviour: of its actions, in
        bits; interval: the fittest's; born, unselected, suspects: individuals.
        """
        for name, one in zip(("low", "high"), interval, strict=True):
            self._gauges[f"forager_fitness_best_{name}"].set(one)
        ordered = sorted(fitness)
        for share in QUANTILES:
            # The smallest value that this share does not exceed: always somebody's.
            value_at = ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else float("nan")
            self._gauges["forager_fitness_quantile"].labels(str(share)).set(value_at)
        self._counters["forager_individuals_born_total"].inc(born)
        self._counters["forager_individuals_culled_total"].inc(unselected)
        self._counters["forager_suspects_total"].inc(suspects)
        self._gauges["forager_action_entropy_bits"].set(entropy)
        self._gauges["forager_behaviour_divergence_bits"].set(behaviour)
        for statistic, value in (("best", max), ("mean", fmean), ("median", median), ("worst", min)):
            self._gauges[f"forager_fitness_{statistic}"].set(value(fitness))
        self._generation = number
        self._gauges["forager_generation"].set(number)
        self._gauges["forager_population_size"].set(population)
        self._gauges["forager_lineages_alive"].set(lineages)
        self._counters["forager_lineages_culled_total"].inc(culled)

    def held_out(self, means: Mapping[str, float], gap: float | None) -> None:
        """Held-out worlds were lived. means: fitness by player; gap: null if unknown."""
        for who, mean in means.items():
            if who in self._players or len(self._players) < MAX_CAUSES:
                self._players.add(who)
                self._gauges["forager_held_out_fitness"].labels(_label(who)).set(mean)
        self._gauges["forager_held_out_gap"].set(float("nan") if gap is None else gap)

    def left(self, resources: Mapping[str, float]) -> None:
        """What the run may still take, by resource."""
        for resource, amount in resources.items():
            self._gauges["forager_budget_left"].labels(resource).set(amount)

    def stored(self, size: int) -> None:
        """Bytes vouched for so far."""
        self._counters["forager_stored_bytes_total"].inc(self._growth("store", "bytes", size))

    def committed(self, at: float, seconds: float | None = None) -> None:
        """A journal entry became durable. at: Unix time in seconds; seconds: what that took, if it was seen."""
        if seconds is not None:
            self._commits.observe(seconds)
        self._last_commit = at
        self._gauges["forager_last_commit_timestamp_seconds"].set(at)

    def live(self, alive: int, decisions: int, *, restarts: int = 0, retries: int = 0) -> None:
        """About once a second: lives under way; decisions, replaced actors and lost lives so far in this process."""
        self._in_flight = (monotonic(), alive, self._decisions(decisions))
        self._counters["forager_actor_restarts_total"].inc(self._growth("pool", "restarts", restarts))
        self._counters["forager_lives_lost_total"].inc(self._growth("pool", "retries", retries))

    def free(self, size: int | None) -> None:
        """Free space where the run is kept; None where there is no such thing."""
        self._gauges["forager_store_free_bytes"].set(float("nan") if size is None else size)

    def engines(self, stats: Mapping[str, Mapping[str, float]]) -> None:
        """About once a second: what each engine that answers has done since it stands. A name is never used again."""
        self._gauges["forager_engines"].set(len(stats))
        for state in ("running", "waiting"):
            total = sum(one[state] for one in stats.values())
            self._gauges[f"forager_engine_requests_{state}"].set(total)
        for name, one in stats.items():
            for member, counter in _OF_ENGINES.items():
                self._counters[counter].inc(self._growth(name, member, one[member]))

    def _growth(self, whose: str, which: str, total: float) -> float:
        """How much a running total has grown since it was told last; it never falls."""
        grown = max(0.0, total - self._seen.get((whose, which), 0.0))
        self._seen[whose, which] = max(total, self._seen.get((whose, which), 0.0))
        return grown

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


def catalogue() -> str:
    """All metrics as a page in Markdown."""
    parts = [
        "# Metrics",
        "",
        "Served at `metrics.host:metrics.port` under `/metrics` while a run lives, for Prometheus; `/health` answers in"
        " JSON. This page is written by the code that declares them: `python -m telemetry.metrics > docs/metrics.md`.",
        "",
    ]
    for title, table in (
        ("What the journal says: it goes on after a resume, and can be recomputed from the run", RUN),
        ("What the driver sees: it starts again with each driver", PROCESS),
    ):
        parts += [f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        parts += [
            f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
            for one in table
        ]
        parts.append("")
    parts.append(
        f"No metric has a series per individual or lineage: however many live, there are at most {MAX_CAUSES} causes of"
        " death, and a few hundred series in all."
    )
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(catalogue(), end="")
