"""Seconds from a new adapter on the shelf to the first answer with it, beyond the answer itself and reading the file.

The engine is the demo's, in this process; every adapter is new to it, every prompt too, and of equal length.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median

from orchestrator.builder import find_model
from telemetry.adapters import Shelf, save
from telemetry.lora import WEIGHTS
from telemetry.seeds import rng
from telemetry.store import open_store
from tests.bench.rollout import configuration
from trainer.config_operators import GaussianMutation
from trainer.lowrank import fresh
from trainer.mutation import mutate
from workers import engines
from workers.engine import CompletionRequest
from workers.prompt import Codec

ROUNDS = 8
ACTIONS = ("north", "south", "east", "west", "eat", "rest")


def main() -> dict[str, float]:
    config = configuration()
    model = find_model(config)
    os.environ.update(engines.environment(config.engine))
    with tempfile.TemporaryDirectory() as place:
        shelf = Shelf(open_store(place))
        adapters = []
        for number in range(ROUNDS + 1):
            start = fresh(model.card, config.trainer.lora, rng("serving", number))
            weights = mutate(start, GaussianMutation(strength=0.1), rng("noise", number))
            adapters.append(shelf.publish_files(save(weights, model.card))[0])
        engine = engines.build(config.engine, model.directory, model.card, shelf.path)
        codec = Codec(asyncio.run(engine.describe()))
        sights: Iterator[int] = count(10_000)

        def answer(adapter: str) -> float:
            text = f"Energy 10. Here: berries. Food: east 2, north 3. Danger: none. Day {next(sights)}."
            request = CompletionRequest(codec.prompt("You live in a valley.", text), adapter, codec.choices(ACTIONS))

            async def ask() -> None:
                await engine.load([adapter])
                await engine.complete([request])

            begin = time.monotonic()
            asyncio.run(ask())
            return time.monotonic() - begin

        for _ in range(3):
            answer(adapters[0])
        new, again, read = [], [], []
        for adapter in adapters[1:]:
            begin = time.monotonic()
            (Path(shelf.path(adapter)) / WEIGHTS).read_bytes()
            read.append(time.monotonic() - begin)
            new.append(answer(adapter))
            again.append(answer(adapter))
        asyncio.run(engine.close())
    beyond = [first - then - file for first, then, file in zip(new, again, read, strict=True)]
    return {
        "beyond_seconds": median(beyond),
        "worst_seconds": max(beyond),
        "first_seconds": median(new),
        "answer_seconds": median(again),
        "read_seconds": median(read),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
