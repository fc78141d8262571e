"""The engines that ship: scripted, vLLM, remote. Importing this loads none; `build` loads the one it is asked for."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from telemetry.allocation import TENSORS
from telemetry.failures import UsageError
from telemetry.records import BaseModelCard
from workers.config import ScriptedEngineConfig, VllmEngineConfig
from workers.config_remote import RemoteEngineConfig
from workers.engine import Engine

AnyEngineConfig = VllmEngineConfig | ScriptedEngineConfig | RemoteEngineConfig

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
    config: AnyEngineConfig,
    directory: Path | None,
    card: BaseModelCard,
    adapter_path: Callable[[str], Path],
    keys: Mapping[str, SecretStr] | None = None,
) -> Engine:
    """An engine of the configured kind; only the scripted one needs no model `directory`, only the remote one keys."""
    if isinstance(config, ScriptedEngineConfig):
        from workers.engines.scripted import ScriptedEngine

        return ScriptedEngine(config, adapter_path)
    if directory is None:
        raise ValueError("an engine of language models needs a model directory")
    secure(config)
    if isinstance(config, RemoteEngineConfig):
        from workers.engines.chat import description, end_of
        from workers.engines.remote import RemoteEngine, vocabulary

        described = description(directory, card, context=config.context, capacity=config.max_adapters)
        known = vocabulary(described.tokenizer)
        return RemoteEngine(config, described, adapter_path, vocabulary=known, end_of_turn=end_of(directory), keys=keys)
    from workers.engines.vllm import VllmEngine

    return VllmEngine(config, directory, card, adapter_path)


def keys_of(config: AnyEngineConfig) -> dict[str, SecretStr]:
    """API keys of the endpoints, by the variables of this process's environment that the run file names.

    Raises UsageError for one that is not set, or cannot be a key.
    """
    found = {}
    for endpoint in config.endpoints if isinstance(config, RemoteEngineConfig) else ():
        if endpoint.key:
            value = os.environ.get(endpoint.key, "")
            if not value or not value.isascii() or not value.isprintable():
                got = "no key" if not value else "something that is no key"
                raise UsageError(
                    f"{endpoint.key}: got {got}, expected the API key of {endpoint.name}; set the variable"
                )
            found[endpoint.key] = SecretStr(value)
    return found


def environment(config: AnyEngineConfig) -> dict[str, str]:
    """Environment variables of the process that builds the engine, to be set before it imports anything.

    They keep vLLM in one process, off the network, without plugins and without telemetry of its makers.
    """
    if isinstance(config, ScriptedEngineConfig):
        return {}
    if isinstance(config, RemoteEngineConfig):
        return {"HF_HUB_OFFLINE": "1"}
    return {
        **TENSORS,
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


def secure(config: AnyEngineConfig) -> None:
    """Sets `environment` in this process, as an actor's already is, and takes away what vLLM must not see."""
    os.environ.update(environment(config))
    for name in UNSAFE:
        os.environ.pop(name, None)
