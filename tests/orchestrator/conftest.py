"""One finished small run for all who look at runs, and patience for property tests on a shared machine."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.orchestrator.small_run import small_run

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a finished run; not to be changed."""
    place = tmp_path_factory.mktemp("runs") / "small"
    small_run(place)
    return place
