"""Layers filled and packed one by one: exact, and only those that multiply as the checkpoint says."""

import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from telemetry.lora import LoraWeights
from workers import engines
from workers.config import VllmEngineConfig

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

WIDTH, WIDE = 64, 96
SHAPES = {"up": (WIDE, WIDTH), "gate": (WIDTH, WIDTH), "down": (WIDTH, WIDE)}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two of vLLM's linear layers, one of them two of the checkpoint's, before any weights are in place."""
    os.environ.update(engines.environment(VllmEngineConfig()))
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor import parameter
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear

    monkeypatch.setattr(parameter, "get_tensor_model_parallel_rank", lambda: 0)
    monkeypatch.setattr(parameter, "get_tensor_model_parallel_world_size", lambda: 1)
    with set_current_vllm_config(VllmConfig()):
        layers = {
            "fused": MergedColumnParallelLinear(WIDTH, [WIDTH, WIDE], bias=False, disable_tp=True),
            "down": RowParallelLinear(WIDE, WIDTH, bias=False, disable_tp=True),
        }
    return SimpleNamespace(
        packed_modules_mapping={"fused": ["gate", "up"]}, named_modules=lambda: layers.items(), layers=layers
    )


def matrices() -> dict[str, Any]:
    import torch

    draw = torch.Generator().manual_seed(7)
    return {module: torch.randn(shape, generator=draw) for module, shape in SHAPES.items()}


def loaded(model: Any, given: Mapping[str, Any]) -> Any:
    """The model with weights as vLLM would load and pack them."""
    import torch

    for name, layer in model.layers.items():
        parts = model.packed_modules_mapping.get(name, [name])
        layer.weight.data.copy_(torch.cat([given[part] for part in parts]))
        layer.quant_method.process_weights_after_loading(layer)
    return model


def filling(given: Mapping[str, Any]) -> Callable[[str, LoraWeights | None, Any], None]:
    import torch

    def fill(module: str, adapter: LoraWeights | None, matrix: Any) -> None:
        matrix.copy_(given[module])
        if adapter is not None and module in adapter.factors:
            a, b = map(torch.from_numpy, adapter.factors[module])
            matrix += adapter.scale * b @ a

    return fill


def packed(model: Any, given: Mapping[str, Any]) -> Any:
    import torch

    from workers.engines.packed import PackedLayers

    return PackedLayers(model, SHAPES, torch.float32, filling(given))


def answers(model: Any) -> dict[str, Any]:
    """What each layer makes of the same rows."""
    import torch

    found = {}
    for name, layer in model.layers.items():
        x = torch.randn(5, layer.input_size_per_partition, generator=torch.Generator().manual_seed(1))
        found[name] = layer.quant_method.apply(layer, x, None)
    return found


def adapter(*modules: str) -> LoraWeights:
    draw = np.random.default_rng(3)
    factors = {
        module: tuple(draw.standard_normal(shape).astype(np.float32) for shape in ((4, into), (out, 4)))
        for module, (out, into) in SHAPES.items()
        if module in modules
    }
    return LoraWeights(4, 8, factors)  # type: ignore[arg-type]


def test_layers_multiply_by_the_merged_matrices_and_the_base_comes_back_exactly(model: Any) -> None:
    import torch

    given = matrices()
    layers = packed(loaded(model, given), given)
    before = answers(model)
    change = adapter("gate", "up", "down")
    layers.put(change, change.factors)
    fill = filling(given)
    for name, layer in model.layers.items():
        merged = []
        for part in model.packed_modules_mapping.get(name, [name]):
            merged.append(torch.empty(SHAPES[part]))
            fill(part, change, merged[-1])
        x = torch.randn(5, layer.input_size_per_partition, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(answers(model)[name], x @ torch.cat(merged).T, rtol=1e-4, atol=1e-3)
    layers.put(None, change.factors)
    after = answers(model)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_only_the_layers_of_the_named_modules_change(model: Any) -> None:
    import torch

    given = matrices()
    layers = packed(loaded(model, given), given)
    before = answers(model)
    change = adapter("down", "up")
    layers.put(change, ["up"])
    after = answers(model)
    assert torch.equal(after["down"], before["down"])
    # The other part of the fused layer is the base's still.
    assert torch.equal(after["fused"][:, :WIDTH], before["fused"][:, :WIDTH])
    assert not torch.allclose(after["fused"][:, WIDTH:], before["fused"][:, WIDTH:], atol=0.1)


def test_a_layer_whose_rows_the_loader_has_turned_is_left_to_it(model: Any) -> None:
    given = matrices()
    turned = {**given, "down": given["down"].flip(0)}
    layers = packed(loaded(model, turned), given)
    assert layers.cover(["gate", "up"])
    assert not layers.cover(["gate", "down"])
    assert not layers.cover(["elsewhere"])


def test_layers_with_parts_that_the_checkpoint_lacks_or_that_kept_their_matrix_are_left_alone(model: Any) -> None:
    import torch

    given = matrices()
    loaded(model, given)
    model.packed_modules_mapping = {"fused": ["gate", "sideways"]}
    layers = packed(model, given)
    assert layers.cover(["down"])
    assert not layers.cover(["gate"])
    model.layers["down"].weight = torch.nn.Parameter(given["down"], requires_grad=False)
    assert not packed(model, given).cover(["down"])


def test_a_layer_that_keeps_its_matrix_does_not_lose_it_to_the_next(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where packing fails, vLLM multiplies by the matrix itself."""
    import torch
    from vllm.model_executor.layers import utils

    given = matrices()
    layers = packed(loaded(model, given), given)
    monkeypatch.setattr(utils.ops, "_supports_onednn", False)
    change = adapter("gate", "up", "down")
    layers.put(change, ["down"])
    found = answers(model)["down"]
    layers.put(None, ["gate"])
    layers.put(None, ["gate"])
    assert torch.equal(answers(model)["down"], found)
    kept = model.layers["down"].weight
    layers.put(None, ["down"])
    assert model.layers["down"].weight.data_ptr() != kept.data_ptr()
