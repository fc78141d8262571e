"""The two files of an adapter: LoRA factors in numpy, their one canonical encoding, and a strict reader.

Law: equal weights give equal bytes, and the reader accepts nothing that two readers could understand differently
(duplicate JSON keys, overlapping or trailing tensor data, links, pipes, pickles beside the weights).
"""

import json
import os
import re
import reprlib
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_tensors

from telemetry.failures import StateError
from telemetry.records import BaseModelCard

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1 << 16
MAX_HEADER_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 1 << 34
MAX_ALPHA = 1 << 20

Array = NDArray[np.float32]
Files = tuple[bytes, bytes]
"""Contents of `adapter_config.json` and of `adapter_model.safetensors`."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 120
show = _SHORT.repr
"""`repr` of what an untrusted file says, short and on one line."""

_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}


class AdapterRefused(StateError):
    """The gate turned an adapter away; the text says which file and why."""


@dataclass(frozen=True, slots=True, eq=False)
class LoraWeights:
    """Low-rank weight changes (Hu et al. 2021): module `m` changes by `scale * B @ A` with `A, B = factors[m]`."""

    rank: int
    alpha: int
    factors: Mapping[str, tuple[Array, Array]]
    """Dotted module name -> (A of shape [rank, in features], B of shape [out features, rank])."""

    @property
    def scale(self) -> float:
        """`alpha / rank`."""
        return self.alpha / self.rank


def adapter_id(config: bytes, weights: bytes) -> str:
    """Content id. Unambiguous for gated files, because a safetensors file tells its own length."""
    digest = sha256(weights)
    digest.update(config)
    return digest.hexdigest()


def save(weights: LoraWeights, card: BaseModelCard) -> Files:
    """Canonical files of `weights`: equal weights give equal bytes."""
    tensors = {}
    for module, (a, b) in weights.factors.items():
        tensors[tensor_name(module, "A")] = np.ascontiguousarray(a, dtype="<f4")
        tensors[tensor_name(module, "B")] = np.ascontiguousarray(b, dtype="<f4")
    targets = sorted({last_part(module) for module in weights.factors})
    return encode(canonical(weights.rank, weights.alpha, targets, card)), save_tensors(tensors)


def load(source: Path | Files) -> LoraWeights:
    """Weights in a directory or in two files' contents, as float32. Raises AdapterRefused if they cannot be read."""
    files = source if isinstance(source, tuple) else read_files(source)
    config, tensors = parse_json(files[0], CONFIG), parse_tensors(files[1])
    rank, alpha = positive(config, "r", MAX_ALPHA), positive(config, "lora_alpha", MAX_ALPHA)
    modules = sorted({match[1] for name in tensors if (match := _TENSOR.fullmatch(name))})
    if len(tensors) != 2 * len(modules):
        refuse(WEIGHTS, "tensors are not pairs of lora_A and lora_B")
    pairs = {module: (tensors[tensor_name(module, "A")], tensors[tensor_name(module, "B")]) for module in modules}
    return LoraWeights(rank, alpha, pairs)


def load_named(adapter: str, path_of: Callable[[str], Path]) -> LoraWeights:
    """Weights of the adapter called `adapter`, for an engine. Raises AdapterRefused, or what `path_of` raises.

    path_of: verifies the files of a name and tells where they are. It is asked again after they were read, so that
    files replaced in between are not taken for the ones that were verified.
    """
    try:
        weights = load(path_of(adapter))
    except AdapterRefused as error:
        raise AdapterRefused(f"adapter {adapter}: {error}") from error
    path_of(adapter)
    return weights


def read_files(directory: Path, room: Callable[[bytes], int] = lambda config: MAX_WEIGHTS_BYTES) -> Files:
    """The two files of a directory that holds nothing else: no links, pipes, pickles beside them, or giants.

    room: bytes that the weights may take by what the configuration says, asked before anything of them is read.
    """
    try:
        names = set(os.listdir(directory))
    except OSError as error:
        raise AdapterRefused(f"{directory}: {error.strerror}") from error
    for name in sorted(names ^ {CONFIG, WEIGHTS}):
        refuse(show(name), "missing" if name not in names else "not a file of an adapter")
    config = read_file(directory / CONFIG, MAX_CONFIG_BYTES)
    return config, read_file(directory / WEIGHTS, room(config))


