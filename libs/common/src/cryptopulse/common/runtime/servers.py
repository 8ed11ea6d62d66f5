"""HTTP servers inside our own process: uvicorn without its signal handlers, on sockets that we bind ourselves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import uvicorn

from cryptopulse.common.config.settings import SettingsError
from cryptopulse.common.telemetry.logging import get_logger

KEEP_ALIVE_SECONDS: Final = 130
"""Longer than the balancer's idle timeout (120 s), or its clients see sporadic 502."""
BACKLOG: Final = 4096
FINISH_SECONDS: Final = 5

log = get_logger(__name__)


class _QuietServer(uvicorn.Server):
    """uvicorn as a part of a process: signals are the runtime's business, so a clean stop can end with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class HttpServer:
    """One app on one port. `start` returns when it listens, `stop_accepting` closes the door, `stop` ends what is left."""

    def __init__(
        self, app: Any, host: str, port: int, *, setting: str, ws: Any = "none", **options: Any
    ) -> None:
        self._host = host
        self._port = port
        self._setting = setting
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                **{
                    "host": host,
                    "port": port,
                    "http": "httptools",
                    "ws": ws,
                    "lifespan": "off",
                    "log_config": None,
                    "access_log": False,
                    "server_header": False,
                    "proxy_headers": False,
                    "backlog": BACKLOG,
                    "timeout_keep_alive": KEEP_ALIVE_SECONDS,
                    "timeout_graceful_shutdown": FINISH_SECONDS,
                    **options,
                },
            )
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._socket.getsockname()[1] if self._socket is not None else self._port

    def bind(self) -> None:
        """Take the port. Raises `SettingsError` that says who holds it and which setting moves us."""
        self._socket = bind(self._host, self._port, setting=self._setting)

    async def start(self) -> None:
        """Listen."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        self._task = asyncio.create_task(
            self._server.serve(sockets=[self._socket]), name=f"http:{self._port}"
        )
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError(f"the HTTP server on port {self._port} ended while starting")
            await asyncio.sleep(0.005)

    def stop_accepting(self) -> None:
        """Close the door; connections that are open stay so."""
        for server in getattr(self._server, "servers", ()):
            server.close()

    async def stop(self, timeout_seconds: float) -> None:
        """Finish requests in hand, bounded, close the connections and end."""
        if self._task is None:
            return
        self._server.should_exit = True
        _done, pending = await asyncio.wait({self._task}, timeout=timeout_seconds)
        if pending:
            log.warning("http server was cut off", port=self._port)
            self._server.force_exit = True
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._server.server_state.connections)

    @property
    def failed(self) -> bool:
        """True when the server ended without being asked."""
        return self._task is not None and self._task.done() and not self._server.should_exit


def bind(host: str, port: int, *, setting: str) -> socket.socket:
    """A listening-ready socket. A taken or forbidden port is a fault of configuration, in one readable line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} on {host} is taken{_holder(port)}; set {setting} to a free port"
        elif error.errno == errno.EACCES:
            reason = f"port {port} may not be used by this user; set {setting} to one above 1023"
        else:
            reason = f"cannot listen on {host}:{port} ({error.strerror})"
        raise SettingsError([f"{setting}: {reason}"]) from error
    sock.setblocking(False)
    return sock


def _holder(port: int) -> str:
    """` by <command> (pid N)` where the system lets us see it."""
    inodes = _listening_inodes(port)
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        # A process or a file may be gone by the time we look, and others' files are hidden from us.
        with contextlib.suppress(OSError):
            if any(_target(link) in inodes for link in (process / "fd").iterdir()):
                return f" by {(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):
        return link.readlink().name
    return ""


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{columns[9]}]")
    return found
