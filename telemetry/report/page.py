"""A run as one HTML file: no network, nothing that an agent or plugin wrote taken as anything but text.

Its scripts are named by their hashes in the page's content security policy; no other can run. Only a page that is
served asks for anything: whether the run has moved on, and nobody but who served it.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from telemetry.numerals import number
from telemetry.report import palette
from telemetry.report.behaviour import behaviour_chart
from telemetry.report.curves import drift_charts, survival_chart
from telemetry.report.figures import ends_chart, fitness_chart, interval_bars
from telemetry.report.lineages import LISTED, lineages
from telemetry.report.tree import tree

MAX_ROWS = 1000
"""Individuals and training jobs listed; of more, the newest are."""


def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text()


REPLAY, LINEAGES, REFRESH = map(_script, ("replay.js", "lineages.js", "refresh.js"))
APART = ("survival", "behaviour", "replays", "experiment")
"""Keys of a report's data that are no part of the summary, and may be absent."""


def render(data: dict[str, Any], version: str = "") -> str:
    """The report of a run.

    data: the JSON of a run's summary with the keys run, version, finished, seed, model, model_sha256, environment,
    fitness_kind, generation, generations, population, lives_each, drivers, history, training, evaluation, champion,
    ancestry, ratios, totals and lineages; `orchestrator.summary` documents each. Where there are some, also survival
    (generation, lives, times, shares, longest), behaviour (as `orchestrator.behaviour.BehaviourMap`), replays (who,
    held_out, life, seed, end, steps, frames) and experiment (as `render_comparison` takes it, and `own`, the run's
    arm); `orchestrator.report` makes them. version: of a page that is served, and changes when the page does; such a
    page asks `/version` for it and loads itself anew. Raises nothing for a run that has not finished, or not even
    begun: its report says so.
    """
    begun, experiment = bool(data["history"]), data.get("experiment")
    scripts = [*([REPLAY] if data.get("replays") else []), LINEAGES, *([REFRESH] if version else [])]
    return template("page.html.j2").render(
        {name: value for name, value in data.items() if name not in APART},
        **COLOURS,
        version_served=version,
        fitness=fitness_chart(data) if begun else None,
        ends=ends_chart(data) if begun else None,
        tree=tree(data),
        survival=survival_chart(data.get("survival", ())),
        behaviour=behaviour_chart(data),
        drifts=drift_charts(data) if begun else (),
        replays=(replays := data.get("replays", ())),
        # Beside the champion, somebody else in the same world.
        second_replay=next((at for at, one in enumerate(replays) if one["who"] != replays[0]["who"]), 0),
        experiment=experiment,
        arm_bars=_arm_bars(experiment["rows"]) if experiment else (),
        scripts=scripts,
        script_hashes=[b64encode(sha256(one.encode()).digest()).decode() for one in scripts],
        lineages_shown=lineages(data),
        listed=LISTED,
        bars=interval_bars(data["evaluation"]),
        max_rows=MAX_ROWS,
    )


def render_comparison(data: dict[str, Any]) -> str:
    """The page of an experiment.

    data: name, environment, model, fitness_kind, seeds, worlds, and rows as `orchestrator.comparison.ArmRow`, the
    reference first.
    """
    return template("comparison.html.j2").render(data, **COLOURS, bars=_arm_bars(data["rows"]))


COLOURS: dict[str, Any] = {
    "paint": palette.by_theme,
    "marks": palette.MARKS,
    "light": palette.LIGHT,
    "dark": palette.DARK,
}


def _arm_bars(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    return interval_bars([{**row["fitness"], "mean": row["fitness"]["value"]} for row in rows])


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
