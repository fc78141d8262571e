"""`make bench`: what Forager adds to the raw engines, as ratios inside one run.

Every measurement is a process of its own, so that none inherits another's memory or threads; measurements that are
compared run one after the other, twice, in turn. Absolute numbers belong to the machine named in the first line.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

ROUNDS = 2


def measure(*arguments: str | Path | int) -> dict[str, Any]:
    """Last line of a measuring process's output, as JSON."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def machine() -> str:
    """Processor and cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names)) or platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    table = Table("measurement", "Forager", "raw", "ratio", title=machine())
    with tempfile.TemporaryDirectory() as scratch:
        rollouts = [_rollout(Path(scratch) / f"rollout-{index}") for index in range(ROUNDS)]
        records = Path(scratch) / "rollout-0"
        trainings = [
            (measure("tests.bench.training", "ours", records), measure("tests.bench.training", "trl", records))
            for _ in range(ROUNDS)
        ]
        for name in ("once", "lockstep"):
            ours = median(one["decisions_per_second"] for one, _ in rollouts)
            raw = median(raw[name] for _, raw in rollouts)
            ratio = median(one["decisions_per_second"] / raw[name] for one, raw in rollouts)
            label = {"once": "all prompts at once", "lockstep": "step by step"}[name]
            table.add_row(f"rollout, decisions/s, raw vLLM fed {label}", f"{ours:.1f}", f"{raw:.1f}", f"{ratio:.2f}")
        computed = measure("tests.bench.rollout", "ours", Path(scratch) / "computed", 4, 32, 0)["decisions_per_second"]
        table.add_row("the same, nothing remembered", f"{computed:.1f}", "", "")
        table.add_row("decisions recalled, of all", f"{_median(rollouts, 'recalled_share'):.2f}", "", "")
        table.add_row("prompt tokens not computed again, of all", f"{_median(rollouts, 'cached_share'):.2f}", "", "")
        table.add_row("decoded tokens per decision", f"{_median(rollouts, 'decoded_per_decision'):.2f}", "", "")
        lineages = [_lineages(Path(scratch), index) for index in range(ROUNDS)]
        many, one = (median(pair[side] for pair in lineages) for side in (0, 1))
        ratio = median(many / one for many, one in lineages)
        label = "16 lineages, nothing remembered, decisions/s, one with as many lives"
        table.add_row(label, f"{many:.1f}", f"{one:.1f}", f"{ratio:.2f}")
        ours, raw = (median(pair[side]["tokens_per_second"] for pair in trainings) for side in (0, 1))
        ratio = median(one["tokens_per_second"] / trl["tokens_per_second"] for one, trl in trainings)
        table.add_row("training, tokens/s, bare TRL", f"{ours:.0f}", f"{raw:.0f}", f"{ratio:.2f}")
        overhead = median(pair[0]["overhead_seconds"] for pair in trainings)
        table.add_row("a further training job, s beyond TRL's train()", f"{overhead:.2f}", "", "")
        run = Path(scratch) / "run"
        generation = {name: measure("tests.bench.generation", name, run)["seconds"] for name in ("ours", "vllm", "trl")}
        raw = generation["vllm"] + generation["trl"]
        label = "a generation of eight, s, raw vLLM and raw TRL one after the other"
        table.add_row(label, f"{generation['ours']:.0f}", f"{raw:.0f}", f"{generation['ours'] / raw:.2f}")
        serving = measure("tests.bench.serving")
        table.add_row(
            "first answer with a new adapter, s beyond file and answer", f"{serving['beyond_seconds']:.2f}", "", ""
        )
        table.add_row("change of weights, s", f"{_median(rollouts, 'swap_seconds'):.2f}", "", "")
        scripted = measure("tests.bench.scripted")
        for lives, one in scripted["lives"].items():
            label = f"scripted, {int(lives):,} concurrent lives"
            table.add_row(f"{label}, peak memory of all processes, GiB", f"{one['gib']:.2f}", "", "")
            table.add_row(f"{label}, steps/s with telemetry", f"{one['steps_per_second']:,.0f}", "", "")
            microseconds = one["cpu_seconds_per_step"] * 1e6
            table.add_row(f"{label}, processor time of a step, µs", f"{microseconds:.0f}", "", "")
        journal = measure("tests.bench.journal")
        ratio = journal["append_seconds"] / journal["fsync_seconds"]
        ours, raw = (f"{journal[name] * 1000:.1f}" for name in ("append_seconds", "fsync_seconds"))
        table.add_row("journal entry, ms, bare fsync and rename", ours, raw, f"{ratio:.2f}")
        for name, how in (("segments", ""), ("objects", ", without segments")):
            seconds = journal[f"{name}_read_seconds"] + journal[f"{name}_fold_seconds"]
            table.add_row(f"{journal['entries']:,} journal entries to state{how}, s", f"{seconds:.1f}", "", "")
        for name, shape in measure("tests.bench.commits").items():
            label = f"commit of {shape['lives_per_commit']} lives ({name}), ms, share of wall time"
            table.add_row(label, f"{shape['median_seconds'] * 1000:.0f}", "", f"{shape['wall_share']:.4f}")
        rows = measure("tests.bench.rows")
        for kind, what in (("wall", "second"), ("cpu", "second of processor time")):
            ours, raw = (f"{rows[kind][name]:,.0f}" for name in ("rows_per_second", "bare_rows_per_second"))
            label = f"telemetry, rows to the ledger per {what}, bare pyarrow writer"
            table.add_row(label, ours, raw, f"{rows[kind]['ratio']:.2f}")
        tune = measure("tests.bench.tune")
        ours, raw = (f"{tune['overhead'][name]:.2f}" for name in ("ours", "tune"))
        label = "a generation beyond its lives, s, Ray Tune's population-based training"
        table.add_row(label, ours, raw, f"{tune['ratio']:.2f}")
        query = measure("tests.bench.query")
        ours, raw = (f"{query[name]:.2f}" for name in ("query_seconds", "bare_seconds"))
        table.add_row(f"group-by over {query['steps']:,} steps, s, bare DuckDB", ours, raw, f"{query['ratio']:.2f}")
        watch = measure("tests.bench.watch")
        for name, what in (("first_paint", "first paint"), ("whole_picture", "whole picture")):
            label = f"watch, {watch['steps']:,} steps, s to the {what}"
            table.add_row(label, f"{watch[f'{name}_seconds']:.2f}", "", "")
        for name, rate in measure("tests.bench.worlds").items():
            table.add_row(f"steps/s in {name}", "its data is not installed" if rate is None else f"{rate:,.0f}", "", "")
    Console(width=110).print(table)


def _rollout(records: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return measure("tests.bench.rollout", "ours", records), measure("tests.bench.rollout", "raw", records)


def _median(rollouts: list[tuple[dict[str, Any], dict[str, Any]]], name: str) -> float:
    return median(ours[name] for ours, _ in rollouts)


def _lineages(scratch: Path, index: int) -> tuple[float, float]:
    """Decisions per second of sixteen lineages, and of one with as many lives; every decision computed by both."""
    shapes = ((16, 16), (1, 256))
    many, one = (
        measure("tests.bench.rollout", "ours", scratch / f"lineages-{count}-{index}", count, lives, 0, 1)
        for count, lives in shapes
    )
    return many["decisions_per_second"], one["decisions_per_second"]


if __name__ == "__main__":
    main()
