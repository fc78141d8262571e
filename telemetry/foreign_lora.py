"""Adapters that other tools made, in the one form that the gate lets pass.

Law: what an adapter's configuration says is either what Forager does as well, or without effect once it is trained, or
a reason to refuse it: weights are never taken to mean something else than where they came from.
"""

from pathlib import Path

from telemetry.adapters import check_files
from telemetry.lora import (
    CONFIG,
    MAX_CONFIG_BYTES,
    MAX_WEIGHTS_BYTES,
    WEIGHTS,
    Files,
    load,
    parse_json,
    read_file,
    refuse,
    save,
    show,
)
from telemetry.records import BaseModelCard

WITHOUT_EFFECT = frozenset(
    {
        "arrow_config",
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "init_lora_weights",
        "lora_dropout",
        "lora_ga_config",
        "loftq_config",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
    }
)
"""Keys that matter only while an adapter is made, or to what it is attached."""
UNDERSTOOD = frozenset({"r", "lora_alpha", "target_modules", "peft_type", "task_type"})


def adopt(directory: Path, card: BaseModelCard, max_rank: int) -> Files:
    """The two files of an adapter made by PEFT for a base model, in canonical form; files beside them do not matter.

    Raises AdapterRefused for one that changes more than linear layers of this base model by `alpha / rank * B @ A`, or
    that the gate would not let pass.
    """
    config = read_file(directory / CONFIG, MAX_CONFIG_BYTES)
    found = parse_json(config, CONFIG)
    if found.get("peft_type") != "LORA":
        refuse(CONFIG, f"peft_type is {show(found.get('peft_type'))}, expected 'LORA'")
    for key, value in sorted(found.items()):
        if key not in WITHOUT_EFFECT | UNDERSTOOD and value not in (None, False, "none", [], {}):
            refuse(CONFIG, f"{key} is {show(value)}; only plain LoRA is taken")
    base, at, digest = str(found.get("base_model_name_or_path")).partition("@")
    if at and digest != card.sha256[:16]:
        refuse(CONFIG, f"it is made for {show(base)} of sha256 {show(digest)}, the run's model is {card.sha256[:16]}")
    files = save(load((config, read_file(directory / WEIGHTS, MAX_WEIGHTS_BYTES))), card)
    check_files(files, card, max_rank)
    return files
