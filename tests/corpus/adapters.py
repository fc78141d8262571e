"""Bad adapters: each spoils a good directory in one way, and says what the gate must answer."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from telemetry.lora import CONFIG, WEIGHTS, LoraWeights, save
from telemetry.records import BaseModelCard

CARD = BaseModelCard(
    id="tiny", sha256="ab" * 32, modules={f"model.layers.{n}.{m}_proj": (6, 4) for n in (0, 1) for m in "qv"}
)
A = "base_model.model.model.layers.0.q_proj.lora_A.weight"
B = "base_model.model.model.layers.0.q_proj.lora_B.weight"

MAGNITUDE = "base_model.model.model.layers.0.q_proj.lora_magnitude_vector"


def weights(seed: int = 0, rank: int = 2) -> LoraWeights:
    """A good adapter for CARD."""
    draw = np.random.default_rng(seed)
    factors = {
        module: (draw.standard_normal((rank, i)).astype("f4"), draw.standard_normal((o, rank)).astype("f4"))
        for module, (o, i) in CARD.modules.items()
    }
    return LoraWeights(rank, 2 * rank, factors)


def write(directory: Path) -> Path:
    """A directory that passes the gate."""
    directory.mkdir()
    for name, data in zip((CONFIG, WEIGHTS), save(weights(), CARD), strict=True):
        (directory / name).write_bytes(data)
    return directory


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header: dict[str, Any] | str, body: bytes) -> bytes:
    """A safetensors file with any header, true or not."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + body


