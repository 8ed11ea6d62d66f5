"""Keeps programs running: one that ends is started again with back-off, one with wrong settings stops the whole."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptopulse.common.testing.servers.children import Child, spawn
from tools.local_stack.config import EXIT_CONFIG
from tools.local_stack.logs import LogTail
from tools.local_stack.programs import Program
from tools.local_stack.taken import is_free

_POLL_SECONDS = 0.1
_WAIT_SECONDS = 20.0
_ECHO_TIMES, _ECHO_EVENTS, _ECHO_SECONDS = 2, 8, 30.0

Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait before the n-th start in a row; a run longer than `healthy_seconds` begins anew."""

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    healthy_seconds: float = 30.0

    def delay(self, failures: int) -> float:
        """Seconds before the next start, after `failures` ends in a row."""
        return float(min(self.longest_seconds, self.first_seconds * 2 ** min(failures - 1, 16)))


def ending(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class _Echo:
    """Passes on loud lines: each kind of event a few times per while, and then how often it came besides."""

    def __init__(self, name: str, tail: LogTail, say: Say) -> None:
        self._name, self.tail, self._say = name, tail, say
        self._since = time.monotonic()
        self._seen: Counter[str] = Counter()

    def look(self) -> None:
        if time.monotonic() - self._since > _ECHO_SECONDS:
            self._sum_up()
        for line in self.tail.read():
            if not line.is_loud:
                continue
            self._seen[line.event] += 1
            if self._seen[line.event] <= _ECHO_TIMES and len(self._seen) <= _ECHO_EVENTS:
                self._say(self._name, f"{line.level}: {line.text}")

    def _sum_up(self) -> None:
        untold = {event: times - _ECHO_TIMES for event, times in self._seen.items() if times > _ECHO_TIMES}
        if untold:
            event, times = max(untold.items(), key=lambda one: one[1])
            rest = f" and {len(untold) - 1} other events" if len(untold) > 1 else ""
            self._say(self._name, f"{event}: {times} times more{rest}, see {self.tail.path}")
        self._since = time.monotonic()
        self._seen.clear()


class Supervisor:
    """Runs programs until it is told to stop. Lives in the main thread: the kernel ties children to their thread."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        pid_folder: Path,
        cwd: Path,
        say: Say,
        back_off: BackOff | None = None,
        stop_seconds: float = 25.0,
    ) -> None:
        self._programs = programs
        self._pid_folder = pid_folder
        self._cwd = cwd
        self._say = say
        self._back_off = back_off or BackOff()
        self._stop_seconds = stop_seconds
        self._children: dict[str, Child] = {}
        self.exit_code = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything and keep it running until `stop` is set, by whoever; does not stop the children."""
        async with asyncio.TaskGroup() as group:
            for program in self._programs:
                group.create_task(self._keep(program, stop), name=program.name)

    async def stop(self, order: Iterable[Sequence[str]]) -> None:
        """Stop the children, one group after the other; the members of a group together, each within its time."""
        for names in order:
            children = [self._children[name] for name in names if name in self._children]
            for child in children:
                child.ask_to_stop()
            await _ended(children, self._stop_seconds)
            for child in children:
                if child.is_running():
                    self._say(child.name, f"did not stop in {self._stop_seconds:.0f} s and was killed")
                child.terminate()
                self._children.pop(child.name, None)

    def kill(self) -> None:
        """End every child at once."""
        for child in self._children.values():
            child.terminate()
        self._children.clear()

    def pids(self) -> dict[str, int]:
        """The processes that run now."""
        return {name: child.pid for name, child in self._children.items() if child.is_running()}

    async def _keep(self, program: Program, stop: asyncio.Event) -> None:
        tail = LogTail(program.log)
        tail.begin()
        echo = _Echo(program.name, tail, self._say)
        failures = 0
        await _until_open(program.waits_for, stop)
        while not stop.is_set():
            began = time.monotonic()
            code = await self._once(program, echo, stop)
            if stop.is_set() or code is None:
                return
            if code == EXIT_CONFIG:
                self._give_up(program, tail, stop)
                return
            failures = 1 if time.monotonic() - began > self._back_off.healthy_seconds else failures + 1
            delay = self._back_off.delay(failures)
            self._say(program.name, f"ended ({ending(code)}); starting it again in {delay:g} s")
            if code > 0:
                for line in tail.last_lines()[-3:]:
                    self._say(program.name, f"  {line}")
            await _wait(stop, delay)

    async def _once(self, program: Program, echo: _Echo, stop: asyncio.Event) -> int | None:
        """Run what comes before, then the program itself; how the first of them that failed ended."""
        for command in (*program.before, program.command):
            is_last = command is program.command
            child = self._spawn(program, command)
            if is_last:
                self._say(program.name, f"started (pid {child.pid})")
            while child.is_running():
                echo.look()
                if stop.is_set():
                    return None
                await asyncio.sleep(_POLL_SECONDS)
            echo.look()
            child.join(1.0)
            self._children.pop(program.name, None)
            if is_last or child.exit_code != 0:
                return child.exit_code
        return None

    def _spawn(self, program: Program, command: Sequence[str]) -> Child:
        child = spawn(
            program.name,
            command,
            pid_folder=self._pid_folder,
            cwd=self._cwd,
            env=program.env,
            log=program.log,
            stop_signal=signal.SIGTERM,
            # Without us nobody waits for a drain: all the servers go down in the same moment.
            death_signal=signal.SIGKILL,
        )
        self._children[program.name] = child
        return child

    def _give_up(self, program: Program, tail: LogTail, stop: asyncio.Event) -> None:
        self._say(program.name, "has wrong settings; the run ends:")
        for line in tail.last_lines():
            self._say(program.name, f"  {line}")
        self.exit_code = EXIT_CONFIG
        stop.set()


async def _until_open(ports: Sequence[int], stop: asyncio.Event) -> None:
    for _ in range(int(_WAIT_SECONDS / _POLL_SECONDS)):
        if stop.is_set() or all(not is_free("127.0.0.1", port) for port in ports):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _ended(children: Sequence[Child], seconds: float) -> None:
    step = _POLL_SECONDS / 4
    for _ in range(int(seconds / step)):
        if not any(child.is_running() for child in children):
            return
        await asyncio.sleep(step)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
