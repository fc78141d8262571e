"""A run file: the rooms' configurations composed, and the rules that cross them.

Every default lives here or in a room's config, nowhere else. Importing this module loads none of the heavy
libraries, so that a bad run file is refused in well under a second.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from orchestrator.config_evolution import ReproductionConfig, SelectionConfig
from telemetry.config import MEMBER, NAME, Config, LedgerConfig, MetricsConfig
from telemetry.config_trackers import TrackerConfig
from trainer.config import TrainerConfig
from workers.config import EngineConfig, EnvironmentConfig, VllmEngineConfig, WorkersConfig


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"got {text[:60]!r}, expected one line of visible characters")
    return text


def _lines(text: str) -> str:
    _one_line(text.replace("\n", "").replace("\t", ""))
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""Text without line breaks, control or other invisible characters."""
Lines = Annotated[str, AfterValidator(_lines)]
"""The same, with line breaks and tabs."""


class FounderConfig(Config):
    """One founding genome; it starts a lineage of its own."""

    name: str = Field(pattern=NAME)
    """Name of the lineage."""
    strategy: Lines = Field(min_length=1, max_length=2000)
    """Survival strategy in words, shown to the model in the system turn."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Softmax temperature of its decisions."""
    epsilon: float = Field(default=0.5, ge=0, le=1)
    """Probability of a uniformly drawn legal action: without it the untouched model never finds food."""
    novelty: float = Field(default=0.0, ge=0, le=10)
    """Preference for actions that a life has seldom taken: their weights are divided by (1 + times taken)^novelty."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    """Peak learning rate of its children's training jobs."""
    objective: str = Field(default="", pattern=rf"{NAME}|^$")
    """Which of `trainer.alternatives` its children learn by; empty is `trainer.objective`."""


def lineage_name(founder: str, repeat: int) -> str:
    """Name of the lineage that the `repeat`-th copy of a founder starts; the original is copy 0."""
    return founder if repeat == 0 else f"{founder}-{repeat + 1}"


