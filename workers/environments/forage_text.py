"""What an agent of the foraging world sees: the view, its one-line text, and play from that text alone.

Law: `parse(render(view)) == view` for every view, and the heuristic knows nothing but the text.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from workers.environments.forage_land import DIRECTIONS, Cell, distance, towards

BERRIES, BARE_BUSH, THICKET, MARSH, PLAIN = "berries", "bare bush", "thicket", "marsh", "plain"
"""Words for what is underfoot."""
CLEAR, RAIN, FROST = "clear", "rain", "frost"
"""Words for the weather."""

_TEXT = re.compile(
    r"(?P<weather>\w+)\. Energy (?P<energy>\d+)\. Wolf (?P<wolf>[\w ]+)\. "
    r"Food (?P<food>[\w ]+)\. Here (?P<here>[\w ]+)\."
)
_NOTHING, _SAME_CELL = "none", "here"
_WARY_DISTANCE = 2
"""A wolf two steps away cannot bite before the agent has moved once more, unless the agent walks towards it."""
_SATED = 15
"""Energy from which berries are better left on the bush: most of a meal would be wasted."""


class View(NamedTuple):
    """One look at the world from where the agent stands. Ways are cells east and cells south of it."""

    weather: str
    energy: int
    wolf: Cell | None
    """Way to the wolf, or None when it is out of sight."""
    food: Cell | None
    """Way to the nearest ripe bush in sight, other than the one underfoot."""
    here: str
    """What is underfoot; a bush hides the terrain it grows on, which is always plain."""


def render(view: View) -> str:
    """The observation text; what is nearest stands last, next to the answer."""
    return (
        f"{view.weather.capitalize()}. Energy {view.energy}. Wolf {_way_text(view.wolf)}. "
        f"Food {_way_text(view.food)}. Here {view.here}."
    )


def parse(text: str) -> View:
    """The view that a text was rendered from. Raises ValueError for any other text."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"not an observation of this world: {text!r}")
    return View(
        weather=match["weather"].lower(),
        energy=int(match["energy"]),
        wolf=_way(match["wolf"]),
        food=_way(match["food"]),
        here=match["here"],
    )


@lru_cache(maxsize=8192)
def _way_text(way: Cell | None) -> str:
    if way is None:
        return _NOTHING
    cells = {"east": way[0], "west": -way[0], "south": way[1], "north": -way[1]}
    return " ".join(f"{word} {cells[word]}" for word in towards(way)) or _SAME_CELL


def _way(text: str) -> Cell | None:
    if text == _NOTHING:
        return None
    x = y = 0
    words = [] if text == _SAME_CELL else text.split()
    for word, cells in zip(words[::2], words[1::2], strict=True):
        x += DIRECTIONS[word][0] * int(cells)
        y += DIRECTIONS[word][1] * int(cells)
    return x, y


def sensible_action(view: View) -> str:
    """Eat what is here, else walk to food but never towards a near wolf, else hide, sit out frost or explore."""
    near_wolf = view.wolf is not None and distance(view.wolf) <= _WARY_DISTANCE
    shunned = towards(view.wolf) if view.wolf and near_wolf else ()
    wanted = [word for word in towards(view.food) if word not in shunned] if view.food else []
    if view.here == BERRIES and view.energy < _SATED:
        return "eat"
    if wanted:
        return wanted[0]
    if near_wolf and view.here == THICKET:
        return "rest"
    if view.weather == FROST and not near_wolf and not view.food:
        return "rest"
    return next(word for word in _exploring(view.energy) if word not in shunned)


def _exploring(energy: int) -> tuple[str, ...]:
    """Two directions that alternate as energy counts down: a diagonal sweeps the land in few steps."""
    return ("north", "east", "south", "west") if energy % 2 else ("east", "north", "west", "south")
