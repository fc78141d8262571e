"""The commons: fair whatever the order of moves, exact to the unit, kind to restraint and ruined by greed."""

import json
from collections import Counter
from functools import cache
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.records import EndReason
from tests.workers.commons import DIALS, always, commons, moved, placed, seen, store
from workers.environment import Policy
from workers.environments.commons import Commons, greedy
from workers.environments.commons_rules import ACTIONS, IDLE, Agent, deal, draw_winners, growth, meet
from workers.environments.commons_text import Other, parse
from workers.reference import Played, play_together, random_policy

SEEDS = range(40)
SEATS = 6


# --- how long lives last, and what greed does ---


PLAYERS: dict[str, Policy | None] = {"random": None, "heuristic": Commons.heuristic, "greedy": greedy}


@cache
def parties(*players: str) -> list[list[Played]]:
    """Instances of the players in order of the seats."""
    world = commons()
    return [
        play_together(
            world, seed, [PLAYERS[who] or random_policy(seed * SEATS + seat) for seat, who in enumerate(players)]
        )
        for seed in SEEDS
    ]


def mean_life(*players: str, seats: slice = slice(None)) -> float:
    return mean(one.steps for party in parties(*players) for one in party[seats])


def test_the_heuristic_lives_at_least_three_times_as_long_as_random_play() -> None:
    assert mean_life(*["random"] * SEATS) < DIALS.horizon / 4
    assert mean_life(*["heuristic"] * SEATS) >= 3.5 * mean_life(*["random"] * SEATS)


def test_greed_pays_among_the_sensible_and_kills_when_everybody_is_greedy() -> None:
    all_sensible, all_greedy = mean_life(*["heuristic"] * SEATS), mean_life(*["greedy"] * SEATS)
    company = ["greedy", *["heuristic"] * (SEATS - 1)]
    defector, others = mean_life(*company, seats=slice(1)), mean_life(*company, seats=slice(1, None))
    assert defector > 1.05 * all_sensible
    assert others < 0.9 * all_sensible
    assert all_greedy < 0.7 * all_sensible


def test_skill_is_more_than_one_word() -> None:
    world = commons()
    for action in ACTIONS:
        lives = [one.steps for seed in range(20) for one in play_together(world, seed, [always(action)] * SEATS)]
        assert mean(lives) <= 0.5 * mean_life(*["heuristic"] * SEATS), action


def test_random_lives_end_by_hunger_and_robbery_and_bear_some_children() -> None:
    lives = [one for party in parties(*["random"] * SEATS) for one in party]
    causes = Counter(one.cause for one in lives)
    assert set(causes) <= {"starved", "robbed", ""}
    assert causes["robbed"] > 5
    assert sum(json.loads(one.result)["children"] for one in lives) > 5


# --- the ground ---


def test_growth_is_logistic_and_what_is_bare_stays_bare() -> None:
    grows = growth(40, 50)
    assert (grows[0], grows[1], grows[20], grows[40]) == (0, 0, 5, 0)
    assert max(grows) == grows[20]
    assert all(stock + more <= 40 for stock, more in enumerate(grows))
    assert [growth(8, 100)[stock] for stock in range(9)] == [0, 1, 2, 2, 2, 2, 2, 1, 0]


def test_a_patch_that_is_spared_feeds_for_ever_and_one_that_is_not_collapses() -> None:
    grows = growth(40, 50)
    spared = stripped = 40
    taken = [0, 0]
    for _ in range(60):
        meal = min(8, max(0, spared - 20))
        spared, taken[0] = spared - meal + grows[spared - meal], taken[0] + meal
        meal = min(8, stripped)
        stripped, taken[1] = stripped - meal + grows[stripped - meal], taken[1] + meal
    assert (stripped, spared > 20) == (0, True)
    assert taken[0] > 2 * taken[1]


@settings(deadline=None)
@given(
    stock=st.integers(0, 40),
    wanted=st.dictionaries(st.integers(0, 9), st.integers(0, 8), max_size=8),
    lots=st.permutations(range(10)),
)
def test_what_is_dealt_is_all_there_is_in_fair_shares(stock: int, wanted: dict[int, int], lots: list[int]) -> None:
    got = deal(stock, wanted, lambda seat: lots[seat])
    assert got == deal(stock, dict(reversed(wanted.items())), lambda seat: lots[seat])
    assert sum(got.values()) == min(stock, sum(wanted.values()))
    assert all(0 <= units <= wanted[seat] for seat, units in got.items())
    unserved = [units for seat, units in got.items() if units < wanted[seat]]
    assert all(units <= least + 1 for least in unserved for units in got.values())


def test_who_gets_the_odd_unit_is_a_fair_lot_of_the_seed() -> None:
    won: Counter[int] = Counter()
    for seed in range(300):
        world = placed((0, 10, 10), (0, 10, 10), (0, 10, 10), ground=[1, 20, 20, 20], seed=seed)
        moved(world, "gather", "gather", "gather")
        won.update(seat for seat in range(3) if store(world, seat)[0] == 9)
    assert sum(won.values()) == 300
    assert all(70 <= won[seat] <= 130 for seat in range(3))


