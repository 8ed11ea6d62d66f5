"""The rules for tests bite: nothing leaves this machine, markers come from folders, missing servers are told loudly."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

import conftest
from cryptopulse.common.testing import plugin
from cryptopulse.common.testing.servers.faults import StackError

OUTSIDE = "192.0.2.1"  # set aside for documentation: nobody is there


def test_a_connection_to_elsewhere_is_refused() -> None:
    with socket.socket() as connection, pytest.raises(OSError, match="tried to leave this machine"):
        connection.connect((OUTSIDE, 80))


def test_a_datagram_to_elsewhere_is_refused() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection,
        pytest.raises(OSError, match="tried to leave this machine"),
    ):
        connection.sendto(b"x", (OUTSIDE, 53))


def test_a_name_of_elsewhere_is_not_even_looked_up() -> None:
    with pytest.raises(OSError, match="tried to leave this machine"):
        socket.getaddrinfo("example.org", 443)


async def test_the_loop_s_connections_are_watched_too() -> None:
    with pytest.raises(OSError, match="tried to leave this machine"):
        await asyncio.open_connection(OUTSIDE, 80)


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert socket.getaddrinfo("localhost", 80)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("services/alerts/tests/unit/test_x.py", "unit"),
        ("tools/local_stack/tests/integration/deep/test_x.py", "integration"),
        ("tests/e2e/test_x.py", "e2e"),
        ("tests/test_x.py", None),
        ("tests/other/test_x.py", None),
        ("services/alerts/src/test_x.py", None),
    ],
)
def test_the_folder_is_the_marker(path: str, kind: str | None) -> None:
    assert conftest.kind_of(conftest.ROOT / path) == kind


def test_this_test_has_its_marker(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("architecture") is not None


class NoBackends:
    """A session on a machine without servers."""

    def urls(self, name: str) -> dict[str, str]:
        raise StackError(f"no {name} here: install it")


def test_without_servers_a_test_is_skipped_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin.REQUIRE_SETTING, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no redis here: install it"):
        plugin.urls_of(NoBackends(), "redis")


def test_where_servers_are_required_a_test_fails_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugin.REQUIRE_SETTING, "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_BACKENDS is set, but no redis here"):
        plugin.urls_of(NoBackends(), "redis")


def test_reference_data_are_found_by_their_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(conftest.SHARED_SETTING, str(tmp_path))
    assert conftest.find_shared_data() == tmp_path
    monkeypatch.setenv(conftest.SHARED_SETTING, str(tmp_path / "gone"))
    with pytest.raises(pytest.skip.Exception, match="CRYPTOPULSE_SHARED"):
        conftest.find_shared_data()
