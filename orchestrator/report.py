"""What the report shows beyond the journal: survival curves and lives to replay, from the ledger."""

from collections.abc import Iterable
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.arms import experiment_of
from orchestrator.behaviour import behaviour
from orchestrator.evaluation import founder_of
from orchestrator.lineage import ancestry
from orchestrator.replay import Draw, Frame, Life, clean, recall, recall_held_out
from orchestrator.run import champion
from orchestrator.state import RunState, config_of
from orchestrator.summary import summarize
from orchestrator.verdict import ranked
from telemetry.failures import ForagerError
from telemetry.ledger import Ledger
from telemetry.records import EndReason, LifeKey
from telemetry.report.export import as_csv, as_png, as_svg
from telemetry.report.names import FigureFormat, FigureName
from telemetry.report.page import render
from telemetry.store import Store
from workers.guard import boundary
from workers.registry import find

CURVES = 6
"""Generations with a survival curve of their own: the first, the last, and some between."""
REPLAYS = 3
"""Lives of each player that can be replayed."""
MAX_FRAMES = 400
"""Steps of a replay; of a longer life the first ones are kept."""


def report(store: Store, state: RunState, version: str = "") -> str:
    """The page of a run, finished or not. version: of a page that is served; see `telemetry.report.page.render`."""
    more = {
        "survival": _survival(state, Ledger(store)),
        "behaviour": behaviour(store, state),
        "replays": [*_side_by_side(state, store), *_replays(state, Ledger(store))],
        "experiment": experiment_of(store, state),
    }
    return render({**_summary(state), **more}, version)


def figure(store: Store, state: RunState, name: FigureName, form: FigureFormat) -> bytes:
    """A file with one figure of the page. Raises UsageError where there is nothing to show yet, or to draw it with."""
    more = {
        "survival": _survival(state, Ledger(store)) if name == "survival" else [],
        "behaviour": behaviour(store, state) if name == "behaviour" else None,
    }
    data = {**_summary(state), **more}
    if form == "csv":
        return as_csv(name, data).encode()
    svg = as_svg(name, data)
    return as_png(svg) if form == "png" else svg.encode()


def _summary(state: RunState) -> dict[str, Any]:
    return summarize(state, config_of(state)).model_dump(mode="json")


def kaplan_meier(steps: NDArray[np.int64], died: NDArray[np.bool_]) -> tuple[list[int], list[float]]:
    """Times of death and the share of lives that goes on after each; lives that did not die are censored there.

    (Kaplan & Meier 1958, "Nonparametric estimation from incomplete observations".)
    """
    times, shares, share = [], [], 1.0
    for time in np.unique(steps[died]):
        share *= 1 - np.count_nonzero(died & (steps == time)) / np.count_nonzero(steps >= time)
        times.append(int(time))
        shares.append(round(float(share), 4))
    return times, shares


def _survival(state: RunState, ledger: Ledger) -> list[dict[str, Any]]:
    curves = []
    for number in _spread(len(state.history)):
        vouched, attempts = state.vouched(number), state.attempts(number)
        lives = ledger.recall("lives", number, vouched, attempts, ["steps", "end"])
        steps = lives["steps"].to_numpy().astype(np.int64)
        died = np.array([end == EndReason.DIED for end in lives["end"].to_pylist()], dtype=bool)
        times, shares = kaplan_meier(steps, died)
        longest = int(steps.max()) if len(steps) else 0
        curves.append({"generation": number, "lives": len(steps), "times": times, "shares": shares, "longest": longest})
    return curves


def _spread(generations: int) -> list[int]:
    """At most CURVES of so many generations: the first, the last, and some evenly between."""
    if generations <= CURVES:
        return list(range(generations))
    return sorted({ceil(index * (generations - 1) / (CURVES - 1)) for index in range(CURVES)})


def _side_by_side(state: RunState, store: Store) -> list[dict[str, Any]]:
    """Champion and founder in the same held-out worlds, as far as these lives were kept."""
    if state.evaluation is None:
        return []
    best = champion(state)
    founder, draw = founder_of(state, best), _draw(state)
    players = [("champion", best), ("founder", founder)] if founder != best else [("champion", best)]
    return [
        _replay(f"{role} {one.id}", life, draw, held_out=True)
        for role, one in players
        for life in recall_held_out(state, store, one)
    ]


def _replays(state: RunState, ledger: Ledger) -> list[dict[str, Any]]:
    """Lives of the champion, of the least fit in the same worlds, and of the champion's founder."""
    if not state.history:
        return []
    order = [one.individual for one in ranked(state.history[-1].fitness)]
    # Of one who plays several parts, the first counts.
    roles: dict[str, str] = {}
    for who, role in ((order[0], "champion"), (order[-1], "least fit"), (ancestry(order[0], state)[0], "founder")):
        roles.setdefault(who, role)
    draw = _draw(state)
    return [replay for who, role in roles.items() for replay in _lives_of(who, role, state, ledger, draw)]


def _lives_of(who: str, role: str, state: RunState, ledger: Ledger, draw: Draw | None) -> Iterable[dict[str, Any]]:
    generation = state.everyone[who].generation
    lived = sorted(state.lives[generation].attempts.get(who, {})) if generation in state.lives else []
    for number in lived[:REPLAYS]:
        life = recall(state, ledger, LifeKey(generation, who, number))
        yield _replay(f"{role} {who}", life, draw)


def _draw(state: RunState) -> Draw | None:
    return getattr(find(config_of(state).environment.name), "draw", None)


def _replay(who: str, life: Life, draw: Draw | None, *, held_out: bool = False) -> dict[str, Any]:
    return {
        "who": who,
        "held_out": held_out,
        "life": life.life,
        "seed": str(life.world_seed),
        "end": clean(life.cause) if life.end == EndReason.DIED else life.end,
        "steps": life.steps,
        "frames": [_frame(frame, life.world, draw) for frame in life.frames[:MAX_FRAMES]],
    }


def _frame(frame: Frame, world: str, draw: Draw | None) -> dict[str, Any]:
    return {
        "saw": clean(frame.observation),
        "did": clean(frame.action),
        "p": round(frame.probability, 3),
        "explored": frame.explored,
        "before": round(frame.energy_before, 3),
        "energy": round(frame.energy, 3),
        "picture": _picture(frame, world, draw),
    }


def _picture(frame: Frame, world: str, draw: Draw | None) -> str:
    if draw is None:
        return ""
    try:
        with boundary(world, f"its picture of step {frame.step}"):
            return clean(str(draw(frame.state))).rstrip("\n")
    except ForagerError as error:  # a picture is not worth a report
        return clean(str(error))
