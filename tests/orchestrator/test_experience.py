"""What the jobs of a generation learn from: where nothing is learned, nothing is read and nothing is sent."""

import pyarrow as pa
import pytest

from orchestrator.experience import COLUMNS, lessons
from orchestrator.places import open_run
from orchestrator.runfile import load
from telemetry.ledger import Ledger
from tests.forager import SMOKE
from tests.inprocess import forager_here
from tests.trainer.builders import job
from trainer.examples import EXPERIENCE
from trainer.job import Perturbation

BORN = job(("g000-000", None, 1.0))
MIRRORED = BORN.model_copy(update={"perturbation": Perturbation(centre=1, sigma=0.1, sign=1)})


def unread(name, columns):
    raise AssertionError(f"read {name}")


@pytest.mark.parametrize(
    ("jobs", "settings"),
    [([BORN, BORN], ["trainer.enabled=false"]), ([MIRRORED], [])],
    ids=["frozen", "es"],
)
def test_no_steps_are_read_where_nobody_learns(jobs, settings):
    lived = lessons(unread, pa.table({}), jobs, load(SMOKE, settings), horizon=60)
    assert lived.num_rows == 0
    assert lived.schema == EXPERIENCE


def test_whoever_learns_gets_every_step_that_was_lived(tmp_path):
    forager_here("run", SMOKE, "--store", tmp_path, "--set", "generations=1", "--set", "evaluation.lives=1")
    store, state = open_run(str(tmp_path / "smoke"))

    def recall(name, columns=None):
        return Ledger(store).recall(name, 0, state.vouched(0), state.attempts(0), columns)

    config = load(SMOKE, [])
    lived = lessons(recall, recall("lives"), [MIRRORED, BORN], config, horizon=60)
    assert lived.schema == EXPERIENCE
    assert lived.select(COLUMNS).equals(recall("steps").select(COLUMNS))
    assert lived["worth"].null_count == 0
