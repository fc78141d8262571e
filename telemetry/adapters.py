"""The gate that every adapter passes before anything loads it, and the shelf that keeps adapters by content.

An adapter's id is the sha256 of its weights followed by its configuration, so
`cat adapter_model.safetensors adapter_config.json | sha256sum` names it. Law: a name never means other bytes, and
nothing whose bytes the gate has not passed reaches an engine; one bad adapter poisons the others served beside it.
"""

import re
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np

from telemetry import models
from telemetry.failures import StateError
from telemetry.lora import (
    CONFIG,
    MAX_ALPHA,
    MAX_HEADER_BYTES,
    WEIGHTS,
    AdapterRefused,
    Files,
    LoraWeights,
    adapter_id,
    canonical,
    encode,
    last_part,
    load,
    parse_json,
    parse_tensors,
    positive,
    read_files,
    refuse,
    save,
    show,
    tensor_name,
)
from telemetry.records import BaseModelCard, FileRef

__all__ = ["AdapterRefused", "Files", "LoraWeights", "Shelf", "adapter_id", "check", "check_files", "load", "save"]

MAX_CHANGE = 1000.0
"""Norm of a module's change, in norms of an orthogonal matrix of its shape."""
MAX_VALUE = 1000.0
"""Size of a single value: of A, of B times the scale, and of the change itself. Trained weights stay below ten, and
half precision overflows at 65,504."""
_ID = re.compile(r"[0-9a-f]{64}")


def check(directory: Path, card: BaseModelCard, max_rank: int) -> str:
    """Passes a directory through the gate and returns the adapter's id. Raises AdapterRefused."""

    def room(config: bytes) -> int:
        rank, _, targets = _check_config(config, card, max_rank)
        shapes = [shape for module, shape in card.modules.items() if last_part(module) in targets]
        return MAX_HEADER_BYTES + 4 * rank * sum(out + into for out, into in shapes)

    return check_files(read_files(directory, room), card, max_rank)


