"""What Kustomize makes of deploy/kuberay fits the published schemas, the run file, and what Forager needs."""

import re
import tomllib
from importlib.metadata import version
from typing import Any

import pytest
import yaml

from orchestrator.needs import engine_gpus, trainer_gpus
from orchestrator.runfile import load
from tests.deploy.tools import DEPLOY, RUN_FILE, Document, document, faults, judged
from tests.forager import ROOT

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="`pip install 'forager[dev]'` brings it")

KUBERNETES = "1.34"
CUSTOM = ("RayCluster", "RayJob", "PodMonitor", "PrometheusRule")


@pytest.fixture(scope="module")
def kinds() -> dict[str, dict[str, Document]]:
    """Documents by overlay, and in it by `Kind/name`."""
    found = {}
    for overlay in ("cluster", "job"):
        built = list(yaml.safe_load_all(judged("kubectl", "kustomize", DEPLOY / "kuberay" / overlay)))
        found[overlay] = {f"{one['kind']}/{one['metadata']['name']}": one for one in built}
        assert len(found[overlay]) == len(built)
    return found


def specs(cluster: Document) -> dict[str, Document]:
    """Pod specifications of a Ray cluster by group; `head` is the head's."""
    groups = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **groups}


def everyone(job: Document) -> dict[str, Document]:
    """All pod specifications of a job, the submitter's among them."""
    return {**specs(job["rayClusterSpec"]), "submitter": job["submitterPodTemplate"]["spec"]}


def test_an_overlay_holds_what_it_promises(kinds: dict[str, dict[str, Document]]) -> None:
    shared = {"ConfigMap/forager-run", "ConfigMap/forager-dashboard", "ConfigMap/forager-settings"}
    shared |= {"PodMonitor/forager", "PrometheusRule/forager"}
    assert set(kinds["cluster"]) == {*shared, "RayCluster/forager"}
    assert set(kinds["job"]) == {*shared, "RayJob/forager"}


@pytest.mark.parametrize("overlay", ["cluster", "job"])
def test_everything_fits_its_published_schema(kinds: dict[str, dict[str, Document]], overlay: str) -> None:
    for one in kinds[overlay].values():
        if one["kind"] in CUSTOM:
            assert faults(one["kind"], one) == []
        else:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_pods_inside_custom_resources_are_pods(kinds: dict[str, dict[str, Document]]) -> None:
    for name, spec in everyone(kinds["job"]["RayJob/forager"]["spec"]).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def _without(path: str, one: Document) -> Document:
    *parents, last = path.split(".")
    changed: Document = yaml.safe_load(yaml.safe_dump(one))
    inner: Any = changed
    for key in parents:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    inner[last + "s"] = inner.pop(last)
    return changed


@pytest.mark.parametrize(
    "path",
    [
        "spec.entrypoint",
        "spec.rayClusterSpec.authOptions",
        "spec.rayClusterSpec.workerGroupSpecs.0.minReplicas",
        "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.image",
    ],
)
def test_a_misspelt_key_is_found(kinds: dict[str, dict[str, Document]], path: str) -> None:
    assert faults("RayJob", _without(path, kinds["job"]["RayJob/forager"]))


def test_the_run_file_is_the_one_that_everybody_runs(kinds: dict[str, dict[str, Document]]) -> None:
    for one in kinds.values():
        assert one["ConfigMap/forager-run"]["data"] == {"run.yaml": RUN_FILE.read_text()}
    job = kinds["job"]["RayJob/forager"]["spec"]
    assert job["entrypoint"].startswith("start-or-resume /etc/forager/run.yaml --address auto ")
    for spec in specs(job["rayClusterSpec"]).values():
        [run] = [volume for volume in spec["volumes"] if volume["name"] == "run"]
        assert run["configMap"] == {"name": "forager-run"}
        assert {"name": "run", "mountPath": "/etc/forager", "readOnly": True} in spec["containers"][0]["volumeMounts"]


def test_the_job_has_the_cluster_of_the_other_overlay(kinds: dict[str, dict[str, Document]]) -> None:
    assert kinds["job"]["RayJob/forager"]["spec"]["rayClusterSpec"] == kinds["cluster"]["RayCluster/forager"]["spec"]


