"""`forager play`: a person lives a life in the terminal; `forager worlds`: what worlds there are.

Law: what a world writes is untrusted text; no control or formatting character of it reaches the terminal.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer

from orchestrator.plain import clean as one_line
from orchestrator.replay import clean
from orchestrator.schema import field_docs
from telemetry.failures import UsageError
from telemetry.records import EndReason
from workers.environment import Observation, Outcome, Policy, is_shared
from workers.guard import Guard, SharedGuard, boundary
from workers.reference import random_policy, references
from workers.registry import find, known, make

SEATS = 4
"""Agents of a shared world; the player sits in seat 0."""


class Quit(Exception):
    """The player has had enough."""


def play(name: str, settings: Mapping[str, Any], seed: int, who: str | None, *, reveal: bool = False) -> None:
    """Lives one life of a world: by the answers on standard input, or by a scripted player that the world knows.

    reveal: also draws the hidden state, as far as the world can; an agent never sees it.
    Raises UsageError for an unknown world or player, EnvironmentFailure when the world breaks.
    """
    world = make(name, settings)
    policy = _person if who is None else _scripted(world, who, seed)
    draw: Callable[[Any], str] | None = getattr(world, "draw", None) if reveal else None
    typer.echo(clean(f"{world.name}: {world.rules}"))
    try:
        steps, outcome = (_play_shared if is_shared(world) else _play_alone)(world, seed, policy, draw)
    except Quit:
        typer.echo("left")
        return
    ended = f"died ({one_line(outcome.cause)})" if outcome.end is EndReason.DIED else "survived"
    typer.echo(f"\n{ended} after {steps} steps with energy {outcome.observation.energy:g}")


def _play_alone(world: Any, seed: int, policy: Policy, draw: Callable[[Any], str] | None) -> tuple[int, Outcome]:
    guard = Guard(world)
    outcome, step = Outcome(guard.reset(seed)), 0
    while outcome.end is None and step < guard.horizon:
        _show(guard.name, step, outcome.observation, draw, guard.state(step))
        action = policy(outcome.observation)
        guard.pay(step, 0, len(action.split()))
        outcome, step = guard.step(step, action), step + 1
    return step, outcome


def _play_shared(world: Any, seed: int, policy: Policy, draw: Callable[[Any], str] | None) -> tuple[int, Outcome]:
    guard = SharedGuard(world)
    seen = dict(enumerate(guard.reset(seed, SEATS)))
    company = references(world).get("heuristic")
    players: dict[int, Policy] = {seat: company or random_policy(seed * SEATS + seat) for seat in seen}
    players[0] = policy
    outcome, turn = Outcome(seen[0]), 0
    while outcome.end is None and turn < guard.horizon:
        _show(guard.name, turn, seen[0], draw, guard.state(turn, 0))
        actions = {seat: players[seat](observation) for seat, observation in sorted(seen.items())}
        for seat, action in actions.items():
            guard.pay(seat, turn, 0, len(action.split()))
        moved, turn = guard.step(turn, actions), turn + 1
        outcome = moved.outcomes[0]
        seen = {seat: one.observation for seat, one in moved.outcomes.items() if one.end is None}
        for seat, birth in moved.born.items():
            # A player's own descendants play as the others do.
            players[seat] = company or random_policy(seed * SEATS + seat)
            seen[seat] = birth.observation
    return turn, outcome


def _show(name: str, step: int, seen: Observation, draw: Callable[[Any], str] | None, state: str) -> None:
    typer.echo()
    if draw is None:
        typer.echo(typer.style(f"step {step}  energy {seen.energy:g}", dim=True))
    else:
        with boundary(name, f"its picture of step {step}"):
            picture = draw(json.loads(state))
        typer.echo(clean(picture).rstrip("\n"))
    typer.echo(clean(seen.text))


def _person(seen: Observation) -> str:
    """Asks until the answer is an action, or the unambiguous beginning of one."""
    wanted = " ".join(seen.legal) if seen.legal else f"free text, at most {seen.max_tokens} tokens"
    while True:
        typer.echo(typer.style(f"[{one_line(wanted, 1000)}; q quits] ", dim=True), nl=False)
        line = sys.stdin.readline()
        answer = line.strip()
        if not sys.stdin.isatty():
            typer.echo(one_line(answer))
        if not line or answer == "q":
            raise Quit
        if not seen.legal:
            return answer
        fitting = (
            [answer] if answer in seen.legal else [word for word in seen.legal if answer and word.startswith(answer)]
        )
        if len(fitting) == 1:
            return fitting[0]


def _scripted(world: Any, who: str, seed: int) -> Policy:
    players = references(world)
    if who not in players:
        raise UsageError(f"--player: got {one_line(who)!r}, expected one of {', '.join(players)}")
    policy = players[who] or random_policy(seed)

    def told(seen: Observation) -> str:
        action = policy(seen)
        typer.echo(f"> {one_line(action)}")
        return action

    return told


def worlds() -> list[dict[str, Any]]:
    """Every registered world: name, versioned name, where it is, for how many, what is answered, its players.

    One that cannot be loaded has the key `broken` with the reason instead.
    """
    rows = []
    for name, place in known().items():
        try:
            world = make(name, {})
            rows.append(
                {
                    "name": name,
                    "version": world.name,
                    "agents": "many" if is_shared(world) else "one",
                    "answers": " ".join(world.actions) if world.actions else "free text",
                    "horizon": world.horizon,
                    "players": list(references(world)),
                    "about": _about(type(world)),
                    "class": place,
                }
            )
        except Exception as error:  # noqa: BLE001 - one plugin that is broken must not hide the others
            rows.append({"name": name, "class": place, "broken": one_line(str(error), 300)})
    return rows


def describe(name: str) -> dict[str, Any]:
    """One world and its dials: every setting with its default, and what it does as far as its model says so."""
    world = find(name)
    shapes, docs = world.Settings.model_json_schema().get("properties", {}), field_docs(world.Settings)
    keys = ("default", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "enum", "description")
    dials = {
        dial: {"description": one_line(docs.get(dial, ""), 300)} | {key: shape[key] for key in keys if key in shape}
        for dial, shape in shapes.items()
    }
    return {"name": name, "version": world.name, "about": _about(world), "settings": dials}


def _about(world: type) -> str:
    """First line of what its module, or else its class, says of itself."""
    text = sys.modules[world.__module__].__doc__ or world.__doc__ or ""
    return one_line(text.strip().partition("\n")[0], 300)
