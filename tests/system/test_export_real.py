"""Exported weights where others load them: PEFT, transformers and vLLM, on a tiny random model."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from orchestrator.export_models import write_adapter, write_merged
from telemetry import models
from telemetry.adapters import Shelf
from telemetry.foreign_lora import adopt
from telemetry.lora import save
from telemetry.store import open_store
from tests import tiny
from tests.workers.test_vllm_engine import CONFIG, SIGHTS, ask, decision, llvmlite_out_of_sight, logprobs, reference
from workers import engines
from workers.engines import chat
from workers.engines.merged import MergedWeights
from workers.prompt import Codec

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def published(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `adapter` and `merged`."""
    place = tmp_path_factory.mktemp("published")
    card = models.card(base, str(base))
    weights = tiny.random_adapter(card, seed=1)
    shelf = Shelf(open_store(place / "store"))
    adapter, _ = shelf.publish_files(save(weights, card))
    write_adapter(shelf, adapter, place / "adapter")
    write_merged(base, weights, place / "merged")
    return place


def test_peft_and_transformers_load_them_and_they_answer_alike(base: Path, published: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(published / "merged")("Energy 4. Here: berries.", return_tensors="pt")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        untouched = plain(**tokens).logits
        adapted = PeftModel.from_pretrained(plain, published / "adapter")
        by_adapter = adapted(**tokens).logits
        merged = AutoModelForCausalLM.from_pretrained(published / "merged", dtype=torch.float32)(**tokens).logits
    assert torch.allclose(by_adapter, merged, atol=1e-3)
    assert not torch.allclose(untouched, merged, atol=0.1)
    # And back: what PEFT saves is the adapter that was exported.
    adapted.save_pretrained(tmp_path / "saved", save_embedding_layers=False)
    card = models.card(base, str(base))
    assert adopt(tmp_path / "saved", card, 512) == adopt(published / "adapter", card, 512)


def test_merged_weights_are_bit_by_bit_those_that_engines_serve(base: Path, published: Path) -> None:
    import torch
    from safetensors.torch import load_file

    [file] = (published / "merged").glob("*.safetensors")
    found = load_file(file)
    weights = tiny.random_adapter(models.card(base, str(base)), seed=1)
    served = {name: tensor.clone() for name, tensor in MergedWeights(base, torch.float32).tensors(weights)}
    assert served
    assert all(torch.equal(found[name], tensor) for name, tensor in served.items())


def test_vllm_serves_the_merged_model(base: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = published / "merged"
    for name, value in engines.environment(CONFIG).items():
        monkeypatch.setenv(name, value)
    card = models.card(merged, str(merged))
    codec = Codec(chat.description(merged, card, context=1, capacity=1))
    requests = [decision(codec, text) for text in SIGHTS]
    with llvmlite_out_of_sight():
        engine = engines.build(CONFIG, merged, card, lambda name: merged / name)
        try:
            answers = logprobs(ask(engine, *requests))
        finally:
            asyncio.run(engine.close())
    weights = tiny.random_adapter(models.card(base, str(base)), seed=1)
    assert np.allclose(answers, reference(base, requests, weights), atol=1e-3)
    assert not np.allclose(answers, reference(base, requests), atol=1e-2)


def test_files_beside_the_weights_are_those_of_the_base(base: Path, published: Path) -> None:
    names = {path.name for path in base.iterdir()}
    assert {path.name for path in (published / "merged").iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (published / "merged" / name).read_bytes() == (base / name).read_bytes()
    assert sorted(os.listdir(published / "adapter")) == ["adapter_config.json", "adapter_model.safetensors"]
