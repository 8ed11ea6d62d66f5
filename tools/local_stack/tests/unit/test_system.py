"""Missing servers are installed by root, and told to everybody else in one line to run."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cryptopulse.common.testing.servers.choose import BACKENDS, Choice, Kind
from cryptopulse.common.testing.servers.faults import StackError
from tools.local_stack import system


class NoEngine:
    """A machine without Docker."""

    def answers(self) -> bool:
        return False

    def offers(self, image: str) -> bool:
        return False


def the_choices(*kinds: Kind) -> list[Choice]:
    return [Choice(backend, kind, "pretended") for backend, kind in zip(BACKENDS, kinds, strict=True)]


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run; each succeeds and installs everything."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    monkeypatch.setattr("tools.local_stack.system.subprocess.run", run)
    return ran


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the machine's policy on starting what is installed would be."""
    place = tmp_path / "policy-rc.d"
    monkeypatch.setattr(system, "_POLICY", place)
    return place


def pretend(monkeypatch: pytest.MonkeyPatch, user: int, *states: list[Choice]) -> None:
    found = iter(states)
    monkeypatch.setattr(system, "choose_all", lambda _environ, _engine: next(found))
    monkeypatch.setattr("tools.local_stack.system.os.geteuid", lambda: user)


def test_what_is_there_is_not_installed(monkeypatch: pytest.MonkeyPatch, apt: list[list[str]]) -> None:
    there = the_choices(Kind.GIVEN, Kind.DOCKER, Kind.LOCAL)
    pretend(monkeypatch, 0, there)
    assert system.provide({}, NoEngine()) == there
    assert apt == []


def test_root_installs_what_is_missing_and_only_that(
    monkeypatch: pytest.MonkeyPatch, apt: list[list[str]]
) -> None:
    there = the_choices(Kind.LOCAL, Kind.LOCAL, Kind.LOCAL)
    pretend(monkeypatch, 0, the_choices(Kind.APT, Kind.LOCAL, Kind.APT), there)
    assert system.provide({}, NoEngine()) == there
    assert [command[1] for command in apt] == ["update", "install"]
    assert apt[1][-2:] == ["rabbitmq-server", "postgresql"]


def test_a_normal_user_is_told_the_one_line(monkeypatch: pytest.MonkeyPatch, apt: list[list[str]]) -> None:
    pretend(monkeypatch, 1000, the_choices(Kind.APT, Kind.GIVEN, Kind.LOCAL))
    with pytest.raises(StackError, match=r"sudo apt-get update && sudo apt-get install -y rabbitmq-server$"):
        system.provide({}, NoEngine())
    assert apt == []


def test_without_apt_there_is_advice(monkeypatch: pytest.MonkeyPatch, apt: list[list[str]]) -> None:
    pretend(monkeypatch, 0, the_choices(Kind.LOCAL, Kind.NONE, Kind.LOCAL))
    with pytest.raises(StackError, match="REDIS_URL"):
        system.provide({}, NoEngine())
    assert apt == []


def test_a_failing_apt_is_shown_with_the_end_of_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, stdout="E: Unable to locate package\n", stderr="")

    monkeypatch.setattr("tools.local_stack.system.subprocess.run", run)
    pretend(monkeypatch, 0, the_choices(Kind.APT, Kind.LOCAL, Kind.LOCAL))
    with pytest.raises(StackError, match="exit code 100") as caught:
        system.provide({}, NoEngine())
    assert "Unable to locate package" in str(caught.value)


def test_a_backend_without_any_way_is_never_taken_for_installed(
    monkeypatch: pytest.MonkeyPatch, apt: list[list[str]]
) -> None:
    still_missing = the_choices(Kind.APT, Kind.LOCAL, Kind.LOCAL)
    pretend(monkeypatch, 0, still_missing, [replace(one) for one in still_missing])
    with pytest.raises(StackError, match="no RabbitMQ here"):
        system.provide({}, NoEngine())


def only(monkeypatch: pytest.MonkeyPatch, *programs: str, user: int = 0) -> None:
    """A machine with these programs alone."""
    monkeypatch.setattr(
        "tools.local_stack.system.shutil.which", lambda name: name if name in programs else None
    )
    monkeypatch.setattr("tools.local_stack.system.os.geteuid", lambda: user)


def test_root_installs_the_programs_that_are_missing(
    monkeypatch: pytest.MonkeyPatch, apt: list[list[str]]
) -> None:
    only(monkeypatch, "haproxy", "apt-get")
    system.provide_programs(["promtool=prometheus", "haproxy=haproxy"])
    assert [command[1] for command in apt] == ["update", "install"]
    assert apt[1][-1] == "prometheus"
    assert "haproxy" not in apt[1]


def test_programs_that_are_there_are_not_installed(
    monkeypatch: pytest.MonkeyPatch, apt: list[list[str]]
) -> None:
    only(monkeypatch, "promtool", user=1000)
    system.provide_programs(["promtool=prometheus"])
    assert apt == []


@pytest.mark.parametrize(("programs", "user"), [(["apt-get"], 1000), ([], 0)])
def test_who_may_not_install_programs_is_told_how(
    monkeypatch: pytest.MonkeyPatch, apt: list[list[str]], programs: list[str], user: int
) -> None:
    only(monkeypatch, *programs, user=user)
    with pytest.raises(StackError, match="apt-get install -y prometheus haproxy"):
        system.provide_programs(["promtool=prometheus", "haproxy=haproxy"])
    assert apt == []


@pytest.mark.parametrize("code", [0, 100])
def test_nothing_that_is_installed_is_started(
    monkeypatch: pytest.MonkeyPatch, policy: Path, code: int
) -> None:
    seen: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(policy.read_text())
        assert policy.stat().st_mode & 0o111
        return subprocess.CompletedProcess(command, code, stdout="", stderr="")

    monkeypatch.setattr("tools.local_stack.system.subprocess.run", run)
    only(monkeypatch, "apt-get")
    with contextlib.suppress(StackError):
        system.provide_programs(["promtool=prometheus"])
    assert seen
    assert set(seen) == {"#!/bin/sh\nexit 101\n"}
    assert not policy.exists()


def test_a_policy_of_the_machine_stays(
    monkeypatch: pytest.MonkeyPatch, policy: Path, apt: list[list[str]]
) -> None:
    policy.write_text("its own")
    only(monkeypatch, "apt-get")
    system.provide_programs(["promtool=prometheus"])
    assert policy.read_text() == "its own"
    assert apt
