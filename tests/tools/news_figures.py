"""What scripted players make of held-out synthetic news: `python -m tests.tools.news_figures`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from telemetry.seeds import held_out_world_seed
from workers.environment import Policy
from workers.environments.news import News
from workers.environments.news_settings import NO_SIGNAL, SYNTHETIC, NewsSettings
from workers.environments.news_synthetic import expectation, oracle
from workers.reference import random_policy

LIVES = 256


def lives(world: News, player: Callable[[int], Policy], count: int) -> list[Mapping[str, Any]]:
    """Results of `count` held-out lives."""
    results = []
    for index in range(count):
        seed, end = held_out_world_seed(index), None
        observation, policy = world.reset(seed), player(seed)
        while end is None:
            outcome = world.step(policy(observation))
            observation, end = outcome.observation, outcome.end
        results.append(world.result())
    return results


def planted(world: News) -> Policy:
    """The best forecast that the text allows, were the returns not shuffled."""
    settings = NewsSettings()
    best = oracle(settings.signal, world.forecasts)
    return lambda observation: best(observation.text)


def ceiling(signal: float, articles: int, seed: int) -> float:
    """Rank correlation of the expected with the actual return: what no forecast can beat but by chance."""
    world = News(NewsSettings(signal=signal, articles=articles, data_seed=seed, split="heldout"))
    return spearman(list(map(expectation, world.articles.texts)), world.articles.returns)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation, written independently of the world's."""
    ranks = []
    for values in (np.asarray(one), np.asarray(other)):
        below, upto = (np.searchsorted(np.sort(values), values, side=side) for side in ("left", "right"))
        ranks.append((below + upto) / 2)
    return float(np.corrcoef(ranks)[0, 1])


def always(policy: Policy) -> Callable[[int], Policy]:
    return lambda seed: policy


def main() -> None:
    print(f"rank correlation that the facts allow: {ceiling(NewsSettings().signal, 100_000, 1):.3f}")
    for data in (SYNTHETIC, NO_SIGNAL):
        world = News(NewsSettings(data=data, split="heldout"))
        players: dict[str, Callable[[int], Policy]] = {
            "random": random_policy,
            "always-flat": always(News.references["always-flat"]),
            "oracle": always(planted(world)),
        }
        for who, player in players.items():
            results = lives(world, player, LIVES)
            steps, score = (float(np.mean([result[name] for result in results])) for name in ("read", "score"))
            print(f"{data:20} {who:12} steps {steps:5.1f}  score {score:6.3f}", end="")
            for name, (value, low, high) in News.report(results).items():
                print(f"  {name} {value:.2f} [{low:.2f}, {high:.2f}]", end="")
            print()


if __name__ == "__main__":
    main()
