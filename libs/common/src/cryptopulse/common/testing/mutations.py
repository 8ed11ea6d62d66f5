"""Fuzzing with structure: messages that are nearly right, and how many of them a subject is shown.

`CRYPTOPULSE_FUZZ_EXAMPLES` sets the examples of each subject; with `CRYPTOPULSE_FUZZ_SECONDS` a subject is run again
and again, with other examples, for so long (`make fuzz SECONDS=60`).
"""

from __future__ import annotations

import copy
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES: Final = int(os.environ.get("CRYPTOPULSE_FUZZ_EXAMPLES", "20"))
SECONDS: Final = float(os.environ.get("CRYPTOPULSE_FUZZ_SECONDS", "0"))

_RAW: Final = "\ue000raw%d\ue000"
DEPTH: Final = 20_000
TIMES: Final = (1, 1, 1, 1, 2, 2, 3, 4)
"""Mostly one thing is wrong: what has more faults is refused for the first of them."""
LIKELY: Final = 0.75
SELDOM: Final = 0.1
RAW_TOKENS: Final = (
    b"NaN", b"Infinity", b"-Infinity", b"-0", b"1e999999", b"1E-999999", b"1e30", b"0.1e-400", b"1" * 5_000, b"00",
    b"-" + b"9" * 40, b'"\\ud800"', b'"\xff\xfe"', b'"\\u0000"', b"[" * DEPTH + b"]" * DEPTH,
    b'{"a":' * DEPTH + b"1" + b"}" * DEPTH, b"[" * DEPTH, b"'single'", b"undefined", b"",
)  # fmt: skip
"""What `json.dumps` would never write."""
NUMBERS: Final[tuple[Any, ...]] = (
    0, -1, 1, 1.5, 10**12, 10**17, 10**18, 2**53, 2**63 - 1, 2**63, 2**64, 2**70, -(2**63) - 1, 10**40, 10**400,
)  # fmt: skip
NUMBER_TEXTS: Final = (
    "0", "-1", "0.0", "NaN", "sNaN", "Infinity", "-Infinity", "1e400", "1E+999999", "0E+999999", "1E-999999", "1e-30",
    "1_000", "9" * 18, "9" * 19, "9" * 400, "0." + "1" * 60, "0x10", "\uff11\uff12", "\u00b2", " 1 ", "1,000", "+5",
)  # fmt: skip
TEXTS: Final = (
    "", " ", "\x00", "\ufeff", "\u202e", "币安人生", "x" * 5_000, "time", "2026-08-09T21:05:48.228568804Z",
    "9999-12-31T23:59:59.999999999+14:00", "0001-01-01T00:00:00Z", "2026-02-30T25:61:61Z", "1970-01-01T00:00:00Z",
    "2026-08-09T21:05:48.Z", "2026-08-09T21:05:48.1+99:99", "=1+1", "'; DROP TABLE x; --", "../../etc/passwd",
)  # fmt: skip
POISONS: Final[tuple[Any, ...]] = (
    None, True, False, [], {}, [[]], [None], {"": None}, *NUMBERS, *NUMBER_TEXTS, *TEXTS,
)  # fmt: skip


