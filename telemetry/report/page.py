"""A run as one HTML file: no network, nothing that an agent or plugin wrote taken as anything but text.

Its one script, which plays lives, is named by its hash in the page's content security policy; no other can run.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from telemetry.numerals import number
from telemetry.report.curves import drift_charts, survival_chart
from telemetry.report.figures import ends_chart, fitness_chart, interval_bars, lineage_colours, tree

MAX_ROWS = 1000
"""Individuals and training jobs listed; of more, the newest are."""


SCRIPT = Path(__file__).with_name("replay.js").read_text()


def render(data: dict[str, Any]) -> str:
    """The report of a run.

    data: the JSON of a run's summary with the keys run, version, finished, seed, model, model_sha256, environment,
    fitness_kind, generation, generations, population, lives_each, drivers, history, training, evaluation, champion,
    ancestry, ratios, totals and lineages; `orchestrator.summary` documents each. Where there are some, also survival
    (generation, lives, times, shares, longest) and replays (who, life, seed, end, steps, frames); `orchestrator.report`
    makes them. Raises nothing for a run that has not finished, or not even begun: its report says so.
    """
    begun = bool(data["history"])
    return template("page.html.j2").render(
        {name: value for name, value in data.items() if name not in ("survival", "replays")},
        fitness=fitness_chart(data) if begun else None,
        ends=ends_chart(data) if begun else None,
        tree=tree(data),
        survival=survival_chart(data.get("survival", ())),
        drifts=drift_charts(data) if begun else (),
        replays=(replays := data.get("replays", ())),
        # Beside the champion, somebody else in the same world.
        second_replay=next((at for at, one in enumerate(replays) if one["who"] != replays[0]["who"]), 0),
        script=SCRIPT,
        script_hash=b64encode(sha256(SCRIPT.encode()).digest()).decode(),
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
