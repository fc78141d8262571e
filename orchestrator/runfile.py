"""Run files: strict YAML in, a RunConfig or one line of error out.

Law: a run file means what it says to every reader. Plain words that YAML 1.1 takes for a truth value or a number and
YAML 1.2 for something else (`yes`, `0777`, `1_000`, `1:30`) are refused; all others are read as YAML 1.2 reads them.
"""

import difflib
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.config import FitnessConfig, RunConfig, semantic
from telemetry.config_trackers import TrackerConfig
from telemetry.failures import UsageError
from trainer.config_objectives import ObjectiveConfig
from trainer.config_operators import CrossoverConfig, MutationConfig
from workers.config import EngineConfig

MAX_BYTES = 1 << 20


UNIONS = (EngineConfig, FitnessConfig, ObjectiveConfig, CrossoverConfig, MutationConfig, TrackerConfig)
TAGS = frozenset(member.model_fields["kind"].default for union in UNIONS for member in get_args(get_args(union)[0]))
"""Kinds of tagged unions: pydantic adds them to where a mistake is."""
C = TypeVar("C", bound=BaseModel)

MAX_DEPTH = 20
MAX_DIGITS = 1000
_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "ambiguous": re.compile(
        r"[Yy]es|YES|[Nn]o|NO|[Oo]n|ON|[Oo]ff|OFF|[-+]?0[0-9_]+|[-+]?0b[01_]+|[-+]?0o[0-7_]+|[-+]0x[0-9a-fA-F_]+"
        r"|0x[0-9a-fA-F]*_[0-9a-fA-F_]*|[-+]?[0-9.]+_[0-9_.]*(?:[eE].*)?|[-+]?[0-9][0-9_]*(?::[0-9]+)+(?:\.[0-9_]*)?"
    ),
    f"{_TAG}null": re.compile(r"~|null|Null|NULL|"),
    f"{_TAG}bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    f"{_TAG}int": re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+"),
    f"{_TAG}float": re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
"""What a plain word is, by the first pattern that fits the whole of it; text if none does."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses what hides mistakes (duplicate keys, tags) or can explode (aliases, depth)."""

    _depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return next((tag for tag, pattern in _PLAIN.items() if pattern.fullmatch(value)), f"{_TAG}str")
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML ships no types for its events
        refused = "aliases" if isinstance(event, yaml.AliasEvent) else "tags" if event.tag is not None else ""
        if self._depth == MAX_DEPTH:
            refused = f"more than {MAX_DEPTH} levels"
        if refused:
            raise yaml.constructor.ConstructorError(None, None, f"{refused} are not allowed", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"key {_short(key)} is not text"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = f"duplicate key {_short(key)}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> int:
        """A whole number whose text Python is willing to convert back and forth."""
        if len(node.value) > MAX_DIGITS:
            problem = f"a number of {len(node.value)} characters, expected at most {MAX_DIGITS}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return self.construct_yaml_int(node)

    def refuse_ambiguous(self, node: Any) -> None:
        problem = f"{_short(node.value)} is not the same to every reader of YAML; write true, false or a plain number,"
        raise yaml.constructor.ConstructorError(None, None, f"{problem} or quote it if it is text", node.start_mark)


_StrictLoader.add_constructor(f"{_TAG}int", _StrictLoader.construct_number)
_StrictLoader.add_constructor("ambiguous", _StrictLoader.refuse_ambiguous)


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in `path` with `a.b=c` overrides applied.

    Raises UsageError with one line that names the file, the field, what was got and what was expected.
    """
    document = read(path)
    for override in overrides:
        assign(document, override)
    return validate(document, str(path))


def read(path: Path) -> dict[str, Any]:
    """The YAML mapping in a file. Raises UsageError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: got more than {MAX_BYTES} bytes, expected a run file")
    return parse(data, str(path))


def override(document: Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    """The configuration of an existing run with `a.b=c` overrides of its operational keys.

    Raises UsageError with the first key that would change what the run computes.
    """
    changed = json.loads(json.dumps(document))
    for one in overrides:
        assign(changed, one)
    before, after = validate(dict(document), "run"), validate(changed, "run")
    difference = _first_difference(semantic(before.model_dump(mode="json")), semantic(after.model_dump(mode="json")))
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
    return validate_as(RunConfig, document, where)


def validate_as(model: type[C], document: dict[str, Any], where: str) -> C:
    """A parsed document as a configuration of this type. Raises UsageError."""
    try:
        # Through JSON: its strict mode takes lists for tuples but neither true nor "3" for a number.
        return model.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise UsageError(f"{where}: {_explain(error, model)}") from error


def assign(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts, where = key.split("."), f"--set {override[:80]}"
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        raise UsageError(f"{where}: expected a.b=value")
    node = document
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(f"{where}: {_short(part)} is not a section")
    node[parts[-1]] = _yaml(text, where)


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first mistake: dotted field, what was got, what was expected."""
    # A misspelt key is also a missing one; the misspelling is the better news.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        return "text that is not Unicode, or nested too deep; write plain text and flat sections"
    # A tagged union adds the tag to the location, always before the last part; a bad key of a mapping is marked.
    parts = first["loc"][:-1] if first["loc"][-1:] == ("[key]",) else first["loc"]
    location = [part for part in parts[:-1] if part not in TAGS] + list(parts[-1:])
    field = ".".join(_short(part).strip("'\"") for part in location)
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown key{_suggestion(location, model)}; remove it or correct its name"
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


def _suggestion(location: Sequence[int | str], root: type[BaseModel]) -> str:
    known: set[str] = set()
    for model in _models_at(root, list(location[:-1])):
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
