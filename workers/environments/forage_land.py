"""The ground of the foraging world: cells, directions, patches of terrain, and the map drawn for a person.

Law: pure functions of their arguments; the land never changes during a life. Cells are `(x, y)` with x growing to
the east and y to the south, on a square that wraps around at its edges, so there is no wall and no corner.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Cell = tuple[int, int]

DIRECTIONS: dict[str, Cell] = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}
"""Move words and the offset each one adds."""

PLAIN, THICKET, MARSH = ".", "^", "~"
"""Terrain as one character per cell."""

RIPE_BUSH, BARE_BUSH, WOLF, AGENT, AGENT_CAUGHT = "o", ",", "W", "@", "X"
"""What `draw` puts on top of the terrain."""

_PATCH_WALK = 6
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
    rows = _terrain(size, rng)
    cells = [(int(index) % size, int(index) // size) for index in rng.permutation(size * size)]
    plain = [cell for cell in cells if rows[cell[1]][cell[0]] == PLAIN]
    start, grown = plain[0], tuple(plain[1 : bushes + 1])
    open_cells = [cell for cell in cells if rows[cell[1]][cell[0]] != THICKET and cell != start]
    den = next((cell for cell in open_cells if distance(offset(size, start, cell)) > sight), open_cells[-1])
    return Land(size, rows, start, grown, den)


def _terrain(size: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Plain with patches of thicket and marsh, each the trace of a short random walk."""
    cells = [[PLAIN] * size for _ in range(size)]
    steps = list(DIRECTIONS.values())
    for kind, cells_per_patch in _CELLS_PER_PATCH.items():
        patches = size * size // cells_per_patch
        starts = rng.integers(size, size=(patches, 2)).tolist()
        walks = rng.integers(len(steps), size=(patches, _PATCH_WALK)).tolist()
        for (x, y), walk in zip(starts, walks, strict=True):
            for turn in walk:
                if cells[y][x] == PLAIN:
                    cells[y][x] = kind
                x, y = (x + steps[turn][0]) % size, (y + steps[turn][1]) % size
    return tuple("".join(row) for row in cells)


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


def towards(way: Cell) -> tuple[str, ...]:
    """Move words that shorten a way, the longer axis first (east or west on a tie); empty for a way of no length."""
    across = "east" if way[0] > 0 else "west" if way[0] < 0 else ""
    along = "south" if way[1] > 0 else "north" if way[1] < 0 else ""
    ordered = (across, along) if abs(way[0]) >= abs(way[1]) else (along, across)
    return tuple(word for word in ordered if word)


def draw(state: Mapping[str, Any]) -> str:
    """ASCII map of a recorded state: one line of numbers, then one line per row of the land.

    `.` plain, `^` thicket, `~` marsh, `o` ripe bush, `,` bare bush, `W` wolf, `@` agent, `X` agent caught by the wolf.
    """
    cells = [list(row) for row in state["terrain"]]
    for x, y, wait in state["bushes"]:
        cells[y][x] = BARE_BUSH if wait else RIPE_BUSH
    if state["wolf"]:
        x, y = state["wolf"]
        cells[y][x] = WOLF
    x, y = state["agent"]
    cells[y][x] = AGENT_CAUGHT if cells[y][x] == WOLF else AGENT
    title = f"step {state['step']}  energy {state['energy']}  {state['weather']}"
    return "\n".join([title, *("".join(row) for row in cells)])
