"""What a person sees, one readable line per event, and what a person sends: the signals that mean stop."""

from __future__ import annotations

import signal
import sys
import time

_WIDTH = 10


def say(who: str, text: str) -> None:
    """One line: time, who, what."""
    print(f"{time.strftime('%H:%M:%S')} {who:<{_WIDTH}} {text}", flush=True)


def shout(*lines: str) -> None:
    """A box of large letters."""
    width = max(len(line) for line in lines)
    border = "#" * (width + 6)
    body = [f"#  {line.upper():<{width}}  #" for line in lines]
    print("\n".join(["", border, *body, border, ""]), flush=True)


def complain(text: str) -> None:
    """A fault, to standard error."""
    print(text, file=sys.stderr, flush=True)


def stop_signals() -> list[signal.Signals]:
    """The signals that stop us; a hang-up does not, where the caller had it ignored (nohup)."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers
