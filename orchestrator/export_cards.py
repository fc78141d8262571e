"""The cards of what is published: README.md files as the Hugging Face hub reads them.

Law: a figure on a card stands in the files beside it; text from worlds and users is shown as text, not as Markdown.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from orchestrator.columns import COLUMNS
from orchestrator.lineage import ancestry
from orchestrator.plain import clean, ends_text
from orchestrator.provenance import Provenance
from orchestrator.state import RunState
from telemetry import __version__
from telemetry.models import BUNDLED
from telemetry.numerals import interval, number
from telemetry.records import Individual
from workers.action import describe

HUB_NAMES = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Bundled models under the names that the hub knows them by."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def data_card(
    sources: Sequence[Provenance],
    rows: Mapping[str, int],
    results: Mapping[str, Any] | None,
    *,
    path: Path,
) -> str:
    """The card of the data set in the directory `path`, whose tables are there already.

    rows: number of rows by table; results: what `results.json` holds, None where there is none.
    """
    tables = {name: _fields(path, name) for name in COLUMNS if name in rows}
    configs = [
        {
            "config_name": name,
            **({"default": True} if name == "lives" else {}),
            "data_files": [{"split": "test" if name == "held_out" else "train", "path": f"data/{name}/*.parquet"}],
        }
        for name in tables
    ]
    largest, licences = max(rows.values()), {one.licence for one in sources}
    licence = licences.pop() if len(licences) == 1 else "other"
    front = {
        "license": licence,
        "pretty_name": f"Forager telemetry: {', '.join(dict.fromkeys(one.run for one in sources))}",
        "tags": ["forager", "survival", "llm-agents", "evolution"],
        "task_categories": ["reinforcement-learning"],
        "size_categories": [next((name for size, name in SIZES if largest < size), "n>1M")],
        "configs": configs,
    }
    return _card("data_card.md.j2", front, sources=sources, rows=rows, tables=tables, results=results, licence=licence)


def model_card(
    state: RunState,
    one: Individual,
    source: Provenance,
    results: Mapping[str, Any],
    world: Any,
    strategy: str,
    *,
    merged: bool,
) -> str:
    """The card of one individual's weights. strategy: its own, as it may be shown."""
    base = HUB_NAMES.get(source.model.id, source.model.id)
    line = ancestry(one.id, state)
    scores = {score.individual: score for event in state.history for score in event.fitness}
    names = {who for row in results["rows"] if row["individual"] == one.id for who in (row["who"],)}
    held_out = [row for row in results["rows"] if row["who"] in names or (names and row["individual"] is None)]
    founder = [row for row in results["rows"] if names and row["who"] == "founder"]
    front = {
        "license": source.licence,
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["forager", "survival", "llm-agents", *([] if merged else ["lora"])],
        **({"base_model": base, "base_model_relation": "finetune" if merged else "adapter"} if _on_hub(base) else {}),
    }
    return _card(
        "model_card.md.j2",
        front,
        one=one,
        line=[(state.everyone[who], scores.get(who)) for who in line],
        source=source,
        base=base,
        bundled=source.model.id in BUNDLED,
        rules=clean(" ".join(part for part in (str(world.rules), describe(getattr(world, "tools", ()))) if part), 5000),
        strategy=clean(strategy, 2000),
        held_out=[*held_out, *(row for row in founder if row not in held_out)],
        results=results,
        merged=merged,
        licence=source.licence,
    )


def _on_hub(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name))


def _fields(path: Path, name: str) -> list[tuple[str, str, str]]:
    """(column, type, meaning) of a published table."""
    schema = pq.read_schema(min((path / "data" / name).glob("*.parquet")))
    return [(field.name, str(field.type), COLUMNS[name][field.name]) for field in schema]


def _card(template: str, front: Mapping[str, Any], **data: Any) -> str:
    matter = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    return f"---\n{matter}---\n\n{_template(template).render(**data, version=__version__)}"


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML: what needs it passes `text`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"text": _text, "number": number, "ends": ends_text}
    environment.globals["interval"] = interval
    return environment.get_template(name)


def _text(value: object) -> str:
    """Foreign text on one line, no character of which is Markdown."""
    return _SPECIAL.sub(r"\\\1", clean(str(value), 2000))
