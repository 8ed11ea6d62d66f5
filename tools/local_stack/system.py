"""Installs the servers and programs that are missing, by apt: at once as root, else by telling the one line to run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptopulse.common.testing.servers.choose import Choice, Kind, advice, choose_all
from cryptopulse.common.testing.servers.docker import Engine
from cryptopulse.common.testing.servers.faults import StackError
from tools.local_stack.console import say

_APT_SECONDS = 900
_POLICY = Path("/usr/sbin/policy-rc.d")


def provide(environ: Mapping[str, str], engine: Engine) -> list[Choice]:
    """A usable choice for each backend; installs packages when that is the way. Raises `StackError` with advice."""
    choices = choose_all(environ, engine)
    by_apt = [choice.backend.apt_package for choice in choices if choice.kind is Kind.APT]
    if by_apt:
        if os.geteuid() != 0:
            raise StackError(
                f"{advice(choices)}\nhere, run this once, then again what you ran:\n"
                f"  sudo apt-get update && sudo apt-get install -y {' '.join(by_apt)}"
            )
        _install(by_apt)
        choices = choose_all(environ, engine)
    if not all(choice.is_usable for choice in choices):
        raise StackError(advice(choices))
    return choices


def provide_programs(wanted: Sequence[str]) -> None:
    """Install what is missing of programs, each told as `program=package`. Raises `StackError` with advice."""
    pairs = [one.partition("=") for one in wanted]
    packages = [package or program for program, _, package in pairs if shutil.which(program) is None]
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StackError(
            f"{', '.join(packages)} cannot be installed from here: as root on Debian or Ubuntu, "
            f"apt-get update && apt-get install -y {' '.join(packages)}"
        )
    _install(packages)


@contextmanager
def _nothing_starts() -> Iterator[None]:
    """A policy against starting what is installed, unless the machine has one of its own: our servers are private ones."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _install(packages: list[str]) -> None:
    say("setup", f"installing {' '.join(packages)} by apt")
    with _nothing_starts():
        _run_apt(packages)


def _run_apt(packages: list[str]) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    options = ["-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"]
    for command in (
        ["apt-get", "update", *options],
        ["apt-get", "install", "-y", "--no-install-recommends", *options, *packages],
    ):
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_APT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            end = "\n".join(f"    {line}" for line in done.stdout.strip().splitlines()[-12:])
            raise StackError(f"{' '.join(command[:2])} failed (exit code {done.returncode}):\n{end}")
