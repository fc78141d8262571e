"""The house rules that a machine can check: who may import what, which functions are forbidden, how long things get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator import runfile

ROOT = Path(__file__).parents[1]
ROOMS = ("orchestrator", "workers", "trainer", "telemetry")
HEAVY = ("ray", "torch", "vllm", "trl", "transformers", "peft", "datasets", "accelerate")
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_BUILTINS = {"eval", "exec"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_StrictLoader"}

SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
EVERYTHING = sorted([*SOURCES, *(ROOT / "tests").rglob("*.py")])


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_there_is_something_to_check() -> None:
    assert {short(path).split("/")[0] for path in SOURCES} == set(ROOMS)


def test_help_and_config_errors_load_no_heavy_library() -> None:
    program = (
        "import orchestrator.cli, orchestrator.config, orchestrator.runfile, sys;"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def imported(node: ast.AST) -> list[str]:
    """Top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.split(".")[0]]
    return []


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Every use of something that can run what it reads."""
    for node in ast.walk(tree):
        yield from (f"line {node.lineno}: {name}" for name in imported(node) if name in FORBIDDEN_MODULES)  # type: ignore[attr-defined]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN_BUILTINS or name in ("torch.load", "yaml.unsafe_load", "yaml.full_load"):
            yield f"line {node.lineno}: {name}"
        if name in ("yaml.load", "yaml.load_all") and not _is_safe(node):
            yield f"line {node.lineno}: {name} without a safe loader"
        if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
            yield f"line {node.lineno}: {name} with allow_pickle"


def _is_safe(call: ast.Call) -> bool:
    loaders = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "Loader")]
    return any(ast.unparse(loader).split(".")[-1] in SAFE_LOADERS for loader in loaders)


@pytest.mark.parametrize("path", EVERYTHING, ids=short)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    assert list(forbidden(tree_of(path))) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from shelve import open",
        "def f():\n    import marshal",
        "eval('1')",
        "torch.load(path)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, yaml.UnsafeLoader)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_check_itself_finds(bad: str) -> None:
    assert list(forbidden(ast.parse(bad)))


def test_the_strict_loader_is_a_safe_one() -> None:
    assert issubclass(runfile._StrictLoader, yaml.SafeLoader)
    assert not issubclass(yaml.SafeLoader, yaml.UnsafeLoader)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_no_source_file_is_longer_than_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize(
    ("path", "name", "limit"), [("orchestrator/generation.py", "run_generation", 30), ("workers/life.py", "live", 40)]
)
def test_the_loops_fit_on_a_screen(path: str, name: str, limit: int) -> None:
    functions = [
        node
        for node in ast.walk(tree_of(ROOT / path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    assert len(functions) == 1
    assert (functions[0].end_lineno or 0) - functions[0].lineno + 1 <= limit