def test_gathering_takes_a_handful_and_no_more_than_can_be_held() -> None:
    world = placed((0, 10, 10), (1, 10, 27))
    moved(world, "gather", "gather")
    assert [store(world, seat) for seat in (0, 1)] == [(16, 8), (8, 28)]
    grows = growth(40, 50)
    assert world.state(0)["ground"] == [12 + grows[12], 17 + grows[17], 25, 25]


# --- meetings ---


def after(one: tuple[str, int, int], other: tuple[str, int, int], patch: int = 0) -> list[list[int]]:
    """Stores of two who meet and act so."""
    both = [Agent(seat, patch, [fruit, roots], seat, act=act) for seat, (act, fruit, roots) in enumerate((one, other))]
    meet(*both, DIALS)
    swapped = [
        Agent(seat, patch, [fruit, roots], seat, act=act) for seat, (act, fruit, roots) in enumerate((other, one))
    ]
    meet(*swapped, DIALS)
    assert [agent.store for agent in swapped] == [agent.store for agent in reversed(both)]
    return [agent.store for agent in both]


def test_a_trade_swaps_what_each_has_more_of_and_never_past_the_balance() -> None:
    assert after(("trade", 20, 2), ("trade", 3, 18)) == [[16, 6], [7, 14]]
    assert after(("trade", 9, 5), ("trade", 3, 18)) == [[7, 7], [5, 16]]
    assert after(("trade", 20, 2), ("trade", 18, 3)) == [[20, 2], [18, 3]]
    assert after(("trade", 20, 2), ("rest", 3, 18)) == [[20, 2], [3, 18]]


def test_a_gift_is_of_plenty_a_robbery_of_need_and_who_walks_away_is_safe() -> None:
    assert after(("share", 20, 2), ("rest", 3, 18)) == [[16, 2], [7, 18]]
    assert after(("share", 20, 2), ("left", 28, 18)) == [[18, 2], [30, 18]]
    assert after(("rob", 20, 2), ("gather", 3, 18)) == [[20, 6], [3, 14]]
    assert after(("rob", 20, 2), ("rest", 3, 1)) == [[20, 3], [3, 0]]
    assert after(("rob", 20, 2), ("right", 3, 18)) == [[20, 2], [3, 18]]
    assert after(("rob", 20, 2), ("share", 3, 5)) == [[20, 7], [3, 0]]
    assert after(("rob", 20, 2), ("rob", 18, 3)) == [[20, 3], [18, 2]]
    assert after(("share", 20, 2), ("share", 3, 18)) == [[16, 6], [7, 14]]


def test_of_equal_goods_the_one_is_short_that_does_not_grow_here() -> None:
    assert after(("rob", 5, 5), ("rest", 9, 9), patch=0) == [[5, 9], [9, 5]]
    assert after(("rob", 5, 5), ("rest", 9, 9), patch=1) == [[9, 5], [5, 9]]


store_of_one = st.tuples(st.sampled_from(ACTIONS), st.integers(1, 30), st.integers(1, 30))


@settings(deadline=None)
@given(one=store_of_one, other=store_of_one, patch=st.integers(0, 1))
def test_nothing_is_made_or_lost_in_a_meeting(one: Any, other: Any, patch: int) -> None:
    stores = after(one, other, patch)
    for good in (0, 1):
        assert stores[0][good] + stores[1][good] == one[1 + good] + other[1 + good]
        assert all(0 <= held[good] <= DIALS.hold for held in stores)


def test_everybody_meets_somebody_on_the_same_patch_or_nobody() -> None:
    for seed in range(20):
        world = commons()
        world.reset(seed, 30)
        crowds = Counter(agent.patch for agent in world._now.agents)
        alone = Counter(agent.patch for agent in world._now.agents if agent.meets is None)
        assert all(alone[patch] == crowd % 2 for patch, crowd in crowds.items())
        for agent in world._now.agents:
            if agent.meets:
                assert agent.meets.meets is agent
                assert agent.meets.patch == agent.patch


def test_who_was_robbed_of_its_last_units_died_of_robbery() -> None:
    world = placed((0, 9, 4), (0, 9, 4))
    turn = moved(world, "rob", "gather")
    assert store(world, 0) == (7, 6)
    assert (turn.outcomes[1].end, turn.outcomes[1].cause) == (EndReason.DIED, "robbed")
    assert turn.outcomes[1].observation.energy == 0
    starving = placed((0, 9, 4), (0, 9, 2))
    assert moved(starving, "rob", "gather").outcomes[1].cause == "starved"


# --- turns ---


def test_a_turn_costs_two_and_an_idle_one_costs_one() -> None:
    for word in ACTIONS:
        world = placed((0, 11, 11), birth=10, start=10)
        moved(world, word)
        cost = 1 if word in IDLE else 2
        assert store(world, 0) == (11 - cost + (8 if word == "gather" else 0), 11 - cost), word


def test_walking_goes_around_the_ring() -> None:
    world = placed((0, 10, 10), (3, 10, 10), (1, 10, 10))
    moved(world, "left", "right", "rest")
    assert [world.state(seat)["patch"] for seat in range(3)] == [3, 0, 1]


