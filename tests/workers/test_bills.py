"""The world of bills: jobs that are what they say, accounts that add up, and nothing to learn of what is held out."""

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from telemetry import models
from telemetry.failures import UsageError
from telemetry.records import EndReason
from telemetry.seeds import rng
from workers.environment import Environment
from workers.environments.bills import Bills
from workers.environments.bills_jobs import (
    ABOUT_NUMBERS,
    ABOUT_WORDS,
    FIRST_LEVEL,
    HELD_OUT_WORDS,
    LEVELS,
    SKIP,
    WORDS,
    Draws,
    Job,
    is_held_out,
    offer,
)
from workers.environments.bills_settings import BillsSettings
from workers.environments.bills_text import Offer, is_right, parse, refuses, render, solve, tokens
from workers.reference import Played, reference
from workers.registry import held_out, make

answers = st.lists(st.one_of(st.text(max_size=12), st.sampled_from([SKIP, "7", "yes", "the answer is no"])), min_size=1)


def bills(**dials: Any) -> Bills:
    return Bills(BillsSettings(**dials))


def jobs(held: bool, count: int = 4000) -> list[Job]:
    draws = Draws(rng(7, "jobs", int(held)))
    return [offer(draws, 1 + number % LEVELS, 4, held) for number in range(count)]


@cache
def lives(who: str, split: str) -> tuple[Played, ...]:
    return tuple(reference(bills(split=split), who, range(100)))


def results(who: str, split: str = "heldout") -> list[dict[str, Any]]:
    return [json.loads(life.result) for life in lives(who, split)]


# --- how long lives last ---


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_random_play_is_bankrupt_early_and_the_heuristic_lives_at_least_three_times_as_long(split: str) -> None:
    random, heuristic = (mean(life.steps for life in lives(who, split)) for who in ("random", "heuristic"))
    assert random < bills().horizon / 3
    assert heuristic >= 3 * random
    assert {life.cause for life in lives("random", split) if life.end is EndReason.DIED} == {"bankrupt"}


def test_refusing_everything_is_no_way_to_live() -> None:
    world = bills()
    for seed in range(20):
        world.reset(seed)
        steps = 1
        while not (outcome := world.step(SKIP)).end:
            steps += 1
        assert outcome.end is EndReason.DIED
        assert steps < world.horizon / 1.5


# --- jobs ---


@pytest.mark.parametrize("held", [False, True])
def test_every_kind_is_offered_from_its_level_on_and_solved_from_its_text(held: bool) -> None:
    offered: Counter[tuple[str, int]] = Counter()
    for job in jobs(held):
        offered[job.kind, job.level] += 1
        seen = parse(render(Offer(job.kind, job.level, job.pay, 3, job.question)))
        assert seen == Offer(job.kind, job.level, job.pay, 3, job.question)
        answer = solve(seen.kind, seen.question)
        assert answer == job.answer
        assert is_right(answer, job.answer)
        assert not refuses(answer)
    every = {(kind, level) for kind, first in FIRST_LEVEL.items() for level in range(first, LEVELS + 1)}
    assert set(offered) == every
    assert set(FIRST_LEVEL) == set(ABOUT_WORDS) | set(ABOUT_NUMBERS)


def test_what_is_held_out_is_never_asked_in_training() -> None:
    train, held = ({(job.kind, job.question) for job in jobs(held)} for held in (False, True))
    assert len(train) > 2000
    assert len(held) > 1500
    assert not train & held
    assert not {*WORDS} & {*HELD_OUT_WORDS}
    for kind, question in held:
        said = set(question.replace("?", "").split())
        assert not said & {*WORDS}
        assert bool(said & {*HELD_OUT_WORDS}) == (kind in ABOUT_WORDS)
        assert kind in ABOUT_WORDS or is_held_out(question)


def test_held_out_evaluation_asks_for_what_is_held_out() -> None:
    assert held_out("workers.environments.bills:Bills", {"rent": 2.0}, {}) == {"rent": 2.0, "split": "heldout"}


