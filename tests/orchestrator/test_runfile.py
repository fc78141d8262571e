"""Run files: every shipped one loads, every bad one gives exactly one line that names the field and the remedy."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import RunConfig, semantic
from orchestrator.runfile import MAX_BYTES, load, override, parse, validate
from telemetry.failures import UsageError

ROOT = Path(__file__).parents[2]
GOOD = """\
name: tiny
generations: 2
population:
  size: 4
  lives: 2
  founders:
    - {name: bold, strategy: Walk far.}
    - {name: timid, strategy: Stay near.}
engine: {kind: scripted}
trainer: {objective: {kind: scripted}}
"""

INTEGER = "expected: input should be a valid integer"
NAME = "expected: string should match pattern '^[a-z0-9][a-z0-9_-]{0,62}$'"
UNKNOWN = "remove it or correct its name"
AMBIGUOUS = "is not the same to every reader of YAML; write true, false or a plain number, or quote it if it is text"

DOCUMENTS = {
    b"": "got NoneType, expected a mapping of run file keys",
    b"- a\n- b": "got list, expected a mapping of run file keys",
    b"name: \xe9": "not UTF-8 at byte 6; save it as UTF-8 text",
    b"name: a\x00b": "not valid YAML: unacceptable character #x0000: special characters are not allowed",
    b"name: {": "not valid YAML: line 1: expected the node content, but found '<stream end>'",
    b"name: a\nname: b": "not valid YAML: line 2: duplicate key 'name'",
    b"a: &a [x]\nb: *a": "not valid YAML: line 2: aliases are not allowed",
    b"a: !!python/object/apply:os.system [id]": "not valid YAML: line 1: tags are not allowed",
    b"a: !!timestamp never": "not valid YAML: line 1: tags are not allowed",
    b"1: a": "not valid YAML: line 1: key 1 is not text",
    b"? [a]\n: b": "not valid YAML: line 1: key ['a'] is not text",
    b"name: a\n---\nname: b": "not valid YAML: line 2: but found another document",
    b"a: 0777": f"not valid YAML: line 1: '0777' {AMBIGUOUS}",
    b"a: [yes]": f"not valid YAML: line 1: 'yes' {AMBIGUOUS}",
    b'name: "\\ud800"': "text that is not Unicode, or nested too deep; write plain text and flat sections",
}
"""Whole documents and the line that each must give."""

EDITS = [
    ("name: tiny", "name: ../x", f"name: got '../x', {NAME}"),
    ("name: tiny", "name: ｎame", f"name: got 'ｎame', {NAME}"),
    ("name: tiny\n", "", "name: missing; add it"),
    ("generations: 2", "generations: true", f"generations: got True, {INTEGER}"),
    ("generations: 2", "generations: 1e3", f"generations: got 1000.0, {INTEGER}"),
    ("generations: 2", "generations: 1_000", f"not valid YAML: line 2: '1_000' {AMBIGUOUS}"),
    ("generations: 2", "generations: '2'", f"generations: got '2', {INTEGER}"),
    ("generations: 2", "generations: 0", "generations: got 0, expected: input should be greater than or equal to 1"),
    ("size: 4", "size: 1", "population.size: got 1, expected at least the 2 founders"),
    ("size: 4", "sise: 4", 'population.sise: unknown key (did you mean "size"?); remove it or correct its name'),
    ("name: bold", "name: timid", "population.founders: every founder needs a name of its own"),
    (", strategy: Walk far.", "", "population.founders.0.strategy: missing; add it"),
    (
        "name: timid",
        "name: bold-2",
        "population.founders: 4 individuals need repeats such as 'bold-2', which are too long or taken;"
        " rename the founders",
    ),
    ("engine: {kind: scripted}", "engine: none", "engine: got 'none', expected: input should be an object"),
    (
        "engine: {kind: scripted}",
        "engine: {kind: magic}",
        "engine: got {'kind': 'magic'}, expected: input tag 'magic' found using 'kind' does not match any of the"
        " expected tags: 'vllm', 'scripted', 'remote'",
    ),
    (
        "engine: {kind: scripted}",
        "engine: {kind: scripted, conut: 2}",
        f'engine.conut: unknown key (did you mean "count"?); {UNKNOWN}',
    ),
    (
        "engine: {kind: scripted}",
        "engine: {kind: vllm}",
        "trainer.objective.kind: got 'scripted' with engine.kind 'vllm'; the scripted engine and the scripted"
        " objective go together",
    ),
    (
        "trainer: {objective: {kind: scripted}}",
        "trainer: {objective: {kind: scripted}, alternatives: {other: {kind: sft}}}",
        "trainer.alternatives.other.kind: got 'sft' with engine.kind 'scripted'; the scripted engine and the scripted"
        " objective go together",
    ),
    (
        "trainer: {objective: {kind: scripted}}",
        "trainer: {objective: {kind: scripted}, alternatives: {Other: {kind: scripted}}}",
        f"trainer.alternatives.Other: got 'Other', {NAME}",
    ),
    (
        "strategy: Walk far.",
        "strategy: Walk far., objective: other",
        "population.founders: bold has objective 'other', expected a name in trainer.alternatives",
    ),
    (
        "trainer: {objective: {kind: scripted}}",
        "trainer: {objective: {kind: scripted, shift: .nan}}",
        "trainer.objective.shift: got nan, expected: input should be a finite number",
    ),
    (
        "trainer: {objective: {kind: scripted}}",
        "trainer: {retries: true, objective: {kind: scripted}}",
        f"trainer.retries: got True, {INTEGER}",
    ),
]
"""(text, its replacement, the line it must give) on the good run file."""

ADDITIONS = [
    ("popluation: 1", f'popluation: unknown key (did you mean "population"?); {UNKNOWN}'),
    ("custom: 1", f"custom: unknown key; {UNKNOWN}"),
    ('"a\\nb\\e[31m": 1', f"a\\nb\\x1b[31m: unknown key; {UNKNOWN}"),
    ("seed: -1", "seed: got -1, expected: input should be greater than or equal to 0"),
    ("seed: 2001-01-01", f"seed: got '2001-01-01', {INTEGER}"),
    (
        "seed: 1" + 400 * "0",
        f"seed: got 1{55 * '0'}0..., expected: input should be less than 9223372036854775808",
    ),
    (
        "seed: 0x" + 9000 * "f",
        "not valid YAML: line 11: a number of 9002 characters, expected at most 1000",
    ),
    ("environment:", "environment: got None, expected: input should be an object"),
    ("environment: {settings: {a: .inf}}", "environment.settings: expected plain data with finite numbers"),
    ("selection: {survivors: 0}", "selection.survivors: got 0, expected: input should be greater than 0"),
    ("selection: {survivors: 0.1}", "selection.survivors: 0.1 of 4 leaves nobody; raise it"),
    ("selection: {elites: 3}", "selection.elites: got 3, but only 2 survive; lower it"),
    ("metrics: {port: 70000}", "metrics.port: got 70000, expected: input should be less than or equal to 65535"),
    (
        "fitness: {kind: custom, function: os.system}",
        r"fitness.function: got 'os.system', expected: string should match pattern '^[A-Za-z_][\w.]*:[A-Za-z_]\w*$'",
    ),
    ("ray: {executor: slurm}", "ray.executor: got 'slurm', expected: input should be 'ray' or 'inprocess'"),
]
"""(lines added to the good run file, the line they must give)."""


def explanation_of(data: bytes) -> str:
    """The error that a run file with these bytes gives, if any; every other exception passes through."""
    try:
        validate(parse(data, "run.yaml"), "run.yaml")
    except UsageError as error:
        return str(error)
    return ""


def line_of(data: bytes) -> str:
    """The error that a run file with these bytes gives, without the file's name."""
    with pytest.raises(UsageError) as caught:
        validate(parse(data, "run.yaml"), "run.yaml")
    file, _, line = str(caught.value).partition(": ")
    assert file == "run.yaml"
    return line


