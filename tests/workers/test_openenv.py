"""OpenEnv's protocol over real sockets: our client, our server, and the real library in an environment of its own."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn
from websockets.sync.server import Server, ServerConnection, serve

from telemetry.failures import UsageError
from workers.environments.forage import Forage
from workers.environments.openenv_server import application
from workers.environments.openenv_world import OpenEnv
from workers.guard import EnvironmentFailure, Guard
from workers.reference import play, random_policy
from workers.registry import make

NAME = "workers.environments.openenv_world:OpenEnv"
FORAGE = {"name": "workers.environments.forage:Forage", "settings": {"horizon": 20}}
PYTHON = os.environ.get("FORAGER_OPENENV_PYTHON", "")
"""An interpreter that has the real openenv."""
real = pytest.mark.skipif(not PYTHON, reason="FORAGER_OPENENV_PYTHON names no interpreter that has openenv 0.10.0")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The forage world, served on a free port of loopback."""
    config = uvicorn.Config(application(**FORAGE), port=0, log_level="error", ws="websockets-sansio")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def client(url: str, **dials: Any) -> OpenEnv:
    told = {"text": "{text}", "legal": "legal", "energy": "energy", "cause": "cause"}
    told |= {"words": list(Forage.actions), "template": {"action": "{answer}"}, "horizon": 20}
    world = make(NAME, {"url": url, **told, **dials})
    assert isinstance(world, OpenEnv)
    return world


def ask(url: str, body: object = None) -> Any:
    """GET, or POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=10) as answer:
        return json.load(answer)


def answering(*answers: str | float) -> tuple[Server, str]:
    """A server that gives these answers, one a message; a number is a delay before the next."""

    def talk(connection: ServerConnection) -> None:
        for answer in answers:
            if isinstance(answer, float):
                time.sleep(answer)
                continue
            connection.recv()
            connection.send(answer)

    server = serve(talk, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


def test_a_life_over_the_wire_is_the_life_itself(url: str) -> None:
    there, here = client(url), make(**FORAGE)
    for seed in range(6):
        assert play(there, seed, random_policy(seed)) == play(here, seed, random_policy(seed))


def test_sessions_do_not_disturb_each_other(url: str) -> None:
    worlds = [client(url), client(url)]
    alone = [[client(url).reset(seed).text] for seed in (1, 2)]
    assert [[world.reset(seed).text] for world, seed in zip(worlds, (1, 2), strict=True)] == alone
    texts = [world.step("rest").observation.text for world in worlds for _ in range(3)]
    assert texts[:3] != texts[3:]


def test_rewards_become_energy_where_the_server_tells_none(url: str) -> None:
    world = client(url, energy="", cause="", upkeep=3, reward_scale=0.5, start_energy=8, words=["rest"])
    guard = Guard(world)
    guard.reset(1)
    first = guard.step(0, "rest").observation.energy
    assert first == 8 + 0.5 * json.loads(guard.state(0))["reward"] - 3
    died = play(world, 1, random_policy(1))
    assert (died.cause, died.energy) == ("exhausted", 0)


def test_the_http_side_speaks_the_protocol(url: str) -> None:
    assert ask(f"{url}/health") == {"status": "healthy"}
    assert set(ask(f"{url}/schema")) == {"action", "observation", "state"}
    assert ask(f"{url}/metadata")["name"] == "forage-v1"
    began = ask(f"{url}/reset", {"seed": 3, "episode_id": "mine"})
    assert (began["done"], began["reward"], began["observation"]["end"]) == (False, None, None)
    stepped = ask(f"{url}/step", {"action": {"action": "rest"}})
    assert stepped["reward"] == stepped["observation"]["energy"] - began["observation"]["energy"]
    assert ask(f"{url}/state") == {"episode_id": "mine", "step_count": 1, "world": None}
    for body in ({"action": {"action": "fly"}}, {"action": {"action": "rest", "more": 1}}, {}, [], {"action": []}):
        with pytest.raises(HTTPError, match="422"):
            ask(f"{url}/step", body)


def test_wrong_messages_get_errors_and_the_session_goes_on(url: str) -> None:
    from websockets.sync.client import connect

    def told(message: str) -> Any:
        connection.send(message)
        return json.loads(connection.recv(timeout=10))

    with connect(f"{url.replace('http', 'ws')}/ws", proxy=None) as connection:
        for message, code in (
            ("{", "INVALID_JSON"),
            ("[]", "INVALID_JSON"),
            ('{"type": "dance"}', "UNKNOWN_TYPE"),
            ('{"type": "step", "data": {"action": "rest"}}', "VALIDATION_ERROR"),
            ('{"type": "reset", "data": {"seed": -1}}', "VALIDATION_ERROR"),
        ):
            answer = told(message)
            assert (answer["type"], answer["data"]["code"]) == ("error", code)
        assert told('{"type": "reset", "data": {"seed": 1}}')["data"]["observation"]["legal"] == list(Forage.actions)
        assert told('{"type": "state"}')["data"]["step_count"] == 0


def test_a_server_in_trouble_is_named_within_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        for url, words in (
            ("http://127.0.0.1:1", "cannot be reached"),
            (f"http://127.0.0.1:{mute.getsockname()[1]}", "cannot be reached"),
        ):
            start = time.monotonic()
            with pytest.raises(EnvironmentFailure, match=f"openenv-v1: the server {url} {words}"):
                client(url, timeout=0.5).reset(1)
            assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (("nothing",), "with no JSON"),
        (("[1]",), "not OpenEnv's protocol"),
        (('{"type": "error", "data": {"message": "no such task"}}',), "refused reset: no such task"),
        (('{"type": "observation", "data": {"observation": {}, "reward": "much"}}',), "gave the reward"),
        (('{"type": "observation", "data": {"observation": {}}}',), "no number in 'energy'"),
        ((), "went away at reset"),
        ((5.0,), "did not answer reset within 0.5 s"),
    ],
)
def test_a_server_that_answers_nonsense_is_named(answers: tuple[str | float, ...], words: str) -> None:
    server, url = answering(*answers)
    try:
        with pytest.raises(EnvironmentFailure, match=words):
            client(url, timeout=0.5).reset(1)
    finally:
        threading.Thread(target=server.shutdown, daemon=True).start()


def test_only_loopback_unless_asked_for() -> None:
    for url in ("http://example.org", "ftp://127.0.0.1", "http://127.0.0.1.example.org:80"):
        with pytest.raises(UsageError, match=r"environment\.settings\.url"):
            client(url)
    client("wss://example.org", remote=True)
    with pytest.raises(UsageError, match=r"environment\.settings\.timeout"):
        client("http://localhost:8000", timeout=30)


def test_a_shared_world_cannot_be_served() -> None:
    with pytest.raises(UsageError, match="for many agents"):
        application("workers.environments.commons:Commons", {})


def test_the_module_refuses_a_wrong_world_in_one_line() -> None:
    command = [sys.executable, "-m", "workers.environments.openenv_server", "nowhere:World"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: environment.name: 'nowhere:World' cannot be loaded")
    assert ended.stderr.count("\n") == 1


@real
def test_the_real_client_lives_in_our_server(url: str) -> None:
    code = f"""
