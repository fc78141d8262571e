"""What the pages of forage and bills say of dials, presets and strategies is so."""

import json
import re
from typing import Any

import pytest
import yaml

from orchestrator.runfile import load
from tests.forager import ROOT
from workers.environments.bills import Bills
from workers.environments.bills_jobs import FIRST_LEVEL, HELD_OUT_WORDS, WORDS
from workers.environments.forage import Forage

WORLDS: dict[str, type[Any]] = {"forage": Forage, "bills": Bills}


def page(name: str) -> str:
    return (ROOT / "docs" / "worlds" / f"{name}.md").read_text()


def strategies(name: str) -> dict[str, str]:
    table = page(name).partition("## Founding strategies")[2]
    return dict(re.findall(r"^\| ([a-z]+) \| ([A-Z][^|]+) \|", table, re.MULTILINE))


@pytest.mark.parametrize("name", WORLDS)
def test_every_dial_is_listed_with_its_default(name: str) -> None:
    fields = WORLDS[name].Settings.model_fields
    listed = dict(re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", page(name).partition("## Dials")[2], re.MULTILINE))
    assert {dial: listed.get(dial) for dial in fields} == {
        dial: field.default if isinstance(field.default, str) else json.dumps(field.default)
        for dial, field in fields.items()
    }


@pytest.mark.parametrize("name", WORLDS)
def test_there_are_at_least_eight_short_strategies(name: str) -> None:
    found = strategies(name)
    assert len(found) >= 8
    assert max(len(strategy.split()) for strategy in found.values()) <= 12


@pytest.mark.parametrize(("run", "name"), [("demo", "forage"), ("bills", "bills")])
def test_founders_of_the_run_are_in_the_page(run: str, name: str) -> None:
    founders = load(ROOT / "deploy" / "runs" / f"{run}.yaml", []).population.founders
    assert {one.name: one.strategy for one in founders}.items() <= strategies(name).items()


def test_presets_of_forage_are_as_the_table_says() -> None:
    lines = re.findall(r"^(environment: .*\}) *# (\w+)$", page("forage"), re.MULTILINE)
    presets: dict[str, Any] = {name: yaml.safe_load(line)["environment"] for line, name in lines}
    assert list(presets) == ["easy", "normal", "hard"]
    for preset in presets.values():
        assert preset["name"] == "forage"
        Forage.Settings(**preset.get("settings", {}))


def test_the_page_of_bills_counts_words_and_kinds() -> None:
    text = " ".join(page("bills").split())
    assert f"({len(HELD_OUT_WORDS)} words, none of the {len(WORDS)} of training)" in text
    kinds = {kind: str(level) for kind, level in FIRST_LEVEL.items()}
    assert dict(re.findall(r"\| ([a-z]+) \| (\d) \|", text)) == kinds
    assert Bills.rules in text