def fuzz(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a hypothesis test as a subject; goes above `given`."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    bounded = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=slow)(test)

    @functools.wraps(bounded)
    def repeated(*args: Any, **kwargs: Any) -> None:
        until = time.monotonic() + SECONDS
        bounded(*args, **kwargs)
        while time.monotonic() < until:
            bounded(*args, **kwargs)

    subject: Callable[..., None] = pytest.mark.timeout(60 + 2 * SECONDS)(repeated)
    return subject


def mutated(seeds: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """One of the valid JSON values with a few things wrong in it, as the bytes that would arrive.

    Which is left to a random number, not to hypothesis: its choices come in runs, and most faults would be of one kind.
    """
    return st.randoms(use_true_random=True).map(lambda random: _mutated(random, seeds))


def mutated_text(seeds: Sequence[str]) -> st.SearchStrategy[bytes]:
    """One of the valid texts of lines and cells with a few cells, lines or bytes wrong."""
    return st.randoms(use_true_random=True).map(lambda random: _mutated_text(random, seeds))


def _mutated(random: Random, seeds: Sequence[Any]) -> bytes:
    root = [copy.deepcopy(random.choice(seeds))]
    for _ in range(random.choice(TIMES)):
        _change(random, root)
    return _spoiled(random, _dumped(root[0]))


def _mutated_text(random: Random, seeds: Sequence[str]) -> bytes:
    lines = random.choice(seeds).split("\n")
    for _ in range(random.choice(TIMES)):
        place = random.randrange(len(lines))
        cells = lines[place].split(",")
        cell = random.randrange(len(cells))
        match random.choice(("like", "like", "like", "poison", "swap", "drop", "double", "more", "quote")):
            case "like":
                cells[cell] = str(random.choice(_like(cells[cell])))
            case "poison":
                cells[cell] = str(random.choice(POISONS))
            case "swap":
                other = random.randrange(len(cells))
                cells[cell], cells[other] = cells[other], cells[cell]
            case "drop":
                del cells[cell]
            case "double":
                lines.insert(place, lines[place])
            case "more":
                cells.insert(cell, str(random.choice(POISONS)))
            case _:
                cells[cell] = '"' + cells[cell]
        lines[place] = ",".join(cells)
    return _spoiled(random, "\n".join(lines).encode())


def _change(random: Random, root: list[Any]) -> None:
    """One thing wrong, somewhere below `root[0]` or with it: mostly a value that is extreme, but of the right kind."""
    places = list(_places(root))
    leaves = [(holder, key) for holder, key in places if not isinstance(holder[key], (dict, list))]
    if leaves and random.random() < LIKELY:
        holder, key = random.choice(leaves)
        holder[key] = random.choice(_like(holder[key]))
        return
    holder, key = random.choice(places)
    match random.choice(("poison", "raw", "swap", "drop", "wrap", "double", "kind", "unknown")):
        case "poison":
            holder[key] = copy.deepcopy(random.choice(POISONS))
        case "raw":
            holder[key] = _RAW % random.randrange(len(RAW_TOKENS))
        case "swap":
            other, place = random.choice(places)
            holder[key] = copy.deepcopy(other[place])
        case "drop" if holder is not root:
            del holder[key]
        case "wrap":
            holder[key] = random.choice(([holder[key]], {"a": holder[key]}, [holder[key]] * 2))
        case "double" if isinstance(holder, list) and holder is not root:
            holder.insert(key, copy.deepcopy(holder[key]))
        case "kind":
            value = holder[key]
            holder[key] = str(value) if not isinstance(value, str) else _number(value)
        case _ if isinstance(holder[key], dict):
            holder[key]["unknown"] = _RAW % random.randrange(len(RAW_TOKENS))


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value, as the container and the key or index in it."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], (dict, list)):
            yield from _places(holder[key])


def _like(value: Any) -> Sequence[Any]:
    """Extreme values of the same kind: they pass the check of types, so they come furthest."""
    if isinstance(value, str):
        return NUMBER_TEXTS if value[:1].isdigit() and ":" not in value else TEXTS
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return NUMBERS
    return ([], {}, None, not value)


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return len(text)


def _dumped(value: Any) -> bytes:
    raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    for number, token in enumerate(RAW_TOKENS):
        raw = raw.replace(f'"{_RAW % number}"'.encode(), token)
    return raw


def _spoiled(random: Random, raw: bytes) -> bytes:
    """Seldom: cut short, a byte changed, or something put in or behind."""
    if random.random() > SELDOM:
        return raw
    at = random.randrange(len(raw) + 1)
    match random.choice(("cut", "byte", "within", "behind")):
        case "cut":
            return raw[:at]
        case "byte":
            return raw[:at] + random.randbytes(1) + raw[at + 1 :]
        case "within":
            return raw[:at] + random.randbytes(4) + raw[at:]
        case _:
            return raw + raw[:at]
