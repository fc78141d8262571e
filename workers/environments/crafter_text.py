"""How Crafter is told: vital signs, what is faced, what is near by direction and distance, what is carried.

Law: the heuristic knows nothing but the text.
"""

import re
from collections.abc import Mapping
from typing import Any

from workers.environment import Observation
from workers.environments.episodes import way

WORDS: Mapping[str, str] = {
    "rest": "noop",
    "west": "move_left",
    "east": "move_right",
    "north": "move_up",
    "south": "move_down",
    "act": "do",
    "sleep": "sleep",
    "stone": "place_stone",
    "table": "place_table",
    "oven": "place_furnace",
    "plant": "place_plant",
    "pick": "make_wood_pickaxe",
    "hammer": "make_stone_pickaxe",
    "drill": "make_iron_pickaxe",
    "club": "make_wood_sword",
    "blade": "make_stone_sword",
    "sword": "make_iron_sword",
}
"""Crafter's seventeen actions as words that begin with different tokens."""
NEEDS = ("food", "drink", "energy")
_WAYS = ("west", "east", "north", "south")
_REACH = (4, 3)
"""Cells that are seen to either side, and up and down: Crafter's own 9x7 view."""
_DULL = ("grass", "sand", "path", None)
_MOST_THINGS = 6
_DARK = 0.3
_SIGNS = re.compile(r"Health (\d+), food (\d+), drink (\d+), energy (\d+)\.")
_FACING = re.compile(r"Facing (\w+)\.")
_NEAR = re.compile(r"(zombie|water|cow|tree) ((?:(?:west|east|north|south) \d+ ?)+)")


def thing(place: tuple[Any, Any]) -> str:
    """What is in a cell: the creature, else the material; beyond the edge of the land there is nothing."""
    material, creature = place
    if creature is None:
        return material or "edge"
    kind = type(creature).__name__.lower()
    return ("fruit" if creature.ripe else "sapling") if kind == "plant" else kind


def tell(world: Any, player: Any) -> str:
    """The text of what the player knows."""
    x, y = (int(one) for one in player.pos)
    bag = player.inventory
    signs = ", ".join(f"{name} {bag[name]}" for name in ("health", *NEEDS)).capitalize()
    facing = thing(world[x + int(player.facing[0]), y + int(player.facing[1])])
    near: dict[str, tuple[int, int]] = {}
    for right in range(-_REACH[0], _REACH[0] + 1):
        for down in range(-_REACH[1], _REACH[1] + 1):
            material, creature = world[x + right, y + down]
            if (right or down) and (creature is not None or material not in _DULL):
                name = thing((material, creature))
                near[name] = min((right, down), near.get(name, (right, down)), key=_far)
    nearest = sorted(near.items(), key=lambda item: (item[0] not in ("zombie", "arrow"), _far(item[1])))[:_MOST_THINGS]
    around = f" Near: {', '.join(f'{name} {way(*place, _WAYS)}' for name, place in nearest)}." if nearest else ""
    carried = ", ".join(
        f"{name.replace('_', ' ')} {count}" for name, count in bag.items() if count and name not in ("health", *NEEDS)
    )
    carrying = f" Carrying {carried}." if carried else ""
    light = " Asleep." if player.sleeping else " Night." if world.daylight < _DARK else ""
    return f"{signs}.{light}{carrying}{around} Facing {facing}."


def survive(observation: Observation) -> str:
    """Fights what bites, then drinks, eats and sleeps when it has to, else looks for what will be needed."""
    signs, facing = _SIGNS.search(observation.text), _FACING.search(observation.text)
    if signs is None or facing is None:
        raise ValueError(f"not an observation of this world: {observation.text!r}")
    food, drink, energy = (int(signs[index]) for index in (2, 3, 4))
    near = {name: re.findall(r"(west|east|north|south) (\d+)", legs) for name, legs in _NEAR.findall(observation.text)}
    if observation.legal == ("sleep",) or ("sleep" in observation.legal and energy <= 3 and "zombie" not in near):
        return "sleep"
    wants = {"zombie": True, "water": drink <= 6, "cow": food <= 6}
    if wants.get(facing[1]):
        return "act"
    for name, wanted in sorted(wants.items(), key=lambda item: drink > food and item[0] == "water"):
        if wanted and near.get(name) and (name != "zombie" or sum(int(cells) for _, cells in near[name]) <= 2):
            way_there: list[str] = [word for word, _ in near[name]]
            # A leg that is blocked leaves the player facing the block: then the other leg, or around it.
            return way_there[0] if facing[1] in ("grass", "sand", "path", name) else way_there[-1]
    turn = ("east", "south", "west", "north")
    return turn[(food + drink) // 4 % 4] if facing[1] in ("grass", "sand", "path") else turn[(food + drink + 1) % 4]


def _far(place: tuple[int, int]) -> int:
    return abs(place[0]) + abs(place[1])
