"""Worlds that break their contract: found at the boundary, told in one line with the world's name, never a score."""

import asyncio
from pathlib import Path

import pytest

from telemetry.failures import UsageError
from telemetry.records import EndReason, Genome, Hyperparameters, Individual
from tests.corpus import worlds
from workers.config import ScriptedEngineConfig
from workers.engine import Completion, CompletionRequest
from workers.engines.scripted import ScriptedEngine
from workers.environment import Environment
from workers.guard import EnvironmentFailure, Guard
from workers.life import live
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask
from workers.reference import reference
from workers.registry import find, make, maker, rehearse

GENOME = Genome(
    strategy="Go.", hyperparameters=Hyperparameters(temperature=1.0, epsilon=0.5, learning_rate=0.1), adapter=None
)
TASK = LifeTask(Individual(id="g000-000", generation=0, lineage="bold", genome=GENOME), 0, 5, "attempt")


def lived(world: Environment) -> LifeRecord:
    engine = ScriptedEngine(ScriptedEngineConfig(), Path)

    async def ask(request: CompletionRequest) -> Completion:
        return (await engine.complete([request]))[0]

    async def life() -> LifeRecord:
        return await live(TASK, world, Codec(await engine.describe()), ask, 1)

    return asyncio.run(life())


def module(name: str) -> str:
    return f"tests.corpus.worlds:{name}"


def test_the_good_world_is_good() -> None:
    rehearse(module("Good"), {})
    record = lived(make(module("Good"), {}))
    assert (record.end, len(record.action)) == (EndReason.SURVIVED, 8)


@pytest.mark.parametrize("name", worlds.AT_STEP)
def test_a_world_that_breaks_in_its_third_step(name: str) -> None:
    rehearse(module(name), {})
    with pytest.raises(EnvironmentFailure) as caught:
        lived(make(module(name), {}))
    line = str(caught.value)
    assert line.startswith(f"environment {name}: ")
    assert worlds.AT_STEP[name][1] in line
    assert line.isprintable()
    assert len(line) < 500
    assert caught.value.exit_code == 2
    with pytest.raises(EnvironmentFailure, match=f"environment {name}: step 2"):
        reference(make(module(name), {}), "random", [1])


@pytest.mark.parametrize("name", worlds.AT_START)
def test_a_world_that_is_broken_from_the_start(name: str) -> None:
    with pytest.raises(EnvironmentFailure) as caught:
        rehearse(module(name), {})
    line = str(caught.value)
    assert line.startswith(f"environment {name}: ")
    assert worlds.AT_START[name][1] in line
    assert line.isprintable()


def test_a_horizon_that_moves_is_the_one_of_the_start() -> None:
    class Endless(worlds.Good):
        def odd(self) -> object:
            self.horizon = 10**9
            return super().odd()

    assert len(lived(Endless(worlds.Settings())).action) == 8


def test_a_heuristic_that_breaks_is_the_worlds_fault() -> None:
    class Clueless(worlds.Good):
        heuristic = staticmethod(lambda observation: 1 // 0)

    class Cheat(worlds.Good):
        heuristic = staticmethod(lambda observation: "up")

        def step(self, action: str) -> object:
            return {"left": 0, "right": 0}[action]

    with pytest.raises(EnvironmentFailure, match="its policy at step 0 raised ZeroDivisionError"):
        reference(Clueless(worlds.Settings()), "heuristic", [1])
    with pytest.raises(EnvironmentFailure, match="step 0 raised KeyError: 'up'"):
        reference(Cheat(worlds.Settings()), "heuristic", [1])


PLUGINS = {
    "syntax": ("def", "SyntaxError"),
    "raises": ("raise RuntimeError('by\\ndesign')", "RuntimeError: by design"),
    "exits": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "missing": ("import nothing_of_this_name", "ModuleNotFoundError"),
    "no world": ("World = 7", "it lacks name, Settings"),
    "instance": ("from tests.corpus.worlds import Good, Settings; World = Good(Settings())", "it is no class"),
    "settings": (
        "from tests.corpus.worlds import Good\nclass World(Good): Settings = dict",
        "Settings are no pydantic",
    ),
    "name": (
        "from tests.corpus.worlds import Good\nclass World(Good): name = 'a\\x1b[31m'",
        "its name is no short word",
    ),
    "unnamed": ("from tests.corpus.worlds import Good\nclass World(Good): name = None", "its name is no short word"),
    "metaclass": (
        "class Meta(type):\n    def __getattr__(self, name): raise OSError(name)\nclass World(metaclass=Meta): pass",
        "OSError",
    ),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_plugins_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    code, words = PLUGINS[name]
    plugin = f"broken_{name.replace(' ', '_')}"
    (tmp_path / f"{plugin}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError) as caught:
        find(f"{plugin}:World")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_settings_are_read_as_strictly_as_the_run_file() -> None:
    for bad in ("8", True, 8.5, None, [8]):
        with pytest.raises(UsageError, match=r"^environment\.settings\.horizon: got"):
            maker(module("Good"), {"horizon": bad})
    with pytest.raises(UsageError, match=r"^environment\.settings\.horizn: got 8: Extra inputs"):
        maker(module("Good"), {"horizn": 8})
    assert Guard(maker(module("Good"), {"horizon": 3})()).horizon == 3


def test_interrupts_are_the_users_and_pass() -> None:
    world = worlds.raising("Ctrl", KeyboardInterrupt())(worlds.Settings())
    with pytest.raises(KeyboardInterrupt):
        lived(world)
