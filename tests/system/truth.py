"""Everything that is told of a run, recomputed: from its run file, the rows of its ledger, and what only happened once.

The law: what follows from rows is computed from rows, in SQL or by the functions that `audit` decides with; from the
journal's entries comes only what no row holds: outcomes of training, wall time, held-out rows. No state is folded.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow.compute as pc

from orchestrator.config import RunConfig
from orchestrator.diversity import diversity
from orchestrator.lineage import SHORT
from orchestrator.population import founders, in_order
from orchestrator.reproduction import Brood, reproduce
from orchestrator.selection import select
from orchestrator.trial import fitness_of, suspects
from orchestrator.verdict import Diversity, Fitness, Scored, Selection, ranked
from telemetry import open_run
from telemetry.records import Individual
from telemetry.seeds import rng
from workers.registry import make

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Generation:
    """One generation that was lived."""

    number: int
    population: tuple[Individual, ...]
    after: tuple[Individual, ...]
    """Who lives next; after the last generation, who lived it."""
    fitness: tuple[Fitness, ...]
    suspects: tuple[str, ...]
    selection: Selection
    diversity: Diversity
    told: Row
    """Sums over rows, in SQL: lives, decisions, prompt_tokens, completion_tokens."""
    ends: Mapping[str, int]
    seconds: Mapping[str, float]

    @property
    def order(self) -> list[Scored]:
        return ranked(self.fitness)

    @property
    def culled(self) -> tuple[str, ...]:
        """Lineages that end here."""
        return tuple(name for name in lineages(self.population) if name not in lineages(self.after))

    def row(self) -> dict[str, Any]:
        """As a GenerationRow is dumped."""
        best, values = self.order[0], [one.value for one in self.order]
        return {
            "generation": self.number,
            "individual": best.individual,
            "lineage": next(one.lineage for one in self.population if one.id == best.individual),
            "best": max(values),
            "low": best.low,
            "high": best.high,
            "mean": fmean(values),
            "median": median(values),
            "worst": min(values),
            "alive": lineages(self.after),
            "culled": list(self.culled),
            "lives": self.told["lives"],
            "decisions": self.told["decisions"],
            "ends": dict(self.ends),
            "seconds": dict(self.seconds),
            "diversity": self.diversity.model_dump(),
        }


def lineages(population: tuple[Individual, ...]) -> list[str]:
    return list(dict.fromkeys(one.lineage for one in population))


class Truth:
    """A finished run without branches at `place`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        entries = [json.loads(path.read_bytes()) for path in sorted((place / "journal").glob("*.json"))]
        self._bodies = [(entry["kind"], entry["body"]) for entry in entries]
        self.files = {ref["key"]: ref["size"] for entry in entries for ref in entry["refs"]}
        self.genesis: Row = self._bodies[0][1]
        self.config = RunConfig.model_validate(self.genesis["config"])
        self.births: list[Row] = [body["result"] for body in self.said("birth")]
        self.drivers = len(self.said("epoch"))
        self.rollout_seconds = sum(body["seconds"] for body in self.said("lives"))
        self.evaluation: list[Row] = [row for body in self.said("evaluation") for row in body["rows"]]
        with open_run(str(place)) as tables:
            self.lives = tables.table("lives")
            self.steps = tables.table("steps", ("generation", "individual", "action"))
            self.ends = self._ends(tables, "")
            [self.told] = tables.query(SUMS).to_pylist()
            self.generations = self._generations(tables)
            gone = [name for one in self.generations for name in one.culled]
            self.rows_of_culled = self._rows_by_lineage(tables, gone)

    def said(self, kind: str) -> list[Row]:
        """Bodies of the journal's entries of a kind."""
        return [body for name, body in self._bodies if name == kind]

    @property
    def everyone(self) -> list[Individual]:
        """In order of birth."""
        return [individual for one in self.generations for individual in one.population]

    def individuals(self) -> list[dict[str, Any]]:
        """As LineageRows are dumped."""
        scored = {one.individual: one for event in self.generations for one in event.fitness}
        chosen = {who for event in self.generations for who in event.selection.survivors}
        elites = {who for event in self.generations for who in event.selection.elites}
        born = {birth["individual"] for birth in self.births}
        return [
            {
                "id": one.id,
                "generation": one.generation,
                "lineage": one.lineage,
                "parents": list(one.parents),
                "origin": "born" if one.id in born else "elite" if one.parents else "founder",
                "fitness": scored[one.id].value,
                "low": scored[one.id].low,
                "high": scored[one.id].high,
                "survived": one.id in chosen,
                "elite": one.id in elites,
                "adapter": one.genome.adapter and one.genome.adapter[:SHORT],
                "strategy": one.genome.strategy,
                "objective": one.genome.objective,
                **one.genome.hyperparameters.model_dump(),
            }
            for one in self.everyone
        ]

    def training(self) -> list[dict[str, Any]]:
        """As TrainingRows are dumped."""
        people = {one.id: one for one in self.everyone}
        return [
            {
                **birth,
                "adapter": birth["adapter"] and birth["adapter"][:SHORT],
                "generation": (child := people[birth["individual"]]).generation,
                "lineage": child.lineage,
                "parents": list(child.parents),
            }
            for birth in self.births
        ]

    def ancestry(self) -> list[str]:
        """Ids from the founder to the champion."""
        parents = {one.id: one.parents for one in self.everyone}
        line = [self.generations[-1].order[0].individual]
        while parents[line[0]]:
            line.insert(0, parents[line[0]][0])
        return line

    def _generations(self, tables: Any) -> list[Generation]:
        config, found = self.config, list[Generation]()
        spread = config.reproduction.hyperparameter_mutation
        population = founders(config.population, spread, rng(config.seed, "founders"))
        horizon = make(config.environment.name, config.environment.settings).horizon
        before: tuple[Fitness, ...] = ()
        for body in self.said("generation"):
            number = len(found)
            lives, steps = (table.filter(pc.equal(table["generation"], number)) for table in (self.lives, self.steps))
            again = suspects(lives, population, before, config, horizon=horizon)
            before = fitness_of(lives, population, again, config, horizon=horizon)
            selection = select(before, config.selection, rng(config.seed, "select", number))
            after = self._next(population, selection, number)
            found.append(
                Generation(
                    number=number,
                    population=population,
                    after=after or population,
                    fitness=before,
                    suspects=again,
                    selection=selection,
                    diversity=diversity(steps, population),
                    told=tables.query(f"{SUMS} where generation = {number}").to_pylist()[0],
                    ends=self._ends(tables, f"where generation = {number}"),
                    seconds=body["seconds"],
                )
            )
            population = after
        return found

    def _next(self, population: tuple[Individual, ...], selection: Selection, number: int) -> tuple[Individual, ...]:
        adapters = {birth["individual"]: birth["adapter"] for birth in self.births}
        last, config = number + 1 == self.config.generations, self.config
        founding = tuple(founder.strategy for founder in config.population.founders)
        brood = Brood(0 if last else config.population.size, config.seed, founding=founding)
        births = reproduce(population, selection, config.reproduction, brood)
        return in_order([*births.elites, *(job.child.with_adapter(adapters[job.child.id]) for job in births.jobs)])

    @staticmethod
    def _ends(tables: Any, where: str) -> dict[str, int]:
        rows = tables.query(f'select "end", cause, count(*) as lives from lives {where} group by all').to_pylist()
        return {row["end"] + (f":{row['cause']}" if row["cause"] else ""): row["lives"] for row in rows}

    @staticmethod
    def _rows_by_lineage(tables: Any, names: list[str]) -> Counter[str]:
        rows = tables.query("select lineage, count(*) as rows from steps group by all").to_pylist()
        return Counter({row["lineage"]: row["rows"] for row in rows if row["lineage"] in names})


SUMS = """
select count(*) as lives, sum(steps)::bigint as decisions, sum(prompt_tokens)::bigint as prompt_tokens,
    sum(completion_tokens)::bigint as completion_tokens from lives
"""
