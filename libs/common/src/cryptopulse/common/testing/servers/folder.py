"""The folder of one stack: who may enter it, and that only one stack runs in it at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from cryptopulse.common.testing.servers.children import Account
from cryptopulse.common.testing.servers.faults import FolderInUseError, StackError
from cryptopulse.common.testing.servers.processes import command_of

_LESSER_USERS = ("postgres", "nobody")


class FolderLock:
    """Held while a stack runs in a folder; the kernel gives it back however the holder ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the folder, or say who has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            command = command_of(int(holder)) if holder.isdigit() else ""
            raise FolderInUseError(
                f"another stack runs in {self._path.parent} (pid {holder or 'unknown'}: {command or 'gone?'}); "
                "stop it first, or give this one a folder of its own with RUN_DIR=<folder>"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the folder back."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def lesser_account() -> Account | None:
    """Whom Postgres runs as: ourselves (None), or, since it refuses root, another user of this machine."""
    if os.geteuid() != 0:
        return None
    for name in _LESSER_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        groups = tuple(os.getgrouplist(name, entry.pw_gid))
        return Account(name, entry.pw_uid, entry.pw_gid, groups)
    raise StackError(
        f"Postgres refuses to run as root and there is no user {' or '.join(_LESSER_USERS)}: run as a normal user"
    )


def can_enter(folder: Path, account: Account) -> bool:
    """Whether `account` can search `folder` and everything above it: tried out, since modes do not tell of ACLs."""
    probe = subprocess.run(
        ["test", "-x", str(folder)],
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
        cwd="/",
        check=False,
        timeout=10,
    )
    return probe.returncode == 0


def folder_for(account: Account, wanted: Path, *, named_after: Path) -> Path:
    """`wanted` as a folder of `account`, or, where that user cannot get there, one in the system's temporary folder.

    The second is private too, and named after the checkout, so that the next start finds the same data.
    """
    wanted.mkdir(parents=True, exist_ok=True)
    if not can_enter(wanted.parent, account):
        private = _private_folder(named_after)
        if not can_enter(private, account):
            raise StackError(
                f"user {account.name}, whom the server runs as, can enter neither {wanted.parent} nor {private}: "
                "set TMPDIR to a folder that is open to all, or run as a normal user"
            )
        wanted = private / wanted.name
        wanted.mkdir(exist_ok=True)
    os.chown(wanted, account.uid, account.gid)
    wanted.chmod(0o700)
    return wanted


def _private_folder(named_after: Path) -> Path:
    digest = hashlib.sha256(str(named_after.resolve()).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"cryptopulse-{os.getuid()}-{digest}"
    folder.mkdir(exist_ok=True)
    state = folder.lstat()
    # Anyone may create a name in a temporary folder: only one that is a folder of ours, and of nobody else, is used.
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise StackError(
            f"{folder} is not a folder of ours: remove it, or set TMPDIR to another temporary folder"
        )
    folder.chmod(0o711)
    return folder
