"""`.env.example` lists every setting of every service, and none that does not exist."""

from __future__ import annotations

from pathlib import Path

from tools.local_stack.config import variables
from tools.local_stack.dotenv import parse
from tools.local_stack.env_example import render

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"


def test_the_example_is_what_the_settings_say() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == render(variables()), "run `make docs`"


def test_a_copy_of_the_example_sets_nothing() -> None:
    values = parse(EXAMPLE.read_text(encoding="utf-8"), EXAMPLE.name)
    assert {name: value for name, value in values.items() if value} == {}


def test_every_setting_says_what_it_is_for() -> None:
    silent = {
        variable.name for found in variables().values() for variable in found if not variable.description
    }
    assert silent == set()
