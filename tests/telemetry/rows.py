"""Telemetry rows for tests: whole lives with every column of the schemas filled in."""

import datetime

import pyarrow as pa

from telemetry.tables import LIVES, STEPS

BORN = datetime.datetime(2026, 11, 21, 12, 0, 0, 123456, datetime.UTC)


def life(
    individual: str = "g000-000", life: int = 0, attempt: str = "", steps: int = 3, generation: int = 0
) -> tuple[pa.Table, pa.Table]:
    """Steps and the one row of a finished life. The attempt defaults to a name made of the life's key."""
    attempt = attempt or f"{individual}/{life}"
    who = {"run": "run", "generation": generation, "individual": individual, "lineage": "ant", "life": life}
    step_rows = [who | {"step": step, "attempt": attempt} | _decision(step) for step in range(steps)]
    life_row = who | {"attempt": attempt, "world": "forage", "world_seed": (1 << 62) + life, "steps": steps}
    life_row |= {"end": "died", "cause": "hunger", "energy": 0.0, "adapter": None}
    life_row |= {"prompt_tokens": 60 * steps, "completion_tokens": steps, "started_at": BORN, "seconds": 0.25}
    life_row |= {"seat": 0, "born": 0, "parent_seat": None, "result": ""}
    return pa.Table.from_pylist(step_rows, STEPS), pa.Table.from_pylist([life_row], LIVES)


def lives(count: int, **common: int | str) -> tuple[pa.Table, pa.Table]:
    """Several lives of one individual in one batch."""
    steps, ends = zip(*(life(life=number, **common) for number in range(count)), strict=True)
    return pa.concat_tables(steps), pa.concat_tables(ends)


def _decision(step: int) -> dict[str, object]:
    return {
        "observation": f"day {step}: ünïcode, \u2028 and a\nnewline",
        "legal": ["north", "eat"] if step else [],
        "prompt_ids": list(range(step + 1)),
        "choice_ids": [step, 7],
        "completion_ids": [step, 2**31 - 1],
        "completion_logprobs": [-0.1, float("-inf")],
        "action": "eat",
        "parse": "ok",
        "behaviour_probability": 0.5,
        "explored": bool(step % 2),
        "temperature": 1.0,
        "epsilon": 0.1,
        "sampling_seed": (1 << 63) - 1 - step,
        "energy_before": 3.0 - step,
        "energy_after": 2.0 - step,
        "state": '{"x": 1}',
        "adapter": None if step else "ab" * 32,
        "engine": "engine-0",
    }
