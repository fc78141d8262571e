"""What a report is made from, in the shape that `render` documents, for tests of pages and figures."""

from typing import Any


def person(generation: int, index: int, **changes: Any) -> dict[str, Any]:
    value = 10.0 + generation - index
    return {
        "id": f"g{generation:03d}-{index:03d}",
        "generation": generation,
        "lineage": f"line-{index}",
        "parents": [f"g{generation - 1:03d}-{index:03d}"] if generation else [],
        "origin": "born" if generation else "founder",
        "fitness": value,
        "low": value - 2,
        "high": value + 2,
        "survived": index == 0,
        "elite": index == 0,
        "adapter": "0123456789ab" if generation else None,
        "strategy": "Eat when hungry.",
        "temperature": 1.0,
        "epsilon": 0.5,
        "learning_rate": 1e-3,
    } | changes


def generation_row(generation: int, **changes: Any) -> dict[str, Any]:
    return {
        "generation": generation,
        "individual": f"g{generation:03d}-000",
        "lineage": "line-0",
        "best": 10.0 + generation,
        "low": 8.0 + generation,
        "high": 12.0 + generation,
        "mean": 9.5 + generation,
        "median": 9.5 + generation,
        "worst": 9.0 + generation,
        "alive": ["line-0", "line-1"],
        "culled": [],
        "lives": 20,
        "decisions": 200,
        "ends": {"survived": 5, "died:starved": 12, "died:wolf": 2, "censored": 1},
        "seconds": {"rollout": 10.0, "total": 12.0},
        "diversity": {"entropy": 1.25, "behaviour": 0.5, "strategies": 3, "adapters": 4},
    } | changes


def evaluation_row(who: str, mean: float) -> dict[str, Any]:
    return {
        "who": who,
        "individual": "g000-000" if who == "founder" else None,
        "adapter": None,
        "lives": 64,
        "mean": mean,
        "low": mean - 1,
        "high": mean + 1,
        "ends": {"survived": 4, "died:starved": 60},
        "measures": {},
    }


def run_data(generations: int = 3, population: int = 2, **changes: Any) -> dict[str, Any]:
    """A finished run in the shape that `render` documents."""
    return {
        "run": "first-run",
        "version": "0.1.0",
        "finished": True,
        "seed": 7,
        "model": "tiny",
        "model_sha256": "ab" * 32,
        "environment": "forage",
        "fitness_kind": "rmst",
        "generation": generations,
        "generations": generations,
        "population": population,
        "lives_each": 10,
        "drivers": 1,
        "history": [generation_row(number) for number in range(generations)],
        "training": [
            {
                "generation": 1,
                "individual": "g001-001",
                "lineage": "line-1",
                "parents": ["g000-001"],
                "status": "trained",
                "reason": "",
                "examples": 192,
                "tokens": 73_000,
                "seconds": 29.0,
                "loss_first": 1.71,
                "loss_last": 0.94,
                "adapter": "0123456789ab",
            }
        ],
        "evaluation": [
            evaluation_row(who, mean)
            for who, mean in (("random", 9.4), ("heuristic", 33.8), ("founder", 12.0), ("champion", 18.0))
        ],
        "champion": f"g{generations - 1:03d}-000" if generations else None,
        "ancestry": [f"g{number:03d}-000" for number in range(generations)],
        "ratios": {"founder": 1.5, "random": 1.91, "heuristic": 0.53},
        "totals": {
            "lives": 60,
            "censored": 3,
            "decisions": 600,
            "prompt_tokens": 6000,
            "completion_tokens": 600,
            "rollout_seconds": 30.0,
            "training_seconds": 29.0,
            "training_tokens": 73_000,
            "trained": 1,
            "failed": 0,
        },
        "lineages": [person(generation, index) for generation in range(generations) for index in range(population)],
    } | changes


def replay(who: str = "champion g002-000", **changes: Any) -> dict[str, Any]:
    frame = {"saw": "Food north 1.", "did": "north", "p": 0.5, "explored": False, "before": 9, "energy": 8}
    life = {
        "who": who,
        "held_out": False,
        "life": 0,
        "seed": "5",
        "end": "starved",
        "steps": 2,
        "frames": [{**frame, "picture": ".@."}] * 2,
    }
    return life | changes


CURVES = [
    {"generation": 0, "lives": 4, "times": [2, 5], "shares": [0.5, 0.0], "longest": 5},
    {"generation": 2, "lives": 4, "times": [3], "shares": [0.75], "longest": 60},
]
