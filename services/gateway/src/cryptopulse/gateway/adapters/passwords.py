"""Passwords by argon2id in a few threads of their own: slow on purpose, bounded so that logins cannot eat the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cryptopulse.common.errors import LimitExceeded

WAITING_MAX: Final = 32


class Argon2Passwords:
    """argon2id with OWASP's minimum (19 MiB, 2 passes) by default; every hash in hand costs `memory_kib`."""

    def __init__(self, *, threads: int = 2, memory_kib: int = 19_456, passes: int = 2) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="argon2")
        self._waiting = 0
        self._limit = WAITING_MAX * threads
        self._nobody = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The encoded hash with its salt and parameters."""
        return await self._run(self._hash, password, "")

    async def verify(self, stored: str | None, password: str) -> bool:
        """True when the password matches. None is compared with a hash that nobody has: the same time, always False."""
        matches = await self._run(self._verify, stored or self._nobody, password)
        return matches == "yes" and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """True when the hash was made with other parameters."""
        try:
            return self._hasher.check_needs_rehash(stored)
        except InvalidHashError:
            return True

    def close(self) -> None:
        """Let the threads finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: str, _: str) -> str:
        return self._hasher.hash(password)

    def _verify(self, stored: str, password: str) -> str:
        try:
            self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return "no"
        return "yes"

    async def _run(self, work: Callable[[str, str], str], first: str, second: str) -> str:
        if self._waiting >= self._limit:
            raise LimitExceeded(
                "too many logins at the moment: try again", code="login-busy", retry_after_seconds=2
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, first, second)
        finally:
            self._waiting -= 1