def test_jobs_get_harder_and_dearer() -> None:
    world = bills(start_energy=1e6, horizon=100)
    levels, pays = [], []
    for seed in range(50):
        world.reset(seed)
        for _ in range(100):
            _, level, pay, _, _ = world.state()["offer"]
            levels.append(level)
            pays.append((level, pay))
            world.step(SKIP)
    by_step = [mean(levels[step::100]) for step in range(100)]
    assert 1 <= mean(by_step[:10]) < 1.5
    assert 2.5 < mean(by_step[-10:]) <= 3.5
    assert {level: {pay for one, pay in pays if one == level} for level in range(1, LEVELS + 1)} == {
        level: {level + 2, level + 3, level + 4} for level in range(1, LEVELS + 1)
    }


# --- judging ---


@pytest.mark.parametrize(
    ("said", "answer", "right"),
    [
        ("12", "12", True),
        ("It is 12.", "12", True),
        ("12 apples", "12", False),
        ("112", "12", False),
        ("7 + 5 = 12\nsurely", "12", True),
        ("\n 12", "12", True),
        ("The smallest is 0. The largest is 9", "0", True),
        ("Hm. 12", "12", False),
        ("...12", "12", True),
        ("no, YES!", "yes", True),
        ("yes no", "yes", False),
        ("The words: 'green', 'horse'", "green horse", True),
        ("horse", "green horse", False),
        ("1,2,3", "1 2 3", True),
        ("", "1", False),
    ],
)
def test_the_last_words_of_the_first_sentence_count(said: str, answer: str, right: bool) -> None:
    assert is_right(said, answer) == right


@pytest.mark.parametrize("said", ["skip", "Skip.", "I refuse", "I'm sorry, no", "pass", "", " \n", "...", "12 skip"])
def test_refusals(said: str) -> None:
    assert refuses(said)


# --- accounts ---


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), said=answers, counts=st.tuples(st.integers(1, 500), st.integers(1, 10)))
def test_accounts_add_up(seed: int, said: list[str], counts: tuple[int, int]) -> None:
    world = bills(prompt_token=0.01, completion_token=0.3, rent=0.7)
    energy = world.reset(seed).energy
    for number, text in enumerate(said):
        job = Job(*world.state()["offer"])
        world.pay(*counts)
        outcome = world.step(text)
        gain = -0.2 if refuses(text) else job.pay if is_right(text, job.answer) else -job.pay
        expected = energy + gain - 0.01 * counts[0] - 0.3 * counts[1] - 0.7
        assert outcome.observation.energy == pytest.approx(max(0, expected))
        assert (outcome.end is EndReason.DIED) == (expected <= 0)
        assert (outcome.cause == "bankrupt") == (expected <= 0)
        energy, result = outcome.observation.energy, world.result()
        assert result["offers"] == number + 1
        assert (result["prompt_tokens"], result["completion_tokens"]) == tuple(count * (number + 1) for count in counts)
        if outcome.end:
            break
        assert energy == pytest.approx(20 + result["score"] - result["spent_on_rent"])
    assert result["score"] == pytest.approx(result["earned"] - result["lost"] - result["spent_on_tokens"])


def test_thinking_longer_costs_more_and_who_counts_no_tokens_pays_by_length() -> None:
    def left(said: str, *counts: int) -> float:
        world = bills()
        world.reset(3)
        if counts:
            world.pay(*counts)
        return world.step(said).observation.energy

    answer = Bills.heuristic(bills().reset(3))
    assert left(answer, 50, 2) - left(f"Well, it must be {answer}", 50, 7) == pytest.approx(5 * 0.2)
    assert left(answer, 50, 2) - left(answer, 90, 2) == pytest.approx(40 * 0.002)
    read = tokens(Bills.rules) + tokens(bills().reset(3).text)
    assert left(answer) == left(answer, 0, 0) == left(answer, read, tokens(answer))


def test_a_life_ends_at_the_horizon_and_then_takes_no_step() -> None:
    world = bills(horizon=3)
    world.reset(0)
    assert [world.step(SKIP).end for _ in range(3)] == [None, None, EndReason.SURVIVED]
    with pytest.raises(RuntimeError, match="reset"):
        world.step(SKIP)


