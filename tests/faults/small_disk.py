"""A filesystem of a few MiB under the data of the stand's Postgres, filled and freed; it is gone however the tests end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.stand import OwnServers

SPARE_MIB = 64
MIB = 2**20
REFILL_SECONDS = 0.2
_UNTIL_WE_END = 'trap "" HUP INT TERM; cat; umount -l "$0"'


def missing_means() -> str:
    """Why no filesystem can be mounted here; empty when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux may mount one"
    if shutil.which("mount") is None or shutil.which("umount") is None:
        return "no mount and umount here"
    return ""


@contextlib.contextmanager
def _mounted(folder: Path, mib: int) -> Iterator[None]:
    """A tmpfs on `folder`. A child takes it off once its standard input ends: at the end of the block, or of this process."""
    account = folder.stat()
    options = f"size={mib}m,mode=700,uid={account.st_uid},gid={account.st_gid}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "cryptopulse-faults", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no small filesystem for Postgres: {done.stderr.strip()}")
    keeper = subprocess.Popen(
        ["sh", "-c", _UNTIL_WE_END, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        assert keeper.wait(20) == 0, f"{folder} is still mounted"


class SmallDisk:
    """The filesystem: a file that holds nothing takes all the room that is left, and what becomes free too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        self._task: asyncio.Task[None] | None = None

    def fill(self) -> None:
        """From now on there is no room."""
        self._grow()
        self._task = asyncio.create_task(self._keep_full())

    async def free(self) -> None:
        """There is room again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._ballast.unlink(missing_ok=True)

    async def _keep_full(self) -> None:
        while True:
            await asyncio.sleep(REFILL_SECONDS)
            self._grow()

    def _grow(self) -> None:
        # Page by page at the end, so that not even a part of a page is left.
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for size in (MIB, 4_096):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass


@contextlib.asynccontextmanager
async def small_disk(servers: OwnServers) -> AsyncIterator[SmallDisk]:
    """Postgres is stopped, moved to a small filesystem and started; at the end it is moved back, whatever happened."""
    data = servers.postgres.secret_folder() / "data"
    aside = data.with_name("data-aside")
    await _stop(servers)
    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    data.rename(aside)
    data.mkdir(mode=0o700)
    shutil.copystat(aside, data)
    os.chown(data, aside.stat().st_uid, aside.stat().st_gid)
    try:
        with _mounted(data, size // MIB + SPARE_MIB):
            await _copy(aside, data)
            await servers.revive("postgres")
            disk = SmallDisk(data)
            try:
                yield disk
            finally:
                await disk.free()
                await _stop(servers)
                shutil.rmtree(aside)
                aside.mkdir(mode=0o700)
                await _copy(data, aside)
    finally:
        data.rmdir()
        aside.rename(data)
        if not servers.postgres.is_running():
            await servers.revive("postgres")


async def _stop(servers: OwnServers) -> None:
    servers.postgres.ask_to_stop()
    await asyncio.to_thread(servers.postgres.join)


async def _copy(source: Path, target: Path) -> None:
    """With owners, modes and times."""
    copy = await asyncio.create_subprocess_exec("cp", "-a", f"{source}/.", str(target))
    assert await copy.wait() == 0
