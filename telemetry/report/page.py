"""A run as one HTML file: no network, no scripts, nothing that an agent or plugin wrote taken as anything but text."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from telemetry.numerals import number
from telemetry.report.figures import ends_chart, fitness_chart, interval_bars, lineage_colours, tree

MAX_ROWS = 1000
"""Individuals and training jobs listed; of more, the newest are."""


def render(data: dict[str, Any]) -> str:
    """The report of a run.

    data: the JSON of a run's summary with the keys run, version, finished, seed, model, model_sha256, environment,
    fitness_kind, generation, generations, population, lives_each, drivers, history, training, evaluation, champion,
    ancestry, ratios, totals and lineages; `orchestrator.summary` documents each. Raises nothing for a run that has
    not finished, or not even begun: its report says so.
    """
    begun = bool(data["history"])
    return template("page.html.j2").render(
        data,
        fitness=fitness_chart(data) if begun else None,
        ends=ends_chart(data) if begun else None,
        tree=tree(data),
        colours=lineage_colours(data),
        bars=interval_bars(data["evaluation"]),
        max_rows=MAX_ROWS,
    )


def render_comparison(data: dict[str, Any]) -> str:
    """The page of an experiment.

    data: name, environment, model, fitness_kind, seeds, worlds, and rows as `orchestrator.comparison.ArmRow`, the
    reference first.
    """
    bars = interval_bars([{**row["fitness"], "mean": row["fitness"]["value"]} for row in data["rows"]])
    return template("comparison.html.j2").render(data, bars=bars)


@cache
def template(name: str) -> Template:
    """A page without data; compiling it takes longer than filling it in."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(name)
