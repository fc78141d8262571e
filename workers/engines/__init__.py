"""The engines that ship: scripted and vLLM. Importing this loads neither; `build` loads the one it is asked for."""

import os
from collections.abc import Callable
from pathlib import Path

from telemetry.records import BaseModelCard
from workers.config import ScriptedEngineConfig, VllmEngineConfig
from workers.engine import Engine

UNSAFE = (
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "VLLM_LORA_RESOLVER_CACHE_DIR",
    "VLLM_LORA_RESOLVER_HF_REPO_LIST",
    "VLLM_SERVER_DEV_MODE",
    "VLLM_USE_MODELSCOPE",
)
"""Variables that open vLLM to pickles, foreign adapters or downloads; no engine of ours ever sees them."""


def build(
    config: VllmEngineConfig | ScriptedEngineConfig,
    directory: Path | None,
    card: BaseModelCard,
    adapter_path: Callable[[str], Path],
) -> Engine:
    """An engine of the configured kind; only the scripted one needs no model `directory`."""
    if isinstance(config, ScriptedEngineConfig):
        from workers.engines.scripted import ScriptedEngine

        return ScriptedEngine(config, adapter_path)
    if directory is None:
        raise ValueError("a vLLM engine needs a model directory")
    secure(config)
    from workers.engines.vllm import VllmEngine

    return VllmEngine(config, directory, card, adapter_path)


def environment(config: VllmEngineConfig | ScriptedEngineConfig) -> dict[str, str]:
    """Environment variables of the process that builds the engine, to be set before it imports anything.

    They keep vLLM in one process, off the network, without plugins and without telemetry of its makers.
    """
    if isinstance(config, ScriptedEngineConfig):
        return {}
    return {
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Only workers of a model spread over several GPUs are waited for; the default is 300.
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "60",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",
    }


def secure(config: VllmEngineConfig | ScriptedEngineConfig) -> None:
    """Sets `environment` in this process, as an actor's already is, and takes away what vLLM must not see."""
    os.environ.update(environment(config))
    for name in UNSAFE:
        os.environ.pop(name, None)
