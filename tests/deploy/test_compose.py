"""docker-compose.yml: every setting and none more, every container confined, only the proxy published, all of it healthy."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cryptopulse.common.config import SERVICES, load
from tools.local_stack.config import settings_of, variables
from tools.local_stack.dotenv import parse

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = [name for name, one in CONTAINERS.items() if str(one["image"]).startswith("cryptopulse/")]
SECRETS = dict.fromkeys(
    ("RABBITMQ_PASSWORD", "REDIS_PASSWORD", "POSTGRES_PASSWORD", "INTERNAL_JWT_SECRET", "JWT_SECRET"),
    "0123456789abcdef0123456789abcdef",
)
VARIABLE = re.compile(r"\$\{(\w+)(?::?([?-])([^}]*))?\}")


def interpolated(text: str, environ: dict[str, str]) -> str:
    """The part of Compose's interpolation that the file uses, one level deep."""

    def one(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if environ.get(name):
            return environ[name]
        if kind == "?":
            raise KeyError(name)
        return rest or ""

    return VARIABLE.sub(one, text)


def environment(container: str, environ: dict[str, str]) -> dict[str, str]:
    """What a container gets: a variable without a value is passed on when it is set."""
    given = CONTAINERS[container]["environment"]
    return {
        name: interpolated(str(value), environ) if value is not None else environ.get(name, "")
        for name, value in given.items()
    }


def all_environments(environ: dict[str, str]) -> list[dict[str, str]]:
    return [environment(name, environ) for name, one in CONTAINERS.items() if "environment" in one]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_every_setting_and_none_more(service: str) -> None:
    names = {variable.name for variable in variables()[service]}
    assert set(CONTAINERS[service]["environment"]) == names, "run `make docs`"


@pytest.mark.parametrize("service", SERVICES)
def test_what_compose_gives_is_a_valid_configuration(service: str) -> None:
    settings = load(settings_of(service), environment(service, SECRETS))
    assert (settings.host, settings.port, settings.feed) == ("0.0.0.0", SERVICES[service].port, "live")


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_password_stops_everything(name: str) -> None:
    less = {key: value for key, value in SECRETS.items() if key != name}
    with pytest.raises(KeyError, match=name):
        all_environments(less)


def test_the_simulator_is_where_its_settings_lead() -> None:
    given = parse((ROOT / "deploy/compose/sim.env").read_text(encoding="utf-8"), "sim.env")
    settings: Any = load(settings_of("ingestor"), environment("ingestor", SECRETS | given))
    assert settings.feed == "sim"
    command = " ".join(CONTAINERS["simulator"]["command"])
    for url in (
        settings.binance_ws_url,
        settings.binance_api_url,
        settings.coinbase_ws_url,
        settings.coingecko_api_url,
    ):
        host, port = re.match(r"\w+://([\w.]+):(\d+)", url).groups()  # type: ignore[union-attr] # always such a URL
        assert host == "simulator"
        assert f"-port={port}" in command


@pytest.mark.parametrize("service", SERVICES)
def test_names_of_services_lead_to_their_ports(service: str) -> None:
    for name, value in environment(service, SECRETS).items():
        if match := re.fullmatch(r"(\w+)_URL", name):
            peer = match[1].lower()
            if peer in SERVICES:
                assert value == f"http://{peer}:{SERVICES[peer].port}"


@pytest.mark.parametrize("name", OWN)
def test_own_containers_are_confined(name: str) -> None:
    one = CONTAINERS[name]
    assert one["read_only"] is True
    assert one["tmpfs"] == ["/tmp"]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["init"] is True
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", one["user"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_limited_pinned_and_looked_after(name: str) -> None:
    one = CONTAINERS[name]
    assert "mem_limit" in one
    assert not {"privileged", "container_name", "network_mode", "cap_add", "pid", "ipc"} & one.keys()
    assert "docker.sock" not in str(one.get("volumes", ""))
    assert not str(one["image"]).endswith(":latest")
    assert ":" in str(one["image"])
    assert one["security_opt"] == ["no-new-privileges:true"]
    if name.startswith("migrate-"):
        assert one["restart"] == "no"
        return
    assert one["restart"] == "unless-stopped"
    assert one["healthcheck"]["test"][0].startswith("CMD")
    assert {"interval", "timeout", "retries"} <= one["healthcheck"].keys()


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_waited_for_is_healthy_or_done(name: str) -> None:
    waits = CONTAINERS[name].get("depends_on", {})
    for other, how in waits.items():
        wanted = "service_completed_successfully" if other.startswith("migrate-") else "service_healthy"
        assert how == {"condition": wanted}
    if name in SERVICES:
        assert {"rabbitmq", "valkey"} <= waits.keys()
        assert (f"migrate-{name}" in waits) is bool(SERVICES[name].schema)


def test_only_the_proxy_is_published_by_default_and_on_loopback_alone() -> None:
    published = {name: one["ports"] for name, one in CONTAINERS.items() if one.get("ports")}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    assert [name for name in published if not CONTAINERS[name].get("profiles")] == ["proxy"]
    assert COMPOSE["networks"]["data"] == {"internal": True}


def test_any_number_of_gateways_and_indicators_fits_behind_their_names() -> None:
    proxy = (ROOT / "deploy/compose/proxy.cfg").read_text(encoding="utf-8")
    assert "server-template" in proxy
    assert "gateway:8000" in proxy
    assert f"check port {SERVICES['gateway'].port}" in proxy
    assert environment("gateway", SECRETS)["CRYPTOPULSE_GATEWAY_TRUSTED_PROXIES"] == "1"
    for name in SERVICES:
        assert "hostname" not in CONTAINERS[name]
        assert "ports" not in CONTAINERS[name]


def test_what_compose_reads_from_the_environment_is_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?(\w+)=", example, flags=re.MULTILINE))
    assert {name for name, _, _ in VARIABLE.findall(text)} - named == set()


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts/compose-secrets"
    script.write_bytes((ROOT / "scripts/compose-secrets").read_bytes())
    script.chmod(0o755)
    (tmp_path / ".env").write_text("A=1\nJWT_SECRET=\nREDIS_PASSWORD=mine", encoding="utf-8")
    subprocess.run([str(script)], check=True, capture_output=True)
    first = (tmp_path / ".env").read_text(encoding="utf-8")
    subprocess.run([str(script)], check=True, capture_output=True)
    assert (tmp_path / ".env").read_text(encoding="utf-8") == first
    values = parse(first, ".env")
    assert values["A"] == "1"
    assert values["REDIS_PASSWORD"] == "mine"
    assert {name for name in SECRETS if len(values[name]) >= 32} == SECRETS.keys() - {"REDIS_PASSWORD"}
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
