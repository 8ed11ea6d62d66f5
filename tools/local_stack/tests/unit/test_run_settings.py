"""What `make run` is told: faults are readable lines, secrets are made once and kept, ports are given out."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest

from cryptopulse.common.config import SERVICES, Variable
from tools.local_stack import run_env
from tools.local_stack.config import ConfigError, read_config
from tools.local_stack.dotenv import parse
from tools.local_stack.feed import answers, probes
from tools.local_stack.programs import addresses, internal_ports, service_environment, services
from tools.local_stack.taken import holder_of, is_free


def a_variable(name: str, *, secret: bool = True, required: bool = True) -> Variable:
    return Variable(
        name=name, field=name.lower(), default=None, required=required, secret=secret, description=""
    )


def test_the_usual_settings() -> None:
    config = read_config({}, Path("/checkout"))
    assert (config.port, config.feed, config.folder) == (8000, "auto", Path("/checkout/.run"))


def test_each_fault_is_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config({"PORT": "http", "FEED": "real"}, Path("/checkout"))
    assert caught.value.faults == [
        "PORT: 'http' is not a port; give a number from 1 to 65535",
        "FEED: 'real' is not one of auto, live, sim",
    ]


@pytest.mark.parametrize("port", ["0", "65536", "-1", "80.5"])
def test_a_port_is_a_number_that_can_be_one(port: str) -> None:
    with pytest.raises(ConfigError, match="PORT"):
        read_config({"PORT": port}, Path("/checkout"))


def test_missing_secrets_are_made_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "env"
    variables = [
        a_variable("WEBHOOK_SECRET"),
        a_variable("DATABASE_URL"),
        a_variable("SMTP_PASSWORD", required=False),
    ]
    first, made = run_env.secrets_for(variables, {}, path)
    assert set(made) == {"JWT_SECRET", "INTERNAL_JWT_SECRET", "WEBHOOK_SECRET"}
    assert all(len(value) >= 32 for value in first.values())
    run_env.write(path, first)
    assert path.stat().st_mode & 0o777 == 0o600
    again, made = run_env.secrets_for(variables, {}, path)
    assert made == []
    assert again == first


def test_a_secret_that_is_given_is_left_to_its_giver(tmp_path: Path) -> None:
    found, _ = run_env.secrets_for([], {"JWT_SECRET": "mine"}, tmp_path / "env")
    assert "JWT_SECRET" not in found


def test_the_file_is_read_alike_by_shells_and_by_us(tmp_path: Path) -> None:
    path = tmp_path / "env"
    values = {"A": "amqp://u:p@host/", "B": "two words", "C": "with#hash"}
    run_env.write(path, values)
    assert parse(path.read_text()) == values
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert [shlex.split(line) for line in lines] == [[f"{name}={value}"] for name, value in values.items()]


def test_each_service_learns_its_own_port_and_where_the_others_are() -> None:
    ports = {"ingestor": 1, "indicators": 2, "alerts": 3, "portfolio": 4, "gateway": 5}
    values = addresses(ports)
    assert values["CRYPTOPULSE_ALERTS_PORT"] == "3"
    assert values["PORTFOLIO_URL"] == "http://127.0.0.1:4"
    assert "GATEWAY_URL" not in values


def test_a_usual_port_that_is_taken_is_replaced_by_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.local_stack.programs.is_free", lambda _host, port: port != 9103)
    ports = internal_ports({"CRYPTOPULSE_INGESTOR_PORT": "7001"})
    assert ports["ingestor"] == 7001
    assert ports["indicators"] == SERVICES["indicators"].port
    assert ports["alerts"] != 9103


def test_later_values_win_and_what_is_ours_is_kept_from_the_services() -> None:
    env = service_environment({"RUN_DIR": "x", "A": "1", "B": "1"}, {"B": "2"})
    assert env == {"A": "1", "B": "2"}


def test_services_with_a_schema_are_migrated_first(tmp_path: Path) -> None:
    found = {one.name: one for one in services({}, tmp_path)}
    assert set(found) == set(SERVICES)
    assert found["ingestor"].before == ()
    assert found["alerts"].before[0][-2:] == ("cryptopulse.alerts", "migrate")


def test_the_holder_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        assert "python" in holder_of(port).command
    assert is_free("127.0.0.1", port)


def test_the_venues_are_probed_where_the_settings_point() -> None:
    asked = probes({"BINANCE_API_URL": "http://127.0.0.1:9/api/v3/"})
    assert asked["binance"] == "http://127.0.0.1:9/api/v3/ping"
    assert answers(asked["binance"], 0.5) is False
    assert answers("file:///etc/passwd") is False
