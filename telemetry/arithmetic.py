"""Which arithmetic a processor multiplies matrices fastest in."""


def prefers_bfloat16(*, on_gpu: bool) -> bool:
    """True where bfloat16 is faster than float32: on GPUs and CPUs with matrix units for it.

    AVX512_BF16 without AMX is not enough: PyTorch's products take 1.8 times as long as in float32, vLLM's 1.3 times,
    and where there are no instructions at all it is emulated, four times slower.
    """
    import torch

    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    present = {name for name, there in torch.cpu.get_capabilities().items() if there is True and "bf16" in name}
    return bool(present - {"avx512_bf16"})
