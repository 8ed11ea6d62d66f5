"""What lives long is taken out of the collector's rounds, and looked at again in the end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from cryptopulse.common.runtime import memory
from cryptopulse.common.runtime.memory import LongLived


class Node:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.itself = self
        self.parts: list[list[int]] = []


@pytest.fixture
def long_lived() -> Iterator[LongLived]:
    started = LongLived()
    started.start()
    yield started
    started.stop()


def test_what_survives_a_long_full_round_is_frozen(
    long_lived: LongLived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LONG_SECONDS", 3_600.0)
    made = [[number] for number in range(10_000)]
    before = gc.get_freeze_count()
    gc.collect()
    assert gc.get_freeze_count() == before
    monkeypatch.setattr(memory, "LONG_SECONDS", 0.0)
    gc.collect(1)
    assert gc.get_freeze_count() == before
    gc.collect()
    assert gc.get_freeze_count() >= before + len(made)


def test_a_frozen_cycle_that_became_garbage_is_found_after_the_thaw(
    long_lived: LongLived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LONG_SECONDS", 0.0)
    node = Node()
    gone = weakref.ref(node)
    gc.collect()
    del node
    gc.collect()
    assert gone() is not None
    monkeypatch.setattr(memory, "THAW_SECONDS", 0.0)
    gc.collect()
    assert gone() is None


def test_everything_is_looked_at_once_half_as_much_again_is_frozen(
    long_lived: LongLived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LONG_SECONDS", 0.0)
    held = [[number] for number in range(1_000)]
    gone = []
    for _ in range(40):
        shard = Node()
        shard.parts = [
            [number] for number in range(len(gc.get_objects()) // 10 + gc.get_freeze_count() // 10)
        ]
        gc.collect()
        gone.append(weakref.ref(shard))
        del shard
    alive = sum(one() is not None for one in gone)
    assert alive <= 6
    assert len(held) == 1_000


def test_it_ends_with_the_process_that_it_was_started_for() -> None:
    never, once = LongLived(), LongLived()
    never.stop()
    once.start()
    assert gc.get_freeze_count() > 0
    once.stop()
    assert gc.get_freeze_count() == 0
    assert not [callback for callback in gc.callbacks if getattr(callback, "__self__", None) is once]
