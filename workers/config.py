"""The workers' part of a run file: the world, the engines that answer, the actors that live."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from telemetry.config import Config
from workers.config_remote import RemoteEngineConfig


class EnvironmentConfig(Config):
    """The world to survive in."""

    name: str = Field(default="forage", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,199}(:[A-Za-z_][A-Za-z0-9_]{0,199})?$")
    """A registered world (`forage`) or `module:Class`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The world's own dials; each world documents and bounds them."""

    @field_validator("settings")
    @classmethod
    def _is_plain_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError("expected plain data with finite numbers") from error
        return value


class VllmEngineConfig(Config):
    """A vLLM engine in a Ray actor."""

    kind: Literal["vllm"] = "vllm"
    serving: Literal["auto", "merged", "lora"] = "auto"
    """`merged` puts one individual's weights in place at a time; `lora` serves many in one batch. `auto` takes lora on
    GPUs, and on a CPU whichever takes less time by costs that were measured; `forager plan` says which that is."""
    count: int = Field(default=1, ge=1, le=10_000)
    """Engines, each with its own copy of the base model."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Arithmetic of the forward pass; auto takes bfloat16 where that is faster, else float32."""
    context: int = Field(default=512, ge=64, le=1_000_000)
    """Longest prompt plus completion, in tokens."""
    kv_cache_gib: float = Field(default=1.0, gt=0, le=10_000)
    """KV cache on a CPU, in GiB."""
    gpu_memory_fraction: float = Field(default=0.85, gt=0, le=1)
    """Share of each GPU's memory that the engine may take."""
    gpus: float = Field(default=0.0, ge=0, le=64)
    """GPUs reserved for one engine: a share of one, or whole ones that it is spread over; 0 runs on the CPU."""
    max_sequences: int = Field(default=64, ge=1, le=4096)
    """Requests decoded in one batch."""
    max_batched_tokens: int = Field(default=4096, ge=64, le=1_000_000)
    """Tokens in one forward pass."""
    max_adapters: int = Field(default=8, ge=1, le=1024)
    """Adapters in one batch; only with `serving: lora`."""
    max_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    """Largest adapter rank served; only with `serving: lora`."""
    remember: int = Field(default=2**22, ge=0, le=2**36)
    """Prompt tokens of decisions kept with their answers, since the same weights say the same to the same prompt; some
    16 bytes each. 0 computes every decision."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of one engine; 0 takes all cores of the machine."""


class ScriptedEngineConfig(Config):
    """No language model at all: play is a pure function of seed, prompt and adapter content. For tests and dry runs."""

    kind: Literal["scripted"] = "scripted"
    count: int = Field(default=1, ge=1, le=10_000)
    """Engine actors."""
    capacity: int = Field(default=64, ge=1, le=100_000)
    """Adapters served at once."""
    seconds: float = Field(default=0.0, ge=0, le=3600)
    """Time that one completion takes of the engine, which makes them one after the other: stands in for a model's own
    time in dry runs and capacity tests. Changes no result."""


EngineConfig = Annotated[VllmEngineConfig | ScriptedEngineConfig | RemoteEngineConfig, Field(discriminator="kind")]


class WorkersConfig(Config):
    """The actors that host lives."""

    agents: int = Field(default=1, ge=1, le=100_000)
    """Agent actors; each hosts many lives as coroutines."""
    lives_per_agent: int = Field(default=256, ge=1, le=100_000)
    """Lives one agent actor hosts at the same time."""
    request_batch: int = Field(default=16, ge=1, le=4096)
    """Decisions sent to an engine in one call; several calls are under way at once, so that it is never idle."""
    life_retries: int = Field(default=3, ge=0, le=100)
    """Fresh tries at a life lost to infrastructure."""
    when_spent: Literal["stop", "censor"] = "stop"
    """When they are spent: `stop` the run, which resumed grants as many again; or `censor` the life, that is, record
    that nobody knows how long it would have lasted. A censored life lowers nobody's fitness."""
    restarts: int = Field(default=3, ge=0, le=1000)
    """Replacements of one engine, agent or sink actor without a single life coming back, before the run stops."""
    hang_timeout: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds without a sign of life after which an actor is killed; one step of a world has to be shorter."""
    call_timeout: float = Field(default=600.0, gt=0, le=86_400)
    """Seconds a call to an engine or to the sink may take before its actor is taken for dead."""
    live_timeout: float = Field(default=86_400.0, gt=0, le=31_536_000)
    """Seconds an agent may take for a batch of lives."""
    start_timeout: float = Field(default=600.0, gt=0, le=86_400)
    """Seconds an actor may take to start, model loading included."""