def test_there_are_as_many_gpus_from_the_start_as_the_run_file_needs(kinds: dict[str, dict[str, Document]]) -> None:
    cluster = kinds["cluster"]["RayCluster/forager"]["spec"]
    gpus = 0
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] <= group["maxReplicas"]
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"].get("nvidia.com/gpu") == resources["limits"].get("nvidia.com/gpu")
        gpus += group["minReplicas"] * int(resources["limits"].get("nvidia.com/gpu", 0))
    config = load(RUN_FILE, ())
    assert gpus == sum(engine_gpus(config) + trainer_gpus(config))


def test_the_cluster_scales_and_is_guarded_by_a_token(kinds: dict[str, dict[str, Document]]) -> None:
    cluster = kinds["cluster"]["RayCluster/forager"]["spec"]
    assert cluster["rayVersion"] == version("ray")
    assert (cluster["enableInTreeAutoscaling"], cluster["autoscalerOptions"]["version"]) == (True, "v2")
    assert cluster["authOptions"] == {"mode": "token"}


def test_no_pod_is_privileged_and_each_says_what_it_needs(kinds: dict[str, dict[str, Document]]) -> None:
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    job = kinds["job"]["RayJob/forager"]["spec"]
    assert job["rayClusterSpec"]["autoscalerOptions"]["securityContext"] == confined
    for name, spec in everyone(job).items():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is (name == "head"), "the autoscaler alone asks Kubernetes"
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == confined
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_the_store_and_its_credentials_come_from_the_environment(kinds: dict[str, dict[str, Document]]) -> None:
    job = kinds["job"]["RayJob/forager"]["spec"]
    for spec in specs(job["rayClusterSpec"]).values():
        assert not [volume for volume in spec["volumes"] if "persistentVolumeClaim" in volume]
        [settings, secret] = spec["containers"][0]["envFrom"]
        assert settings == {"configMapRef": {"name": "forager-settings"}}
        assert secret == {"secretRef": {"name": "forager-store", "optional": True}}
    settings = kinds["job"]["ConfigMap/forager-settings"]["data"]
    assert re.fullmatch(r"s3://\w+/runs", settings["FORAGER_STORE"])
    assert not [name for name in settings if "SECRET" in name or "ACCESS_KEY" in name]


def test_every_pod_runs_the_image_that_is_built_here(kinds: dict[str, dict[str, Document]]) -> None:
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    specifications = everyone(kinds["job"]["RayJob/forager"]["spec"]).values()
    images = {one["image"] for spec in specifications for one in [*spec["containers"], *spec.get("initContainers", [])]}
    assert images == {f"forager:{release}-cuda"}


def test_the_monitor_names_jobs_and_ports_that_there_are(kinds: dict[str, dict[str, Document]]) -> None:
    scraped = document(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    endpoints = kinds["job"]["PodMonitor/forager"]["spec"]["podMetricsEndpoints"]
    jobs = {(one["relabelings"][0]["replacement"], one["path"]) for one in endpoints}
    assert jobs == {(one["job_name"], one.get("metrics_path", "/metrics")) for one in scraped}
    cluster = kinds["cluster"]["RayCluster/forager"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in specs(cluster)["head"]["containers"][0]["ports"]}
    assert {one["port"] for one in endpoints} <= set(ports)
    assert ports["forager"] == load(RUN_FILE, ()).metrics.port
    wanted = kinds["job"]["PodMonitor/forager"]["spec"]["selector"]["matchLabels"].items()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(wanted <= group["template"]["metadata"]["labels"].items() for group in groups)


def test_rules_and_dashboard_are_those_of_their_folders(kinds: dict[str, dict[str, Document]]) -> None:
    rules = document(DEPLOY / "prometheus" / "rules.yml")
    assert kinds["job"]["PrometheusRule/forager"]["spec"] == rules, (
        "copy deploy/prometheus/rules.yml below `spec:` of deploy/kuberay/cluster/prometheusrule.yaml"
    )
    dashboard = kinds["job"]["ConfigMap/forager-dashboard"]
    assert dashboard["data"] == {"forager.json": (DEPLOY / "grafana" / "forager.json").read_text()}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