def test_voices_are_heard_on_both_neighbouring_patches_for_one_turn() -> None:
    world = placed((0, 10, 10), (1, 10, 10), (3, 10, 10), (1, 10, 10))
    turn = moved(world, "call", "warn", "rest", "call")
    heard = {seat: (seen(world, turn, seat).left, seen(world, turn, seat).right) for seat in range(4)}
    assert heard[0] == ("nothing", '"come, away"')
    assert heard[2] == ("nothing", '"come"')
    assert heard[1] == heard[3] == ('"come"', "nothing")
    turn = moved(world, "rest", "rest", "rest", "rest")
    assert {seen(world, turn, seat).left for seat in range(4)} == {"nothing"}


def test_an_action_that_cannot_be_done_passes_the_turn() -> None:
    world = placed((0, 9, 10), ground=[0, 0, 0, 0])
    for word in ("gather", "share", "rob", "trade", "birth"):
        world._now.agents[0].store = [9, 10]
        moved(world, word)
        assert store(world, 0) == (7, 8)


def test_what_is_legal_is_what_can_have_an_effect() -> None:
    always = {"left", "right", "rest", "call", "warn"}
    world = placed((0, 9, 10), (2, 30, 10), (1, 13, 13), (1, 12, 20), ground=[0, 9, 9, 9])
    seen = [set(world._observe(agent).legal) for agent in world._now.agents]
    assert seen == [
        always,
        always,
        {*always, "gather", "share", "rob", "trade", "birth"},
        {*always, "gather", "share", "rob", "trade"},
    ]


def test_lives_end_at_the_horizon_and_then_there_is_no_turn() -> None:
    world = placed((0, 30, 30), (1, 30, 30), horizon=2)
    assert {outcome.end for outcome in moved(world, "rest", "rest").outcomes.values()} == {None}
    turn = moved(world, "birth", "rest")
    assert {outcome.end for outcome in turn.outcomes.values()} == {EndReason.SURVIVED}
    assert not turn.born
    with pytest.raises(RuntimeError, match="reset"):
        moved(world, "rest", "rest")


def test_bad_moves_are_refused_and_change_nothing() -> None:
    world = placed((0, 10, 10), (1, 10, 10))
    before = world.state(0)
    with pytest.raises(ValueError, match="'sleep' is not one of gather"):
        moved(world, "rest", "sleep")
    for seats in ({0: "rest"}, {0: "rest", 1: "rest", 2: "rest"}, {0: "rest", 5: "rest"}):
        with pytest.raises(ValueError, match="expected one of every living seat"):
            world.step(seats)
    with pytest.raises(ValueError, match="0 seats"):
        world.reset(0, 0)
    assert world.state(0) == before


# --- births ---


def test_a_descendant_is_paid_for_and_begins_beside_its_parent() -> None:
    world = placed((2, 20, 15), (0, 20, 20))
    turn = moved(world, "birth", "rest")
    assert {seat: birth.parent for seat, birth in turn.born.items()} == {2: 0}
    assert store(world, 0) == (20 - 2 - 10, 15 - 2 - 10)
    child = parse(turn.born[2].observation.text)
    assert (child.fruit, child.roots, child.other) == (8, 8, Other(True, 8, 3, "birth"))
    assert seen(world, turn, 0).other == Other(True, 8, 8, "birth")
    assert world.state(2)["patch"] == 2
    grandchild = moved(placed((2, 20, 15)), "birth").born[1]
    assert grandchild.parent == 0


def test_descendants_of_descendants_count_and_so_do_the_turns_that_they_live() -> None:
    world = placed((0, 30, 30), horizon=9, birth=4, dowry=4, hold=30, room=4)
    moved(world, "birth")
    world._now.agents[1].store = [20, 20]
    moved(world, "birth", "birth")
    moved(world, "rest", "rest", "rest", "rest")
    result = world.result(0)
    assert (result["children"], result["descendants"], result["score"]) == (2, 3, 3 + 2 + 1 + 1)
    assert (world.result(1)["descendants"], world.result(2)["descendants"]) == (1, 0)


def test_there_is_room_for_so_many_and_lots_decide_who_bears() -> None:
    parents: Counter[int] = Counter()
    for seed in range(100):
        world = placed(*[(seat % 4, 30, 30) for seat in range(5)], seed=seed, room=1)
        assert not moved(world, *["birth"] * 5).born
        world._now.living.pop()
        turn = moved(world, *["birth"] * 4)
        assert len(turn.born) == 1
        parents.update(birth.parent for birth in turn.born.values())
    assert all(10 <= parents[seat] <= 40 for seat in range(4))
    assert draw_winners([4, 1, 3], 5, float) == [4, 1, 3]
    assert draw_winners([4, 1, 3], 2, lambda seat: -seat) == [3, 4]
    assert draw_winners([4, 1], -1, float) == []


def test_who_was_robbed_of_a_birth_bears_nobody() -> None:
    world = placed((0, 20, 13), (0, 20, 2))
    assert not moved(world, "birth", "rob").born
    assert store(world, 0) == (18, 7)
