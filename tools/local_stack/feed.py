"""Whether a live venue can be reached from here. Run as a program it prints the venues that answered.

It runs as a process of its own beside the start of the servers, with a limit on its time.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

PROBE_SECONDS = 4.0
_TOO_FAR = frozenset({403, 451})  # answers that mean "not from where you are"

_PROBES = {
    "binance": ("BINANCE_API_URL", "https://api.binance.com/api/v3", "/ping"),
    "coinbase": ("COINBASE_API_URL", "https://api.coinbase.com/api/v3/brokerage", "/time"),
}


def probes(environ: Mapping[str, str]) -> dict[str, str]:
    """The address that is asked, per venue with live trades."""
    return {
        venue: (environ.get(setting) or default).rstrip("/") + path
        for venue, (setting, default, path) in _PROBES.items()
    }


def answers(url: str, timeout_seconds: float = PROBE_SECONDS) -> bool:
    """Whether a venue serves us at that address."""
    if not url.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as answer:  # noqa: S310 - checked above
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500 and error.code not in _TOO_FAR
    except (OSError, ValueError):
        return False


def reachable(environ: Mapping[str, str]) -> list[str]:
    """The venues that answered within a few seconds."""
    asked = probes(environ)
    with ThreadPoolExecutor(len(asked)) as pool:
        found = pool.map(answers, asked.values())
    return [venue for venue, is_there in zip(asked, found, strict=True) if is_there]


if __name__ == "__main__":
    print(" ".join(reachable(os.environ)))
    sys.stdout.flush()
    os._exit(0)  # a look-up that hangs must not hold us
