"""The engines that ship: scripted and vLLM. Importing this loads neither; `build` loads the one it is asked for."""

from collections.abc import Callable
from pathlib import Path

from telemetry.records import BaseModelCard
from workers.config import ScriptedEngineConfig, VllmEngineConfig
from workers.engine import Engine


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
    from workers.engines.vllm import VllmEngine

    return VllmEngine(config, directory, card, adapter_path)


def environment(config: VllmEngineConfig | ScriptedEngineConfig) -> dict[str, str]:
    """Environment variables of the process that builds the engine, to be set before it imports anything.

    They keep vLLM in one process, off the network and without plugins.
    """
    if isinstance(config, ScriptedEngineConfig):
        return {}
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",
    }
