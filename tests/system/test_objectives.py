"""Runs whose births are of another kind, whole, without a model: finished, audited, resumed to the same end."""

from pathlib import Path

import pytest

from tests.forager import ROOT

TINY = ROOT / "tests/faults/tiny.yaml"
KINDS = {
    "evolution strategy": ["trainer.objective.kind=es", "population.size=4", "selection.survivors=1.0"],
    "inherited objectives": [
        "trainer.alternatives={wild: {kind: scripted, shift: 2.0}}",
        "reproduction.objective_mutation=0.7",
        "population.size=6",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_this_kind_is_whole(kind: str, tmp_path: Path) -> None:
    pass
