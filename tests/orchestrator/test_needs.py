"""What a run needs of a cluster's nodes, and the words for what they lack."""

from collections.abc import Sequence

import pytest

from orchestrator.needs import engine_gpus, missing, trainer_gpus
from orchestrator.runfile import load
from tests.forager import ROOT


def nodes(*gpus: float, cpus: float = 8) -> list[dict[str, float]]:
    return [{"CPU": cpus, "GPU": amount} if amount else {"CPU": cpus} for amount in gpus]


@pytest.mark.parametrize(
    ("needed", "has", "lack"),
    [
        ([], [], None),
        ([1, 1, 1, 1], [2, 2], None),
        ([1, 1, 1, 1], [2], "need 4 GPUs, see 2"),
        ([2, 1, 1], [2, 2], None),
        ([4], [2, 2], "need 1 x 4 GPUs, each on one node, see nodes with 2 x 2"),
        ([2, 2, 2], [3, 3], "need 3 x 2 GPUs, each on one node, see nodes with 2 x 3"),
        ([0.5, 0.5, 0.5], [1], "need 1.5 GPUs, see 1"),
        ([0.5, 0.5], [1], None),
        ([0, 0], [0], None),
    ],
)
def test_gpus_that_nodes_lack_are_counted(needed: Sequence[float], has: Sequence[float], lack: str | None) -> None:
    assert missing(needed, 0, nodes(*has)) == lack


def test_cores_are_counted_over_all_nodes() -> None:
    assert missing([], 16, nodes(0, 0)) is None
    assert missing([], 17, nodes(0, 0)) == "need 17 CPUs, see 16"


def test_engines_and_trainers_hold_gpus_at_the_same_time() -> None:
    config = load(ROOT / "deploy" / "runs" / "cluster.yaml", ["trainer.workers=2"])
    assert engine_gpus(config) == [1] * 4
    assert trainer_gpus(config) == [1] * 8
    assert trainer_gpus(load(ROOT / "deploy" / "runs" / "cluster.yaml", ["trainer.enabled=false"])) == []
