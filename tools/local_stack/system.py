"""Installs the servers that are missing, by apt: at once as root, else by telling the one line to run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from cryptopulse.common.testing.servers.choose import Choice, Kind, advice, choose_all
from cryptopulse.common.testing.servers.docker import Engine
from cryptopulse.common.testing.servers.faults import StackError
from tools.local_stack.console import say

_APT_SECONDS = 900


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


def _install(packages: list[str]) -> None:
    say("setup", f"installing {' '.join(packages)} by apt")
    # RUNLEVEL=1 keeps the packages from starting their own servers: ours are private ones.
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
