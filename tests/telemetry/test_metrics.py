"""Metrics say what they were told, survive anything they are told, and are served without harm to the run."""

import json
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from telemetry.catalogue import MAX_CAUSES, TABLE, catalogue
from telemetry.exporter import serve
from telemetry.failures import UsageError
from telemetry.metrics import QUANTILES, Metrics, Rate
from tests.forager import ROOT

HOST = "127.0.0.1"


def opened(run: str = "first-run") -> Metrics:
    metrics = Metrics(run=run)
    metrics.open(version="0.1.0", model="tiny", environment="forage", population=6, lineages=3)
    return metrics


def lived(metrics: Metrics, ends: dict[str, int]) -> None:
    metrics.lives(ends, steps=10, prompt_tokens=100, completion_tokens=10, seconds=2.5)


def fetch(port: int, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_every_declared_metric_is_served_and_no_other() -> None:
    metrics = opened()
    lived(metrics, {"survived": 1})
    metrics.training("trained", tokens=5, seconds=1.0, losses=(2.0, 1.0))
    metrics.generation(1, [4.0, 1.0], population=2, lineages=2, culled=0, entropy=1.0, behaviour=0.1)
    metrics.held_out({"champion": 4.0}, 0.5)
    metrics.left({"generations": 3.0})
    with serve(metrics, HOST, 0) as port:
        _, text = fetch(port, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {one.name.removesuffix("_total") for one in TABLE}
    for one in TABLE:
        family = families[one.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (one.kind, one.help)
        assert family.samples
        assert all(set(sample.labels) - {"le"} == set(one.labels) for sample in family.samples)


def test_names_follow_the_conventions() -> None:
    for one in TABLE:
        assert one.name.startswith("forager_")
        assert one.name.endswith("_total") == (one.kind == "counter")
    assert len({one.name for one in TABLE}) == len(TABLE)


def test_counters_add_up_and_gauges_hold_the_last_value() -> None:
    metrics = opened()
    lived(metrics, {"died:starved": 3, "survived": 2})
    lived(metrics, {"died:starved": 1, "censored": 1})
    metrics.training("failed", tokens=7, seconds=1.5)
    metrics.generation(1, [4.0, 1.0, 2.0, 9.0], population=4, lineages=2, culled=1, entropy=1.5, behaviour=0.25)
    value = metrics.registry.get_sample_value
    assert value("forager_lives_total", {"end": "died", "cause": "starved"}) == 4
    assert value("forager_lives_total", {"end": "survived", "cause": ""}) == 2
    assert value("forager_lives_total", {"end": "censored", "cause": ""}) == 1
    assert value("forager_steps_total") == 20
    assert value("forager_rollout_seconds_total") == 5.0
    assert value("forager_training_jobs_total", {"status": "failed"}) == 1
    assert value("forager_training_tokens_total") == 7
    assert [value(f"forager_fitness_{name}") for name in ("best", "mean", "median", "worst")] == [9, 4, 3, 1]
    assert value("forager_lineages_culled_total") == 1
    assert value("forager_generation") == 1


@given(st.lists(st.dictionaries(st.text(max_size=80).map("died:{}".format), st.integers(1, 9)), max_size=60))
def test_series_are_bounded_whatever_worlds_say(commits: list[dict[str, int]]) -> None:
    metrics = opened()
    many = {f"died:cause-{number}": 1 for number in range(MAX_CAUSES + 40)}
    for ends in [*commits, many]:
        lived(metrics, ends)
    lives = {
        sample.labels["cause"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "forager_lives_total"
    }
    assert len(lives) <= MAX_CAUSES + 2, "32 causes, the rest, and lives without a cause"
    assert lives["other"] >= 40
    assert sum(lives.values()) == sum(sum(ends.values()) for ends in [*commits, many])


@given(st.text(max_size=300))
def test_any_text_in_the_run_info_can_be_scraped(text: str) -> None:
    metrics = Metrics(run=text)
    metrics.open(version=text, model=text, environment=text, population=1, lineages=1)
    assert metrics.registry.get_sample_value("forager_population_size") == 1
    for family in metrics.registry.collect():
        for sample in family.samples:
            assert all(len(label) <= 128 and label.encode() for label in sample.labels.values() if label)


def test_restarts_count_up_even_when_the_pool_starts_again() -> None:
    metrics = opened()
    for restarts in (0, 2, 2, 3, 0, 1):
        metrics.live(10, 100, restarts=restarts)
    assert metrics.registry.get_sample_value("forager_actor_restarts_total") == 3
    assert metrics.registry.get_sample_value("forager_lives_in_flight") == 10


def test_rate_is_over_the_last_ten_seconds_and_survives_a_total_that_falls() -> None:
    now = 0.0
    rate = Rate(lambda: now)
    for second in range(31):
        now = float(second)
        seen = rate(second * 5 if second <= 20 else 100 + (second - 20) * 50)
    assert seen == pytest.approx(50)
    now = 31.0
    assert rate(0) == 0.0
    now = 33.0
    assert rate(20) == pytest.approx(10)


def test_nothing_is_scraped_before_the_journal_is_replayed() -> None:
    metrics = Metrics(run="first-run")
    with serve(metrics, HOST, 0) as port:
        assert fetch(port, "/metrics")[0] == 503
        status, text = fetch(port, "/health")
        assert (status, json.loads(text)["status"]) == (200, "starting")
        metrics.open(version="1", model="m", environment="e", population=1, lineages=1)
        assert fetch(port, "/metrics")[0] == 200


def test_health_tells_run_generation_and_age_of_the_last_commit() -> None:
    metrics = opened()
    metrics.generation(2, [1.0], population=1, lineages=1, culled=0, entropy=0.0, behaviour=0.0)
    metrics.committed(0.0)
    with serve(metrics, HOST, 0) as port:
        health = json.loads(fetch(port, "/health")[1])
    assert health["last_commit_age_seconds"] > 1e9
    assert {key: health[key] for key in ("status", "run", "generation")} == {
        "status": "running",
        "run": "first-run",
        "generation": 2,
    }
    metrics.finish()
    assert metrics.health()["status"] == "finished"


def test_the_server_is_read_only_and_offers_nothing_else() -> None:
    with serve(opened(), HOST, 0) as port:
        assert fetch(port, "/")[0] == 404
        assert fetch(port, "/metrics/../etc/passwd")[0] == 404
        request = urllib.request.Request(f"http://{HOST}:{port}/metrics", data=b"x", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(request, timeout=10)


def test_a_port_in_use_is_one_line_for_the_user() -> None:
    with serve(opened(), HOST, 0) as port, pytest.raises(UsageError) as caught, serve(opened(), HOST, port):
        pass
    assert str(caught.value).startswith(f"metrics.port: got {port}, ")
    assert "\n" not in str(caught.value)


def test_an_unknown_host_is_one_line_for_the_user() -> None:
    with (
        pytest.raises(UsageError, match=r"^metrics\.host: got 'no\.such\.host\.invalid', "),
        serve(opened(), "no.such.host.invalid", 0),
    ):
        pass


def test_the_port_is_free_again_afterwards() -> None:
    with serve(opened(), HOST, 0) as port:
        pass
    with serve(opened(), HOST, port) as again:
        assert again == port


def test_clients_that_hang_up_or_talk_nonsense_disturb_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with serve(opened(), HOST, 0) as port:
        idle = socket.create_connection((HOST, port))
        for payload in (b"", b"\x00\xff\r\n\r\n", b"GET /metrics HTTP/1.0\r\n", b"GET " + b"a" * 100_000 + b"\r\n\r\n"):
            with socket.create_connection((HOST, port)) as client:
                client.sendall(payload)
        assert fetch(port, "/metrics")[0] == 200
        idle.close()
    assert capfd.readouterr() == ("", "")


def test_openmetrics_is_negotiated() -> None:
    with serve(opened(), HOST, 0) as port:
        _, text = fetch(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


def test_deployment_files_name_no_metric_that_does_not_exist() -> None:
    declared = {one.name for one in TABLE} | {f"{one.name}_bucket" for one in TABLE if one.kind == "histogram"}
    for file in (Path(__file__).parents[2] / "deploy").rglob("*"):
        if file.suffix in (".json", ".yaml", ".yml"):
            assert set(re.findall(r"\bforager_\w+", file.read_text(encoding="utf-8"))) <= declared, file


def test_totals_of_engines_grow_over_replacements_and_never_fall() -> None:
    metrics = opened()
    value = metrics.registry.get_sample_value

    def told(name: str, answered: int, waiting: int = 0) -> None:
        kinds = ("prompt_tokens", "cached_tokens", "recalled", "busy_seconds", "switches", "running")
        counts = dict.fromkeys(kinds, answered)
        metrics.engines({name: {**counts, "answered": answered, "waiting": waiting}})

    for name, answered in (("engine-0.0", 5), ("engine-0.0", 9), ("engine-0.0", 7), ("engine-0.1", 2)):
        told(name, answered)
    assert value("forager_engine_requests_total") == 11
    told("engine-0.1", 2, waiting=3)
    assert value("forager_engine_requests_waiting") == 3
    assert value("forager_engines") == 1
    metrics.engines({})
    assert value("forager_engines") == value("forager_engine_requests_waiting") == 0


def test_quantiles_are_somebodys_fitness() -> None:
    metrics = opened()
    metrics.generation(1, [9.0, 1.0, 5.0, 3.0], population=4, lineages=4, culled=0, entropy=1.0, behaviour=0.1)
    found = [metrics.registry.get_sample_value("forager_fitness_quantile", {"quantile": str(q)}) for q in QUANTILES]
    assert found == [1.0, 1.0, 3.0, 5.0, 9.0]


def test_the_page_of_metrics_is_what_the_code_declares() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert catalogue() in page, "write it anew: python -m telemetry.catalogue > docs/metrics.md"
