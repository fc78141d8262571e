"""How the toy texts of Gymnasium are told: short texts of what lies next to the agent and where it should get.

Law: a heuristic knows nothing but the text.
"""

import re
from collections.abc import Mapping
from typing import Any

from workers.environment import Observation
from workers.environments.episodes import Env, Game, way

_SIDES = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
"""Words of the moves of FrozenLake and CliffWalking by action index, as (rows, columns)."""
_TAXI_SIDES = ("down", "up", "right", "left")
_SIDE = re.compile(r"(left|down|right|up) (\w+)", re.IGNORECASE)
_LEG = re.compile(r"(left|down|right|up) (\d+)")
_DEADLY, _SHUT = ("hole", "cliff"), ("hole", "cliff", "edge")
_TAXI = re.compile(r"Row (?P<row>\d)\. Wall (?P<walls>[\w ]+)\. (?P<verb>Take|Drop) the passenger: (?P<way>[\w ]+)\.")
_HAND = re.compile(r"You hold (\d+), (no|an) usable ace\. The dealer shows (\d+)\.")


def _sides(looks: Mapping[str, str], goal: str) -> str:
    return f"{', '.join(f'{side} {what}' for side, what in looks.items()).capitalize()}. Goal {goal}."


def _crow(goal: tuple[int, int]) -> int:
    return abs(goal[0]) + abs(goal[1])


# --- FrozenLake ---


def _tell_lake(env: Env, seen: Any) -> str:
    lake = env.unwrapped
    row, column = divmod(int(seen), lake.ncol)
    looks = {}
    for side, (down, right) in _SIDES.items():
        inside = 0 <= row + down < lake.nrow and 0 <= column + right < lake.ncol
        mark = lake.desc[row + down, column + right] if inside else b""
        looks[side] = {b"": "edge", b"H": "hole", b"G": "goal"}.get(bytes(mark), "ice")
    down, right = _lake_goal(env)
    return _sides(looks, way(right, down))


def _lake_goal(env: Env) -> tuple[int, int]:
    lake = env.unwrapped
    row, column = divmod(int(lake.s), lake.ncol)
    goal_row, goal_column = divmod(lake.desc.tobytes().index(b"G"), lake.ncol)
    return goal_row - row, goal_column - column


# --- CliffWalking ---


def _tell_cliff(env: Env, seen: Any) -> str:
    rows, columns = env.unwrapped.shape
    row, column = divmod(int(seen), columns)
    looks = {}
    for side, (down, right) in _SIDES.items():
        y, x = row + down, column + right
        if not (0 <= y < rows and 0 <= x < columns):
            looks[side] = "edge"
        elif y == rows - 1 and x > 0:
            looks[side] = "goal" if x == columns - 1 else "cliff"
        else:
            looks[side] = "path"
    down, right = _cliff_goal(env)
    return _sides(looks, way(right, down))


def _cliff_goal(env: Env) -> tuple[int, int]:
    rows, columns = env.unwrapped.shape
    row, column = divmod(int(env.unwrapped.s), columns)
    return rows - 1 - row, columns - 1 - column


def cross(observation: Observation) -> str:
    """FrozenLake and CliffWalking: to the goal, around what is deadly, rather not where a slip would kill."""
    sides_text, _, goal_text = observation.text.partition(". Goal ")
    looks: dict[str, str] = {side.lower(): what for side, what in _SIDE.findall(sides_text)}
    goal = [side for side, _ in _LEG.findall(goal_text)]

    def reluctance(side: str) -> tuple[bool, bool, int, int]:
        beside = ("up", "down") if side in ("left", "right") else ("left", "right")
        risk = sum(looks[one] in _DEADLY for one in beside)
        return looks[side] in _SHUT, side not in goal, risk, goal.index(side) if side in goal else 0

    return min(looks, key=reluctance)


# --- Taxi ---


def _tell_taxi(env: Env, seen: Any) -> str:
    taxi = env.unwrapped
    row, column, place, target = taxi.decode(int(seen))
    open_sides = taxi.action_mask(int(seen))
    walls = " ".join(side for side, is_open in zip(_TAXI_SIDES, open_sides, strict=False) if not is_open) or "none"
    verb, (to_row, to_column) = ("Take", taxi.locs[place]) if place < 4 else ("Drop", taxi.locs[target])
    return f"Row {row}. Wall {walls}. {verb} the passenger: {way(to_column - column, to_row - row)}."


def _taxi_distance(env: Env) -> int:
    taxi = env.unwrapped
    row, column, place, target = taxi.decode(int(taxi.s))
    goal = taxi.locs[target]
    at = taxi.locs[place] if place < 4 else (row, column)
    return sum(abs(a - b) for a, b in ((row, at[0]), (column, at[1]), (at[0], goal[0]), (at[1], goal[1])))


def drive(observation: Observation) -> str:
    """Taxi: sideways first, through the middle row where a wall is in the way."""
    match = _TAXI.search(observation.text)
    if match is None:
        raise ValueError(f"not an observation of this world: {observation.text!r}")
    legs: list[str] = [side for side, _ in _LEG.findall(match["way"])]
    sideways = next((side for side in legs if side in ("left", "right")), None)
    if not legs:
        return match["verb"].lower()
    if sideways is None:
        return legs[0]
    if sideways in match["walls"].split():
        return "down" if int(match["row"]) < 2 else "up"
    return sideways


# --- Blackjack ---


def _tell_hand(env: Env, seen: Any) -> str:
    held, shown, ace = (int(one) for one in seen)
    return f"You hold {held}, {'an' if ace else 'no'} usable ace. The dealer shows {shown}."


def bet(observation: Observation) -> str:
    """Blackjack: basic strategy without its finer points."""
    match = _HAND.search(observation.text)
    if match is None:
        raise ValueError(f"not an observation of this world: {observation.text!r}")
    held, shown = int(match[1]), int(match[3])
    if match[2] == "an":
        return "stick" if held >= 18 else "hit"
    return "stick" if held >= 17 or (held >= 12 and 2 <= shown <= 6) else "hit"


GAMES: Mapping[str, tuple[Game, Mapping[str, float]]] = {
    "FrozenLake": (
        Game(
            "Cross the ice to the goal; holes kill.",
            tuple(_SIDES),
            _tell_lake,
            distance=lambda env: _crow(_lake_goal(env)),
            heuristic=cross,
        ),
        {"start_energy": 20.0, "max_energy": 40.0, "reward_scale": 20.0, "fatal_end": 0.0, "horizon": 60},
    ),
    "CliffWalking": (
        Game(
            "Walk along the cliff to the goal; falling kills.",
            ("up", "right", "down", "left"),
            _tell_cliff,
            distance=lambda env: _crow(_cliff_goal(env)),
            heuristic=cross,
        ),
        {"start_energy": 18.0, "max_energy": 30.0, "upkeep": 0.0, "prize": 16.0, "fatal_step": -100.0},
    ),
    "Taxi": (
        Game(
            "Drive to the passenger, take it, drive to its goal, drop it.",
            (*_TAXI_SIDES, "take", "drop"),
            _tell_taxi,
            distance=_taxi_distance,
            heuristic=drive,
        ),
        {"start_energy": 24.0, "max_energy": 40.0, "upkeep": 0.0, "horizon": 60},
    ),
    "Blackjack": (
        Game("Come closer to 21 than the dealer, never above.", ("stick", "hit"), _tell_hand, heuristic=bet),
        {"start_energy": 8.0, "upkeep": 0.0, "reward_scale": 2.0},
    ),
}
"""By id without its version: how it is told, and what its settings are unless said otherwise."""