def test_the_good_run_file_is_good() -> None:
    config = validate(parse(GOOD.encode(), "run.yaml"), "run.yaml")
    assert (config.name, config.population.size, config.engine.kind) == ("tiny", 4, "scripted")


@pytest.mark.parametrize("path", sorted(ROOT.glob("deploy/runs/*.yaml")), ids=lambda path: path.name)
def test_every_shipped_run_file_loads(path: Path) -> None:
    assert load(path).name


def test_there_are_shipped_run_files() -> None:
    assert list(ROOT.glob("deploy/runs/*.yaml"))


@pytest.mark.parametrize(("data", "line"), DOCUMENTS.items(), ids=range(len(DOCUMENTS)))
def test_bad_documents(data: bytes, line: str) -> None:
    assert line_of(data) == line


@pytest.mark.parametrize(("old", "new", "line"), EDITS, ids=[new[:40] or old for old, new, _ in EDITS])
def test_bad_values(old: str, new: str, line: str) -> None:
    assert GOOD.count(old) == 1
    assert line_of(GOOD.replace(old, new).encode()) == line


@pytest.mark.parametrize(("addition", "line"), ADDITIONS, ids=[addition[:40] for addition, _ in ADDITIONS])
def test_bad_additions(addition: str, line: str) -> None:
    assert line_of(f"{GOOD}{addition}\n".encode()) == line


@pytest.mark.parametrize(("opening", "closing"), ["[]", ("{a: ", "}")])
@pytest.mark.parametrize("depth", [10, 150, 5000])
def test_deep_nesting_is_refused_and_never_crashes(opening: str, closing: str, depth: int) -> None:
    nest = depth * opening + depth * closing
    text = f"{GOOD}environment: {{settings: {{a: {nest.replace('{a: }', '{a: 1}')}}}}}\n"
    assert ("more than 20 levels are not allowed" in explanation_of(text.encode())) == (depth > 10)


def test_a_file_that_is_too_large_or_not_there(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match=rf"large\.yaml: got more than {MAX_BYTES} bytes, expected a run file"):
        load(large)
    with pytest.raises(UsageError, match=r"gone\.yaml: cannot be read: No such file or directory$"):
        load(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory$"):
        load(tmp_path)


words = st.sampled_from(
    [*RunConfig.model_fields, "size", "lives", "founders", "kind", "custom", "scripted", "vllm", "sft", "<<", "=", "a"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words | st.dates()
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
good = yaml.safe_load(GOOD)


def reads_or_explains(data: bytes) -> None:
    explanation = explanation_of(data)
    assert explanation == "" or explanation.startswith("run.yaml: ")
    assert explanation.isprintable()


@settings(max_examples=300)
@given(documents)
def test_junk_documents_give_nothing_but_a_usage_error(document: object) -> None:
    reads_or_explains(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@settings(max_examples=300)
@given(st.dictionaries(words, documents, min_size=1, max_size=3))
def test_junk_sections_in_a_good_file_give_nothing_but_a_usage_error(sections: dict[str, object]) -> None:
    reads_or_explains(yaml.safe_dump(good | sections).encode())


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text("-:[]{}#&*!|>'\"%@`,?=<~ \n\tab01.e+_x", max_size=60).map(str.encode))
def test_junk_bytes_give_nothing_but_a_usage_error(data: bytes) -> None:
    reads_or_explains(data)


def shipped(tmp_path: Path, *overrides: str) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return load(path, overrides)


def test_overrides_reach_any_depth(tmp_path: Path) -> None:
    config = shipped(tmp_path, "seed=9", "selection.elites=2", "environment.settings.size=12", "trainer.jobs=3")
    assert (config.seed, config.selection.elites, config.trainer.jobs) == (9, 2, 3)
    assert config.environment.settings == {"size": 12}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("seed", "--set seed: expected a.b=value"),
        ("a..b=1", "--set a..b=1: expected a.b=value"),
        ("seed=[", "--set seed=[: not valid YAML: line 1: expected the node content, but found '<stream end>'"),
        ("seed=1:30", f"--set seed=1:30: not valid YAML: line 1: '1:30' {AMBIGUOUS}"),
        ("name.first=x", "--set name.first=x: 'name' is not a section"),
        ("sed=1", 'run.yaml: sed: unknown key (did you mean "seed"?); remove it or correct its name'),
    ],
)
def test_bad_overrides(tmp_path: Path, change: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        shipped(tmp_path, change)
    assert str(caught.value).replace(f"{tmp_path}/", "") == line


def test_what_an_engine_remembers_is_no_part_of_a_run() -> None:
    demo = ROOT / "deploy" / "runs" / "demo.yaml"
    kept, forgotten = (load(demo, change).model_dump(mode="json") for change in ([], ["engine.remember=0"]))
    assert kept["engine"] != forgotten["engine"]
    assert semantic(kept) == semantic(forgotten)


def test_a_resumed_run_may_change_how_and_not_what(tmp_path: Path) -> None:
    document = shipped(tmp_path).model_dump(mode="json")
    changed = override(document, ["workers.agents=4", "engine.count=2", "metrics.port=0", "trainer.jobs=2"])
    assert (changed.workers.agents, changed.engine.count) == (4, 2)
    assert semantic(changed.model_dump(mode="json")) == semantic(shipped(tmp_path).model_dump(mode="json"))
    with pytest.raises(UsageError, match=r"^--set seed: the run has 1, got 2; a resumed run may change only how work"):
        override(document, ["seed=2"])
    with pytest.raises(UsageError, match=r"^--set population\.lives: the run has 2, got 3"):
        override(document, ["workers.agents=4", "population.lives=3"])
