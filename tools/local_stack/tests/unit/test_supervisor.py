"""The supervisor with tiny commands: restarts with back-off, wrong settings end the run, the end comes in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tools.local_stack.programs import Program
from tools.local_stack.supervisor import BackOff, Supervisor, ending

QUICK = BackOff(first_seconds=0.02, longest_seconds=0.1, healthy_seconds=30.0)


class Heard(list[tuple[str, str]]):
    """What the supervisor said."""

    def say(self, who: str, text: str) -> None:
        self.append((who, text))

    def of(self, who: str) -> str:
        return "\n".join(text for name, text in self if name == who)


def a_program(folder: Path, script: str, name: str = "svc", before: str | None = None) -> Program:
    steps = ((sys.executable, "-c", before),) if before is not None else ()
    return Program(name, (sys.executable, "-c", script), dict(os.environ), folder / f"{name}.log", steps)


def a_supervisor(folder: Path, heard: Heard, *programs: Program, stop_seconds: float = 5.0) -> Supervisor:
    return Supervisor(
        programs,
        pid_folder=folder / "pids",
        cwd=folder,
        say=heard.say,
        back_off=QUICK,
        stop_seconds=stop_seconds,
    )


@asynccontextmanager
async def running(supervisor: Supervisor, *order: tuple[str, ...]) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await task
        await supervisor.stop(order or (("svc",),))


def written(path: Path) -> str:
    """What a program wrote so far."""
    return path.read_text() if path.exists() else ""


async def until(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.01)


async def test_a_program_that_is_killed_is_started_again_and_that_is_said(tmp_path: Path) -> None:
    heard = Heard()
    supervisor = a_supervisor(tmp_path, heard, a_program(tmp_path, "import time; time.sleep(60)"))
    async with running(supervisor):
        await until(lambda: "svc" in supervisor.pids())
        first = supervisor.pids()["svc"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.pids().get("svc", first) != first)
    assert "killed by SIGKILL" in heard.of("svc")
    assert heard.of("svc").count("started (pid") == 2
    assert supervisor.exit_code == 0


async def test_a_program_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    heard = Heard()
    script = "import sys; print('cannot do this'); sys.exit(3)"
    async with running(a_supervisor(tmp_path, heard, a_program(tmp_path, script))):
        await until(lambda: heard.of("svc").count("exit code 3") >= 3)
    assert "cannot do this" in heard.of("svc")
    assert "in 0.02 s" in heard.of("svc")
    assert "in 0.08 s" in heard.of("svc")


async def test_wrong_settings_stop_the_whole_run_with_their_lines(tmp_path: Path) -> None:
    heard = Heard()
    bad = a_program(tmp_path, "import sys; print('PORT: is not a number'); sys.exit(78)", name="bad")
    good = a_program(tmp_path, "import time; time.sleep(60)", name="good")
    supervisor = a_supervisor(tmp_path, heard, bad, good)
    async with running(supervisor, ("bad", "good")) as stop:
        await until(stop.is_set)
    assert supervisor.exit_code == 78
    assert "PORT: is not a number" in heard.of("bad")
    assert supervisor.pids() == {}


async def test_a_program_waits_for_what_comes_before_it(tmp_path: Path) -> None:
    heard = Heard()
    mark = tmp_path / "migrated"
    before = f"import time; time.sleep(0.2); open({str(mark)!r}, 'w').close()"
    script = f"import os, time; print('found', os.path.exists({str(mark)!r}), flush=True); time.sleep(60)"
    async with running(a_supervisor(tmp_path, heard, a_program(tmp_path, script, before=before))):
        await until(lambda: "found" in written(tmp_path / "svc.log"))
    assert "found True" in (tmp_path / "svc.log").read_text()


async def test_when_what_comes_before_fails_it_is_tried_again(tmp_path: Path) -> None:
    heard = Heard()
    mark = tmp_path / "second"
    before = f"import os, sys; p={str(mark)!r}; there = os.path.exists(p); open(p, 'w').close(); sys.exit(not there)"
    async with running(
        a_supervisor(tmp_path, heard, a_program(tmp_path, "import time; time.sleep(60)", before=before))
    ):
        await until(lambda: "started (pid" in heard.of("svc"))
    assert "exit code 1" in heard.of("svc")


async def test_warnings_are_passed_on_and_repeats_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.local_stack.supervisor._ECHO_SECONDS", 0.3)
    heard = Heard()
    script = (
        "import json, time\n"
        "print(json.dumps({'level': 'info', 'event': 'quiet news'}))\n"
        "for i in range(50): print(json.dumps({'level': 'warning', 'event': 'feed went away', 'venue': i}))\n"
        "print(json.dumps({'level': 'error', 'event': 'disk full'}), flush=True); time.sleep(60)"
    )
    async with running(a_supervisor(tmp_path, heard, a_program(tmp_path, script))):
        await until(lambda: "times more" in heard.of("svc"))
    assert "warning: feed went away venue=0" in heard.of("svc")
    assert heard.of("svc").count("warning: feed went away") == 2
    assert "feed went away: 48 times more" in heard.of("svc")
    assert "error: disk full" in heard.of("svc")
    assert "quiet news" not in heard.of("svc")


async def test_groups_stop_one_after_the_other(tmp_path: Path) -> None:
    heard = Heard()
    script = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep(0.2); print(time.time(), flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
    )
    programs = [a_program(tmp_path, script, name=name) for name in ("first", "second")]
    supervisor = a_supervisor(tmp_path, heard, *programs)
    async with running(supervisor, ("first",), ("second",)):
        await until(lambda: all("up" in written(one.log) for one in programs))
        await until(lambda: len(supervisor.pids()) == 2)
    ends = [float(one.log.read_text().split()[1]) for one in programs]
    assert ends[1] - ends[0] >= 0.2


async def test_a_program_that_does_not_stop_is_killed_and_that_is_said(tmp_path: Path) -> None:
    heard = Heard()
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    supervisor = a_supervisor(tmp_path, heard, a_program(tmp_path, script), stop_seconds=0.2)
    async with running(supervisor):
        await until(lambda: "up" in written(tmp_path / "svc.log"))
    assert "was killed" in heard.of("svc")


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1.0), (5, 8.0), (7, 30.0), (1000, 30.0)])
def test_the_wait_doubles_up_to_its_limit(failures: int, seconds: float) -> None:
    assert BackOff().delay(failures) == seconds


@pytest.mark.parametrize(
    ("code", "words"), [(3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_an_ending_is_told_in_words(code: int, words: str) -> None:
    assert ending(code) == words
