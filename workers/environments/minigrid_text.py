"""How MiniGrid and BabyAI are told: the mission, the five cells around the agent, and what else its 7x7 view shows.

Law: the heuristic knows nothing but the text.
"""

import re
from functools import cache
from typing import Any, NamedTuple

from workers.environment import Observation
from workers.environments.episodes import Env, way

WALK = ("left", "right", "forward")
HANDS = ("take", "drop", "open")
"""Words of MiniGrid's first six actions; the seventh, `done`, does nothing."""
_CELLS = {"left": (-1, 0), "ahead left": (-1, 1), "ahead": (0, 1), "ahead right": (1, 1), "right": (1, 0)}
"""Cells next to the agent as (right, ahead)."""
_WAYS = ("left", "right", "ahead", "behind")
_FREE, _MOST_THINGS = "free", 4
_NAMELESS = ("goal", "lava", "wall")
"""Things that have no colour worth telling."""
_TEXT = re.compile(
    r"Left (?P<left>[\w ]+), ahead left (?P<ahead_left>[\w ]+), ahead (?P<ahead>[\w ]+),"
    r" ahead right (?P<ahead_right>[\w ]+), right (?P<right>[\w ]+)\.(?P<rest>.*)"
)
_LEG = re.compile(r"(left|right|ahead|behind) (\d+)")
_SAFE = (_FREE, "goal")


class Sight(NamedTuple):
    """Names of objects, colours and states of doors by their index in an observation."""

    objects: dict[int, str]
    colours: dict[int, str]
    states: dict[int, str]


@cache
def _names() -> Sight:
    from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, STATE_TO_IDX

    return Sight(IDX_TO_OBJECT, IDX_TO_COLOR, {index: word for word, index in STATE_TO_IDX.items()})


def tell(env: Env, seen: Any) -> str:
    """The text of an observation; the way to the goal is told even when it is out of view."""
    view = seen["image"].tolist()
    middle, own_row = len(view) // 2, len(view[0]) - 1
    cells = {cell: name for cell in _CELLS.values() if (name := _name(view[middle + cell[0]][own_row - cell[1]]))}
    around = ", ".join(f"{word} {cells.get(cell, _FREE)}" for word, cell in _CELLS.items()).capitalize()
    things: dict[str, tuple[int, int]] = {}
    for column, rows in enumerate(view):
        for row, code in enumerate(rows):
            cell = (column - middle, own_row - row)
            if cell != (0, 0) and cell not in cells and (name := _name(code)) not in ("", "wall", "goal", "lava"):
                things[name] = min(cell, things.get(name, cell), key=_far)
    goal = goal_offset(env)
    told = [f"{name} {way(*_right_down(cell), _WAYS)}" for name, cell in sorted(things.items(), key=_by_distance)]
    ending = f" Goal {way(*_right_down(goal), _WAYS)}." if goal else ""
    held = env.unwrapped.carrying
    carrying = f" Carrying {held.color} {held.type}." if held else ""
    see = f" See {', '.join(told[:_MOST_THINGS])}." if told else ""
    return f"{str(seen['mission']).capitalize()}. {around}.{carrying}{see}{ending}"


def goal_offset(env: Env) -> tuple[int, int] | None:
    """Cells to the right of the agent and ahead of it to the nearest goal square; None where there is none."""
    world = env.unwrapped
    width, (x, y) = world.grid.width, world.agent_pos
    goals = [divmod(place, width) for place, one in enumerate(world.grid.grid) if one and one.type == "goal"]
    if not goals:
        return None
    down, right = min(((row - y, column - x) for row, column in goals), key=_far)
    (ahead_x, ahead_y) = world.dir_vec.tolist()
    return right * -ahead_y + down * ahead_x, right * ahead_x + down * ahead_y


def distance(env: Env) -> int | None:
    """Cells to the goal as the crow flies."""
    goal = goal_offset(env)
    return None if goal is None else _far(goal)


def cause(env: Env) -> str:
    """Of a fatal end: lava burns, in front of an obstacle one is struck."""
    world = env.unwrapped
    under = world.grid.get(*world.agent_pos)
    return "burned" if under is not None and under.type == "lava" else "struck"


def walk(observation: Observation) -> str:
    """To what the mission needs next, around what is in the way; takes keys and opens doors where there are hands."""
    match = _TEXT.search(observation.text)
    if match is None:
        raise ValueError(f"not an observation of this world: {observation.text!r}")
    goal = match["rest"].rpartition("Goal ")[2]
    if "take" in observation.legal:
        wanted = "door" if "Carrying" in match["rest"] else "key"
        if match["ahead"].endswith(wanted) and _is_shut(match["ahead"]):
            return "take" if wanted == "key" else "open"
        for cell in ("left", "right", "ahead_left", "ahead_right"):
            if match[cell].endswith(wanted) and _is_shut(match[cell]):
                if cell in ("left", "right"):
                    return cell
                return _towards(match, {"ahead": 1, cell.removeprefix("ahead_"): 1})
        things = re.findall(rf"{wanted} ((?:(?:left|right|ahead|behind) \d+ ?)+)", match["rest"])
        goal = things[0] if things and "open door" not in match["rest"] else goal
    return _towards(match, {word: int(cells) for word, cells in _LEG.findall(goal)})


def _towards(match: re.Match[str], legs: dict[str, int]) -> str:
    """A step ahead if that is nearer, else a turn, else along what is in the way."""
    safe = {side: _is_safe(match[side]) for side in ("left", "ahead", "right")}
    wanted = next((side for side in ("left", "right") if side in legs), None)
    if "ahead" in legs and safe["ahead"]:
        return "forward"
    if wanted and (safe[wanted] or not safe["ahead"]):
        return wanted
    if wanted and safe["ahead"]:
        return "forward"
    return "left" if safe["left"] and not safe["right"] else "right"


def _is_shut(what: str) -> bool:
    return not what.startswith("open")


def _is_safe(what: str) -> bool:
    return what in _SAFE or what.startswith("open door")


def _name(code: list[int]) -> str:
    """What a cell of the view holds; empty for what is free or unseen."""
    names = _names()
    kind = names.objects[code[0]]
    if kind in ("unseen", "empty", "floor", "agent"):
        return ""
    if kind in _NAMELESS:
        return kind
    return f"{names.states[code[2]]} {kind}" if kind == "door" else f"{names.colours[code[1]]} {kind}"


def _far(cell: tuple[int, int]) -> int:
    return abs(cell[0]) + abs(cell[1])


def _by_distance(item: tuple[str, tuple[int, int]]) -> int:
    return _far(item[1])


def _right_down(cell: tuple[int, int]) -> tuple[int, int]:
    return cell[0], -cell[1]
