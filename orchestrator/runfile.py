"""Run files: strict YAML in, a RunConfig or one line of error out."""

import difflib
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.config import RunConfig, semantic
from telemetry.failures import UsageError

MAX_BYTES = 1 << 20


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses what hides mistakes (duplicate keys, tags) or can explode (aliases)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML ships no types for its events
        refused = "aliases" if isinstance(event, yaml.AliasEvent) else "tags" if event.tag is not None else ""
        if refused:
            raise yaml.constructor.ConstructorError(None, None, f"{refused} are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in `path` with `a.b=c` overrides applied.

    Raises UsageError with one line that names the file, the field, what was got and what was expected.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: got {len(data)} bytes, expected a run file of at most {MAX_BYTES}")
    document = parse(data, str(path))
    for override in overrides:
        _apply(document, override)
    return validate(document, str(path))


def override(document: Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    """The configuration of an existing run with `a.b=c` overrides of its operational keys.

    Raises UsageError with the first key that would change what the run computes.
    """
    changed = json.loads(json.dumps(document))
    for one in overrides:
        _apply(changed, one)
    before, after = validate(dict(document), "run"), validate(changed, "run")
    difference = _first_difference(semantic(before), semantic(after))
    if difference:
        raise UsageError(f"--set {difference}; a resumed run may change only how work is done, not what comes out")
    return after


def _first_difference(before: Any, after: Any, where: str = "") -> str:
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        found = (_first_difference(before[key], after[key], f"{where}.{key}".lstrip(".")) for key in before)
        return next((one for one in found if one), "")
    return "" if before == after else f"{where}: the run has {_short(before)}, got {_short(after)}"


def parse(data: bytes, where: str) -> dict[str, Any]:
    """The YAML mapping in `data`. Raises UsageError."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8 text") from error
    document = _yaml(text, where)
    if not isinstance(document, dict):
        raise UsageError(f"{where}: got {type(document).__name__}, expected a mapping of run file keys")
    return document


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not valid YAML: {_yaml_reason(error)}") from error


def _yaml_reason(error: Exception) -> str:
    problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), type(error).__name__)
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)


def validate(document: dict[str, Any], where: str) -> RunConfig:
    """The run configuration in a parsed document. Raises UsageError."""
    try:
        text = json.dumps(document, default=str)
    except ValueError as error:
        raise UsageError(f"{where}: a number is too long: {error}") from error
    try:
        # Through JSON: its strict mode takes lists for tuples but neither `yes` nor "3" for a number.
        return RunConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise UsageError(f"{where}: {_explain(error)}") from error


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {override}: expected a.b=value")
    node = document
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(f"--set {override}: {part!r} is not a section")
    node[parts[-1]] = _yaml(text, f"--set {override}")


def _explain(error: ValidationError) -> str:
    """One line for the first mistake: dotted field, what was got, what was expected."""
    # A misspelt key is also a missing one; the misspelling is the better news.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        return "text that is not Unicode, or nested too deep; write plain text and flat sections"
    # A tagged union adds the tag to the location, always before the last part.
    tags = ("vllm", "scripted", "sft", "rmst", "custom")
    location = [part for part in first["loc"][:-1] if part not in tags] + list(first["loc"][-1:])
    field = ".".join(_short(part).strip("'\"") for part in location)
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown key{_suggestion(location)}; remove it or correct its name"
    if first["type"] == "missing":
        return f"{field}: missing; add it"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return message if ":" in message.split(" ")[0] else f"{field}: {message}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{field}: got {_short(first['input'])}, expected: {message}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _suggestion(location: Sequence[int | str]) -> str:
    known: set[str] = set()
    for model in _models_at(RunConfig, list(location[:-1])):
        known |= set(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), sorted(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _models_at(model: type[BaseModel], location: list[int | str]) -> list[type[BaseModel]]:
    """Config classes that may stand at a dotted location below `model`."""
    if not location:
        return [model]
    head, rest = location[0], location[1:]
    if isinstance(head, int) or head not in model.model_fields:
        return _models_at(model, rest) if isinstance(head, int) else []
    found: list[type[BaseModel]] = []
    for inner in _config_classes(model.model_fields[head].annotation):
        found += _models_at(inner, rest)
    return found


def _config_classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _config_classes(part)]
