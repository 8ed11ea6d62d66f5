"""The three servers alone: under a command (`make test`, benchmarks), or for whoever wants them by hand."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from cryptopulse.common.testing.servers.boot import Servers
from cryptopulse.common.testing.servers.children import die_with
from cryptopulse.common.testing.servers.docker import DockerEngine
from cryptopulse.common.testing.servers.server import FOR_TESTS, write_private
from tools.local_stack.console import say
from tools.local_stack.system import provide

_END_SECONDS = 30.0
_URLS = ("RABBITMQ_URL", "REDIS_URL", "DATABASE_URL")


@contextmanager
def _servers(folder: Path, environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    began = time.monotonic()
    choices = provide(environ, DockerEngine())
    for choice in choices:
        say("setup", f"{choice.backend.title}: {choice.reason}")
    servers = Servers(folder, choices, FOR_TESTS, environ=environ, say=lambda text: say("setup", text))
    try:
        urls = servers.start(fresh=True)
        say("setup", f"the servers are up ({time.monotonic() - began:.1f} s)")
        yield urls
    finally:
        servers.stop()


def serve(folder: Path, environ: Mapping[str, str], env_file: Path | None) -> int:
    """Boot, print `export NAME=value` lines (and write them to a file), stay until a signal comes."""
    with _servers(folder, environ) as urls:
        lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(urls.items()))
        if env_file is not None:
            write_private(env_file, lines)
        print(lines, end="", flush=True)
        while True:
            signal.pause()


def exec_with_servers(folder: Path, environ: Mapping[str, str], command: Sequence[str]) -> int:
    """Boot, run `command` with the URLs in its environment, stop; the command's exit code.

    Inside another such command, or where all servers are given, nothing is booted and no folder taken.

    The command shares our terminal: Ctrl-C reaches it too, so we only wait for it then.
    """
    given = all(environ.get(name) for name in _URLS)
    around: AbstractContextManager[dict[str, str]] = nullcontext({}) if given else _servers(folder, environ)
    with around as urls:
        process = subprocess.Popen(
            command,
            env={**environ, **urls, "REQUIRE_BACKENDS": "1"},
            preexec_fn=die_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - no threads here
        )
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    return code if code >= 0 else 128 - code


def clean(folder: Path, environ: Mapping[str, str]) -> int:
    """Remove a run folder and what lies elsewhere for it; refused while a stack runs in it."""
    for one in (folder / "test", folder):
        if one.is_dir():
            Servers(one, [], FOR_TESTS, environ=environ, say=print).forget()
            say("clean", f"removed {one}")
    return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the command, giving it time to stop what it started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
