"""Where published telemetry comes from: one record per run, in the file `sources.json` of a data set."""

from collections.abc import Iterable
from hashlib import file_digest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.config import semantic
from orchestrator.state import RunState, config_of
from telemetry.failures import StateError, one_line
from telemetry.models import BUNDLED
from telemetry.records import Record
from workers.config import EnvironmentConfig

FORMAT = 1
"""Of the files of a data set; what another version cannot read raises it."""
FILE = "sources.json"
SUMS = "SHA256SUMS"
SHORT = 16
"""Digits of a digest that name a source."""


class SourceModel(Record):
    """The base model of a run."""

    id: str
    sha256: str


class Provenance(Record):
    """One run whose telemetry is published."""

    source: str
    """Value of the column `source`: the first digits of the digest."""
    digest: str
    """What `forager digest` says of the run."""
    run: str
    version: str
    """Of Forager, when the run was created."""
    model: SourceModel
    generations: int
    """That have been lived."""
    champion: str
    licence: str
    """Of its telemetry, as model hubs name licences; `unknown` where none was given."""
    lives: int
    steps: int
    config: dict[str, Any]
    """Its run file, resolved, without what belongs to the machine it ran on."""
    redacted: dict[str, int] | None = None
    """Texts rewritten by `table.column`; null where no redaction was asked for."""

    @property
    def environment(self) -> EnvironmentConfig:
        """Its world; whoever reads it from somebody else must not load what it names."""
        return EnvironmentConfig.model_validate(self.config["environment"])


class Sources(Record):
    """Everything in a data set."""

    format: int
    sources: tuple[Provenance, ...]


def published(state: RunState) -> dict[str, Any]:
    """The run file as others may have it: what decides results, and how they were measured.

    Left out: the sections that only say how one machine did the work, addresses of endpoints, and the directories of a
    model that is a local one, whose name stands for it.
    """
    config = config_of(state)
    document = semantic(config.model_dump(mode="json"))
    known = config.model in BUNDLED or not Path(config.model).expanduser().is_absolute()
    document["model"] = config.model if known else state.created.model.id
    return {**document, "evaluation": config.evaluation.model_dump(mode="json")}


def read_sources(directory: Path) -> Sources:
    """What a data set says of its origins. Raises StateError for a file that says nothing that this version reads."""
    path = directory / FILE
    try:
        found = Sources.model_validate_json(path.read_bytes())
        if found.format != FORMAT:
            raise StateError(f"{path}: format {found.format}, this version reads format {FORMAT}")
        for one in found.sources:
            _ = one.environment
    except OSError as error:
        raise StateError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except (ValidationError, KeyError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"lacks {error}"
        raise StateError(f"{path}: {one_line(what)}") from error
    return found


def write_sums(directory: Path, files: Iterable[Path]) -> None:
    """`SHA256SUMS` of these files, as `sha256sum -c` takes it."""
    lines = []
    for path in sorted(files):
        with path.open("rb") as file:
            lines.append(f"{file_digest(file, 'sha256').hexdigest()}  {path.relative_to(directory)}\n")
    (directory / SUMS).write_text("".join(lines))


def write_sources(directory: Path, sources: tuple[Provenance, ...]) -> None:
    """Leaves the file in the directory of a data set."""
    text = Sources(format=FORMAT, sources=sources).model_dump_json(indent=1)
    (directory / FILE).write_text(text + "\n")