def pack(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file of (dtype, shape, bytes) by name, laid out as it should be."""
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return join(header, body)


def config(directory: Path, **changes: Any) -> None:
    found = json.loads((directory / CONFIG).read_bytes()) | changes
    (directory / CONFIG).write_text(json.dumps(found, sort_keys=True, separators=(",", ":")) + "\n")


def raw(directory: Path, edit: Callable[[str], str]) -> None:
    (directory / CONFIG).write_text(edit((directory / CONFIG).read_text()))


def header(directory: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    found, body = split((directory / WEIGHTS).read_bytes())
    (directory / WEIGHTS).write_bytes(join(edit(found) or found, body))


def tensors(directory: Path, edit: Callable[[dict[str, tuple[str, list[int], bytes]]], Any]) -> None:
    found, body = split((directory / WEIGHTS).read_bytes())
    found.pop("__metadata__", None)
    ordered = sorted(found.items(), key=lambda item: item[1]["data_offsets"])
    parts = {name: (one["dtype"], one["shape"], body[slice(*one["data_offsets"])]) for name, one in ordered}
    edit(parts)
    (directory / WEIGHTS).write_bytes(pack(parts))


def value(directory: Path, number: float, everywhere: bool = False) -> None:
    changed = weights()
    for a, b in changed.factors.values() if everywhere else ():
        a[:], b[:] = number, number
    changed.factors["model.layers.0.q_proj"][0][1, 2] = number
    (directory / WEIGHTS).write_bytes(save(changed, CARD)[1])


def hidden_giant(directory: Path) -> None:
    """Changes nothing when merged, since B is zero, and everything when A is multiplied first."""
    changed = weights()
    a, b = changed.factors["model.layers.0.q_proj"]
    a[:], b[:] = 3e38, 0.0
    (directory / WEIGHTS).write_bytes(save(changed, CARD)[1])


def factors(directory: Path, a: float, b: float, alpha: int = 4) -> None:
    """One value each in A and B of the first module, zeros beside them, and any scale."""
    changed = weights()
    for factor, number in zip(changed.factors["model.layers.0.q_proj"], (a, b), strict=True):
        factor[:] = 0.0
        factor[0, 0] = number
    for name, data in zip((CONFIG, WEIGHTS), save(LoraWeights(2, alpha, changed.factors), CARD), strict=True):
        (directory / name).write_bytes(data)


def cut(directory: Path, size: int) -> None:
    (directory / WEIGHTS).write_bytes((directory / WEIGHTS).read_bytes()[:size])


def append(directory: Path, tail: bytes) -> None:
    (directory / WEIGHTS).write_bytes((directory / WEIGHTS).read_bytes() + tail)


def swap(directory: Path, make: Callable[[Path], Any], name: str = WEIGHTS) -> None:
    (directory / name).unlink()
    make(directory / name)


def many(directory: Path, count: int) -> None:
    tensors(directory, lambda t: t.update({f"t{n}": ("F32", [1, 1], bytes(4)) for n in range(count)}))


def empties(found: dict[str, Any]) -> None:
    for name in ("x", "y"):
        found[name] = {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}


ANY = "safetensors: "
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda d: (d / WEIGHTS).unlink(), "missing"),
    "no config": (lambda d: (d / CONFIG).unlink(), "missing"),
    "pickle beside it": (lambda d: (d / "adapter_model.bin").write_bytes(b"x"), "not a file of an adapter"),
    "pickle in its place": (lambda d: (d / WEIGHTS).rename(d / "adapter_model.bin"), "not a file of an adapter"),
    "checkpoint beside it": (lambda d: (d / "optimizer.pt").write_bytes(b"x"), "not a file of an adapter"),
    "tokenizer beside it": (lambda d: (d / "tokenizer.json").write_text("{}"), "not a file of an adapter"),
    "hidden file": (lambda d: (d / ".x").write_text(""), "not a file of an adapter"),
    "folder beside it": (lambda d: (d / "checkpoint-1").mkdir(), "not a file of an adapter"),
    "symlink": (lambda d: swap(d, lambda f: f.symlink_to("/etc/hostname")), f"{WEIGHTS}: not a plain readable file"),
    "config symlink": (lambda d: swap(d, lambda f: f.symlink_to("/etc/hostname"), CONFIG), f"{CONFIG}: not a plain"),
    "pipe": (lambda d: swap(d, os.mkfifo), f"{WEIGHTS}: not a plain file"),
    "config pipe": (lambda d: swap(d, os.mkfifo, CONFIG), f"{CONFIG}: not a plain file"),
    "directory": (lambda d: swap(d, Path.mkdir), f"{WEIGHTS}: not a plain file"),
    "giant": (lambda d: os.truncate(d / WEIGHTS, 1 << 40), f"expected at most {2**20 + 4 * 2 * 4 * (6 + 4)}"),
    "just too large": (lambda d: os.truncate(d / WEIGHTS, 2**20 + 321), f"{2**20 + 321} bytes, expected at most"),
    "giant of another rank": (lambda d: (os.truncate(d / WEIGHTS, 1 << 40), config(d, r=99)), "r is 99"),
    "giant config": (lambda d: (d / CONFIG).write_bytes(b" " * 70_000), "expected at most"),
    "empty": (lambda d: cut(d, 0), f"{WEIGHTS}: truncated"),
    "empty config": (lambda d: (d / CONFIG).write_bytes(b""), f"{CONFIG}: not readable JSON"),
    "cut in header": (lambda d: cut(d, 100), f"{WEIGHTS}: truncated"),
    "cut at the end": (lambda d: cut(d, -1), ANY),
    "trailing bytes": (lambda d: append(d, bytes(4)), ANY),
    "zeros": (lambda d: (d / WEIGHTS).write_bytes(bytes(200)), ANY),
    "text": (lambda d: (d / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "truncated"),
    "huge header": (lambda d: (d / WEIGHTS).write_bytes(struct.pack("<Q", 2**63)), "larger than 1 MiB"),
    "100,000 tensors": (lambda d: many(d, 100_000), "expected at most"),
    "many tensors": (lambda d: many(d, 5_000), "unexpected tensor 't0'"),
    "tensor twice": (lambda d: header(d, lambda h: json.dumps(h)[:-1] + f', "{A}": {json.dumps(h[A])}}}'), "twice"),
    "overlap": (lambda d: header(d, lambda h: h[A].update(data_offsets=h[B]["data_offsets"])), ANY),
    "empty tensors": (lambda d: header(d, empties), ANY),
    "wrong size": (lambda d: header(d, lambda h: h[A].update(shape=[2, 5])), ANY),
    "negative": (lambda d: header(d, lambda h: h[A].update(shape=[-2, -4])), ANY),
    "overflowing": (lambda d: header(d, lambda h: h[A].update(shape=[2**40, 2**40])), ANY),
    "scalar": (lambda d: header(d, lambda h: h[A].update(shape=[])), ANY),
    "three dimensions": (lambda d: header(d, lambda h: h[A].update(shape=[2, 2, 2])), f"{A!r} has shape"),
    "shape of text": (lambda d: header(d, lambda h: h[A].update(shape=["2", "4"])), ANY),
    "float64": (lambda d: tensors(d, lambda t: t.update({A: ("F64", [2, 4], bytes(64))})), f"{A!r} has dtype 'F64'"),
    "int8": (lambda d: tensors(d, lambda t: t.update({A: ("I8", [2, 4], bytes(8))})), f"{A!r} has dtype 'I8'"),
    "int dtype": (lambda d: header(d, lambda h: h[A].update(dtype="I32")), f"{A!r} has dtype 'I32'"),
    "unknown dtype": (lambda d: header(d, lambda h: h[A].update(dtype="F7")), ANY),
    "dtype is a list": (lambda d: header(d, lambda h: h[A].update(dtype=["F32"])), ANY),
    "bad metadata": (lambda d: header(d, lambda h: h.update(__metadata__={"a": 1})), ANY),
    "B missing": (lambda d: tensors(d, lambda t: t.pop(B)), f"missing tensor {B!r}"),
    "A missing": (lambda d: tensors(d, lambda t: t.pop(A)), f"missing tensor {A!r}"),
    "B too short": (lambda d: tensors(d, lambda t: t.update({B: ("F32", [5, 2], bytes(40))})), f"{B} has shape (5, 2)"),
    "B too long": (lambda d: tensors(d, lambda t: t.update({B: ("F32", [7, 2], bytes(56))})), f"{B} has shape (7, 2)"),
    "A too wide": (lambda d: tensors(d, lambda t: t.update({A: ("F32", [2, 5], bytes(40))})), f"{A} has shape (2, 5)"),
    "A turned": (lambda d: tensors(d, lambda t: t.update({A: ("F32", [4, 2], bytes(32))})), f"{A} has shape (4, 2)"),
    "one rank differs": (lambda d: tensors(d, lambda t: t.update({A: ("F32", [1, 4], bytes(16))})), "expected (2, 4)"),
    "magnitude vector": (
        lambda d: tensors(d, lambda t: t.update({MAGNITUDE: ("F32", [1, 6], bytes(24))})),
        f"unexpected tensor {MAGNITUDE!r}",
    ),
    "output head": (
        lambda d: tensors(d, lambda t: t.update({"lm_head.weight": ("F32", [2, 2], bytes(16))})),
        "lm_head",
    ),
    "renamed": (lambda d: header(d, lambda h: h.update({"lora_A.weight": h.pop(A)})), f"missing tensor {A!r}"),
    "newline in a name": (lambda d: header(d, lambda h: h.update({"a\nb\x1b[31m": h.pop(A)})), "unexpected tensor"),
    "header is a list": (lambda d: header(d, lambda h: json.dumps([h])), ANY),
    "not a number": (lambda d: value(d, float("nan")), f"{A!r} has values that are not finite"),
    "infinite": (lambda d: value(d, float("-inf")), f"{A!r} has values that are not finite"),
    "half precision NaN": (
        lambda d: tensors(d, lambda t: t.update({A: ("BF16", [2, 4], b"\xc0\x7f" * 8)})),
        f"{A!r} has values that are not finite",
    ),
    "overflows later": (lambda d: value(d, 3e38), f"{A} has a value of size 3e+38"),
    "overflows unmerged": (hidden_giant, f"{A} has a value of size 3e+38"),
    "scale hides a giant": (
        lambda d: factors(d, 0.0, 1.0, alpha=2**20),
        f"{B} times the scale has a",
    ),
    "one giant weight": (lambda d: factors(d, 30.0, 25.0), "changes a weight by up to 1.5e+03, expected at most 1000"),
    "huge norm": (lambda d: value(d, 400.0, everywhere=True), "changes by norm"),
    "rank lies": (lambda d: config(d, r=4), "expected (4, 4)"),
    "rank too large": (lambda d: config(d, r=99), f"{CONFIG}: r is 99, expected 1 to 8"),
    "rank is true": (lambda d: config(d, r=True), "r is True"),
    "rank is text": (lambda d: config(d, r="2"), "r is '2'"),
    "rank is 2.0": (lambda d: config(d, r=2.0), "r is 2.0"),
    "alpha is zero": (lambda d: config(d, lora_alpha=0), "lora_alpha is 0"),
    "alpha is huge": (lambda d: config(d, lora_alpha=10**400), "lora_alpha is 1000"),
    "alpha is NaN": (lambda d: raw(d, lambda t: t.replace('"lora_alpha":4', '"lora_alpha":NaN')), "NaN is not JSON"),
    "other base": (lambda d: config(d, base_model_name_or_path="tiny"), "base_model_name_or_path is 'tiny'"),
    "other hash": (lambda d: config(d, base_model_name_or_path="tiny@" + "cd" * 8), "base_model_name_or_path"),
    "other method": (lambda d: config(d, peft_type="LOHA"), "peft_type is 'LOHA'"),
    "DoRA": (lambda d: config(d, use_dora=True), "use_dora is True"),
    "rsLoRA": (lambda d: config(d, use_rslora=True), "use_rslora is True"),
    "bias": (lambda d: config(d, bias="all"), "bias is 'all'"),
    "saved modules": (lambda d: config(d, modules_to_save=["lm_head"]), "unexpected key 'modules_to_save'"),
    "rank pattern": (lambda d: config(d, rank_pattern={"q": 1}), "unexpected key 'rank_pattern'"),
    "long rank pattern": (lambda d: config(d, rank_pattern=dict.fromkeys(map(str, range(10_000)), 1)), "at most"),
    "alpha pattern": (lambda d: config(d, alpha_pattern={"q": 1}), "unexpected key 'alpha_pattern'"),
    "auto mapping": (lambda d: config(d, auto_mapping={}), "unexpected key 'auto_mapping'"),
    "regex": (lambda d: config(d, target_modules="(a+)+$"), "target_modules is '(a+)+$', expected a list"),
    "regex in a list": (lambda d: config(d, target_modules=["(a+)+$"]), "which tiny does not have"),
    "no targets": (lambda d: config(d, target_modules=[]), "expected a list"),
    "unknown target": (lambda d: config(d, target_modules=["q_proj", "lm_head"]), "does not have"),
    "missing tensors": (lambda d: config(d, target_modules=["q_proj"]), "unexpected tensor"),
    "unsorted": (lambda d: config(d, target_modules=["v_proj", "q_proj"]), "target_modules is"),
    "spaces": (lambda d: raw(d, lambda t: t.replace(",", ", ")), "canonical"),
    "same key twice": (lambda d: raw(d, lambda t: t.replace("{", '{"r":1,')), "twice"),
    "no JSON": (lambda d: raw(d, lambda t: t[:-3]), "not readable JSON"),
    "no object": (lambda d: raw(d, lambda t: "[]"), "not a JSON object"),
    "no UTF-8": (lambda d: (d / CONFIG).write_bytes(b'{"r": "\xff"}'), "not readable JSON"),
    "deep": (lambda d: raw(d, lambda t: "[" * 30_000), "not readable JSON"),
    "long number": (lambda d: raw(d, lambda t: '{"r":' + "1" * 9_000 + "}"), "not readable JSON"),
}
"""Name -> (what is done to a good directory, words of the refusal)."""
