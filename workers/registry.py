"""How worlds are found by name, checked, and made."""

import json
import reprlib
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from telemetry.failures import UsageError
from workers.environment import World, is_shared
from workers.guard import EnvironmentFailure, Guard, SharedGuard, blame, boundary, is_word

ENTRY_POINTS = "forager.environments"
PARTS = ("name", "Settings", "reset", "step", "state")
ANSWER = "rest"
"""What is said in a rehearsal where any text may be."""


def known() -> dict[str, str]:
    """Registered worlds: name -> `module:Class`, sorted by name."""
    points = entry_points(group=ENTRY_POINTS)
    return {point.name: point.value for point in sorted(points, key=lambda point: point.name)}


def find(name: str) -> type[World]:
    """The world called `name`: an entry point of the group `forager.environments`, or `module:Class`.

    Raises UsageError when there is no such world or its plugin cannot be imported.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        loader: Callable[[], Any] = lambda: getattr(import_module(module), attribute)  # noqa: E731
    else:
        points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in points:
            raise UsageError(
                f"environment.name: got {name!r}, expected one of {', '.join(sorted(points))} or module:Class"
            )
        loader = points[name].load
    try:
        world = loader()
        missing = [part for part in PARTS if not hasattr(world, part)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's import may raise anything; what it raised is the message
        raise UsageError(f"environment.name: {name!r} cannot be loaded: {blame(error)}") from error
    if missing or not isinstance(world, type):
        lack = f"it lacks {', '.join(missing)}" if missing else "it is no class"
        raise UsageError(f"environment.name: {name!r} is not an environment: {lack}")
    if not (isinstance(world.Settings, type) and issubclass(world.Settings, BaseModel)):  # type: ignore[attr-defined]
        raise UsageError(f"environment.name: {name!r} is not an environment: its Settings are no pydantic model")
    if not is_word(world.name) or not world.name:  # type: ignore[attr-defined]
        raise UsageError(f"environment.name: {name!r} is not an environment: its name is no short word")
    return world


def held_out(name: str, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the world `name` in held-out evaluation: the run's, the world's own changes, the evaluation's."""
    own = getattr(find(name), "HELDOUT", {})
    return {**settings, **own, **changes}


def maker(name: str, settings: Mapping[str, Any]) -> Callable[[], Any]:
    """Makes fresh instances of the world `name`; looks it up and checks its settings once.

    Raises UsageError for a world that cannot be found or settings it does not accept, and as run files do: `yes` and
    "3" are no numbers. What is returned raises EnvironmentFailure when the world cannot be made.
    """
    world = find(name)
    try:
        with boundary(world.name, "its Settings"):
            checked = world.Settings.model_validate_json(json.dumps(dict(settings)), strict=True)
    except EnvironmentFailure as failure:
        if not isinstance(failure.__cause__, ValidationError):
            raise
        first = failure.__cause__.errors()[0]
        where = ".".join(str(part) for part in ("environment", "settings", *first["loc"]))
        raise UsageError(f"{where}: got {reprlib.repr(first['input'])}: {first['msg']}") from failure

    def build() -> Any:
        try:
            with boundary(world.name, "its constructor"):
                return world(checked)
        except EnvironmentFailure as failure:
            # A setting that only the constructor can judge, such as a file that is not there: the user's to mend.
            if isinstance(failure.__cause__, UsageError):
                raise failure.__cause__ from None
            raise

    return build


def make(name: str, settings: Mapping[str, Any]) -> Any:
    """One fresh instance of the world `name`. Raises UsageError as `maker` does, or EnvironmentFailure."""
    return maker(name, settings)()


def rehearse(name: str, settings: Mapping[str, Any]) -> None:
    """Lives one step in the world `name`, so that a broken one is found before anything else is started.

    Raises UsageError or EnvironmentFailure.
    """
    world = make(name, settings)
    if is_shared(world):
        shared = SharedGuard(world)
        seen = shared.reset(0, 2)
        shared.step(0, {seat: (*one.legal, ANSWER)[0] for seat, one in enumerate(seen)})
        shared.state(0, 0)
        return
    guard = Guard(world)
    guard.step(0, (*guard.reset(0).legal, ANSWER)[0])
    guard.state(0)
