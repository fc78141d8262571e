"""What was exported, uploaded to the Hugging Face hub by the user's own token; HF_ENDPOINT names another hub.

Law: repositories are made private, so that whoever owns them looks at them before anybody else does.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from telemetry.failures import StorageError, UsageError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,60}")
MODELS = ("adapters", "merged")
"""Directories of an export whose folders are models, each a repository of its own."""


def check_name(name: str) -> None:
    """Raises UsageError for what names no repository, or when this machine has no token."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"--push: got {name!r}, expected user/name")
    from huggingface_hub import get_token

    if not get_token():
        raise UsageError("--push: no Hugging Face token on this machine; `hf auth login`, or set HF_TOKEN")


def upload(directory: Path, name: str) -> Iterator[str]:
    """Uploads the data set to `name`, and every model to `name-<id>` or `name-<id>-merged`; yields their addresses.

    Raises StorageError when the hub refuses, or cannot be reached; what was uploaded before stays there.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi

    api = HfApi()
    unwanted = [f"{folder}/**" for folder in MODELS]
    places = [(directory, name, "dataset")]
    for kind in MODELS:
        suffix = "-merged" if kind == "merged" else ""
        folders = sorted((directory / kind).iterdir()) if (directory / kind).is_dir() else []
        places += [(folder, f"{name}-{folder.name}{suffix}", "model") for folder in folders]
    for folder, repository, kind in places:
        try:
            api.create_repo(repository, repo_type=kind, private=True)
            found = api.upload_folder(
                repo_id=repository,
                repo_type=kind,
                folder_path=folder,
                ignore_patterns=unwanted if kind == "dataset" else None,
                commit_message="Exported by Forager",
            )
        except (OSError, HTTPError, ValueError) as error:  # the hub's own errors derive from these
            raise StorageError(f"--push: {repository}: {error}") from error
        yield str(found)
