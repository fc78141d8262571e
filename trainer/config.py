"""The trainer's part of a run file: which objective makes weights out of records, and on what."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from telemetry.config import NAME, Config
from trainer.config_objectives import ObjectiveConfig, SftConfig


class LoraConfig(Config):
    """Shape of every adapter of the run."""

    rank: int = Field(default=16, ge=1, le=512)
    """Rank of the weight change per module."""
    alpha: int = Field(default=16, ge=1, le=4096)
    """Scale numerator: the weight change is `alpha / rank * B @ A`."""
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Last name parts of the linear modules that get a weight change."""


class TrainerConfig(Config):
    """How newborns get their weights."""

    enabled: bool = True
    """False freezes the weights: newborns keep their parents' (crossed and mutated) adapters."""
    objective: ObjectiveConfig = SftConfig()
    """What is learned from the records."""
    alternatives: dict[Annotated[str, StringConstraints(pattern=NAME)], ObjectiveConfig] = Field(default_factory=dict)
    """Further objectives by a name of yours: founders may begin with one, and children may change to another."""
    lora: LoraConfig = LoraConfig()
    """Shape of the adapters."""
    jobs: int = Field(default=1, ge=1, le=10_000)
    """Trainer actors: jobs that run at the same time."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Processes of each job, on any nodes: each takes its part of every batch, and the result is that of one."""
    shard: bool = False
    """Spreads the frozen base model over a job's processes instead of copying it to each, for models that no single
    device trains (FSDP2). Each process reads the whole of it once, into the memory of its machine."""
    quantize: Literal["none", "nf4"] = "none"
    """nf4 holds the frozen base model in 4 bits while adapters are trained on it (QLoRA); needs bitsandbytes. Lives are
    lived on the model as it is."""
    gpus_per_job: float = Field(default=0.0, ge=0, le=64)
    """GPUs of each process of a job; 0 trains on the CPU."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of each process of a job; 0 takes all cores of the machine."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 keeps fp32 weights and computes under bfloat16 autocast; auto does so where that is faster."""
    retries: int = Field(default=1, ge=0, le=100)
    """Further tries at a failed job; after them the child keeps its first parent's adapter."""
    timeout: float = Field(default=3600.0, gt=0, le=604_800)
    """Seconds one job may take."""

    @model_validator(mode="after")
    def _check(self) -> "TrainerConfig":
        if self.shard and self.workers == 1:
            raise ValueError(
                "trainer.shard: got true, expected false with trainer.workers 1: there is nobody to share with"
            )
        if self.shard and self.quantize != "none":
            raise ValueError(f"trainer.shard: got true, expected false with trainer.quantize {self.quantize}")
        return self

    def learned_by(self, name: str) -> ObjectiveConfig:
        """The objective that a genome names. Raises KeyError."""
        return self.alternatives[name] if name else self.objective
