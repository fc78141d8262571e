"""The news world: shows nothing but the article, pays by squared error, and lets skill live."""

import hashlib
import json
import math
import subprocess
import sys
import time
import tomllib
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from telemetry.failures import UsageError
from telemetry.records import EndReason
from telemetry.seeds import held_out_world_seed
from tests.tools.news_figures import always, ceiling, lives, planted, spearman
from workers.environment import Outcome
from workers.environments.news import WORDS, News
from workers.environments.news_settings import NewsSettings
from workers.environments.news_synthetic import OUTLOOK, expectation
from workers.reference import play, random_policy
from workers.registry import make

ROOT = Path(__file__).parents[2]
WORLD = "workers.environments.news:News"
answers = st.lists(st.sampled_from(News.actions), min_size=24, max_size=24)


def news(**settings: Any) -> News:
    return News(NewsSettings(**settings))


WORLDS = {split: news(split=split) for split in ("train", "heldout")}


def live(world: News, seed: int, actions: list[str]) -> list[Outcome]:
    world.reset(seed)
    outcomes: list[Outcome] = []
    for action in actions:
        outcomes.append(world.step(action))
        if outcomes[-1].end:
            break
    return outcomes


# --- skill lives, guessing dies, forecasting zero starves ---


def test_forecasting_zero_starves_after_as_many_steps_as_energy_lasts() -> None:
    for upkeep, steps in ((0.5, 20), (1.0, 10)):
        played = [play(news(upkeep=upkeep), seed, News.references["always-flat"]) for seed in range(20)]
        assert {(one.steps, one.end, one.cause) for one in played} == {(steps, EndReason.DIED, "starved")}


def test_the_oracle_lives_and_random_play_dies_soon_of_its_prices() -> None:
    world = WORLDS["heldout"]
    random = [play(world, seed, random_policy(seed)) for seed in range(200)]
    oracle = [play(world, seed, world.references["oracle"]) for seed in range(200)]
    assert mean(one.steps for one in random) < 10
    assert mean(one.steps for one in oracle) > 23
    assert mean(one.end is EndReason.SURVIVED for one in oracle) > 0.9
    assert mean(one.cause == "mispriced" for one in random) > 0.9


def test_the_planted_signal_is_as_strong_as_it_is_said_to_be() -> None:
    assert ceiling(0.5, 10_000, 3) == pytest.approx(0.70, abs=0.04)
    assert ceiling(0.05, 10_000, 3) == pytest.approx(0.22, abs=0.06)
    world = WORLDS["heldout"]
    best = planted(world)
    results = lives(world, always(best), 64)
    report = News.report(results)
    assert 0.60 < report["rank correlation"][1] < report["rank correlation"][0] < 0.75
    assert 0.40 < report["squared error skill"][1] < report["squared error skill"][0] < 0.55
    assert mean(result["score"] for result in results) == pytest.approx(-0.52, abs=0.06)


def test_one_fact_alone_tells_less_than_both_and_one_word_nearly_nothing() -> None:
    texts, returns = [text.lower() for text in WORLDS["train"].articles.texts], WORLDS["train"].articles.returns
    both = spearman([expectation(text) for text in texts], returns)
    signs = [next(sign for sign, words in OUTLOOK.items() if any(word in text for word in words)) for text in texts]
    assert 0.5 < spearman(signs, returns) < both - 0.08
    for word in ("higher", "lower", "more", "less", "costs", "expected"):
        assert abs(spearman([word in text for text in texts], returns)) < 0.35


def test_without_signal_the_planted_forecasts_are_worth_nothing() -> None:
    scores = []
    for seed in range(10):
        world = news(data="synthetic-no-signal", split="heldout", articles=1000, data_seed=seed)
        said = [expectation(text) for text in world.articles.texts]
        scores.append(spearman(said, world.articles.returns) * math.sqrt(len(said) - 1))
    assert abs(sum(scores)) / math.sqrt(10) < 3.5
    assert max(map(abs, scores)) < 4
    world = news(data="synthetic-no-signal", split="heldout")
    report = News.report(lives(world, always(planted(world)), 32))
    assert report["squared error skill"][2] < 0
    assert "oracle" not in world.references


def test_without_signal_texts_and_returns_are_the_same_ones() -> None:
    plain, shuffled = news(split="train"), news(split="train", data="synthetic-no-signal")
    assert plain.articles.texts == shuffled.articles.texts
    assert np.std(plain.articles.returns) == pytest.approx(np.std(shuffled.articles.returns))
    assert plain.articles.returns != shuffled.articles.returns


