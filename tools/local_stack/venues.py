"""The venue simulator as a program of the stack, and the settings that lead the adapters to it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from cryptopulse.common.testing.servers.ports import free_port
from tools.local_stack.config import DEFAULT_HOST
from tools.local_stack.programs import Program, service_environment
from tools.venue_sim.simulator import make_urls

_VENUES = ("binance", "coinbase", "coingecko", "kraken", "control")


def simulator(environ: Mapping[str, str], logs: Path) -> tuple[Program, dict[str, str], list[int]]:
    """The simulator on free ports, the settings with its addresses, and the ports to wait for."""
    ports = {venue: free_port() for venue in _VENUES}
    command = [sys.executable, "-m", "tools.venue_sim", "--host", DEFAULT_HOST]
    for venue, port in ports.items():
        command += [f"--{venue}-port", str(port)]
    program = Program("simulator", tuple(command), service_environment(environ), logs / "simulator.log")
    urls = make_urls(DEFAULT_HOST, ports)
    settings = {
        "BINANCE_API_URL": urls.binance_api,
        "BINANCE_WS_URL": urls.binance_ws,
        "COINBASE_API_URL": urls.coinbase_api,
        "COINBASE_WS_URL": urls.coinbase_ws,
        "COINGECKO_API_URL": urls.coingecko_api,
    }
    return program, settings, list(ports.values())