from openenv.core.generic_client import GenericEnvClient
with GenericEnvClient(base_url={url!r}).sync() as env:
    result = env.reset(seed=1)
    steps = 0
    while not result.done:
        result, steps = env.step({{"action": "rest"}}), steps + 1
    print(steps, result.observation["end"], env.state()["step_count"])
"""
    ended = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=120)
    steps = play(make(**FORAGE), 1, lambda seen: "rest").steps
    assert ended.stdout == f"{steps} died {steps}\n", ended.stderr


@real
def test_our_client_lives_in_a_real_server() -> None:
    code = """
import uvicorn
from openenv.core.env_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
class Say(Action):
    message: str
class Heard(Observation):
    echo: str = ""
class Echo(Environment):
    def reset(self, seed=None, episode_id=None, **more):
        self.count = 0
        return Heard(echo=f"seed {seed}")
    def step(self, action, **more):
        self.count += 1
        return Heard(echo=action.message, reward=float(len(action.message)), done=self.count == 5)
    @property
    def state(self):
        return State(step_count=self.count)
config = uvicorn.Config(create_fastapi_app(Echo, Say, Heard), port=0, log_level="error")
class Announced(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Announced(config).run()
"""
    with subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            world = make(NAME, {"url": f"http://127.0.0.1:{server.stdout.readline().strip()}", "text": "{echo}"})
            assert world.reset(7).text == "seed 7"
            played = play(world, 7, lambda seen: "abc")
            assert (played.steps, played.energy) == (5, 10 + 5 * (3 - 1))
        finally:
            server.terminate()
