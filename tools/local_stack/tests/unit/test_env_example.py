"""The example of all settings: shared names once, knobs under their service, no secret's value."""

from __future__ import annotations

from cryptopulse.common.config import Variable
from tools.local_stack.env_example import render


def a_variable(name: str, *, default: str | None = "1", secret: bool = False) -> Variable:
    return Variable(name, name.lower(), default, default is None, secret, f"What {name} is for.")


def test_a_shared_setting_stands_once_with_its_readers() -> None:
    text = render({"alerts": [a_variable("SHARDS")], "gateway": [a_variable("SHARDS")]})
    assert text.count("SHARDS=") == 1
    assert "Read by: alerts, gateway." in text


def test_a_default_is_a_comment_and_a_required_one_is_left_open() -> None:
    text = render(
        {"alerts": [a_variable("CRYPTOPULSE_ALERTS_LIMIT"), a_variable("RABBITMQ_URL", default=None)]}
    )
    assert "\n#CRYPTOPULSE_ALERTS_LIMIT=1" in text
    assert "\nRABBITMQ_URL=" in text


def test_no_value_of_a_secret_is_shown() -> None:
    assert "hunter2" not in render({"alerts": [a_variable("JWT_SECRET", default="hunter2", secret=True)]})


def test_what_the_stack_reads_itself_is_told_once() -> None:
    assert (
        render({"gateway": [a_variable("PORT", default="8000"), a_variable("FEED", default="live")]}).count(
            "\n#PORT="
        )
        == 1
    )
