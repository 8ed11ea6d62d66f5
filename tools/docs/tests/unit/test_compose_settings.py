"""A new setting is passed on by compose; one that is gone disappears; values of the file stay."""

from __future__ import annotations

from cryptopulse.common.config import Variable
from tools.docs.compose import updated

TEXT = """services:
  alerts:
    environment: &alerts-environment
      SHARDS: "4"
      # as in .env, where it is set there
      GONE:
      KEPT:
    depends_on: {}
"""


def variable(name: str) -> Variable:
    return Variable(name, name.lower(), "", required=False, secret=False, description="")


def test_the_list_follows_the_settings() -> None:
    text = updated(TEXT, {"alerts": [variable("SHARDS"), variable("KEPT"), variable("FRESH")]})
    assert text == TEXT.replace("      GONE:\n      KEPT:\n", "      KEPT:\n      FRESH:\n")
    assert updated(text, {"alerts": [variable("SHARDS"), variable("KEPT"), variable("FRESH")]}) == text
