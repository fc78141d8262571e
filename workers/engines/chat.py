"""A model's chat template, taken apart into the token ids that stand around the texts of a prompt and its answer."""

from pathlib import Path
from typing import Any

from telemetry.failures import UsageError
from telemetry.records import BaseModelCard
from workers.engine import ModelDescription

SYSTEM, USER, ANSWER = "ZQSYSTEMQZ", "ZQUSERQZ", "ZQANSWERQZ"

Ids = tuple[int, ...]


def skeleton(directory: Path) -> tuple[Ids, Ids, Ids]:
    """Token ids before the system text, between system and user text, and between user text and answer.

    The three pieces around plain texts equal `apply_chat_template(..., tokenize=True)`. A template that knows no
    system turn gets the system text at the start of the user turn. Raises UsageError when there is no template.
    """
    from jinja2 import TemplateError

    tokenizer = _tokenizer(directory)
    if not tokenizer.chat_template:
        raise UsageError(f"model {directory.name}: it has no chat template; expected an instruction-tuned model")
    try:
        pieces = _split(_render(tokenizer, [("system", SYSTEM), ("user", USER)]))
    except TemplateError:
        pieces = None
    if pieces is None:
        pieces = _split(_render(tokenizer, [("user", f"{SYSTEM}\n\n{USER}")]))
    if pieces is None:
        raise UsageError(f"model {directory.name}: its chat template does not show the texts of a chat")
    before_system, before_user, before_answer = (_encode(tokenizer, piece) for piece in pieces)
    return before_system, before_user, before_answer


def description(directory: Path, card: BaseModelCard, *, context: int, capacity: int) -> ModelDescription:
    """What agents and trainers must know of the model in a directory. Raises UsageError as `skeleton` does."""
    tokenizer = str((directory / "tokenizer.json").resolve())
    return ModelDescription(card, tokenizer, *skeleton(directory), context, capacity)


def end_of(directory: Path) -> tuple[int, ...]:
    """`end_of_turn` of the model in a directory."""
    return end_of_turn(_tokenizer(directory))


def end_of_turn(tokenizer: Any) -> tuple[int, ...]:
    """The token that the chat template puts behind an answer; empty when it puts none.

    It is not always what a model's configuration calls the end of a sequence.
    """
    text = _render(tokenizer, [("user", USER), ("assistant", ANSWER)], answered=True)
    behind = tokenizer.encode(text.partition(ANSWER)[2], add_special_tokens=False)
    return tuple(token for token in behind if token in tokenizer.all_special_ids)[:1]


def _tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)


def _render(tokenizer: Any, turns: list[tuple[str, str]], *, answered: bool = False) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=not answered, tokenize=False))


def _split(text: str) -> tuple[str, str, str] | None:
    if text.count(SYSTEM) != 1 or text.count(USER) != 1 or text.index(USER) < text.index(SYSTEM):
        return None
    before_system, _, rest = text.partition(SYSTEM)
    before_user, _, before_answer = rest.partition(USER)
    return before_system, before_user, before_answer


def _encode(tokenizer: Any, piece: str) -> Ids:
    return tuple(tokenizer.encode(piece, add_special_tokens=False))
