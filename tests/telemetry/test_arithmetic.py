"""Arithmetic is chosen by what a processor is fast in, not by what it can do."""

import pytest

from telemetry.arithmetic import prefers_bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": True}, True),
        ({"bf16": True, "l2_cache_size": 2}, True),
        ({"bf16": 1}, False),
    ],
)
def test_bfloat16_is_for_processors_with_matrix_units(monkeypatch, capabilities, expected) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert prefers_bfloat16(on_gpu=False) is expected


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_that_only_emulates_it_computes_in_float32(monkeypatch, supported) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    assert prefers_bfloat16(on_gpu=True) is supported
