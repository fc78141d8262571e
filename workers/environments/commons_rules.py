"""What the agents of the commons do to each other and to the ground that they share.

Law: everything follows from what was before, in whole units, and never from the order of the seats. Where not everybody
can be served, lots decide.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from workers.environments.commons_settings import CommonsSettings

GOODS = ("fruit", "roots")
"""What grows: fruit on even patches, roots on odd ones. A good is its position here."""

GATHER, LEFT, RIGHT, REST, CALL, WARN = "gather", "left", "right", "rest", "call", "warn"
SHARE, ROB, TRADE, BIRTH = "share", "rob", "trade", "birth"
ACTIONS = (GATHER, LEFT, RIGHT, REST, CALL, WARN, SHARE, ROB, TRADE, BIRTH)
WALKS = {LEFT: -1, RIGHT: 1}
"""Walking words and the way along the ring."""
VOICE = {CALL: 1, WARN: 2}
"""Saying words, each a bit of what is heard on the neighbouring patches in the next turn."""
IDLE = frozenset((REST, *VOICE))
"""What costs less than the rest."""

Lot = Callable[[int], float]
"""Draws the lot of a seat, the same one however often it is asked."""


@dataclass(slots=True)
class Agent:
    """One seat of an instance. Counts are totals of its life."""

    seat: int
    patch: int
    store: list[int]
    """Units held of each good."""
    founder: int
    """Seat of the founder that it descends from; its own for a founder. Agents with the same founder are kin."""
    parent: int | None = None
    act: str = BIRTH
    """What it did in the last turn; `birth` when it has just been born, `rest` before the first turn."""
    meets: "Agent | None" = None
    """Whom it can share with, rob, or trade with in the next turn."""
    robbed: list[int] = field(default_factory=lambda: [0, 0])
    """Units of each good that it was robbed of in the last turn."""
    children: list[int] = field(default_factory=list)
    turns: int = 0
    gathered: int = 0
    gifts: int = 0
    thefts: int = 0
    trades: int = 0

    @property
    def energy(self) -> int:
        """What it can live on: both goods are needed, so the scarcer one decides."""
        return min(self.store)

    @property
    def short(self) -> int:
        """The good it holds less of; of equals, the one that does not grow where it stands."""
        fruit, roots = self.store
        return int(roots < fruit) if fruit != roots else 1 - self.patch % 2


def growth(capacity: int, regrowth: int) -> list[int]:
    """By stock, what a patch grows in a turn: logistic (Verhulst 1838), rounded to the nearest unit, half up.

    regrowth: percent. A bare patch stays bare, and one where less than half a unit would grow does not recover either.
    """
    whole = 100 * capacity
    return [(2 * regrowth * stock * (capacity - stock) + whole) // (2 * whole) for stock in range(capacity + 1)]


def pair(agents: Sequence[Agent], lot: Lot) -> None:
    """Lets those who stand on one patch, and meet nobody yet, meet in pairs by lot; an odd one is left over."""
    ordered = sorted(agents, key=lambda agent: lot(agent.seat)) if len(agents) > 2 else agents
    for one, other in zip(ordered[::2], ordered[1::2], strict=False):
        one.meets, other.meets = other, one


def deal(stock: int, wanted: Mapping[int, int], lot: Lot) -> dict[int, int]:
    """What each seat gets: what it wants, or else units one by one in the order of the lots until none is left."""
    if sum(wanted.values()) <= stock:
        return dict(wanted)
    got = dict.fromkeys(wanted, 0)
    order = sorted(wanted, key=lot)
    while stock:
        hungry = [seat for seat in order if got[seat] < wanted[seat]]
        for seat in hungry[:stock]:
            got[seat] += 1
        stock -= min(stock, len(hungry))
    return got


def draw_winners(seats: Sequence[int], places: int, lot: Lot) -> list[int]:
    """The seats that get one of the places, in ascending order."""
    return list(seats) if len(seats) <= places else sorted(sorted(seats, key=lot)[: max(0, places)])


def meet(one: Agent, other: Agent, settings: CommonsSettings) -> None:
    """Trade, gifts and then robberies between two who meet; both sides of each happen at the same time.

    A trade needs both, swaps what each has more of, and never goes beyond the balance of either's two goods
    (Epstein and Axtell 1996, chapter IV). A gift is of what the giver has more of, a robber takes what it has less of,
    and nobody can rob who walks away.
    """
    if one.act == other.act == TRADE:
        _trade(one, other, settings.gift)
        return
    both = ((one, other), (other, one))
    needs = one.short, other.short
    gifts = [
        (giver, taker, 1 - need, min(settings.gift, giver.store[1 - need], settings.hold - taker.store[1 - need]))
        for (giver, taker), need in zip(both, needs, strict=True)
        if giver.act == SHARE
    ]
    for giver, taker, good, units in gifts:
        _hand_over(giver, taker, good, units)
        giver.gifts += units > 0
    thefts = [
        (victim, robber, need, min(settings.loot, victim.store[need], settings.hold - robber.store[need]))
        for (robber, victim), need in zip(both, needs, strict=True)
        if robber.act == ROB and victim.act not in WALKS
    ]
    for victim, robber, good, units in thefts:
        _hand_over(victim, robber, good, units)
        victim.robbed[good] += units
        robber.thefts += units > 0


def _trade(one: Agent, other: Agent, most: int) -> None:
    if one.short == other.short:
        return
    units = min(most, *(abs(agent.store[0] - agent.store[1]) // 2 for agent in (one, other)))
    wanted = one.short
    _hand_over(one, other, 1 - wanted, units)
    _hand_over(other, one, wanted, units)
    one.trades += units > 0
    other.trades += units > 0


def _hand_over(giver: Agent, taker: Agent, good: int, units: int) -> None:
    giver.store[good] -= units
    taker.store[good] += units


def spend(agent: Agent, cost: int) -> str:
    """Pays for a turn in both goods. Returns the cause of death, if any: `robbed` if the loot would have saved it."""
    store = agent.store
    left = [units - cost for units in store]
    agent.store = [max(0, units) for units in left]
    if min(left) > 0:
        return ""
    kept = (units + taken for units, taken in zip(left, agent.robbed, strict=True))
    return "robbed" if min(kept) > 0 else "starved"


def descendants(agents: Sequence[Agent], seat: int) -> Iterable[Agent]:
    """Everybody born so far who descends from a seat."""
    waiting = list(agents[seat].children)
    while waiting:
        child = agents[waiting.pop()]
        waiting += child.children
        yield child
