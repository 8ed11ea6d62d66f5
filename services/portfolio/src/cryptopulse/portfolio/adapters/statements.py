"""What all statements of a unit of work share: the connection in its transaction, the owner, and what it did to legs."""

from __future__ import annotations

from cryptopulse.common.database.connection import Connection
from cryptopulse.portfolio.adapters.leg_cache import LegCache, LegChanges


class Statements:
    """One transaction as one owner; the owner is a condition of every statement."""

    def __init__(self, connection: Connection, owner_id: str, legs: LegCache) -> None:
        self._db = connection
        self._owner = owner_id
        self._legs = legs
        self.changes: LegChanges | None = None
        """What this unit does to the legs of the portfolio whose lock it holds."""