def check_files(files: Files, card: BaseModelCard, max_rank: int) -> str:
    """Passes two files' contents through the gate and returns the adapter's id. Raises AdapterRefused."""
    rank, alpha, targets = _check_config(files[0], card, max_rank)
    tensors = parse_tensors(files[1])
    expected: dict[str, tuple[int, int]] = {}
    names: dict[str, tuple[str, str]] = {}
    for module, (out, into) in card.modules.items():
        if last_part(module) in targets:
            names[module] = a, b = tensor_name(module, "A"), tensor_name(module, "B")
            expected[a], expected[b] = (rank, into), (out, rank)
    for name in sorted(tensors.keys() ^ expected.keys()):
        refuse(WEIGHTS, f"{'unexpected' if name in tensors else 'missing'} tensor {show(name)}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            refuse(WEIGHTS, f"{name} has shape {tensors[name].shape}, expected {shape}")
    _check_norms(LoraWeights(rank, alpha, {module: (tensors[a], tensors[b]) for module, (a, b) in names.items()}), card)
    return adapter_id(*files)


def _check_norms(weights: LoraWeights, card: BaseModelCard) -> None:
    """Finite factors can still overflow to NaN in the forward pass: refuse what is far beyond any weight matrix.

    Engines merge the factors, or multiply by one after the other with the scale inside B, in half precision. The
    change's largest value is bounded by its rows' and columns' norms (Cauchy-Schwarz), and so is every partial sum.
    """
    for module, (a, b) in weights.factors.items():
        for letter, factor, scale in (("A", a, 1.0), ("B", b, weights.scale)):
            if (highest := scale * float(np.abs(factor).max())) > MAX_VALUE:
                name = tensor_name(module, letter) + " times the scale" * (scale != 1.0)
                refuse(WEIGHTS, f"{name} has a value of size {highest:.3g}, expected at most {MAX_VALUE:g}")
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        squared = float(np.sum((wide_b.T @ wide_b) * (wide_a @ wide_a.T)))
        norm, limit = weights.scale * max(squared, 0.0) ** 0.5, MAX_CHANGE * min(card.modules[module]) ** 0.5
        if norm > limit:
            refuse(WEIGHTS, f"{module} changes by norm {norm:.3g}, expected at most {limit:.3g}")
        rows, columns = np.linalg.norm(wide_b, axis=1), np.linalg.norm(wide_a, axis=0)
        if (highest := weights.scale * float(rows.max() * columns.max())) > MAX_VALUE:
            refuse(WEIGHTS, f"{module} changes a weight by up to {highest:.3g}, expected at most {MAX_VALUE:g}")


def _check_config(data: bytes, card: BaseModelCard, max_rank: int) -> tuple[int, int, list[str]]:
    """Rank, alpha and target modules."""
    found = parse_json(data, CONFIG)
    rank, alpha = positive(found, "r", max_rank), positive(found, "lora_alpha", MAX_ALPHA)
    targets = found.get("target_modules")
    known = {last_part(module) for module in card.modules}
    if not isinstance(targets, list) or not targets or not all(isinstance(target, str) for target in targets):
        refuse(CONFIG, f"target_modules is {show(targets)}, expected a list of module names")
    for target in targets:
        if target not in known:
            refuse(CONFIG, f"target_modules names {show(target)}, which {card.id} does not have")
    expected = canonical(rank, alpha, sorted(set(targets)), card)
    for key in sorted(found.keys() | expected.keys()):
        if key not in expected:
            refuse(CONFIG, f"unexpected key {show(key)}")
        if found.get(key) != expected[key]:
            refuse(CONFIG, f"{key} is {show(found.get(key))}, expected {expected[key]!r}")
    if data != encode(expected):
        refuse(CONFIG, "not in canonical form (sorted keys, no spaces)")
    return rank, alpha, targets


class Blobs(Protocol):
    """What the shelf asks of a store."""

    def put_if_absent(self, key: str, data: bytes, /) -> bool: ...

    def put(self, key: str, data: bytes, /) -> None: ...

    def get(self, key: str, /) -> bytes: ...

    def local_path(self, key: str, /) -> Path | None: ...


class Shelf:
    """Adapters of one store, each under `adapters/<id>/`, immutable."""

    def __init__(self, store: Blobs, cache: Path | None = None) -> None:
        """`cache` holds verified copies when the store is not a local directory; by default the user's own."""
        self._store = store
        self._cache = cache or models.cache() / "adapters"

    def publish(self, directory: Path) -> tuple[str, tuple[FileRef, ...]]:
        """Copies a directory that passed the gate onto the shelf; a second time changes nothing."""
        return self.publish_files(read_files(directory))

    def publish_files(self, files: Files) -> tuple[str, tuple[FileRef, ...]]:
        """Id and store objects of the adapter.

        Whatever else the store holds under its name is damage, and is replaced: a name never means other bytes.
        """
        adapter = adapter_id(*files)
        refs = []
        # The configuration goes last: where it exists, the adapter is complete.
        for key, data in zip(reversed(_keys(adapter)), reversed(files), strict=True):
            if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
                self._store.put(key, data)
            refs.append(FileRef(key=key, size=len(data), sha256=sha256(data).hexdigest()))
        return adapter, tuple(reversed(refs))

    def load(self, adapter: str) -> LoraWeights:
        """Weights by id. Raises StateError if the stored bytes are not the ones the id names, or no sound adapter."""
        try:
            return load(self._verified(adapter))
        except AdapterRefused as error:
            raise AdapterRefused(f"adapters/{adapter}: {error}") from error

    def path(self, adapter: str) -> Path:
        """Local directory with exactly the adapter's two files, verified now.

        Raises StateError if the stored bytes are not the ones the id names.
        """
        local = self._store.local_path(_keys(adapter)[0])
        if local is not None:
            self._verified(adapter)
            return local.parent
        cached = self._cache / adapter
        if not _holds(cached, adapter):
            self._download(adapter, cached)
        return cached

    def _verified(self, adapter: str) -> Files:
        try:
            config, weights = (self._store.get(key) for key in _keys(adapter))
        except KeyError as error:
            raise StateError(f"adapters/{adapter}: missing from the store; restore it") from error
        if adapter_id(config, weights) != adapter:
            raise StateError(f"adapters/{adapter}: the content does not match the name; restore the run's store")
        return config, weights

    def _download(self, adapter: str, target: Path) -> None:
        files = self._verified(adapter)
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self._cache) as staging:
            fresh = Path(staging) / adapter
            fresh.mkdir(mode=0o700)
            for name, data in zip((CONFIG, WEIGHTS), files, strict=True):
                (fresh / name).write_bytes(data)
            shutil.rmtree(target, ignore_errors=True)
            try:
                fresh.rename(target)
            except OSError:
                # Another process of this user may have been faster; what it left is as good if it verifies.
                if not _holds(target, adapter):
                    raise


def _keys(adapter: str) -> tuple[str, str]:
    if not _ID.fullmatch(adapter):
        raise StateError(f"adapter id: got {show(adapter)}, expected 64 hexadecimal digits")
    return f"adapters/{adapter}/{CONFIG}", f"adapters/{adapter}/{WEIGHTS}"


def _holds(directory: Path, adapter: str) -> bool:
    try:
        return adapter_id(*read_files(directory)) == adapter
    except AdapterRefused:
        return False