# --- the same seed is the same world ---


def trace(world: Bills, seed: int, said: list[str]) -> list[Any]:
    seen: list[Any] = [world.reset(seed), world.state()]
    for text in said:
        outcome = world.step(text)
        seen += [outcome, json.loads(json.dumps(world.state()))]
        if outcome.end:
            break
    return seen


@settings(deadline=None)
@given(seed=st.integers(0, 2**63 - 1), said=answers)
def test_a_life_is_a_pure_function_of_seed_and_answers(seed: int, said: list[str]) -> None:
    used = bills()
    trace(used, seed ^ 1, said)
    assert trace(used, seed, said) == trace(bills(), seed, said)


def test_offers_do_not_depend_on_what_is_said() -> None:
    def offered(said: str) -> list[Any]:
        return [state["offer"] for state in trace(bills(start_energy=1e6), 5, [said] * 23)[1::2]]

    assert offered("12") == offered(SKIP)
    assert len({json.dumps(job) for job in offered(SKIP)}) > 15


def test_another_process_is_offered_the_same() -> None:
    code = (
        "import json; from workers.environments.bills import Bills; from workers.environments.bills_settings import"
        " BillsSettings; w = Bills(BillsSettings()); print(json.dumps([w.reset(s).text for s in range(20)]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == [bills().reset(seed).text for seed in range(20)]


# --- what is shown and told ---


def test_report_divides_sums_and_is_empty_without_lives() -> None:
    found = Bills.report(results("random"))
    every = results("random")
    solved, taken, offers = (sum(one[name] for one in every) for name in ("solved", "taken", "offers"))
    assert found["solved of taken"][0] == pytest.approx(solved / taken)
    assert found["taken"][0] == pytest.approx(taken / offers)
    assert all(low <= value <= high for value, low, high in found.values())
    assert found["taken"][1] < found["taken"][2]
    perfect = Bills.report(results("heuristic"))
    assert perfect["solved of taken"] == (1, 1, 1)
    assert perfect["tokens per step"][0] < 4
    assert Bills.report([]) == {}
    idle = [{**one, "taken": 0, "solved": 0} for one in every]
    assert Bills.report(idle)["solved of taken"] == (0, 0, 0)


def test_draw_shows_offer_answer_and_account() -> None:
    world = bills()
    world.reset(0)
    world.pay(50, 2)
    job = Job(*world.state()["offer"])
    world.step(job.answer)
    after = Job(*world.state()["offer"])
    title, line = Bills.draw(world.state()).splitlines()
    assert title == f"step 1  energy {20 + job.pay - 0.5 - 1:.2f}  last solved +{job.pay - 0.5:.2f}"
    assert after.question in line
    assert line.endswith(f"[{after.answer}]")


def test_the_world_is_registered() -> None:
    assert isinstance(make("workers.environments.bills:Bills", {}), Environment)
    assert Bills.name == "bills-v1"
    assert bills().reset(0).legal == ()
    assert bills(max_tokens=7).reset(0).max_tokens == 7


@pytest.mark.parametrize(
    ("dials", "dial"),
    [
        ({"first_level": 5}, "first_level"),
        ({"first_level": 4}, "last_level"),
        ({"rent": -1.0}, "rent"),
        ({"split": "test"}, "split"),
        ({"wage": 2}, "wage"),
    ],
)
def test_bad_dials_are_named(dials: dict[str, Any], dial: str) -> None:
    with pytest.raises(UsageError, match=rf"^environment\.settings\.{dial}: got "):
        make("workers.environments.bills:Bills", dials)


@pytest.mark.real
def test_prompts_are_short_and_every_answer_fits_for_the_small_model() -> None:
    tokenizer = Tokenizer.from_file(str(models.resolve("smollm2-135m-instruct") / "tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    every = jobs(False) + jobs(True)
    texts = [render(Offer(job.kind, job.level, job.pay, 100, job.question)) for job in every]
    assert count(Bills.rules) <= 25
    assert max(map(count, texts)) <= 70
    assert max(count(job.answer) for job in every) < BillsSettings().max_tokens
