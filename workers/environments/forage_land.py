"""The ground of the foraging world: cells, directions, patches of terrain, and the map drawn for a person.

Law: pure functions of their arguments; the land never changes during a life. Cells are `(x, y)` with x growing to
the east and y to the south, on a square that wraps around at its edges, so there is no wall and no corner.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

Cell = tuple[int, int]

DIRECTIONS: dict[str, Cell] = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}
"""Move words and the offset each one adds."""

PLAIN, THICKET, MARSH = ".", "^", "~"
"""Terrain as one character per cell."""

RIPE_BUSH, BARE_BUSH, WOLF, AGENT, AGENT_AND_WOLF = "o", ",", "W", "@", "X"
"""What `draw` puts on top of the terrain."""

_PATCH_WALK = 6
_BUSHES_PER_GROVE = 4
_CELLS_PER_PATCH = {THICKET: 24, MARSH: 32}


@dataclass(frozen=True, slots=True)
class Land:
    """Where everything is when a life begins."""

    size: int
    """Cells along each side."""
    rows: tuple[str, ...]
    """Terrain, `rows[y][x]`."""
    start: Cell
    """The agent's first cell: plain and without a bush."""
    bushes: tuple[Cell, ...]
    """Cells where food grows; always plain."""
    den: Cell
    """The wolf's first cell: outside the thickets and out of sight of the start where the land is large enough."""


def lay_out(size: int, bushes: int, sight: int, rng: np.random.Generator) -> Land:
    """A fresh land, `size` x `size`. At most a quarter of the cells may be bushes."""
    ground, cells = _ground(size, rng), _cells(size)
    order: list[int] = rng.permutation(size * size).tolist()
    plain = (cells[index] for index in order if ground[index] == PLAIN)
    start, *grown = islice(plain, bushes + 1)
    dens = (cells[index] for index in reversed(order) if ground[index] != THICKET)
    den = next((cell for cell in dens if distance(offset(size, start, cell)) > sight), None)
    return Land(size, _rows(size, ground), start, tuple(grown), den or deque(plain, 1)[0])


