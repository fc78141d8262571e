"""What an agent of the commons sees: the view, its one-line text, and play from that text alone.

Law: `parse(render(view)) == view` for every view, and the scripted players know nothing but the text. What other agents
say reaches an agent only as one of the words of `VOICES`, in quotes.
"""

import re
from typing import NamedTuple

from workers.environments.commons_rules import (
    BIRTH,
    CALL,
    GATHER,
    LEFT,
    REST,
    RIGHT,
    ROB,
    SHARE,
    TRADE,
    WARN,
)

VOICES = ("nothing", '"come"', '"away"', '"come, away"')
"""What is heard from a neighbouring patch, by the sum of the bits of what was said there (VOICE)."""
FIT = " You can give birth."

_TEXT = re.compile(
    r"Left says (?P<left>[\w\", ]+), right says (?P<right>[\w\", ]+)\. You meet (?P<meets>[\w ,;]+)\. "
    r"You hold (?P<fruit>\d+) fruit, (?P<roots>\d+) roots, short of (?P<short>\w+)\. "
    r"Here (?P<stock>\d+) of (?P<capacity>\d+) (?P<crop>\w+) for (?P<crowd>\d+)\.(?P<fit> You can give birth\.)?"
)
_OTHER = re.compile(r"(?P<kind>kin|a stranger) with (?P<fruit>\d+) fruit, (?P<roots>\d+) roots; last act (?P<act>\w+)")
_NOBODY = "nobody"


class Other(NamedTuple):
    """The agent that is met."""

    kin: bool
    fruit: int
    roots: int
    act: str
    """What it did in the last turn, `birth` also where it has just been born."""


class View(NamedTuple):
    """What one agent can know before a turn."""

    left: str
    """One of VOICES, as `right`: what was said on the neighbouring patches in the last turn."""
    right: str
    other: Other | None
    fruit: int
    roots: int
    short: str
    """The good it holds less of."""
    stock: int
    """Units that stand on its patch, of `capacity`."""
    capacity: int
    crop: str
    """The good that grows on its patch."""
    crowd: int
    """Agents on its patch, itself included."""
    fit: bool
    """It holds enough to give birth."""


def render(view: View) -> str:
    """The observation text; what matters most stands last, next to the answer."""
    left, right, other, fruit, roots, short, stock, capacity, crop, crowd, fit = view
    meets = _NOBODY
    if other:
        kind = "kin" if other.kin else "a stranger"
        meets = f"{kind} with {other.fruit} fruit, {other.roots} roots; last act {other.act}"
    return (
        f"Left says {left}, right says {right}. You meet {meets}. "
        f"You hold {fruit} fruit, {roots} roots, short of {short}. "
        f"Here {stock} of {capacity} {crop} for {crowd}.{FIT if fit else ''}"
    )


def parse(text: str) -> View:
    """The view that a text was rendered from. Raises ValueError for any other text."""
    match = _TEXT.fullmatch(text)
    met = _OTHER.fullmatch(match["meets"]) if match else None
    if match is None or (met is None and match["meets"] != _NOBODY):
        raise ValueError(f"not an observation of this world: {text!r}")
    other = Other(met["kind"] == "kin", int(met["fruit"]), int(met["roots"]), met["act"]) if met else None
    return View(
        left=match["left"],
        right=match["right"],
        other=other,
        fruit=int(match["fruit"]),
        roots=int(match["roots"]),
        short=match["short"],
        stock=int(match["stock"]),
        capacity=int(match["capacity"]),
        crop=match["crop"],
        crowd=int(match["crowd"]),
        fit=match["fit"] is not None,
    )


_PLENTY, _SPARE = 10, 17
"""Units of a good: below the first it has to be looked for, above the second more of it is of little use."""
_STARVING = 2
"""Units with which nobody can wait for a patch to grow back."""
_LOOT, _GREED = 4, 28
"""Units that are worth robbing, and units of a good up to which the greedy player takes more of it."""
_HEARD = {VOICES[1]: 1, VOICES[2]: -1}


def sensible_action(view: View) -> str:
    """Lives off what grows back: spares poor patches, trades, walks for need only, and says what it sees."""
    held = {"fruit": view.fruit, "roots": view.roots}
    rich, poor = 10 * view.stock > 7 * view.capacity, 5 * view.stock <= 2 * view.capacity
    needy, here = held[view.short] < _PLENTY, held[view.crop]
    if view.other and _both_gain(view, view.other):
        return TRADE
    if view.fit and rich and min(held.values()) >= _SPARE:
        return BIRTH
    worth_it = rich or (view.crop == view.short and not poor) or here <= _STARVING
    if view.stock and here < _SPARE and worth_it:
        return GATHER
    if view.other and min(view.other.fruit, view.other.roots) <= _STARVING and not needy:
        return SHARE
    if needy:
        return _way(view)
    return CALL if rich else WARN if poor else REST


def greedy_action(view: View) -> str:
    """Takes from whom it meets and from the ground whatever it can use, spares nothing and gives nothing."""
    held = {"fruit": view.fruit, "roots": view.roots}
    needy = held[view.short] < _PLENTY
    if view.other and needy and getattr(view.other, view.short) >= _LOOT:
        return ROB
    if view.stock and held[view.crop] < _GREED and (view.crop == view.short or not needy):
        return GATHER
    return _way(view) if needy else REST


def _both_gain(view: View, other: Other) -> bool:
    """A trade would move at least one unit: the two have more of different goods, by two units or more."""
    ours, theirs = view.fruit - view.roots, other.fruit - other.roots
    return abs(ours) >= 2 and abs(theirs) >= 2 and ours * theirs < 0


def _way(view: View) -> str:
    """Towards callers and away from warners; else one way or the other as the fruit has it, for want of a memory."""
    left, right = _HEARD.get(view.left, 0), _HEARD.get(view.right, 0)
    if left == right:
        return LEFT if view.fruit % 2 else RIGHT
    return LEFT if left > right else RIGHT
