"""The last look at what is about to be published: does any text hold a credential?

Patterns of well-known kinds of tokens are those of detect-secrets (https://github.com/Yelp/detect-secrets), with a few
that it lacks; besides, the values of this process's own secrets are looked for as they are. Law: what is found is
named by kind and place and never shown.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.credentials import token_file
from telemetry.failures import UsageError

DETECTORS = (
    "artifactory.ArtifactoryDetector",
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "basic_auth.BasicAuthDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "jwt.JwtTokenDetector",
    "mailchimp.MailchimpDetector",
    "npm.NpmDetector",
    "openai.OpenAIDetector",
    "private_key.PrivateKeyDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector",
    "twilio.TwilioKeyDetector",
)
"""Those of detect-secrets that know a token by its own form. Left out: what goes by entropy or by the words around it,
which hashes, states of worlds and ordinary sentences have too."""
OWN = {
    "Anthropic API Key": re.compile(r"sk-ant-[\w-]{20,}"),
    "Google API Key": re.compile(r"AIza[\w-]{35}"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "OpenAI Project Key": re.compile(r"sk-(?:proj|svcacct|admin)-[\w-]{20,}"),
}
CANDIDATE = r"[A-Za-z0-9_+/=-]{12}|://|PRIVATE KEY|PuTTY|AccountKey"
"""RE2: what every text that one of these patterns fits has in it. Nearly all texts do not and cost next to nothing."""
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|ACCOUNT_KEY)$")
"""Of environment variables."""
SHORTEST = 8
"""Characters of a secret's value that is looked for: shorter ones are words."""


@dataclass(frozen=True)
class Scanner:
    """Looks for credentials in texts."""

    literals: Mapping[str, str]
    """Kind -> value of secrets that are known."""

    def check(self, where: str, texts: pa.Array, first: int = 0) -> None:
        """Raises UsageError, naming place, row and kind, for a text that holds a credential.

        texts: strings, or lists of strings; first: row of the first of them.
        """
        values = pc.list_flatten(texts) if pa.types.is_list(texts.type) else texts
        for kind, literal in self.literals.items():
            if pc.any(pc.match_substring(values, literal)).as_py():
                _refuse(where, texts, first, kind, lambda text, literal=literal: literal in text)  # type: ignore[misc]
        candidates = pc.unique(values.filter(pc.match_substring_regex(values, CANDIDATE)))
        for text in candidates.to_pylist():
            if kind := self.kind(text):
                _refuse(where, texts, first, kind, lambda other, text=text: other == text)  # type: ignore[misc]

    def check_file(self, path: Path, name: str) -> None:
        """The same for a text file; the row is the line, from 1."""
        self.check(name, pa.array(path.read_text(errors="replace").splitlines(), pa.string()), 1)

    def kind(self, text: str) -> str:
        """What kind of credential the text holds by its form; empty when none."""
        for name, find in self._patterns.items():
            if any(find(text)):
                return name
        return ""

    @cached_property
    def _patterns(self) -> dict[str, Callable[[str], Iterable[object]]]:
        from importlib import import_module

        found: dict[str, Callable[[str], Iterable[object]]] = {name: one.findall for name, one in OWN.items()}
        for path in DETECTORS:
            module, _, name = path.partition(".")
            try:
                detector = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
            except ModuleNotFoundError as error:
                raise UsageError(
                    f"{error}; what is published is scanned by detect-secrets: install forager[publish]"
                ) from error
            found[detector.secret_type] = detector.analyze_string
        return found


def scanner() -> Scanner:
    """One that also knows the secrets of this process: its environment's, Ray's token, the hub's."""
    values = {f"value of {name}": text for name, text in os.environ.items() if SECRET_NAME.search(name.upper())}
    path = token_file()
    if path is not None and path.is_file():
        values["Ray token"] = path.read_text(errors="replace").strip()
    from huggingface_hub import get_token

    values["Hugging Face token of this machine"] = get_token() or ""
    return Scanner({kind: text for kind, text in values.items() if len(text) >= SHORTEST})


def _refuse(where: str, texts: pa.Array, first: int, kind: str, matches: Callable[[str], bool]) -> None:
    held = ((row, one if isinstance(one, list) else [one]) for row, one in enumerate(texts.to_pylist(), first))
    row = next(row for row, some in held if any(text is not None and matches(text) for text in some))
    raise UsageError(f"{where}: row {row} holds a secret ({kind}); nothing was exported; take it out with --redact")
