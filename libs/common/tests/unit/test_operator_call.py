"""An operator's request: refused when it cannot be meant, signed for this one service, its answer printed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from cryptopulse.common.config import ServiceSettings, load
from cryptopulse.common.runtime import operator_call
from cryptopulse.common.security.identity import InternalVerifier

SECRET = "s" * 32


class Settings(ServiceSettings):
    service: ClassVar[str] = "ingestor"


@pytest.fixture
def asked() -> Iterator[tuple[Settings, list[dict[str, Any]]]]:
    """A running service, as far as this test needs one."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append({"path": self.path, "body": body, "token": self.headers["authorization"]})
            self.send_response(404 if "nobody" in self.path else 200)
            self.end_headers()
            self.wfile.write(b'{"paused": true}')

        def log_message(self, *_: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        environ = {
            "RABBITMQ_URL": "amqp://h/",
            "REDIS_URL": "redis://h/0",
            "INTERNAL_JWT_SECRET": SECRET,
            "CRYPTOPULSE_INGESTOR_PORT": str(server.server_port),
        }
        yield load(Settings, environ), seen
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "arguments", [[], ["GET"], ["FETCH", "/x"], ["GET", "status"], ["POST", "/x", "{nothing"]]
)
def test_what_cannot_be_meant_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        operator_call.parse("ingestor", arguments)
    assert end.value.code == 2


def test_the_request_is_signed_for_this_service(
    asked: tuple[Settings, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings, seen = asked
    call = operator_call.parse("ingestor", ["post", "/feeds/binance/pause", '{"reason": "x"}'])
    assert operator_call.send(call, settings) == 0
    assert json.loads(capsys.readouterr().out) == {"paused": True}
    assert (seen[0]["path"], json.loads(seen[0]["body"])) == ("/feeds/binance/pause", {"reason": "x"})
    token = seen[0]["token"].removeprefix("Bearer ")
    assert InternalVerifier(settings.internal_jwt_secret, "ingestor").verify(token).kind == "service"


def test_a_refusal_is_a_failure(
    asked: tuple[Settings, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings, _ = asked
    assert operator_call.send(operator_call.parse("ingestor", ["POST", "/nobody", "{}"]), settings) == 1
    assert "paused" in capsys.readouterr().err