def lay_out_unseen(size: int, bushes: int, sight: int, rng: np.random.Generator) -> Land:
    """A fresh land of another family, with as much of everything: bushes stand in groves, thicket and marsh lie in
    straight belts, and the wolf's den is as near to the start as it may be."""
    ground, cells = _belts(size, rng), _cells(size)
    order: list[int] = rng.permutation(size * size).tolist()
    start, *plain = [index for index in order if ground[index] == PLAIN]
    centres = plain[: -(-bushes // _BUSHES_PER_GROVE)]
    # Among those that are as far, the order of the draw decides, here and below.
    far_from_groves = list(map(min, zip(*(_far(size, centre) for centre in centres), strict=True)))
    grown = sorted(plain, key=far_from_groves.__getitem__)[:bushes] if centres else []
    far = _far(size, start)
    dens = [index for index in order if ground[index] != THICKET]
    unseen = [index for index in dens if far[index] > sight]
    den = min(unseen, key=far.__getitem__) if unseen else sorted(dens, key=far.__getitem__)[-1]
    return Land(size, _rows(size, ground), cells[start], tuple(cells[index] for index in grown), cells[den])


def _rows(size: int, ground: list[str]) -> tuple[str, ...]:
    text = "".join(ground)
    return tuple([text[index : index + size] for index in range(0, size * size, size)])


def _ground(size: int, rng: np.random.Generator) -> list[str]:
    """Terrain row by row: plain with patches of thicket and marsh, each the trace of a short random walk."""
    cells = size * size
    ground = [PLAIN] * cells
    neighbours = _neighbours(size)
    patches = [kind for kind, share in _CELLS_PER_PATCH.items() for _ in range(cells // share)]
    for kind, (first, *turns) in zip(patches, rng.random((len(patches), _PATCH_WALK + 1)).tolist(), strict=True):
        index = int(first * cells)
        for turn in turns:
            if ground[index] == PLAIN:
                ground[index] = kind
            index = neighbours[index][int(turn * 4)]
    return ground


def _belts(size: int, rng: np.random.Generator) -> list[str]:
    """Terrain row by row: plain with belts, each as many cells in a straight line as a patch has steps."""
    cells = size * size
    ground = [PLAIN] * cells
    neighbours = _neighbours(size)
    for kind, share in _CELLS_PER_PATCH.items():
        for index, way in rng.integers((cells, 4), size=(cells // share, 2)).tolist():
            for _ in range(_PATCH_WALK):
                if ground[index] == PLAIN:
                    ground[index] = kind
                index = neighbours[index][way]
    return ground


@lru_cache(maxsize=8)
def _neighbours(size: int) -> list[list[int]]:
    """For every cell, counted row by row, the cells next to it in the order of DIRECTIONS."""
    steps = DIRECTIONS.values()
    return [[(y + dy) % size * size + (x + dx) % size for dx, dy in steps] for x, y in _cells(size)]


@lru_cache(maxsize=8)
def _cells(size: int) -> list[Cell]:
    """All cells, row by row."""
    return [(x, y) for y in range(size) for x in range(size)]


@lru_cache(maxsize=512)
def _far(size: int, origin: int) -> list[int]:
    """Steps from a cell to every cell, all counted row by row."""
    cells = _cells(size)
    return [distance(offset(size, cells[origin], cell)) for cell in cells]


def move(size: int, cell: Cell, direction: str) -> Cell:
    """The neighbour of a cell, around the edge if need be."""
    dx, dy = DIRECTIONS[direction]
    return (cell[0] + dx) % size, (cell[1] + dy) % size


def offset(size: int, origin: Cell, target: Cell) -> Cell:
    """Shortest way from origin to target, in cells east and cells south."""
    half = size // 2
    return (target[0] - origin[0] + half) % size - half, (target[1] - origin[1] + half) % size - half


def distance(way: Cell) -> int:
    """Steps that a way takes."""
    return abs(way[0]) + abs(way[1])


@lru_cache(maxsize=8192)
def rings(size: int, origin: Cell, reach: int) -> tuple[frozenset[Cell], ...]:
    """The cells around a cell by their distance, from 1 to `reach`."""
    half = min(reach, size // 2)
    ways = [(dx, dy) for dy in range(-half, half + 1) for dx in range(-half, half + 1)]
    cells = {((origin[0] + dx) % size, (origin[1] + dy) % size) for dx, dy in ways}
    far = {cell: distance(offset(size, origin, cell)) for cell in cells}
    return tuple(frozenset(cell for cell in cells if far[cell] == steps) for steps in range(1, reach + 1))


@lru_cache(maxsize=8192)
def towards(way: Cell) -> tuple[str, ...]:
    """Move words that shorten a way, the longer axis first (east or west on a tie); empty for a way of no length."""
    across = "east" if way[0] > 0 else "west" if way[0] < 0 else ""
    along = "south" if way[1] > 0 else "north" if way[1] < 0 else ""
    ordered = (across, along) if abs(way[0]) >= abs(way[1]) else (along, across)
    return tuple(word for word in ordered if word)


def draw(state: Mapping[str, Any]) -> str:
    """ASCII map of a recorded state: one line of numbers, then one line per row of the land.

    `.` plain, `^` thicket, `~` marsh, `o` ripe bush, `,` bare bush, `W` wolf, `@` agent, `X` both on one cell.
    """
    cells = [list(row) for row in state["terrain"]]
    for x, y, wait in state["bushes"]:
        cells[y][x] = BARE_BUSH if wait else RIPE_BUSH
    if state["wolf"]:
        x, y = state["wolf"]
        cells[y][x] = WOLF
    x, y = state["agent"]
    cells[y][x] = AGENT_AND_WOLF if cells[y][x] == WOLF else AGENT
    title = f"step {state['step']}  energy {state['energy']}  {state['weather']}"
    return "\n".join([title, *("".join(row) for row in cells)])
