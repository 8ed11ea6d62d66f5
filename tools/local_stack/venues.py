"""The venue simulator as a program of the stack, and the settings that lead the adapters to it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from cryptopulse.common.testing.servers.ports import free_port
from tools.local_stack.config import DEFAULT_HOST
from tools.local_stack.programs import Program, service_environment


def simulator(environ: Mapping[str, str], logs: Path) -> tuple[Program, dict[str, str]]:
    """The simulator on a free port, and the venues' addresses on it."""
    port = free_port()
    command = (sys.executable, "-m", "tools.venue_sim", "--host", DEFAULT_HOST, "--port", str(port))
    program = Program("simulator", command, service_environment(environ), logs / "simulator.log")
    return program, {}
