"""`forager export`: what is published is whole, says where it is from, and loads where others load such things."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator.columns import COLUMNS
from orchestrator.dataset import SCHEMAS
from orchestrator.events import FORMAT
from orchestrator.leaks import Scanner
from orchestrator.places import open_run
from telemetry import open_run as open_tables
from telemetry.failures import UsageError
from telemetry.numerals import interval
from telemetry.seeds import held_out_world_seed, rng
from tests.forager import ROOT, SMOKE, Result, command, environment
from tests.inprocess import files, forager_here, output, refused
from tests.system.hub import Hub, serving
from tests.system.test_golden import unpacked
from tests.system.test_transplant import set_all

SETTINGS = (
    "ray.executor=inprocess",
    "generations=2",
    "population.lives=6",
    "metrics.enabled=false",
    "evaluation={lives: 12, manners: 5}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    assert forager_here("run", SMOKE, "--store", place, *set_all(*SETTINGS)).code == 0
    return place / "smoke"


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "smoke"
    assert str(out) in output("export", run, out, "--license", "cc-by-4.0")
    return out


def card_of(directory: Path) -> tuple[dict[str, object], str]:
    """Front matter and text of a card."""
    _, front, text = (directory / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_every_row_of_the_run_is_there_and_no_other(run: Path, exported: Path) -> None:
    with open_tables(str(run)) as tables:
        for name in ("steps", "lives", "individuals", "training"):
            expected = tables.table(name)
            found = pa.concat_tables(pq.read_table(path) for path in sorted((exported / "data" / name).iterdir()))
            assert found.schema == SCHEMAS[name]
            assert found.column_names == ["source", *expected.column_names]
            assert found.drop_columns(["source"]).to_pylist() == expected.to_pylist()
        [generations] = (exported / "data" / "generations").iterdir()
        ends = [dict(map(dict.values, one)) for one in pq.read_table(generations)["ends"].to_pylist()]
        assert ends == [dict(one) for one in tables.table("generations")["ends"].to_pylist()]


def test_every_column_is_explained(exported: Path) -> None:
    _, text = card_of(exported)
    assert {name: set(columns) for name, columns in COLUMNS.items()} == {
        name: set(schema.names) for name, schema in SCHEMAS.items()
    }
    for columns in COLUMNS.values():
        for column, meaning in columns.items():
            assert re.search(rf"^\| `{column}` \| `[^`]+` \| {re.escape(meaning)} \|$", text, re.MULTILINE)


def test_the_figure_on_the_card_follows_from_the_exported_files_alone(exported: Path) -> None:
    _, text = card_of(exported)
    shown = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+ \[[\d., ]+\]) \| \d+ \|", text, re.MULTILINE))
    [file] = (exported / "data" / "held_out").iterdir()
    rows = pq.read_table(file)
    results = json.loads((exported / "results.json").read_text())
    assert {row["who"] for row in results["rows"]} == set(shown) == set(rows["who"].to_pylist())
    assert {"champion", "founder", "random", "heuristic", "champion-likeliest", "champion-exploring"} == set(shown)
    for row in results["rows"]:
        own = rows.filter(pc.equal(rows["who"], row["who"]))
        assert own["world_index"].to_pylist() == list(range(5 if "-" in row["who"] else 12))
        assert own["world_seed"].to_pylist() == [held_out_world_seed(index) for index in range(own.num_rows)]
        values = own["fitness"].to_numpy()
        resampled = rng(0, "evaluation", len(values)).integers(0, len(values), size=(10_000, len(values)))
        low, high = np.quantile(values[resampled].mean(axis=1), [0.025, 0.975])
        assert (values.mean(), low, high) == pytest.approx((row["mean"], row["low"], row["high"]), rel=1e-12)
        assert interval(float(values.mean()), float(low), float(high)) == shown[row["who"]]
        assert values.tolist() == np.minimum(own["steps"].to_numpy(), results["horizon"]).tolist()
        died = zip(own["end"].to_pylist(), own["cause"].to_pylist(), strict=True)
        ends = Counter(f"{end}:{cause}" if end == "died" else end for end, cause in died)
        assert ends == row["ends"]


def test_a_run_that_kept_no_single_held_out_lives_gives_fitness_by_world(tmp_path: Path) -> None:
    out = tmp_path / "out"
    output("export", unpacked(f"format-{FORMAT}", tmp_path), out)
    [file] = (out / "data" / "held_out").iterdir()
    rows = pq.read_table(file)
    for row in json.loads((out / "results.json").read_text())["rows"]:
        own = rows.filter(pc.equal(rows["who"], row["who"]))
        assert own["fitness"].to_pylist() == row["values"]
        assert own["steps"].null_count == own["seat"].null_count == own.num_rows == len(row["values"]) > 0


def test_the_cards_say_what_the_hub_wants_to_know(run: Path, exported: Path) -> None:
    front, text = card_of(exported)
    assert front["license"] == "cc-by-4.0"
    assert {one["config_name"] for one in front["configs"]} == set(COLUMNS)  # type: ignore[attr-defined]
    _, state = open_run(str(run))
    champion = state.history[-1].champion
    assert champion in text
    [folder] = [path for path in (exported / "adapters").iterdir() if path.name == champion]
    front, text = card_of(folder)
    assert (front["library_name"], front["license"]) == ("peft", "cc-by-4.0")
    row = next(row for row in state.evaluation.rows if row.who == "champion")  # type: ignore[union-attr]
    assert f"| champion | {interval(row.mean, row.low, row.high)} |" in text
    assert json.loads((exported / "sources.json").read_text())["sources"][0]["digest"] in text


def test_adapters_are_the_runs_own_bytes(run: Path, exported: Path) -> None:
    _, state = open_run(str(run))
    for folder in (exported / "adapters").iterdir():
        weights, config = (folder / name for name in ("adapter_model.safetensors", "adapter_config.json"))
        digest = sha256(weights.read_bytes() + config.read_bytes()).hexdigest()
        assert digest == state.everyone[folder.name].genome.adapter
        check_sums(folder)
    check_sums(exported)


def check_sums(folder: Path) -> None:
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True)


def test_the_run_can_be_done_again(exported: Path, tmp_path: Path) -> None:
    file = exported / "reproduction" / "run.yaml"
    again = forager_here("run", file, "--store", tmp_path, *set_all("ray.executor=inprocess", "metrics.enabled=false"))
    assert again.code == 0, again
    about = json.loads((exported / "reproduction" / "reproduction.json").read_text())
    assert output("digest", tmp_path / "smoke").strip() == about["digest"]


def test_a_place_that_is_taken_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    refused(forager_here("export", run, tmp_path / "out"), 2, "out", "already")
    (tmp_path / "link").symlink_to("nowhere")
    refused(forager_here("export", run, tmp_path / "link"), 2, "already")
    assert files(tmp_path) == [tmp_path / "link"]


def test_a_damaged_run_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "smoke"
    shutil.copytree(run, copy)
    file = next((copy / "ledger" / "steps").rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refused(forager_here("export", copy, tmp_path / "out"), 3, "damaged", file.name)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "smoke"
    shutil.copytree(run, copy)
    max((copy / "journal").glob("*.json")).unlink()
    refused(forager_here("export", copy, tmp_path / "out"), 2, "not finished")
    assert not (tmp_path / "out").exists()


def test_weights_that_there_are_not_are_refused(run: Path, tmp_path: Path) -> None:
    refused(forager_here("export", run, tmp_path / "out", "--who", "founder"), 2, "untouched base model")
    refused(forager_here("export", run, tmp_path / "out", "--who", "g777-000"), 2, "no such individual")
    refused(forager_here("export", run, tmp_path / "out", "--merged"), 2, "scripted")
    assert files(tmp_path) == []


# Secrets and redaction.

TOKENS = {
    "AWS Access Key": "AKIA" + "QYLPMN5HHHFPZAM2",
    "Basic Auth Credentials": "https://me:hunter2@example.org",
    "GitHub Token": "ghp_" + "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx",
    "Hugging Face Token": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345",
    "Anthropic API Key": "sk-ant-" + "api03-AbCdEfGhIjKlMnOpQrStUv",
    "Google API Key": "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "GitLab Token": "glpat-" + "hellOworld380_testin",
    "Slack Token": "xoxb-" + "34532454-e039d02840a0b9379c",
    "Stripe Access Key": "sk_live_" + "ReTllpYQYfIZu2Jnf2lAPFjD",
    "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "SendGrid API Key": "SG." + "ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr",
    "JSON Web Token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.AAAAAAAA",
    "Telegram Bot Token": "110201543:" + "AAHdqTcvCH1vGWJxfSe1ofSAs0K5PALDsaw",
    "NPM tokens": "//registry.example.org/:_authToken=" + "npm_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "Twilio API Key": "SK" + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "PyPI Token": "pypi-" + "AgEIcHlwaS5vcmc" + "A" * 72,
}


@pytest.mark.parametrize("kind", TOKENS)
def test_credentials_are_known_by_their_form(kind: str) -> None:
    text = f"the answer is {TOKENS[kind]}" if kind not in ("Telegram Bot Token", "NPM tokens") else TOKENS[kind]
    with pytest.raises(UsageError, match=re.escape(f"here: row 8 holds a secret ({kind})")) as refusal:
        Scanner({}).check("here", pa.array(["nothing", text]), 7)
    assert TOKENS[kind] not in str(refusal.value)
    Scanner({}).check("here", pa.array(["Clear. Energy 10.", sha256(b"").hexdigest(), None, "a/b/c" * 20]))


def leaky(run: Path, place: Path, secret: str) -> list[str | Path]:
    """Arguments that start a run like `run`, one of whose founders carries a secret in its strategy."""
    founders = [
        {"name": "scout", "strategy": f"Explore with {secret} in hand."},
        {"name": "hermit", "strategy": "Rest."},
    ]
    people = f"population={{size: 2, lives: 3, founders: {json.dumps(founders)}}}"
    return ["run", SMOKE, "--store", place, *set_all(*SETTINGS[:2], *SETTINGS[3:], people)]


def test_a_secret_stops_the_export_and_redaction_takes_it_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = TOKENS["GitHub Token"]
    assert forager_here(*leaky(run, tmp_path / "runs", secret)).code == 0
    source, out = tmp_path / "runs" / "smoke", tmp_path / "out"
    line = refused(forager_here("export", source, out), 2, "individuals", "column strategy", "row 0", "GitHub Token")
    assert secret not in line
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (tmp_path / "hooks.py").write_text(
        "import pyarrow.compute as pc\n"
        "def hide(column, texts):\n"
        "    return pc.replace_substring_regex(texts, 'ghp_[A-Za-z0-9]+|Energy', '[hidden]')\n"
        "def lose(column, texts):\n"
        "    return texts.slice(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    refused(forager_here("export", source, out, "--redact", "hooks:lose"), 2, "hooks:lose", "expected a string array")
    refused(forager_here("export", source, out, "--redact", "hooks:none"), 2, "hooks:none", "cannot be loaded")
    output("export", source, out, "--redact", "hooks:hide")
    assert not [path for path in files(out) if secret.encode() in path.read_bytes()]
    steps = pa.concat_tables(pq.read_table(path) for path in (out / "data" / "steps").iterdir())
    assert steps.num_rows > 0
    assert all("[hidden]" in text and "Energy" not in text for text in steps["observation"].to_pylist())
    for name in ("prompt_ids", "completion_ids", "choice_ids"):
        assert set(map(len, steps[name].to_pylist())) == {0}, "tokens spell what the text hides"
    _, text = card_of(out)
    assert f"`steps.observation` {steps.num_rows}" in text
    [people] = (out / "data" / "individuals").iterdir()
    hidden = [one for one in pq.read_table(people)["strategy"].to_pylist() if "[hidden]" in one]
    assert f"`individuals.strategy` {len(hidden)}" in text


def test_this_machines_own_secrets_are_looked_for(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state = open_run(str(run))
    monkeypatch.setenv("MY_API_KEY", state.created.founders[0].genome.strategy)
    line = refused(forager_here("export", run, tmp_path / "out"), 2, "column strategy", "value of MY_API_KEY")
    assert state.created.founders[0].genome.strategy not in line
    assert files(tmp_path) == []


# Other tools.


def test_datasets_loads_every_table(run: Path, exported: Path, tmp_path: Path) -> None:
    program = (
        "import json, sys, datasets\n"
        "names = datasets.get_dataset_config_names(sys.argv[1])\n"
        "tables = {one: datasets.load_dataset(sys.argv[1], one, split='test' if one == 'held_out' else 'train',"
        " cache_dir=sys.argv[2]) for one in names}\n"
        "print(json.dumps({one: [len(rows), rows.column_names] for one, rows in tables.items()}))\n"
    )
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    arguments = [sys.executable, "-c", program, exported, tmp_path / "cache"]
    done = subprocess.run(arguments, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: columns for name, (_, columns) in found.items()} == {one: SCHEMAS[one].names for one in COLUMNS}
    with open_tables(str(run)) as tables:
        for name in ("steps", "lives", "individuals", "generations", "training"):
            assert found[name][0] == tables.table(name).num_rows


def test_an_upload_needs_a_name_and_a_token(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(forager_here("export", run, tmp_path / "out", "--push", "nobody"), 2, "user/name")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refused(forager_here("export", run, tmp_path / "out", "--push", "me/it"), 2, "HF_TOKEN")
    assert files(tmp_path) == []


def pushed(run: Path, out: Path, hub: Hub, home: Path) -> Result:
    """An export with an upload, in a process of its own: the library reads its environment when it is imported."""
    environ = {name: value for name, value in environment().items() if not name.startswith("HF_")}
    environ |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_of_mine", "HF_HOME": str(home)}
    arguments = command("export", run, out, "--push", "me/lives", "--license", "cc-by-4.0")
    done = subprocess.run(arguments, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def test_what_is_pushed_is_what_was_exported_by_the_users_own_token(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving() as hub:
        result = pushed(run, out, hub, tmp_path / "home")
    assert result.code == 0, result
    models = {f"model/me/lives-{folder.name}": folder for folder in (out / "adapters").iterdir()}
    assert models
    assert set(hub.repositories) == {"dataset/me/lives", *models} == set(hub.files)
    assert {asked["visibility"] for asked in hub.repositories.values()} == {"private"}
    assert hub.authorizations == {"Bearer hf_of_mine"}
    for name, folder in models.items():
        assert hub.files[name] == {path.name: path.read_bytes() for path in folder.iterdir()}
    own = [path for path in files(out) if "adapters" not in path.relative_to(out).parts]
    assert hub.files["dataset/me/lives"] == {str(path.relative_to(out)): path.read_bytes() for path in own}
    assert "hf_of_mine" not in result.out + result.err


def test_a_hub_that_refuses_is_one_line_and_the_export_stays(run: Path, tmp_path: Path) -> None:
    with serving(refuses="lives") as hub:
        result = pushed(run, tmp_path / "out", hub, tmp_path / "home")
    refused(result, 5, "--push: me/lives", "You may not do that")
    assert hub.files == {}
    check_sums(tmp_path / "out")