class PopulationConfig(Config):
    """Who lives."""

    size: int = Field(ge=1, le=100_000)
    """Individuals per generation; more than there are founders are founders with perturbed hyperparameters."""
    lives: int = Field(ge=1, le=100_000)
    """Lives per individual and generation; all individuals face the same world seeds."""
    islands: int = Field(default=1, ge=1, le=100_000)
    """Parts of the population that select and breed on their own, but for migration."""
    founders: tuple[FounderConfig, ...] = Field(min_length=1)
    """The founding genomes."""

    @model_validator(mode="after")
    def _check(self) -> "PopulationConfig":
        names = [founder.name for founder in self.founders]
        if len(set(names)) != len(names):
            raise ValueError("population.founders: every founder needs a name of its own")
        if self.size < self.islands:
            raise ValueError(f"population.islands: got {self.islands}, expected at most the {self.size} individuals")
        if self.size < len(names):
            raise ValueError(f"population.size: got {self.size}, expected at least the {len(names)} founders")
        lineages = {lineage_name(names[index % len(names)], index // len(names)) for index in range(self.size)}
        if len(lineages) != self.size or max(map(len, lineages)) > 63:
            raise ValueError(
                f"population.founders: {self.size} individuals need repeats such as {lineage_name(names[0], 1)!r},"
                " which are too long or taken; rename the founders"
            )
        return self


class RmstConfig(Config):
    """Restricted mean survival time up to the world's horizon: the area under the Kaplan-Meier curve."""

    kind: Literal["rmst"] = "rmst"
    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples behind the interval."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the interval."""


class MeanConfig(Config):
    """A mean over lives."""

    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples behind the interval of the mean."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the interval."""


class EnergyConfig(MeanConfig):
    """Energy at the end of a life, 0 for one that died: what it earned, not how long it lasted."""

    kind: Literal["energy"] = "energy"


class ResultConfig(MeanConfig):
    """A number that the world itself has to say of a life."""

    kind: Literal["result"] = "result"
    field: str = Field(default="score", pattern=MEMBER)
    """Member of the world's `result()`."""


class CustomFitnessConfig(MeanConfig):
    """Any function of an individual's committed lives."""

    kind: Literal["custom"] = "custom"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`: one individual's lives as an Arrow table (schema LIVES) to one number per life."""


FitnessConfig = Annotated[RmstConfig | EnergyConfig | ResultConfig | CustomFitnessConfig, Field(discriminator="kind")]


class RayConfig(Config):
    """The Ray cluster a run lives on."""

    executor: Literal["ray", "inprocess"] = "ray"
    """`inprocess` runs every room inside the driver, without Ray: for tests and debugging."""
    address: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.:/\[\]-]{1,253}$")
    """Address of a running cluster, or null to start one on this machine."""
    object_store_mib: int = Field(default=256, ge=80, le=1_000_000)
    """Shared memory of the object store of a cluster started here, in MiB."""
    cpus: float = Field(default=0.0, ge=0, le=10_000_000)
    """CPU cores that the nodes of a joined cluster must have together before anything starts; 0 takes what is there."""
    wait: float = Field(default=600.0, ge=0, le=31_536_000)
    """Seconds to wait for nodes of a joined cluster: for all GPUs and `cpus` before anything starts, and later for room
    for the first engine or trainer when all are lost."""


class BudgetConfig(Config):
    """What a run may spend; it ends before the generation that would exceed it."""

    decisions: int | None = Field(default=None, ge=1)
    """Of all lives, held-out ones excepted."""
    training_tokens: int | None = Field(default=None, ge=1)
    """Of all training jobs, every pass."""


class EvaluationConfig(Config):
    """What a finished run measures on held-out worlds."""

    lives: int = Field(default=64, ge=1, le=100_000)
    """Held-out lives of the champion, of the untouched model, of random and of heuristic play."""
    manners: int = Field(default=16, ge=0, le=100_000)
    """Of these lives, how many the champion also lives by its likeliest actions only, and exploring as in the run."""
    kept: int = Field(default=2, ge=0, le=1000)
    """Of the lives of founder and champion, how many are kept step by step, to be seen beside each other."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the world that differ from the run's, on top of those that the world itself changes."""


class RunConfig(Config):
    """One evolution."""

    name: str = Field(pattern=NAME)
    """Name of the run; also of its directory in the store."""
    seed: int = Field(default=1, ge=0, lt=2**63)
    """Root of all randomness of the run."""
    generations: int = Field(ge=1, le=1_000_000)
    """Turns of the loop, at most."""
    model: Line = Field(default="smollm2-135m-instruct", min_length=1, max_length=1000)
    """Base model: the bundled small model, a local directory, or a Hugging Face id."""
    environment: EnvironmentConfig = EnvironmentConfig()
    """The world to survive in."""
    population: PopulationConfig
    """Who lives."""
    engine: EngineConfig = VllmEngineConfig()
    """What answers the agents' prompts."""
    workers: WorkersConfig = WorkersConfig()
    """The actors that host lives."""
    fitness: FitnessConfig = RmstConfig()
    """Lives to one number per individual."""
    selection: SelectionConfig = SelectionConfig()
    """Who survives."""
    reproduction: ReproductionConfig = ReproductionConfig()
    """How births are made."""
    trainer: TrainerConfig = TrainerConfig()
    """How newborns get their weights."""
    budget: BudgetConfig = BudgetConfig()
    """When it ends besides."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What a finished run measures."""
    ledger: LedgerConfig = LedgerConfig()
    """How telemetry reaches the store."""
    metrics: MetricsConfig = MetricsConfig()
    """Where Prometheus finds the run."""
    trackers: tuple[TrackerConfig, ...] = Field(default=(), max_length=8)
    """Who else gets the run's numbers."""
    ray: RayConfig = RayConfig()
    """The cluster."""

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        survivors = round(self.selection.survivors * (self.population.size // self.population.islands))
        if survivors < 1:
            people = f"{self.population.size}"
            people += f" on {self.population.islands} islands" if self.population.islands > 1 else ""
            raise ValueError(f"selection.survivors: {self.selection.survivors} of {people} leaves nobody; raise it")
        if self.selection.elites > survivors:
            raise ValueError(f"selection.elites: got {self.selection.elites}, but only {survivors} survive; lower it")
        for founder in self.population.founders:
            if founder.objective and founder.objective not in self.trainer.alternatives:
                raise ValueError(
                    f"population.founders: {founder.name} has objective {founder.objective!r}, expected a name in"
                    " trainer.alternatives"
                )
        for name in ["", *self.trainer.alternatives] if self.trainer.enabled else []:
            kind = self.trainer.learned_by(name).kind
            if kind == "es":
                self._check_evolution_strategy()
                continue
            if (self.engine.kind == "scripted") != (kind == "scripted"):
                where = f"alternatives.{name}" if name else "objective"
                raise ValueError(
                    f"trainer.{where}.kind: got {kind!r} with engine.kind {self.engine.kind!r};"
                    " the scripted engine and the scripted objective go together"
                )
        if self.trainer.workers > 1 and self.ray.executor == "inprocess":
            raise ValueError(f"trainer.workers: got {self.trainer.workers}, expected 1 with ray.executor 'inprocess'")
        if (
            isinstance(self.engine, VllmEngineConfig)
            and (self.engine.serving == "lora" or (self.engine.serving == "auto" and self.engine.gpus))
            and self.trainer.lora.rank > self.engine.max_rank
        ):
            raise ValueError(
                f"trainer.lora.rank: got {self.trainer.lora.rank},"
                f" expected at most engine.max_rank {self.engine.max_rank}"
            )
        return self

    def _check_evolution_strategy(self) -> None:
        """Everybody's lives move the centre, so nobody may be left out."""
        rules = {
            "trainer.alternatives": (len(self.trainer.alternatives), 0),
            "selection.survivors": (self.selection.survivors, 1.0),
            "selection.elites": (self.selection.elites, 0),
            "selection.method": (self.selection.method, "truncation"),
            "population.islands": (self.population.islands, 1),
            "population.size": (self.population.size, self.population.size + self.population.size % 2),
        }
        for field, (got, expected) in rules.items():
            if got != expected:
                raise ValueError(f"{field}: got {got}, expected {expected} with trainer.objective.kind 'es'")


OPERATIONAL = ("workers", "ledger", "metrics", "trackers", "ray", "evaluation")
"""Sections that may differ between a run and its resumption: they decide how work is done, not what comes out.

`engine.count`, `trainer.jobs` and the like are operational too; see `semantic`.
"""


ABROAD = ("endpoints", "timeout", "hedge", "patience", "checks", "tolerance")
"""Operational fields of remote engines."""


def semantic(document: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's results: a configuration, dumped as JSON values, without its operational parts."""
    kept = {section: value for section, value in document.items() if section not in OPERATIONAL}
    for section, fields in (
        ("engine", ("count", "threads", "remember", *ABROAD)),
        ("trainer", ("jobs", "workers", "shard", "retries", "threads", "timeout")),
    ):
        kept[section] = {name: value for name, value in kept[section].items() if name not in fields}
    return kept