# --- energy and score ---


@hypothesis(max_examples=40)
@given(seed=st.integers(0, 2**63 - 1), actions=answers)
def test_energy_is_squared_error_saved_less_upkeep_and_zero_is_death(seed: int, actions: list[str]) -> None:
    world, saved = WORLDS["train"], 0.0
    world.reset(seed)
    for step, action in enumerate(actions):
        outcome = world.step(action)
        state = world.state()
        actual = max(-4.0, min(4.0, state["actual"]))
        assert state["forecast"] == WORDS[action] * 0.5
        saved += actual**2 - (state["forecast"] - actual) ** 2
        energy = 10 + 2 * saved - 0.5 * (step + 1)
        assert state["energy"] == outcome.observation.energy == pytest.approx(max(0, energy), abs=1e-9)
        assert (outcome.end is EndReason.DIED) == (state["energy"] == 0)
        assert outcome.cause == ("" if state["energy"] else "mispriced" if saved < 0 else "starved")
        if outcome.end:
            break
    assert outcome.end is EndReason.DIED or (step == 23 and outcome.end is EndReason.SURVIVED)


@hypothesis(max_examples=40)
@given(seed=st.integers(0, 2**63 - 1), actions=answers)
def test_the_score_is_the_negative_mean_squared_error_of_all_articles(seed: int, actions: list[str]) -> None:
    world = WORLDS["train"]
    outcomes = live(world, seed, actions)
    result = world.result()
    actual = np.clip(result["actual"], -4, 4)
    assert result["read"] == len(outcomes)
    assert [len(result[name]) for name in ("articles", "days", "predicted", "actual")] == [24] * 4
    assert result["predicted"][len(outcomes) :] == [0.0] * (24 - len(outcomes))
    assert result["score"] == pytest.approx(-np.mean((np.array(result["predicted"]) - actual) ** 2))


@hypothesis(max_examples=60)
@given(seed=st.integers(0, 1000), one=answers, other=answers)
def test_death_is_never_worth_it(seed: int, one: list[str], other: list[str]) -> None:
    world, ends = WORLDS["train"], []
    for actions in (one, other):
        end = live(world, seed, actions)[-1].end
        ends.append((end is EndReason.SURVIVED, world.result()["score"], world.result()["read"]))
    live(world, seed, ["flat"] * 24)
    flat, base = world.result()["score"], 24
    for survived, score, read in ends:
        if not survived:  # at death the energy is spent: what was saved is at most the upkeep less the start
            assert score - flat <= (0.5 * read - 10) / 2 / base + 1e-12
    (alive, better, _), (dead, worse, _) = sorted(ends, reverse=True)
    assert better > worse or alive == dead


def test_an_outlier_counts_as_the_bound() -> None:
    world = news(winsor=1.0)
    for outcome, seed in ((live(world, seed, ["jump"])[0], seed) for seed in range(100)):
        assert world.state()["actual"] == world.result()["actual"][0]
        assert 10 + 2 * (1 * (-2 - 1)) - 0.5 <= outcome.observation.energy <= 10 + 2 * (1 * (2 - 1)) - 0.5, seed


# --- what is shown and when ---


def test_what_is_shown_is_the_article_and_depends_on_nothing_that_was_answered() -> None:
    world = WORLDS["train"]
    texts = set(world.articles.texts)
    for seed in range(50):
        shown = []
        for action in ("flat", "drop", "jump"):
            first = world.reset(seed).text
            outcomes = live(world, seed, [action] * 24)
            shown.append([first, *(one.observation.text for one in outcomes if not one.end)])
        for left, right in pairwise(shown):
            assert all(one == other for one, other in zip(left, right, strict=False))
        assert texts.issuperset(shown[0])


def test_a_life_reads_different_articles_in_order_of_time_and_seeds_differ() -> None:
    world, seen = WORLDS["train"], set()
    for seed in range(100):
        world.reset(seed)
        read = world.result()["articles"]
        assert sorted(set(read)) == read
        seen.add(tuple(read))
    assert len(seen) == 100
    assert {article for read in seen for article in read} <= set(world.articles.ids)


