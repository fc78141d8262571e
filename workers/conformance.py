"""Is a world fit to be lived in? The checks of `forager check-world`, to be run in a process of their own.

    python -m workers.conformance FD NAME SETTINGS

writes JSON lines to a file descriptor: what is being checked, then the verdict, so that whoever watches knows where a
world hung or ended the process. Every check plays the world by legal actions that are drawn at random.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import zip_longest
from typing import Any, Literal

from telemetry.failures import ForagerError
from workers.environment import Observation, Policy, is_shared
from workers.guard import EnvironmentFailure, Guard, SharedGuard
from workers.reference import Played, play, play_together, random_policy, references
from workers.registry import find, held_out, maker

SEEDS = range(100, 120)
SEATS = 5
"""Agents in an instance of a shared world."""
LONG_TEXT = 2000
"""Characters of an observation beyond which small contexts overflow."""
SLOW = 1000.0
"""Steps per second below which the world costs more than a small model."""
SECONDS = 1.0
"""Time given to the measurement of speed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check came to."""

    level: Literal["ok", "note", "fail"]
    check: str
    found: str


Checks = Iterator[Verdict]
Build = Callable[[], Any]


def life(world: Any, seed: int) -> Iterator[str]:
    """Everything a life shows and records, step by step, of a world played at random."""
    return _party(SharedGuard(world), seed) if is_shared(world) else _life(Guard(world), seed)


def _life(world: Guard, seed: int) -> Iterator[str]:
    policy, seen = random_policy(seed), world.reset(seed)
    yield _shown(seen)
    for step in range(world.horizon):
        action = policy(seen)
        world.pay(step, 1, 1)
        outcome = world.step(step, action)
        seen = outcome.observation
        yield f"{action} {_shown(seen)} {outcome.end} {outcome.cause} {world.state(step)}"
        if outcome.end is not None:
            break
    yield world.result()


def _party(world: SharedGuard, seed: int) -> Iterator[str]:
    seen = dict(enumerate(world.reset(seed, SEATS)))
    policies = {seat: random_policy(seed * SEATS + seat) for seat in seen}
    yield from map(_shown, seen.values())
    for turn in range(world.horizon):
        actions = {seat: policies[seat](observation) for seat, observation in sorted(seen.items())}
        for seat in actions:
            world.pay(seat, turn, 1, 1)
        moved = world.step(turn, actions)
        for seat, outcome in sorted(moved.outcomes.items()):
            yield f"{seat} {actions[seat]} {_shown(outcome.observation)} {outcome.end} {world.state(turn, seat)}"
        seen = {seat: outcome.observation for seat, outcome in moved.outcomes.items() if outcome.end is None}
        for seat, birth in sorted(moved.born.items()):
            seen[seat], policies[seat] = birth.observation, random_policy(seed * SEATS + seat)
        if not seen:
            break


def _shown(seen: Observation) -> str:
    return json.dumps([seen.text, seen.legal, seen.energy, seen.max_tokens])


def fingerprint(build: Build) -> str:
    """Hash of all lives of SEEDS; to be compared between processes."""
    return sha256("\n".join(line for seed in SEEDS for line in life(build(), seed)).encode()).hexdigest()


def check_contract(build: Build) -> Checks:
    """Lives lives through the guard, which names whatever breaks the contract."""
    lives = [list(life(build(), seed)) for seed in SEEDS]
    yield Verdict("ok", "contract", f"{len(lives)} lives of {sum(map(len, lives))} recorded lines keep it")


def check_determinism(build: Build) -> Checks:
    """The same seed and the same actions must give the same life."""
    for seed in SEEDS:
        first, second = list(life(build(), seed)), list(life(build(), seed))
        if first != second:
            yield Verdict("fail", "determinism", f"seed {seed}: {_first_difference(first, second)}")
            return
    lives = {sha256("\n".join(life(build(), seed)).encode()).digest() for seed in SEEDS}
    if len(lives) == 1:
        yield Verdict("note", "determinism", f"{len(SEEDS)} seeds give one and the same life; does it use the seed?")
    yield Verdict("ok", "determinism", "equal seeds give equal lives")


def check_separation(build: Build) -> Checks:
    """Neither another instance nor an earlier life of the same one may change a life."""
    one, other = SEEDS[0], SEEDS[1]
    alone = [list(life(build(), seed)) for seed in (one, other)]
    together = zip_longest(life(build(), one), life(build(), other))
    mixed = [[line for line in lines if line is not None] for lines in zip(*together, strict=True)]
    for seed, expected, found in zip((one, other), alone, mixed, strict=True):
        if expected != found:
            why = f"seed {seed} beside another life: {_first_difference(expected, found)}; do instances share state?"
            yield Verdict("fail", "separation", why)
            return
    used = build()
    list(life(used, other))
    if list(life(used, one)) != alone[0]:
        yield Verdict("fail", "separation", f"seed {one} after another life: reset() does not clear the instance")
        return
    yield Verdict("ok", "separation", "lives side by side and one after another do not change each other")


def check_ends(build: Build) -> Checks:
    """How lives end, and what is odd about it."""
    ends: dict[str, int] = {}
    odd = ""
    for seed in SEEDS:
        for one in _played(build, seed, None):
            label = f"{one.end}:{one.cause}" if one.cause else str(one.end)
            ends[label] = ends.get(label, 0) + 1
            if one.end == "died" and not one.cause:
                odd = "a death without a cause cannot be told from others"
            elif one.end == "survived" and one.cause:
                odd = f"a life that survived has the cause {one.cause!r}"
    text = ", ".join(f"{end} {count}" for end, count in sorted(ends.items(), key=lambda item: -item[1]))
    yield Verdict("fail", "ends", odd) if odd else Verdict("ok", "ends", f"random play: {text}")
    if not any(end.startswith("died") for end in ends):
        yield Verdict("note", "ends", "nobody died at random play: nothing selects for survival")


def check_texts(build: Build) -> Checks:
    """What agents have to read."""
    world = build()
    guard = SharedGuard(world) if is_shared(world) else Guard(world)
    longest = 0

    def read(seen: Observation) -> str:
        nonlocal longest
        longest = max(longest, len(seen.text))
        return policy(seen)

    for seed in SEEDS:
        policy = random_policy(seed)
        _played(build, seed, read)
    level: Literal["ok", "note"] = "note" if longest > LONG_TEXT else "ok"
    yield Verdict(level, "texts", f"rules of {len(guard.rules)} characters, observations of at most {longest}")


def check_players(build: Build) -> Checks:
    """Scripted players that the world brings along, against random play."""
    means = {}
    for name, policy in references(build()).items():
        steps = [one.steps for seed in SEEDS for one in _played(build, seed, policy)]
        means[name] = sum(steps) / len(steps)
    text = ", ".join(f"{name} {mean:.1f}" for name, mean in means.items())
    yield Verdict("ok", "players", f"mean steps: {text}")


def check_speed(build: Build) -> Checks:
    """Steps of random play per second, and the longest step."""
    world, count, longest = build(), 0, 0.0
    shared = is_shared(world)
    start = time.perf_counter()
    seed = SEEDS[0]
    while (now := time.perf_counter()) < start + SECONDS:
        before = now
        for _ in life(world, seed):
            after = time.perf_counter()
            before, longest, count = after, max(longest, after - before), count + 1
        seed += 1
    rate = count / (time.perf_counter() - start)
    level: Literal["ok", "note"] = "note" if rate < SLOW else "ok"
    steps = "agent-steps" if shared else "steps"
    yield Verdict(level, "speed", f"{rate:,.0f} {steps}/s behind the guard, longest {longest * 1000:.1f} ms")


CHECKS: Mapping[str, Callable[[Build], Checks]] = {
    "contract": check_contract,
    "determinism": check_determinism,
    "separation": check_separation,
    "ends": check_ends,
    "texts": check_texts,
    "players": check_players,
    "speed": check_speed,
}


def examine(name: str, settings: Mapping[str, Any], doing: Callable[[str], None]) -> Checks:
    """All checks of the world `name`, with its own and its held-out settings, up to the first that fails.

    Tells `doing` what comes next.
    """
    doing("loading")
    try:
        world = find(name)
        build = maker(name, settings)
        build()
        yield Verdict("ok", "loading", f"{world.name}, settings {world.Settings.__name__}")
        apart = held_out(name, settings, {})
        variants = {"": build} if apart == dict(settings) else {"": build, " held-out": maker(name, apart)}
    except ForagerError as error:
        yield Verdict("fail", "loading", str(error))
        return
    for label, variant in variants.items():
        for check, run in CHECKS.items():
            doing(check + label)
            failed = False
            try:
                for one in run(variant):
                    failed |= one.level == "fail"
                    yield Verdict(one.level, one.check + label, one.found)
            except EnvironmentFailure as failure:
                yield Verdict("fail", check + label, str(failure))
                return
            if failed:
                return


def _played(build: Build, seed: int, policy: Policy | None) -> Sequence[Played]:
    world = build()
    if is_shared(world):
        return play_together(world, seed, [policy or random_policy(seed * SEATS + seat) for seat in range(SEATS)])
    return [play(world, seed, policy or random_policy(seed))]


def _first_difference(first: Sequence[str], second: Sequence[str]) -> str:
    pairs = enumerate(zip_longest(first, second, fillvalue="(over)"))
    step, (one, other) = next((step, pair) for step, pair in pairs if pair[0] != pair[1])
    at = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    cut = slice(max(0, at - 20), at + 40)
    return f"step {step}: {one[cut]!r} against {other[cut]!r}"


def main() -> None:
    """Examines a world and writes what comes of it to a descriptor, a line of JSON each."""
    descriptor, name, settings = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])

    def tell(line: object) -> None:
        os.write(descriptor, json.dumps(line).encode() + b"\n")

    if sys.argv[4:] == ["fingerprint"]:
        tell({"fingerprint": fingerprint(maker(name, settings))})
        tell({"done": True})
        return
    for verdict in examine(name, settings, lambda what: tell({"doing": what})):
        tell(asdict(verdict))
    tell({"done": True})


if __name__ == "__main__":
    main()
