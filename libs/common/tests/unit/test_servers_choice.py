"""Which backend is used is a decision of its own, seen here with an engine and programs that only pretend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from cryptopulse.common.testing.servers.choose import (
    BACKENDS,
    ENGINE_SETTING,
    Backend,
    Kind,
    advice,
    choose,
    choose_all,
)
from cryptopulse.common.testing.servers.docker import IMAGES


@dataclass
class FakeEngine:
    """Docker as far as the choice can see it."""

    is_there: bool = True
    images: frozenset[str] = frozenset(IMAGES.values())
    asked: list[str] = field(default_factory=list)

    def answers(self) -> bool:
        self.asked.append("answers")
        return self.is_there

    def offers(self, image: str) -> bool:
        self.asked.append(image)
        return image in self.images


NO_DOCKER = FakeEngine(is_there=False)


def a_backend(name: str = "redis", *, installed: bool = True) -> Backend:
    backend = next(one for one in BACKENDS if one.name == name)

    def find(_environ: Mapping[str, str]) -> object | None:
        return object() if installed else None

    return replace(backend, find=find)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda one: one.name)
def test_a_url_wins_over_everything_and_nobody_else_is_asked(backend: Backend) -> None:
    engine = FakeEngine()
    choice = choose(backend, {backend.url_name: "scheme://somewhere"}, engine)
    assert choice.kind is Kind.GIVEN
    assert engine.asked == []


def test_an_empty_url_is_no_url() -> None:
    assert choose(a_backend(), {"REDIS_URL": ""}, NO_DOCKER).kind is Kind.LOCAL


def test_docker_comes_before_the_programs_of_this_machine() -> None:
    choice = choose(a_backend(installed=True), {}, FakeEngine())
    assert choice.kind is Kind.DOCKER
    assert IMAGES["redis"] in choice.reason


def test_without_an_engine_the_programs_of_this_machine_are_used() -> None:
    assert choose(a_backend(installed=True), {}, NO_DOCKER).kind is Kind.LOCAL


def test_an_engine_that_has_no_image_and_cannot_pull_is_passed_over_and_that_is_said() -> None:
    choice = choose(a_backend(installed=True), {}, FakeEngine(images=frozenset()))
    assert choice.kind is Kind.LOCAL
    assert "cannot pull" in choice.reason


@pytest.mark.parametrize("value", ["no", "0", "off", "False"])
def test_docker_can_be_left_out(value: str) -> None:
    engine = FakeEngine()
    assert choose(a_backend(), {ENGINE_SETTING: value}, engine).kind is Kind.LOCAL
    assert engine.asked == []


def test_apt_is_the_last_way() -> None:
    assert choose(a_backend(installed=False), {}, NO_DOCKER, has_apt=True).kind is Kind.APT


def test_with_nothing_at_all_there_is_advice() -> None:
    choice = choose(a_backend("postgres", installed=False), {}, NO_DOCKER, has_apt=False)
    assert choice.kind is Kind.NONE
    assert not choice.is_usable
    text = advice([choice])
    assert "DATABASE_URL" in text
    assert "apt-get install -y postgresql" in text
    assert "RABBITMQ_URL" not in text


def test_each_backend_is_chosen_on_its_own() -> None:
    engine = FakeEngine(images=frozenset({IMAGES["rabbitmq"]}))
    environ = {"DATABASE_URL": "postgresql://db.example/x"}
    choices = {one.backend.name: one.kind for one in choose_all(environ, engine)}
    assert choices["rabbitmq"] is Kind.DOCKER
    assert choices["postgres"] is Kind.GIVEN
    assert choices["redis"] in {Kind.LOCAL, Kind.APT, Kind.NONE}