def test_held_out_evaluation_reads_what_training_never_does() -> None:
    assert News.HELDOUT == {"split": "heldout"}
    train, held_out = WORLDS["train"].articles, WORLDS["heldout"].articles
    assert max(train.ids) < min(held_out.ids)
    assert max(train.days) + 7 <= min(held_out.days)
    assert not set(train.texts) & set(held_out.texts)


# --- a life is a function of seed and answers ---


@hypothesis(max_examples=25)
@given(seed=st.integers(0, 2**63 - 1), actions=answers)
def test_a_life_is_a_pure_function_of_seed_and_actions(seed: int, actions: list[str]) -> None:
    def trace(world: News) -> list[Any]:
        return [world.reset(seed), live(world, seed, actions), world.state(), world.result()]

    used = WORLDS["train"]
    live(used, seed ^ 1, actions[::-1])
    assert trace(used) == trace(news())


def digest() -> str:
    world, seen = news(articles=500, data_seed=8), list[Any]()
    for seed in range(20):
        world.reset(seed)
        for action in News.actions * 5:
            outcome = world.step(action)
            seen += [outcome.observation.text, world.state()]
            if outcome.end:
                break
        seen.append(world.result())
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def test_other_processes_live_the_same_lives() -> None:
    program = "from tests.workers.test_news import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONHASHSEED": "1"}, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == digest()


def test_a_life_ends_once_and_takes_only_its_words() -> None:
    world = news(horizon=3)
    before = world.state()
    with pytest.raises(ValueError, match="'sell' is not one of drop, slip, flat, rise, jump"):
        world.step("sell")
    assert world.state() == before
    assert [world.step("flat").end for _ in range(3)] == [None, None, EndReason.SURVIVED]
    with pytest.raises(RuntimeError, match="reset"):
        world.step("flat")


def test_states_and_results_are_small_json_and_can_be_drawn() -> None:
    world = news(horizon=500)
    world.reset(0)
    assert News.draw(world.state()) == "step 0  energy 10.00"
    outcomes = live(world, 0, ["slip"] * 3)
    assert len(outcomes) == 3
    assert json.loads(json.dumps(world.state())) == world.state()
    assert len(json.dumps(world.result())) < 64_000
    picture = News.draw({"step": 3, "energy": 7.25, "article": 12, "forecast": -0.5, "actual": 9.0}).splitlines()
    assert picture[0] == "step 3  energy 7.25  article 12"
    assert picture[1] == "forecast " + " " * 14 + "##|" + " " * 16 + " -0.50"
    assert picture[2] == "actual   " + " " * 16 + "|" + "#" * 16 + " +9.00"


def test_steps_are_fast() -> None:
    world, steps, start = WORLDS["train"], 0, time.process_time()
    for seed in range(400):
        steps += len(live(world, held_out_world_seed(seed), ["flat"] * 24))
    assert steps / (time.process_time() - start) > 20_000


# --- how the world is found and set ---


def test_the_world_is_registered() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["forager.environments"]
    assert points["news"] == WORLD
    assert isinstance(make(WORLD, {}), News)


@pytest.mark.parametrize(
    ("settings", "dial"),
    [
        ({"data": "relative.csv"}, "data"),
        ({"data": "/tmp/table.xlsx"}, "data"),
        ({"data": "real"}, "data"),
        ({"return_days": 10}, "embargo_days"),
        ({"heldout_share": 1.0}, "heldout_share"),
        ({"split": "test"}, "split"),
        ({"ticker": "X"}, "ticker"),
    ],
)
def test_bad_dials_are_named(settings: dict[str, Any], dial: str) -> None:
    with pytest.raises(UsageError, match=rf"^environment\.settings\.{dial}: got "):
        make(WORLD, settings)


@pytest.mark.real
def test_articles_are_short_and_answers_are_single_tokens_of_the_small_model() -> None:
    from telemetry import models
    from tests.tiny import NAME
    from workers.engine import ModelDescription
    from workers.engines.scripted import CARD
    from workers.prompt import Codec

    tokenizer = models.resolve(NAME) / "tokenizer.json"
    codec = Codec(ModelDescription(CARD, str(tokenizer), (), (), (), 512, 1))
    assert [codec.decode([token]) for token in codec.choices(News.actions)] == list(News.actions)
    assert len(codec.prompt(News.rules, "")) <= 24
    lengths = [len(codec.prompt("", text)) for text in WORLDS["train"].articles.texts[:300]]
    assert min(lengths) >= 20
    assert max(lengths) <= 40
