"""The batch script on a real Slurm of two nodes, all of this machine: stopped early, queued again, finished."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import free_ports, stop
from tests.deploy.tools import DEPLOY
from tests.forager import ROOT, SMOKE
from tests.inprocess import output

INSTALLED = Path(sys.prefix) / "slurm" / "usr"
"""Where `make slurm` puts it."""
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
PluginDir={plugins}
SlurmctldPort={controller}
SlurmctldPidFile={place}/controller.pid
SlurmdPidFile={place}/%n.pid
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=60
MinJobAge=86400
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs={cpus}
NodeName=zz NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs={cpus}
PartitionName=all Nodes=ALL Default=YES State=UP
"""
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (INSTALLED / "sbin" / "slurmctld-wlm").exists(), reason="`make slurm` fetches Slurm"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons want to be root"),
]


@dataclass(frozen=True)
class Slurm:
    """A controller and two nodes."""

    environment: dict[str, str]

    def ask(self, *command: str | Path) -> str:
        """What one of Slurm's commands prints, which must succeed."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.ask("scontrol", "show", "job", number)))

    def wait(self, number: str, state: str, **more: str) -> None:
        """Returns once the job is in this state."""
        deadline = time.monotonic() + 900
        while not {"JobState": state, **more}.items() <= (found := self.job(number)).items():
            assert time.monotonic() < deadline, found
            time.sleep(0.5)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    """Slurm with a checkout's path in its environment, and nodes that have no GPUs."""
    ports = free_ports("controller", "first", "second")
    plugins, host = INSTALLED / "lib" / "x86_64-linux-gnu" / "slurm-wlm", socket.gethostname().split(".")[0]
    cpus = os.cpu_count()
    text = CONFIGURATION.format(host=host, place=tmp_path, plugins=plugins, cpus=cpus, **ports)
    (tmp_path / "slurm.conf").write_text(text)
    (tmp_path / "state").mkdir()
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(INSTALLED / "bin"), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": f"{plugins}:{plugins.parent}",
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
        "FORAGER_STORE": str(tmp_path / "runs"),
    }
    daemon = [INSTALLED / "sbin" / "slurmd-wlm", "-D", "-d", INSTALLED / "sbin" / "slurmstepd-wlm", "-N"]
    commands = [[INSTALLED / "sbin" / "slurmctld-wlm", "-D"], [*daemon, host], [*daemon, "zz"]]
    started = []
    try:
        for number, command in enumerate(commands):
            with (tmp_path / f"daemon-{number}.log").open("wb") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
            time.sleep(2)
        yield Slurm(environment)
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, timeout=60)
        time.sleep(5)
        for process in reversed(started):
            stop(process)


def test_a_job_that_is_stopped_is_queued_again_and_resumes(slurm: Slurm, tmp_path: Path) -> None:
    document = yaml.safe_load(SMOKE.read_text())
    document["population"]["lives"] = 8
    document["engine"]["seconds"] = 0.02
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    script, here = DEPLOY / "slurm" / "forager.sbatch", ["--cpus-per-task=1", "--gpus-per-node=0"]
    assert "to start at" in slurm.ask("sbatch", "--test-only", *here, script)
    log, run = tmp_path / "job.log", tmp_path / "runs" / "smoke"
    number = slurm.ask("sbatch", "--parsable", *here, f"--output={log}", script, tmp_path / "run.yaml").strip()
    while len(list((run / "journal").glob("*.json"))) < 3:
        assert slurm.job(number)["JobState"] in ("PENDING", "CONFIGURING", "RUNNING"), log.read_text()
        time.sleep(0.2)
    # As `--signal=B:TERM@180` has Slurm do before the time limit.
    slurm.ask("scancel", "--batch", "--signal=TERM", number)
    slurm.wait(number, "PENDING", Restarts="1")
    assert "stopped by a signal" in log.read_text()
    slurm.ask("scontrol", "update", f"JobId={number}", "StartTime=now")
    slurm.wait(number, "COMPLETED")
    assert slurm.job(number)["ExitCode"] == "0:0", log.read_text()
    assert output("verify", run).startswith("ok")
    assert re.search(r"^finished +yes$", output("status", run), re.MULTILINE)
