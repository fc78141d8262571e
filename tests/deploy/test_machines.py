"""Compose, systemd, Slurm and SkyPilot: accepted by their own tools or published schemas, with the same run file."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from telemetry import failures
from telemetry.failures import ForagerError
from tests.deploy.tools import DEPLOY, RUN_FILE, document, faults, judged
from tests.forager import ROOT
from tests.prometheus import DASHBOARD, RULES

SCRIPTS = [*sorted((DEPLOY / "bin").iterdir()), DEPLOY / "slurm" / "forager.sbatch"]
UNIT = DEPLOY / "systemd" / "forager@.service"
COMPOSE = DEPLOY / "compose.yaml"
SKYPILOT = DEPLOY / "skypilot" / "forager.yaml"
SLURM = DEPLOY / "slurm" / "forager.sbatch"
WORTH_ANOTHER_TRY = {failures.StorageError.exit_code, failures.ClusterLostError.exit_code}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    judged("shellcheck", script)
    assert script.stat().st_mode & 0o111 or script.suffix


def test_skypilots_shell_is_clean(tmp_path: Path) -> None:
    task = document(SKYPILOT)
    for part in ("setup", "run"):
        (tmp_path / part).write_text(f"#!/bin/bash\n{task[part]}")
        judged("shellcheck", tmp_path / part)


# The same run file.


def test_all_clusters_run_the_same_bytes() -> None:
    """KubeRay's copy is compared in test_kubernetes.py; these three name the file itself."""
    name = str(RUN_FILE.relative_to(ROOT))
    assert re.findall(r"\S*\.yaml", document(SKYPILOT)["run"]) == [name]
    assert f"file=${{1:-{name}}}\n" in SLURM.read_text()
    text = RUN_FILE.read_text()
    assert "ray:" not in text, "where the cluster is is told by --address"
    assert "://" not in text.replace("--store s3://bucket/runs", ""), "where runs live is told by --store"
    for manifest in (SLURM, SKYPILOT, *(DEPLOY / "kuberay").rglob("*.yaml")):
        assert "--set" not in manifest.read_text().replace("--set metrics.host=0.0.0.0", ""), manifest


# Compose.


