"""`forager merge-ledgers` and `import`: what many lived through, once each, and what others learn from it."""

import json
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.dataset import DataSet
from orchestrator.events import dump
from orchestrator.places import open_run
from orchestrator.provenance import write_sums
from telemetry import lora
from telemetry.failures import StateError
from telemetry.foreign_lora import adopt
from telemetry.lora import AdapterRefused
from tests import tiny
from tests.forager import ROOT
from tests.inprocess import files, forager_here, output, refused
from tests.system.test_transplant import set_all
from workers.engines import scripted

TINY = ROOT / "tests" / "faults" / "tiny.yaml"


def tiny_run(place: Path, name: str, *settings: str) -> Path:
    assert forager_here("run", TINY, "--store", place, *set_all(f"name={name}", *settings)).code == 0
    return place / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("runs")
    return tiny_run(place, "one"), tiny_run(place, "two", "seed=2", "environment.settings.bushes=9")


@pytest.fixture(scope="module")
def exported(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "one"
    output("export", runs[0], out)
    return out


@pytest.fixture(scope="module")
def pool(runs: tuple[Path, Path], exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pool") / "both"
    output("merge-ledgers", out, exported, runs[1])
    return out


def table(directory: Path, name: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((directory / "data" / name).iterdir()))


def rows_of(*runs: Path) -> Iterator[tuple[str, str]]:
    for run in runs:
        _, state = open_run(str(run))
        for lives in state.lives.values():
            yield from ((run.name, attempt) for attempt in lives.values())


def test_a_pool_holds_every_life_once_and_says_where_it_is_from(runs: tuple[Path, Path], pool: Path) -> None:
    lives = table(pool, "lives")
    assert sorted(zip(lives["run"].to_pylist(), lives["attempt"].to_pylist(), strict=True)) == sorted(rows_of(*runs))
    sources = {one["source"]: one for one in json.loads((pool / "sources.json").read_text())["sources"]}
    assert {one["run"] for one in sources.values()} == {"one", "two"}
    assert {source: one["digest"] for source, one in sources.items()} == {
        output("digest", run).strip()[:16]: output("digest", run).strip() for run in runs
    }
    for name in ("steps", "lives"):
        found = table(pool, name)
        assert {(row["source"], row["run"]) for row in found.select(["source", "run"]).to_pylist()} == {
            (source, one["run"]) for source, one in sources.items()
        }
    assert table(pool, "steps").num_rows == sum(one["steps"] for one in sources.values())
    card = (pool / "README.md").read_text()
    assert all(source in card for source in sources)


def test_a_pool_of_pools_is_the_same_pool(runs: tuple[Path, Path], pool: Path, tmp_path: Path) -> None:
    output("merge-ledgers", tmp_path / "again", pool)
    for name in ("steps", "lives", "individuals", "generations", "training", "held_out"):
        assert table(tmp_path / "again", name).equals(table(pool, name))
    assert (tmp_path / "again" / "sources.json").read_bytes() == (pool / "sources.json").read_bytes()


def test_the_same_lives_twice_are_refused(runs: tuple[Path, Path], exported: Path, pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for places in ((runs[0], runs[0]), (runs[0], exported), (pool, runs[1])):
        line = refused(forager_here("merge-ledgers", out, *places), 2)
        assert "give one" in line
    longer = tmp_path / "one"
    shutil.copytree(runs[0], longer)
    output("resume", longer, "--at-generation", "0", *set_all("evaluation.lives=1"))
    refused(forager_here("merge-ledgers", out, runs[0], longer), 2, "has lives that", "give one")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_runs_of_other_worlds_are_not_pooled(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = tiny_run(tmp_path, "other", "environment.name=forage")
    line = refused(forager_here("merge-ledgers", tmp_path / "out", runs[0], other), 2, "pool runs of one world")
    assert str(other) in line
    (tmp_path / "out").mkdir()
    refused(forager_here("merge-ledgers", tmp_path / "out", *runs), 2, "already")
    refused(forager_here("merge-ledgers", tmp_path / "new", tmp_path / "out"), 3, "not a run")
    assert not (tmp_path / "new").exists()


def changed(path: Path, change: str) -> None:
    """Another data file under the same name, with sums that fit it."""
    rows = pq.read_table(path)
    if change == "column":
        rows = rows.rename_columns([f"{name}_too" if name == "energy_after" else name for name in rows.column_names])
    elif change == "type":
        index = rows.schema.get_field_index("energy_after")
        rows = rows.set_column(index, "energy_after", rows["energy_after"].cast(pa.float64()))
    elif change == "lost step":
        rows = rows.slice(1)
    elif change == "doubled life":
        rows = pa.concat_tables([rows, rows.slice(0, 1)])
    elif change == "source":
        rows = rows.set_column(0, rows.schema.field(0), pa.array(["f" * 16] * rows.num_rows))
    pq.write_table(rows, path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("steps", "column", "column energy_after: got none, expected float"),
        ("steps", "type", "column energy_after: got double, expected float"),
        ("steps", "lost step", "has 0 steps|has [0-9]+ steps numbered"),
        ("lives", "doubled life", "rows in lives, expected 1"),
        ("lives", "source", "column source: got 'ffffffffffffffff'"),
    ],
)
def test_rows_that_are_not_what_they_should_be_are_refused(
    exported: Path, tmp_path: Path, name: str, change: str, words: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    path = min((copy / "data" / name).iterdir())
    changed(path, change)
    line = refused(forager_here("merge-ledgers", tmp_path / "out", copy), 3, "checksum", path.name)
    assert "get the data set again" in line
    write_sums(copy, [one for one in files(copy) if "adapters" not in one.parts and one.name != "SHA256SUMS"])
    with pytest.raises(StateError, match=words):
        list(DataSet(copy).generations())
    assert forager_here("merge-ledgers", tmp_path / "out", copy).code == 3
    assert [one.name for one in tmp_path.iterdir()] == ["copy"]


def test_a_data_set_names_no_file_outside_of_itself(exported: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    path = min((copy / "data" / "lives").iterdir())
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused(forager_here("merge-ledgers", tmp_path / "out", copy), 3, "not a plain file")
    (copy / "SHA256SUMS").write_text(f"{'0' * 64}  ../elsewhere\n")
    refused(forager_here("merge-ledgers", tmp_path / "out", copy), 3, "expected lines of a sha256")


def test_founders_begin_with_what_others_made(
    runs: tuple[Path, Path], exported: Path, pool: Path, tmp_path: Path
) -> None:
    donor = min((exported / "adapters").iterdir())
    found = output(
        *("import", TINY, "--store", tmp_path, "--set", "name=heirs"),
        *("--adapter", f"scout={donor}", "--telemetry", pool),
    )
    assert "forager resume" in found
    run = tmp_path / "heirs"
    _, state = open_run(str(run))
    founders = {one.lineage: one for one in state.created.founders}
    donated = sha256(b"".join((donor / name).read_bytes() for name in (lora.WEIGHTS, lora.CONFIG))).hexdigest()
    assert founders["scout"].genome.adapter == donated, "an adapter of equal shape is taken bit by bit"
    assert None not in {one.genome.adapter for one in founders.values()}
    digests = {output("digest", one).strip() for one in runs}
    telemetry = [one for one in state.created.imported if one.kind == "telemetry"]
    assert {one.sha256 for one in telemetry} == digests
    assert {one.founders for one in telemetry} == {tuple(founders[name].id for name in ("grazer", "hermit"))}
    [adapter] = [one for one in state.created.imported if one.kind == "adapter"]
    assert (adapter.name, adapter.founders) == (donor.name, (founders["scout"].id,))
    assert adapter.sha256 == sha256((donor / lora.WEIGHTS).read_bytes()).hexdigest()
    assert forager_here("resume", run).code == 0
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert output("audit", run).startswith("ok")
    again = tmp_path / "again"
    output("export", run, again)
    assert json.loads((again / "sources.json").read_text())["sources"][0]["run"] == "heirs"


def test_a_run_and_its_export_teach_the_same(runs: tuple[Path, Path], exported: Path, tmp_path: Path) -> None:
    learned = []
    for number, place in enumerate((runs[0], exported)):
        output("import", TINY, "--store", tmp_path, "--set", f"name=heirs-{number}", "--telemetry", place)
        _, state = open_run(str(tmp_path / f"heirs-{number}"))
        learned.append([one.genome.adapter for one in state.created.founders])
    assert learned[0] == learned[1]
    assert None not in learned[0]


def test_what_cannot_be_imported_founds_nothing(
    runs: tuple[Path, Path], exported: Path, pool: Path, tmp_path: Path
) -> None:
    donor = min((exported / "adapters").iterdir())
    begin = ("import", TINY, "--store", tmp_path, "--set", "name=none")
    refused(forager_here(*begin), 2, "expected --adapter or --telemetry")
    refused(forager_here(*begin, "--adapter", "scout"), 2, "FOUNDER=DIR")
    refused(forager_here(*begin, "--adapter", f"nobody={donor}"), 2, "no such founder", "scout, grazer, hermit")
    twice = ("--adapter", f"scout={donor}", "--adapter", f"scout={donor}")
    refused(forager_here(*begin, *twice), 2, "twice")
    refused(forager_here(*begin, "--adapter", f"scout={tmp_path}"), 3, "adapter_config.json")
    other = ("--set", "environment={name: forage}", "--telemetry", pool)
    refused(forager_here(*begin, *other), 2, "got the world", "expected forage")
    frozen = ("--set", "trainer.enabled=false", "--telemetry", pool)
    refused(forager_here(*begin, *frozen), 2, "trainer.enabled")
    assert not (tmp_path / "none" / "journal").exists()


def test_ordinary_runs_stay_readable_for_earlier_versions(runs: tuple[Path, Path]) -> None:
    genesis = json.loads((runs[0] / "journal" / f"{0:020d}.json").read_text())["body"]
    assert "imported" not in genesis
    _, state = open_run(str(runs[0]))
    assert dump(state.created)["imported"] == []


# Adapters of other tools.


def foreign(place: Path, **changes: object) -> Path:
    """An adapter as PEFT saves one for the scripted model, with a card beside it."""
    weights = tiny.random_adapter(scripted.CARD, seed=1, rank=4)
    directory = tiny.write_adapter(place, weights, scripted.CARD)
    config = json.loads((directory / lora.CONFIG).read_text())
    more = {"base_model_name_or_path": "somebody/model", "peft_version": "0.21.2", "lora_dropout": 0.1}
    more |= {"modules_to_save": None, "rank_pattern": {}, "target_modules": "all-linear"}
    (directory / lora.CONFIG).write_text(json.dumps({**config, **more, **changes}, indent=2))
    (directory / "README.md").write_text("a card")
    return directory


def test_an_adapter_of_another_tool_is_brought_into_canonical_form(tmp_path: Path) -> None:
    files = adopt(foreign(tmp_path / "adapter"), scripted.CARD, 512)
    expected = tiny.random_adapter(scripted.CARD, seed=1, rank=4)
    assert files == lora.save(expected, scripted.CARD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"use_rslora": True}, "use_rslora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"something_of_tomorrow": 1}, "something_of_tomorrow is 1"),
        ({"base_model_name_or_path": "scripted@0123456789abcdef"}, "is made for 'scripted'"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
    ],
)
def test_adapters_that_mean_something_else_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(AdapterRefused, match=words):
        adopt(foreign(tmp_path / "adapter", **changes), scripted.CARD, 512)


def test_an_adapter_of_another_rank_is_fitted(tmp_path: Path) -> None:
    settings = ("name=fitted", "trainer.lora={rank: 2, alpha: 2}")
    directory = foreign(tmp_path / "adapter")
    found = output("import", TINY, "--store", tmp_path, *set_all(*settings), "--adapter", f"hermit={directory}")
    assert "of its change lost to rank 2" in found
    _, state = open_run(str(tmp_path / "fitted"))
    [adapter] = [one.genome.adapter for one in state.created.founders if one.genome.adapter]
    weights = lora.load(tmp_path / "fitted" / "adapters" / adapter)
    assert (weights.rank, weights.alpha) == (2, 2)
    assert output("verify", tmp_path / "fitted").splitlines()[-1].startswith("ok")
