"""The base of every bus message: an immutable fact or measurement, encoded as msgpack."""

from __future__ import annotations

from typing import dataclass_transform

import msgspec


# The decorators tell type checkers that subclasses are frozen too; at run time msgspec sees to it.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that crosses a process boundary.

    Compatible change: add a field with a default. Readers ignore fields they do not know.
    Anything else is a new version in `topics.py`.
    """


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Row(msgspec.Struct, frozen=True, array_like=True):
    """A part of a message on the hot path, encoded as an array: fields are positional.

    New fields go to the end and carry a default; the order of old ones never changes.
    """
