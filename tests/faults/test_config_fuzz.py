"""Run files with everything wrong that can be: each is read, or refused in one line before anything is started."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config import RunConfig, semantic
from orchestrator.runfile import parse, validate
from telemetry.failures import UsageError
from telemetry.journal import decode, encode
from tests.corpus.run_files import AMBIGUOUS, GOOD, NAMES, RAW, REFUSED_NUMBERS, SHAPES
from tests.forager import ROOT
from tests.inprocess import files, forager_here, refused


def run_refused(tmp_path: Path, data: bytes, *words: str) -> None:
    """The command refuses a run file with these bytes in one line, and leaves nothing behind."""
    path = tmp_path / "run.yaml"
    path.write_bytes(data)
    refused(forager_here("run", path, "--store", tmp_path / "runs", "--set", "ray.executor=inprocess"), 2, *words)
    assert not files(tmp_path / "runs")


@pytest.mark.parametrize("name", SHAPES)
def test_bad_run_files_start_nothing(tmp_path: Path, name: str) -> None:
    data, words = SHAPES[name]
    run_refused(tmp_path, data, words)


@pytest.mark.parametrize("word", AMBIGUOUS)
def test_words_that_readers_of_yaml_understand_differently_are_refused(tmp_path: Path, word: str) -> None:
    words = f"{word!r} is not the same to every reader of YAML"
    for place in ("generations: 2", "name: tiny", "strategy: Walk far."):
        run_refused(tmp_path, GOOD.replace(place, f"{place.partition(':')[0]}: {word}").encode(), words)


def test_words_that_all_readers_understand_are_read(tmp_path: Path) -> None:
    text = GOOD.replace("Walk far.", "2001-01-01 12:00").replace("timid, ", "timid, temperature: 5e-1, epsilon: 1, ")
    text = text.replace("name: tiny", "name: '0777'").replace("generations: 2", "generations: 0x10")
    for data in (text.encode(), b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode()):
        config = validate(parse(data, "run.yaml"), "run.yaml")
        assert (config.name, config.generations) == ("0777", 16)
        assert config.population.founders[0].strategy == "2001-01-01 12:00"
        assert (config.population.founders[1].temperature, config.population.founders[1].epsilon) == (0.5, 1.0)


@pytest.mark.parametrize("number", REFUSED_NUMBERS, ids=lambda text: text[:20])
def test_what_is_no_whole_positive_number_is_refused(tmp_path: Path, number: str) -> None:
    run_refused(tmp_path, GOOD.replace("generations: 2", f"generations: {number}").encode(), "run.yaml")


@pytest.mark.parametrize("name", NAMES, ids=lambda text: ascii(text[:20]))
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    run_refused(tmp_path, GOOD.replace("name: tiny", f"name: {name}").encode(), "run.yaml")
    run_refused(tmp_path, GOOD.replace("name: bold", f"name: {name}").encode(), "run.yaml")


class Plain(str):
    """Text that goes into the run file as it is, whatever YAML makes of it."""


def emit(node: Any) -> str:
    """A tree of pairs, lists and scalars as YAML in one line."""
    if isinstance(node, Plain):
        return str(node)
    if isinstance(node, tuple):
        return "{" + ", ".join(f"{emit(key)}: {emit(value)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(emit, node)) + "]"
    return json.dumps(node, ensure_ascii=False)


def tree(node: Any) -> Any:
    """A parsed document as a tree: mappings as tuples of pairs, so that a key may stand twice."""
    if isinstance(node, dict):
        return tuple((key, tree(value)) for key, value in node.items())
    return [tree(one) for one in node] if isinstance(node, list) else node


def places(node: Any) -> list[tuple[int, ...]]:
    """Path of every node of a tree."""
    inner = [one[1] for one in node] if isinstance(node, tuple) else node if isinstance(node, list) else []
    return [(), *((index, *path) for index, one in enumerate(inner) for path in places(one))]


def edit(node: Any, path: tuple[int, ...], change: Callable[[Any], Any]) -> Any:
    """The tree with the node at `path` changed."""
    if not path:
        return change(node)
    index, *rest = path
    if isinstance(node, tuple):
        key, value = node[index]
        return (*node[:index], (key, edit(value, tuple(rest), change)), *node[index + 1 :])
    return [*node[:index], edit(node[index], tuple(rest), change), *node[index + 1 :]]


def pairs(change: Callable[[tuple[Any, ...], int], Any]) -> Callable[[Any, int], Any]:
    """A change of the pairs of a mapping at a position within it; other nodes are left alone."""
    return lambda node, draw: change(node, draw % len(node)) if isinstance(node, tuple) and node else node


def renamed(key: Any, draw: int) -> Any:
    text = str(key)
    near = (text[1:], text + "s", text.upper(), f"{text} ", f"{text[1:2]}{text[:1]}{text[2:]}", f"{text}\x1b[31m", "")
    return near[draw % len(near)]


CHANGES: tuple[Callable[[Any, int], Any], ...] = (
    lambda node, draw: Plain(RAW[draw % len(RAW)]),
    lambda node, draw: Plain(RAW[draw % len(RAW)]),
    lambda node, draw: [node],
    lambda node, draw: (("kind", node),),
    lambda node, draw: draw - 5000,
    lambda node, draw: (draw - 5000) / 1000,
    lambda node, draw: draw % 2 == 0,
    lambda node, draw: None,
    lambda node, draw: chr(draw * 7 % 0xD800) * (draw % 70),
    pairs(lambda node, at: (*node, node[at])),
    pairs(lambda node, at: node[:at] + node[at + 1 :]),
    pairs(lambda node, at: (*node[:at], (renamed(node[at][0], at), node[at][1]), *node[at + 1 :])),
    pairs(lambda node, at: (*node, (f"x{at}", node[at][1]))),
    pairs(lambda node, at: node[::-1]),
    pairs(lambda node, at: tuple((key, node[at][1]) for key, _ in node)),
)
"""What can become of a node; the integer draws the details."""

BASES = [
    tree(yaml.safe_load(text))
    for text in (
        *(GOOD, GOOD, GOOD),
        *(ROOT.joinpath("deploy/runs", f"{name}.yaml").read_text() for name in ("smoke", "cluster")),
    )
]


@st.composite
def run_files(draw: st.DrawFn) -> str:
    """A valid run file changed in up to three places, then in rare cases cut or with a byte more."""
    document = draw(st.sampled_from(BASES))
    for where, how, detail in draw(
        st.lists(st.tuples(st.integers(0, 999), st.sampled_from(CHANGES), st.integers(0, 9999)), max_size=3)
    ):
        known = places(document)
        document = edit(document, known[where % len(known)], lambda node: how(node, detail))  # noqa: B023
    text = emit(document)
    end = draw(st.integers(0, 20 * len(text)))
    return (
        text if end > len(text) else text[:end] + draw(st.sampled_from(["", "\0", "\t", "}", "\ufeff", "*a", "\x85"]))
    )


def outcome(text: str) -> str:
    """`read` or `refused`; fails the test for anything that is neither."""
    try:
        config = validate(parse(text.encode("utf-8", "surrogatepass"), "run.yaml"), "run.yaml")
    except UsageError as error:
        line = str(error)
        assert line.startswith("run.yaml: ")
        assert line.isprintable()
        assert len(line) < 600
        return "refused"
    # What is read can be written into the journal, and comes back as it was.
    entry = decode(encode(0, "0" * 64, 0, "w", "run", config.model_dump(mode="json")), 0)
    again = RunConfig.model_validate(entry.body)
    assert again == config
    assert semantic(again.model_dump(mode="json")) == semantic(config.model_dump(mode="json"))
    return "read"


def campaign(examples: int) -> Counter[str]:
    """How many generated run files came to what."""
    seen: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(run_files())
    def one(text: str) -> None:
        seen[outcome(text)] += 1

    one()
    return seen


def test_a_few_hundred_generated_run_files() -> None:
    seen = campaign(300)
    assert min(seen["read"], seen["refused"]) >= 20


@pytest.mark.faults
def test_ten_thousand_generated_run_files() -> None:
    seen = campaign(10_000)
    assert seen.total() >= 10_000
    assert min(seen["read"], seen["refused"]) >= 1000


@pytest.mark.parametrize(
    ("store", "code"),
    [
        ("s3://", 2),
        ("s3://key:secret@bucket/runs", 2),
        ("s3://bucket/runs?secret=x", 2),
        ("ftp://host/runs", 2),
        ("", 2),
        ("runs\n", 2),
        ("runs%2e", 2),
        ("x" * 5000, 5),
        ("x/" * 3000, 5),
        ("/dev/null/runs", 5),
        ("/proc/runs", 5),
    ],
    ids=lambda value: str(value)[:20].encode("unicode_escape").decode(),
)
def test_places_that_hold_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, code: int) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(GOOD)
    line = refused(forager_here("run", "run.yaml", "--store", store, "--set", "ray.executor=inprocess"), code)
    assert "secret" not in line
    refused(forager_here("status", store), 2)
    assert [path.name for path in files(tmp_path)] == ["run.yaml"]


def test_a_loop_of_links_is_no_place_and_no_run_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "run.yaml").write_text(GOOD)
    refused(forager_here("run", tmp_path / "run.yaml", "--store", loop, "--set", "ray.executor=inprocess"), 5, "loop")
    refused(forager_here("run", loop, "--store", tmp_path / "runs"), 2, "loop: cannot be read")
    refused(forager_here("verify", loop), 2, "loop")


def test_odd_arguments_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(GOOD)
    for change in (
        "\udcff=1",
        "a" * 10_000,
        ".".join("a" * 3000) + "=1",
        "seed=\x1b[31m",
        "seed=" + "[" * 3000,
        "seed=\udc80",
    ):
        refused(forager_here("plan", tmp_path / "run.yaml", "--set", change), 2)
    refused(forager_here("plan", tmp_path / "n\x1b[31m\nowhere.yaml"), 2, "cannot be read")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/nowhere/model", "model: got '/nowhere/model'"),
        ("~nobody-here/model", "model: got '~nobody-here/model'"),
        ("x" * 900, "model: got 'xxx"),
        ("../" * 100, "model"),
        (".", "lacks config.json"),
    ],
    ids=["missing", "home of nobody", "long name", "parents", "not a model"],
)
def test_models_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace("engine: {kind: scripted}\ntrainer: {objective: {kind: scripted}}\n", "")
    (tmp_path / "run.yaml").write_text(f"{text}model: '{model}'\n")
    refused(forager_here("run", "run.yaml", "--store", "runs", "--set", "ray.executor=inprocess"), 2, words)
    assert not [path for path in files(tmp_path / "runs") if "probe" not in path.parts]
