"""Any Gymnasium environment with discrete actions as a survival world; the toy texts are told in words of our own."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from telemetry.failures import UsageError
from workers.environments.episodes import Env, EpisodeSettings, EpisodeWorld, Game, plain
from workers.environments.extras import need
from workers.environments.gymnasium_games import GAMES

_MANY = 200
"""Numbers of an observation that are still told."""


class GymnasiumSettings(EpisodeSettings):
    """Which environment, and how it is told. The toy texts have defaults of their own (`gymnasium_games.GAMES`)."""

    id: str = Field(default="FrozenLake-v1", min_length=1, max_length=200)
    """Registered id, `module:id` for one that a module registers."""
    actions: list[str] = Field(default_factory=list, max_length=128)
    """Word of each action index; must be given for environments that are not known here."""
    rules: str = Field(default="", max_length=2000)
    """What agents are told of the game, in place of the built-in sentence."""
    cause: str = Field(default="fell", min_length=1, max_length=64)
    """Cause of a death by a fatal end."""
    text: Literal["words", "ansi"] = "words"
    """`words`: our text, or the observation's numbers where there is none; `ansi`: what the environment renders."""
    random_map: int = Field(default=0, ge=0, le=16)
    """Side of the lake that is drawn anew for every life, FrozenLake only; 0 leaves the map to `options`."""

    @model_validator(mode="before")
    @classmethod
    def _known_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("id", ""), str):
            return data
        _, defaults = GAMES.get(kind(data.get("id", cls.model_fields["id"].default)), (None, {}))
        return {**defaults, **data}

    @field_validator("random_map")
    @classmethod
    def _is_a_lake(cls, value: int, info: Any) -> int:
        if value == 1 or (value and kind(info.data.get("id", "")) != "FrozenLake"):
            raise ValueError("only FrozenLake has random maps, from 2 cells a side")
        return value


class Gymnasium(EpisodeWorld):
    """Gymnasium as a world, `gymnasium`."""

    name: ClassVar[str] = "gymnasium-v1"
    Settings: ClassVar[type[BaseModel]] = GymnasiumSettings

    def __init__(self, settings: GymnasiumSettings) -> None:
        """Raises UsageError without gymnasium, or for actions that are not discrete or have no words."""
        need("gymnasium", "gymnasium")
        self._id, self._map = settings.id, settings.random_map
        env = _make(settings.id, settings.options)
        self._draws = "ansi" in env.metadata.get("render_modes", ())
        if self._draws:
            env = _make(settings.id, {"render_mode": "ansi"} | settings.options)
        super().__init__(settings, _game(settings, env), env)

    def _fresh(self, seed: int) -> Env:
        if not self._map:
            return self._env
        from gymnasium.envs.toy_text.frozen_lake import generate_random_map

        lake = {"desc": generate_random_map(size=self._map, seed=seed), "render_mode": "ansi"}
        return _make(self._id, self._settings.options | lake)

    def _screen(self) -> str:
        return _rendered(self._env) if self._draws else ""


def kind(id: str) -> str:
    """An id without its module and version: `CliffWalkingSlippery-v1` is of the kind `CliffWalking`."""
    return id.rpartition(":")[2].rpartition("-v")[0].removesuffix("Slippery").removesuffix("8x8")


def _make(id: str, options: Any) -> Env:
    import gymnasium

    return gymnasium.make(id, disable_env_checker=True, **options)


def _game(settings: GymnasiumSettings, env: Env) -> Game:
    """How the environment is told: the built-in way, changed by the settings."""
    known = GAMES[kind(settings.id)][0] if kind(settings.id) in GAMES else None
    count = getattr(env.action_space, "n", None)
    if count is None or getattr(env.action_space, "start", 0) != 0:
        raise UsageError(f"environment.settings.id: got actions {env.action_space}, expected Discrete from 0")
    words = tuple(settings.actions) or (known.words if known else ())
    if len(words) != count:
        raise UsageError(f"environment.settings.actions: got {len(words)} words, expected {count} for {settings.id}")
    rules = settings.rules or (known.rules if known else f"Play {kind(settings.id)}.")
    if settings.text == "ansi":
        if "ansi" not in env.metadata.get("render_modes", ()):
            raise UsageError(f"environment.settings.text: got ansi, expected words; {settings.id} renders no text")
        return Game(rules, words, lambda env, seen: f"\n{_rendered(env)}", cause=lambda env: settings.cause)
    tell = known.tell if known else _numbers
    heuristic = known.heuristic if known and words == known.words else None
    distance = known.distance if known else lambda env: None
    return Game(rules, words, tell, distance, lambda env: settings.cause, heuristic)


def _numbers(env: Env, seen: Any) -> str:
    """An observation as its numbers, to two decimals."""
    found: list[str] = []

    def collect(one: Any) -> None:
        if isinstance(one, dict):
            for key, value in one.items():
                found.append(key)
                collect(value)
        elif isinstance(one, list):
            for value in one:
                collect(value)
        else:
            found.append(f"{one:.2f}".rstrip("0").rstrip(".") if isinstance(one, float) else str(one))

    collect(plain(seen))
    if len(found) > _MANY:
        raise ValueError(f"an observation of {len(found)} numbers cannot be told; wrap the environment to shorten it")
    return f"Observation {' '.join(found)}."


def _rendered(env: Env) -> str:
    """The environment's own text, with brackets for what it highlights by colour."""
    text = str(env.render()).replace("\x1b[0m", "]")
    head, *rest = text.split("\x1b[")
    return head + "".join("[" + part.partition("m")[2] for part in rest)