def read_file(path: Path, limit: int) -> bytes:
    """A plain file of at most `limit` bytes. Raises AdapterRefused for anything else."""
    try:
        # Without O_NONBLOCK the open itself would hang on a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise AdapterRefused(f"{path.name}: not a plain readable file: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            refuse(path.name, "not a plain file")
        if status.st_size > limit:
            refuse(path.name, f"{status.st_size} bytes, expected at most {limit}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def canonical(rank: int, alpha: int, targets: list[str], card: BaseModelCard) -> dict[str, Any]:
    """The keys that PEFT and vLLM need, and those whose other values would change what the weights mean."""
    return {
        "base_model_name_or_path": f"{card.id}@{card.sha256[:16]}",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def encode(config: dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, one line."""
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Strict JSON object: duplicate keys, which two readers could read differently, are refused; so is NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) != len(pairs):
            refuse(where, "the same key twice")
        return found

    def constant(name: str) -> NoReturn:
        refuse(where, f"{name} is not JSON")

    try:
        found = json.loads(data, object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise AdapterRefused(f"{where}: not readable JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        refuse(where, "not a JSON object")
    return found


def parse_tensors(data: bytes) -> dict[str, Array]:
    """Tensors of a safetensors file as float32. They must tile the data exactly, and every value must be finite.

    One value that is not finite is enough to poison an engine for the individuals served after it.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        refuse(WEIGHTS, "truncated, or a header larger than 1 MiB")
    header = parse_json(data[8 : 8 + size], WEIGHTS)
    header.pop("__metadata__", None)
    try:
        deserialize(data)  # type: ignore[no-untyped-call]  # the engines' own reader must take it too; what it does not mind is refused below
    except SafetensorError as error:
        raise AdapterRefused(f"{WEIGHTS}: {error}") from error
    entries = [(*_entry(name, entry), name) for name, entry in header.items()]
    body, position, tensors = memoryview(data)[8 + size :], 0, {}
    for begin, end, dtype, shape, name in sorted(entries):
        if begin != position or end > len(body):
            refuse(WEIGHTS, f"{show(name)} does not follow the tensor before it")
        tensors[name] = _decode(body[begin:end], dtype).reshape(shape)
        if not np.isfinite(tensors[name]).all():
            refuse(WEIGHTS, f"{show(name)} has values that are not finite")
        position = end
    if position != len(body):
        refuse(WEIGHTS, f"{len(body) - position} bytes that belong to no tensor")
    return tensors


def _entry(name: str, entry: Any) -> tuple[int, int, str, tuple[int, int]]:
    where = show(name)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        refuse(WEIGHTS, f"{where} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in tuple(_WIDTHS):
        refuse(WEIGHTS, f"{where} has dtype {show(dtype)}, expected one of {', '.join(_WIDTHS)}")
    for pair, lowest in ((shape, 1), (offsets, 0)):
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int and n >= lowest for n in pair):
            refuse(WEIGHTS, f"{where} has shape {show(shape)} at {show(offsets)}, expected a matrix")
    if offsets[1] - offsets[0] != shape[0] * shape[1] * _WIDTHS[dtype]:
        refuse(WEIGHTS, f"{where} takes {offsets[1] - offsets[0]} bytes, which its shape {shape} does not")
    return offsets[0], offsets[1], dtype, (shape[0], shape[1])


def _decode(data: memoryview, dtype: str) -> Array:
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, "<f4" if dtype == "F32" else "<f2").astype(np.float32)


def positive(config: dict[str, Any], key: str, limit: int) -> int:
    """The integer under `key`, 1 to `limit`."""
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= limit:
        refuse(CONFIG, f"{key} is {show(value)}, expected 1 to {limit}")
    return value


def tensor_name(module: str, factor: str) -> str:
    """PEFT's name of factor `A` or `B` of a module."""
    return f"base_model.model.{module}.lora_{factor}.weight"


def last_part(module: str) -> str:
    """What `target_modules` calls a module: the last part of its dotted name."""
    return module.rpartition(".")[2]


def refuse(where: str, why: str) -> NoReturn:
    """Raises AdapterRefused."""
    raise AdapterRefused(f"{where}: {why}")