def test_compose_fits_the_specification() -> None:
    judged("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_composed_ports_are_on_loopback_and_nothing_is_privileged() -> None:
    for name, service in document(COMPOSE)["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-\$\{FORAGER_VARIANT:-cpu\})?", service["image"])


def mounts(service: str) -> dict[str, Path]:
    """Files and folders of the checkout by their place in the service's container."""
    pairs = [mount.split(":") for mount in document(COMPOSE)["services"][service]["volumes"] if mount[0] == "."]
    return {parts[1]: (DEPLOY / parts[0]).resolve() for parts in pairs}


def test_prometheus_and_grafana_find_their_files_and_each_other() -> None:
    services = document(COMPOSE)["services"]
    configured, place = mounts("prometheus"), "/etc/prometheus"
    assert configured == {f"{place}/prometheus.yml": RULES.with_name("prometheus.yml"), f"{place}/rules.yml": RULES}
    assert f"--config.file={place}/prometheus.yml" in services["prometheus"]["command"]
    assert document(RULES.with_name("prometheus.yml"))["rule_files"] == [RULES.name]
    assert services["forager"]["network_mode"] == "service:prometheus", "so that 127.0.0.1:9464 is the run's"
    shown, grafana = mounts("grafana"), services["grafana"]["environment"]
    provisioning = shown["/etc/grafana/provisioning"]
    [provider] = document(provisioning / "dashboards" / "forager.yml")["providers"]
    assert shown[f"{provider['options']['path']}/forager.json"] == DASHBOARD
    [source] = document(provisioning / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "${PROMETHEUS_URL}"
    assert grafana["PROMETHEUS_URL"] == "http://prometheus:9090"


# systemd.


def test_systemd_accepts_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "etc" / "systemd" / "system" / "forager@demo.service"
    program = tmp_path / "opt" / "forager" / "bin" / "start-or-resume"
    for source, place in ((UNIT, unit), (DEPLOY / "bin" / "start-or-resume", program)):
        place.parent.mkdir(parents=True)
        shutil.copy(source, place)
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr" / "lib" / "systemd" / "system", symlinks=True)
    judged("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", f"--root={tmp_path}", unit.name)
    judged("systemd-analyze", "security", "--offline=yes", "--threshold=20", f"--root={tmp_path}", unit.name)


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_tries_again_only_what_is_worth_it() -> None:
    assert settings("Restart") == ["on-abnormal"], "signals and time-outs, not exit codes"
    assert {int(code) for code in settings("RestartForceExitStatus")[0].split()} == WORTH_ANOTHER_TRY
    assert settings("SuccessExitStatus") == ["130 143"]
    assert settings("KillMode") == ["mixed"], "the driver commits before its actors go"


# SkyPilot.


def test_skypilot_knows_every_key() -> None:
    task = document(SKYPILOT)
    assert faults("sky.task", task) == []
    assert faults("sky.resources", task["resources"]) == []
    assert faults("sky.task", task | {"num_node": 2})
    assert faults("sky.resources", task["resources"] | {"accelerator": "H100"})


def test_skypilot_rents_what_the_run_file_needs_and_comes_back() -> None:
    from orchestrator.needs import engine_gpus, trainer_gpus
    from orchestrator.runfile import load

    task, config = document(SKYPILOT), load(RUN_FILE, ())
    needed = sum(engine_gpus(config) + trainer_gpus(config))
    for choice in task["resources"]["any_of"]:
        assert task["num_nodes"] * int(choice["accelerators"].split(":")[1]) == needed
    assert set(task["resources"]["job_recovery"]["recover_on_exit_codes"]) == WORTH_ANOTHER_TRY
    assert task["resources"]["use_spot"] is True
    assert task["envs"]["FORAGER_STORE"] is None, "the user's; SkyPilot asks for it"
    assert set(task["secrets"].values()) == {None}


# Slurm.


def test_slurm_takes_the_gpus_that_the_run_file_needs_and_comes_back() -> None:
    from orchestrator.needs import engine_gpus, trainer_gpus
    from orchestrator.runfile import load

    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", SLURM.read_text(), re.MULTILINE))
    config = load(RUN_FILE, ())
    needed = sum(engine_gpus(config) + trainer_gpus(config))
    assert int(options["nodes"]) * int(options["gpus-per-node"]) == needed
    assert {"requeue", "open-mode", "exclusive"} <= options.keys()
    [requeued] = re.findall(r"^    ([\d |]+)\) scontrol requeue", SLURM.read_text(), re.MULTILINE)
    assert {int(code) for code in requeued.split("|")} == {*WORTH_ANOTHER_TRY, 143}


def test_everywhere_a_driver_that_is_stopped_has_its_time() -> None:
    from orchestrator.driver import GRACE

    kubernetes = (DEPLOY / "kuberay" / "cluster" / "kustomization.yaml").read_text()
    seconds = [
        *re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", kubernetes),
        *re.findall(r"^#SBATCH --signal=B:TERM@(\d+)", SLURM.read_text(), re.MULTILINE),
        settings("TimeoutStopSec")[0].removesuffix("s"),
    ]
    assert len(seconds) == 3
    assert all(int(one) > GRACE for one in seconds)
    assert (document(COMPOSE)["services"]["forager"]["stop_grace_period"], GRACE < 60) == ("1m", True)


def test_no_exit_code_is_forgotten() -> None:
    codes = {kind.exit_code for kind in ForagerError.__subclasses__() if kind is not failures.Stopped}
    assert codes == {2, 3, 4, 5, 6, 7}, "a code is worth another try, or not: say so in each of the manifests"


def test_no_secret_is_shipped() -> None:
    for path in DEPLOY.rglob("*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            assert not isinstance(one, dict) or one.get("kind") != "Secret", path
