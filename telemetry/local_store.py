"""A store in a local directory.

The law: nothing is acknowledged before the file and the directory that names it are fsynced. A failed fsync is
final and never tried again, because the kernel may have dropped the data it could not write (Rebello et al. 2020,
"Can applications recover from fsync failures?"). Nothing under the root may be a symbolic link.
"""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from telemetry.failures import StateError, StorageError, UsageError
from telemetry.store_base import Keys, Store, check_key


class LocalStore(Store):
    """A directory. Every write is staged under a hidden name, fsynced, then linked or renamed."""

    def __init__(self, root: Path, create: bool) -> None:
        if re.search(r"[%\\\x00-\x1f\x7f]", str(root)):
            raise UsageError(f"store: got {str(root)!r}, expected a path without %, backslash or control characters")
        self.root = Path(os.path.realpath(os.path.expanduser(root)))
        self._durable: set[Path] = set()
        if create:
            with self._guard(""):
                _make_directory(self.root)
        elif not os.path.isdir(self.root):
            raise UsageError(f"store: got {root}, expected an existing directory")

    def __str__(self) -> str:
        return str(self.root)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._guard(key), self._staged(path, data) as staged:
            try:
                os.link(staged, path)
            except FileExistsError:
                return False
            _fsync(path.parent)
            return True

    def put_all_if_absent(self, objects: Sequence[tuple[str, bytes]]) -> int:
        if len(objects) < 2:
            return super().put_all_if_absent(objects)
        paths = [self._path(key) for key, _ in objects]
        folder, created = paths[0].parent, 0
        # The directory is waited for once.
        with self._guard(str(folder)), ExitStack() as stack:
            data = [one for _, one in objects]
            staged = [stack.enter_context(self._staged(path, one)) for path, one in zip(paths, data, strict=True)]
            with suppress(FileExistsError):
                for hidden, path in zip(staged, paths, strict=True):
                    os.link(hidden, path)
                    created += 1
            if created:
                _fsync(folder)
        return created

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._guard(key), self._staged(path, data) as staged:
            os.replace(staged, path)
            _fsync(path.parent)

    def get(self, key: str) -> bytes:
        with self._guard(key), os.fdopen(self._open(key), "rb") as file:
            return file.read()

    def size_and_sha256(self, key: str) -> tuple[int, str]:
        with self._guard(key), os.fdopen(self._open(key), "rb") as file:
            return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()

    def size_and_time(self, key: str) -> tuple[int, float]:
        with self._guard(key):
            try:
                file = os.lstat(self.root / key)
            except FileNotFoundError:
                raise KeyError(key) from None
            return file.st_size, file.st_mtime

    def staged(self, pattern: re.Pattern[str]) -> Keys:
        with self._guard(""):
            walked = os.walk(self.root, onerror=_raise_unless_gone)
            return sorted(
                os.path.relpath(os.path.join(folder, name), self.root)
                for folder, _, files in walked
                for name in files
                if pattern.fullmatch(name)
            )

    def exists(self, key: str) -> bool:
        with self._guard(key):
            return self._path(key).is_file()

    def delete(self, key: str) -> None:
        with self._guard(key):
            self._path(key).unlink(missing_ok=True)

    def discard(self, key: str) -> None:
        with self._guard(key):
            folder, _, name = key.rpartition("/")
            (self._path(folder) if folder else self.root).joinpath(name).unlink(missing_ok=True)

    def list(self, prefix: str) -> Keys:
        top = self._path(prefix) if prefix else self.root
        keys = []
        with self._guard(prefix):
            os.stat(self.root)  # raises if it is the whole store that is gone
            for folder, folders, files in os.walk(top, onerror=_raise_unless_gone):
                folders[:] = [name for name in folders if not name.startswith(".")]
                above = os.path.relpath(folder, self.root)
                start = "" if above == "." else above + "/"
                keys += [start + name for name in files if not name.startswith(".")]
        return sorted(keys)

    def list_after(self, key: str) -> Keys:
        folder, _, name = check_key(key).rpartition("/")
        with self._guard(folder):
            try:
                names = os.listdir(self._path(folder))
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(f"{folder}/{one}" for one in names if one > name and not one.startswith("."))

    def fsync(self, keys: Iterable[str]) -> None:
        folders: set[Path] = set()
        for key in keys:
            path = self._path(key)
            with self._guard(key):
                _fsync(path)
            folders.add(path.parent)
        for folder in sorted(folders):
            with self._guard(str(folder.relative_to(self.root))):
                _fsync(folder)
                self._make_durable(folder)

    def delta(self, name: str) -> tuple[str, dict[str, str]]:
        return str(self._path(name)), {}

    def address(self, key: str) -> str:
        return str(self.root.absolute() / check_key(key))

    def local_path(self, key: str) -> Path:
        return self._path(key)

    def free_bytes(self) -> int:
        with self._guard(""):
            disk = os.statvfs(self.root)
            return disk.f_bavail * disk.f_frsize

    def free_text(self) -> str:
        try:
            disk = os.statvfs(self.root)
        except OSError:
            return "; unknown bytes free"
        return f"; {disk.f_bavail * disk.f_frsize} bytes free"

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        if os.path.realpath(path) != str(path):
            raise StateError(f"{path}: a symbolic link inside the store; replace it by what it points to")
        return path

    def _open(self, key: str) -> int:
        # O_NONBLOCK: opening a pipe planted under a key must not hang.
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            os.stat(self.root)  # raises if it is the whole store that is gone
            raise KeyError(key) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StateError(f"{self.root / key}: not a regular file")
        return descriptor

    @contextmanager
    def _staged(self, path: Path, data: bytes) -> Iterator[Path]:
        """A durable hidden file at the top of the store, gone afterwards.

        Not beside `path`: what a crash leaves there would make an adapter's directory one that the gate refuses.
        """
        self._make_durable(path.parent)
        staged = self.root / f".{path.name[:150]}.{secrets.token_hex(8)}"
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def _make_durable(self, folder: Path) -> None:
        """Folder and its ancestors exist and are on disk; the root itself is never made anew under a running user."""
        if folder in self._durable or folder == self.root:
            return
        self._make_durable(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _fsync(folder.parent)
        self._durable.add(folder)

    @contextmanager
    def _guard(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise StorageError(f"{self.root / key}: {reason}{self.free_text()}") from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directory(path: Path) -> None:
    if path.is_dir():
        return
    _make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    _fsync(path.parent)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
