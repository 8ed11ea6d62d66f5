"""What can go wrong while servers are found and booted; every message says what to do."""

from __future__ import annotations


class StackError(Exception):
    """The servers cannot be provided; the text is one readable line, or a few with the end of a log."""


class MissingBinaryError(StackError):
    """A server's program is not on this machine."""


class FolderInUseError(StackError):
    """Another stack runs in the same folder."""


class ServerFailedError(StackError):
    """A server ended before it was ready, or was not ready in time."""
