"""The command line of a service: what each word does, and the exit codes."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from cryptopulse.common.config import DatabaseSettings, ServiceSettings, SettingsError
from cryptopulse.common.runtime import Runtime, healthcheck
from cryptopulse.common.runtime.command import main, migrations_of
from cryptopulse.common.runtime.servers import bind


class IngestorSettings(ServiceSettings):
    service: ClassVar[str] = "ingestor"

    batch_ticks: int = 512
    """Ticks in a batch."""


@asynccontextmanager
async def build(_settings: ServiceSettings, _runtime: Runtime) -> AsyncIterator[None]:
    yield  # never entered: no command here runs the service


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://localhost/")
    monkeypatch.setenv("REDIS_URL", "redis://localhost/0")
    monkeypatch.setenv("INTERNAL_JWT_SECRET", "s" * 32)


def test_check_accepts_a_valid_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(IngestorSettings, build, argv=["check"]) == 0
    assert capsys.readouterr().out == "ingestor: the configuration is valid\n"


def test_bad_configuration_is_one_line_per_fault_and_78(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("SHARDS", "many")

    assert main(IngestorSettings, build, argv=["check"]) == 78
    assert main(IngestorSettings, build, argv=[]) == 78

    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines[:2]) == [
        "ingestor: REDIS_URL: is required and not set",
        "ingestor: SHARDS: input should be a valid integer, unable to parse string as an integer",
    ]
    assert len(lines) == 4


def test_help_lists_commands_and_variables_without_any_configuration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")

    async def replay(_settings: IngestorSettings) -> int:
        """Play dead letters again."""
        return 0

    assert main(IngestorSettings, build, subcommands={"replay": replay}, argv=["--help"]) == 0

    text = capsys.readouterr().out
    assert "  replay        Play dead letters again." in text
    assert "  CRYPTOPULSE_INGESTOR_BATCH_TICKS (default: 512)\n      Ticks in a batch." in text
    assert "  REDIS_URL (required)" in text
    assert "migrate" not in text


def test_version_needs_no_configuration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")

    assert main(IngestorSettings, build, argv=["--version"]) == 0
    assert capsys.readouterr().out.startswith("ingestor ")


@pytest.mark.parametrize("argv", [["start"], ["migrate"], ["check", "now"]])
def test_an_unknown_command_names_the_known_ones(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(IngestorSettings, build, argv=argv) == 2
    assert "one of: call, check, dead-letters, healthcheck, run" in capsys.readouterr().err


def test_a_subcommand_gives_the_exit_code() -> None:
    async def three(_settings: IngestorSettings) -> int:
        return 3

    async def nothing(_settings: IngestorSettings) -> None:
        return None

    async def crashes(_settings: IngestorSettings) -> int:
        raise RuntimeError("no")

    async def misconfigured(_settings: IngestorSettings) -> int:
        raise SettingsError(["X: is wrong"])

    commands = {"three": three, "nothing": nothing, "crashes": crashes, "misconfigured": misconfigured}
    codes = {name: main(IngestorSettings, build, subcommands=commands, argv=[name]) for name in commands}

    assert codes == {"three": 3, "nothing": 0, "crashes": 1, "misconfigured": 78}


def test_a_taken_port_names_its_holder_and_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(SettingsError) as caught:
            bind("127.0.0.1", port, setting="PORT")

    (line,) = caught.value.faults
    assert line.startswith(f"PORT: port {port} on 127.0.0.1 is taken by ")
    assert f"(pid {os.getpid()})" in line
    assert line.endswith("set PORT to a free port")


class _Livez(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        body = b'{"loops": {"relay": {"state": "stalled"}, "poll": {"state": "beating"}}}'
        self.send_response(self.status if self.path == "/livez" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        return


@pytest.fixture
def livez(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Livez]]:
    server = HTTPServer(("127.0.0.1", 0), _Livez)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("CRYPTOPULSE_INGESTOR_PORT", str(server.server_address[1]))
    monkeypatch.setenv("CRYPTOPULSE_INGESTOR_HOST", "0.0.0.0")
    yield _Livez
    _Livez.status = 200
    server.shutdown()
    thread.join()
    server.server_close()


def test_healthcheck_follows_livez(livez: type[_Livez], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(IngestorSettings, build, argv=["healthcheck"]) == 0

    livez.status = 503

    assert main(IngestorSettings, build, argv=["healthcheck"]) == 1
    assert "says 503; stalled loops: relay" in capsys.readouterr().err


def test_healthcheck_without_an_answer_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CRYPTOPULSE_INGESTOR_PORT", str(unused.getsockname()[1]))

        assert main(IngestorSettings, build, argv=["healthcheck"]) == 1

    assert "does not answer" in capsys.readouterr().err


def test_the_light_healthcheck_answers_the_same(
    livez: type[_Livez], capsys: pytest.CaptureFixture[str]
) -> None:
    assert healthcheck.main(["ingestor"]) == 0

    livez.status = 503

    assert healthcheck.main(["ingestor"]) == 1
    assert "stalled loops: relay" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nobody"], ["alerts", "now"]])
def test_the_light_healthcheck_wants_the_name_of_a_service(arguments: list[str]) -> None:
    assert healthcheck.main(arguments, {}) == 2


def test_the_light_healthcheck_takes_the_service_s_own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def ask(host: str, port: int) -> int:
        asked.append((host, port))
        return 0

    monkeypatch.setattr(healthcheck, "ask", ask)

    healthcheck.main(["alerts"], {})
    healthcheck.main(["alerts"], {"CRYPTOPULSE_ALERTS_PORT": "0", "CRYPTOPULSE_ALERTS_HOST": "10.0.0.7"})
    healthcheck.main(["alerts"], {"CRYPTOPULSE_ALERTS_PORT": "8000"})

    assert asked == [("127.0.0.1", 9103), ("10.0.0.7", 9103), ("127.0.0.1", 8000)]
    assert healthcheck.main(["alerts"], {"CRYPTOPULSE_ALERTS_PORT": "http"}) == 1


def test_the_light_healthcheck_imports_no_framework() -> None:
    code = (
        "import sys, cryptopulse.common.runtime.healthcheck\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'pydantic', 'fastapi', 'structlog', 'asyncio', 'uvicorn', 'msgspec', 'prometheus_client'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout == "[]\n"


def test_migrate_exists_where_migrations_lie_beside_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "storekeeper"
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "storekeeper", None)
    monkeypatch.delitem(sys.modules, "storekeeper")
    assert importlib.util.find_spec("storekeeper") is not None
    settings = type(
        "Settings", (DatabaseSettings,), {"__module__": "storekeeper.settings", "__annotations__": {}}
    )

    assert migrations_of(settings) == package / "migrations"
    assert migrations_of(IngestorSettings) is None
