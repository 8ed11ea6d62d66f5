"""Ids of rules, events, webhooks and deliveries: a prefix and a UUIDv7, so that they sort by the time they were made."""

from __future__ import annotations

import secrets
from typing import Literal

Prefix = Literal["al", "ae", "wh", "wd"]


def new_id(prefix: Prefix, now_ms: int) -> str:
    """`al_0198f2c4...`: 48 bits of time, version 7, 74 random bits."""
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    return f"{prefix}_{value:032x}"
