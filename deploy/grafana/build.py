"""Writes the dashboard: `python deploy/grafana/build.py > deploy/grafana/forager.json`.

Needs grafana-foundation-sdk (extra `dev`). Every expression here is executed by a test against a Prometheus server that
has scraped a real run.
"""

from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HERE = '{instance=~"$instance"}'

Query = tuple[str, str]
"""(expression, legend); `@` stands for the chosen run."""
Unit = Literal["short", "percentunit", "s", "bytes", "bits", "reqps", "none"]


def graph(title: str, what: str, *queries: Query, unit: Unit = "short", stacked: bool = False) -> timeseries.Panel:
    """A panel of lines over time, half a row wide."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .unit(unit)
        .span(12)
        .height(8)
        .line_width(2)
        .fill_opacity(30 if stacked else 0)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return _with(panel, queries)


def figure(title: str, what: str, query: str, unit: Unit = "short") -> stat.Panel:
    """A panel of one number, a sixth of a row wide."""
    panel = stat.Panel().title(title).description(what).datasource(SOURCE).unit(unit).span(4).height(4)
    return _with(panel, [(query, "")])


def _with(panel, queries):  # type: ignore[no-untyped-def]
    for number, (expression, legend) in enumerate(queries):
        target = prometheus.Dataquery().expr(expression.replace("@", HERE)).ref_id("ABCDEFGH"[number])
        panel = panel.with_target(target.legend_format(legend) if legend else target)
    return panel


def build() -> dashboard.Dashboard:
    """The dashboard of one run."""
    board = (
        dashboard.Dashboard("Forager")
        .uid("forager")
        .tags(["forager"])
        .refresh("10s")
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("run", "label_values(forager_run_info, run)"))
        .with_variable(_variable("instance", 'label_values(forager_run_info{run=~"$run"}, instance)'))
    )
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return board


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
    )


ROWS = {
    "Does it evolve?": [
        figure("Generation", "The generation that lives now.", "forager_generation@"),
        figure("Best fitness", "Of the fittest of the last generation.", "forager_fitness_best@"),
        figure("Lineages alive", "Founders whose line goes on.", "forager_lineages_alive@"),
        figure(
            "Generations left",
            "Until the run is over.",
            'forager_budget_left{instance=~"$instance", resource="generations"}',
        ),
        figure(
            "Since the last commit",
            "Nothing older can be lost.",
            "time() - forager_last_commit_timestamp_seconds@",
            "s",
        ),
        figure("Held-out gap", "Selected fitness less held-out fitness of the champion.", "forager_held_out_gap@"),
        graph(
            "Fitness",
            "The fittest with its 95% interval, and the mean of the population.",
            ("forager_fitness_best@", "best"),
            ("forager_fitness_best_low@", "low"),
            ("forager_fitness_best_high@", "high"),
            ("forager_fitness_mean@", "mean"),
            ("forager_fitness_worst@", "worst"),
        ),
        graph(
            "Distribution of fitness",
            "Fitness that a share of the last generation does not exceed.",
            ("forager_fitness_quantile@", "{{quantile}}"),
        ),
        graph("Held-out worlds", "Mean fitness, once measured.", ("forager_held_out_fitness@", "{{who}}")),
        graph(
            "Diversity",
            "How much individuals vary their actions, and how differently they act.",
            ("forager_action_entropy_bits@", "entropy of actions"),
            ("forager_behaviour_divergence_bits@", "divergence of individuals"),
            unit="bits",
        ),
    ],
    "Life and death": [
        graph(
            "How lives end",
            "Committed lives per minute, by end and cause.",
            ("60 * sum by (end, cause) (rate(forager_lives_total@[1m]))", "{{end}} {{cause}}"),
            stacked=True,
        ),
        graph(
            "Individuals",
            "Born and culled so far, and those whose fitness was doubted.",
            ("forager_individuals_born_total@", "born"),
            ("forager_individuals_culled_total@", "culled"),
            ("forager_lineages_culled_total@", "lineages culled"),
            ("forager_suspects_total@", "suspects"),
        ),
    ],
    "Work": [
        graph("Decisions", "Per second.", ("forager_decisions_per_second@", "decisions"), unit="reqps"),
        graph(
            "Tokens",
            "Per second, of committed lives.",
            ("rate(forager_prompt_tokens_total@[1m])", "prompt"),
            ("rate(forager_completion_tokens_total@[1m])", "completion"),
        ),
        graph(
            "Requests at the engines",
            "In the batch, and waiting for other weights.",
            ("forager_engine_requests_running@", "running"),
            ("forager_engine_requests_waiting@", "waiting"),
            ("forager_lives_in_flight@", "lives under way"),
        ),
        graph(
            "Engines",
            "Shares: of their time in which they compute, of prompt tokens and of whole decisions not computed again.",
            ("rate(forager_engine_busy_seconds_total@[1m]) / (forager_engines@ > 0)", "busy"),
            (
                "rate(forager_engine_cached_tokens_total@[5m]) / (rate(forager_engine_prompt_tokens_total@[5m]) > 0)",
                "prompt tokens",
            ),
            (
                "rate(forager_engine_recalled_total@[5m]) / (rate(forager_engine_requests_total@[5m]) > 0)",
                "decisions recalled",
            ),
            unit="percentunit",
        ),
        graph(
            "Changes of weights",
            "Per minute, and engines that answer.",
            ("60 * rate(forager_engine_switches_total@[1m])", "changes"),
            ("forager_engines@", "engines"),
        ),
        graph(
            "Requests answered",
            "Per second, by engines.",
            ("rate(forager_engine_requests_total@[1m])", "requests"),
            unit="reqps",
        ),
    ],
    "Inside vLLM": [
        graph(
            "Key-value cache",
            "Share in use, by engine.",
            ("vllm:kv_cache_usage_perc@", "{{engine}}"),
            unit="percentunit",
        ),
        graph(
            "Requests inside vLLM",
            "Scheduled and waiting, and how often one had to begin again.",
            ("sum(vllm:num_requests_running@)", "running"),
            ("sum(vllm:num_requests_waiting@)", "waiting"),
            ("sum(vllm:num_preemptions_total@)", "preempted so far"),
        ),
        graph(
            "Time of a request",
            "95th percentiles: from its arrival to its end, and until it was scheduled.",
            ("histogram_quantile(0.95, sum by (le) (rate(vllm:e2e_request_latency_seconds_bucket@[5m])))", "whole"),
            ("histogram_quantile(0.95, sum by (le) (rate(vllm:request_queue_time_seconds_bucket@[5m])))", "queue"),
            unit="s",
        ),
        graph(
            "Tokens inside vLLM",
            "Per second, by engine.",
            ("rate(vllm:prompt_tokens_total@[1m])", "{{engine}} prompt"),
            ("rate(vllm:generation_tokens_total@[1m])", "{{engine}} generated"),
        ),
    ],
    "Learning": [
        graph("Loss", "Of the last job's first and last updates.", ("forager_training_loss@", "{{when}}")),
        graph(
            "Training",
            "Tokens per second of training time, and jobs.",
            ("forager_training_tokens_total@ / (forager_training_seconds_total@ > 0)", "tokens/s"),
            ("forager_training_jobs_total@", "jobs {{status}}"),
            ("forager_training_examples_total@", "examples"),
        ),
    ],
    "Health": [
        graph(
            "Commits",
            "95th percentile of what an entry takes until it is durable.",
            ("histogram_quantile(0.95, sum by (le) (rate(forager_commit_seconds_bucket@[5m])))", "p95"),
            unit="s",
        ),
        graph(
            "Losses",
            "Actors replaced and lives lost to infrastructure, since this driver started.",
            ("forager_actor_restarts_total@", "actors replaced"),
            ("forager_lives_lost_total@", "lives lost and retried"),
        ),
        graph(
            "Store",
            "Bytes that the run keeps, and free space.",
            ("forager_stored_bytes_total@", "kept"),
            ("forager_store_free_bytes@", "free"),
            unit="bytes",
        ),
        graph(
            "Committed so far",
            "Lives by end, steps, and the time they took.",
            ("sum by (end) (forager_lives_total@)", "lives {{end}}"),
            ("forager_steps_total@", "steps"),
            ("forager_rollout_seconds_total@", "seconds of rollout"),
            ("forager_population_size@", "individuals"),
        ),
    ],
}

if __name__ == "__main__":
    print(JSONEncoder(sort_keys=True, indent=1).encode(build().build()))
