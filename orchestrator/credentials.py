"""What guards the Ray cluster of a run: its token, who can read it, which network interfaces it listens on.

The law: a token lives in a file that only its owner can read, or comes from the user's own environment; it is never
printed, logged or stored. Whoever holds it can run code as the cluster's user
(https://docs.ray.io/en/latest/ray-security/token-auth.html).
"""

import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

from orchestrator import address
from orchestrator.config import RayConfig
from telemetry.failures import UsageError

UNPICKLING = (
    "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE",
    "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
    "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
    "RAY_DATA_ARROW_EXTENSION_SERIALIZATION_CLOUDPICKLE",
)
"""Variables that make Ray run code it finds in data files."""


def prepare(config: RayConfig) -> None:
    """Makes this process's environment safe to start or join a cluster with. To be called before Ray is imported.

    Creates the token of a cluster started here if there is none. Raises UsageError for variables that make Ray run
    code from data files, for an address that no driver can join, and for a token that is missing, empty or no secret.
    """
    if dangerous := dangerous_variables():
        raise UsageError(f"{dangerous[0]}: it makes Ray run code that it finds in data files; unset it")
    if config.executor == "inprocess":
        return
    if config.address is not None:
        address.check(config.address)
    else:
        # Ray's own switch for machines that are a cluster by themselves: all its processes then listen on loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode.lower() == "token":
        try:
            _guard_token(joining=config.address is not None)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(
                f"{error.filename or token_file()}: {reason}; set RAY_AUTH_TOKEN_PATH to a file of your own for the"
                " Ray token"
            ) from error
    elif mode.lower() == "disabled" and config.address is None:
        _warn("RAY_AUTH_MODE: got disabled, so every user of this machine can run code on the cluster; unset it")


def dangerous_variables() -> list[str]:
    """Names of the variables in the environment that make Ray run code from data files."""
    return [name for name in UNPICKLING if os.environ.get(name, "").lower() not in ("", "0", "false")]


def token_file() -> Path | None:
    """Where Ray will look for the token; None when RAY_AUTH_TOKEN holds the token itself."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or _default())


def weakness(path: Path) -> str | None:
    """Why the token in an existing file is no secret and what to do about it, None when it is one."""
    file, folder = path.stat(), path.parent.stat()
    if not stat.S_ISREG(file.st_mode):
        return "not a regular file; give the file that holds the Ray token"
    if file.st_uid not in (0, os.geteuid()):
        return f"the Ray token belongs to user {file.st_uid}; use a copy of your own"
    if file.st_mode & 0o077:
        return f"got mode {_octal(file)}, so others can use the Ray token; `chmod 600 {path}`"
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
        mode = _octal(folder)
        return f"its directory has mode {mode}, so others can replace the Ray token; `chmod 700 {path.parent}`"
    return None


def _guard_token(joining: bool) -> None:
    path = token_file()
    if path is None:
        return
    if path == _default():
        if not joining:
            _create(path)
        _make_private(path)
    if not path.exists():
        raise UsageError(
            f"{path}: no Ray token there; put the cluster's token into it (mode 600) or into RAY_AUTH_TOKEN, or set"
            " RAY_AUTH_MODE=disabled for a cluster without authentication"
        )
    if weak := weakness(path):
        raise UsageError(f"{path}: {weak}")
    if not path.read_bytes().strip():
        raise UsageError(f"{path}: the Ray token is empty; delete the file, or put the cluster's token into it")


def _create(path: Path) -> None:
    """A fresh token of 256 bits, unless there is one. Of drivers that start at the same time one wins."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(staged, path)
    finally:
        staged.unlink()


def _make_private(path: Path) -> None:
    """Ray leaves its default token readable by everybody (0644 in 0755); what we may not change is refused later."""
    with suppress(FileNotFoundError, PermissionError):
        file = path.stat()
        if path.parent.stat().st_mode & 0o077:
            path.parent.chmod(0o700)
        if file.st_mode & 0o077:
            path.chmod(0o600)
            _warn(
                f"{path}: the Ray token had mode {_octal(file)}, now 600; if others use this machine, delete it, so"
                " that the next run makes a new one"
            )


def _default() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _octal(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):03o}"


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
