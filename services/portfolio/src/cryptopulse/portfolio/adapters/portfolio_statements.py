"""Statements on portfolios and on the answers that are kept for repeated requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptopulse.common.errors import Conflict, Invalid, NotFound, PreconditionFailed
from cryptopulse.portfolio.adapters import rows
from cryptopulse.portfolio.adapters.leg_cache import LegChanges
from cryptopulse.portfolio.adapters.statements import Statements
from cryptopulse.portfolio.application.ports import Answer, NewPortfolio, Portfolio

MAX_PORTFOLIOS: Final = 200
KEY_HOURS: Final = 24
_CHANGEABLE: Final = frozenset({"name", "method", "lot_scope", "fees_in_cost_basis", "holding_period_days"})


def _missing_portfolio() -> NotFound:
    return NotFound("There is no such portfolio.", code="portfolio-not-found")


class PortfolioStatements(Statements):
    """Idempotency keys, and portfolios with their versions."""

    async def claim(self, key: str, request_hash: bytes) -> Answer | None:
        """The insert waits for another transaction that holds the key, so a second request sees its outcome."""
        await self._db.execute(
            "DELETE FROM idempotency WHERE owner_id = $1 AND created_at < now() - make_interval(hours => $2)",
            self._owner, KEY_HOURS,
        )  # fmt: skip
        new = await self._db.fetchval(
            "INSERT INTO idempotency (owner_id, key, request_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true",
            self._owner, key, request_hash,
        )  # fmt: skip
        if new:
            return None
        row = await self._db.fetchrow(
            "SELECT * FROM idempotency WHERE owner_id = $1 AND key = $2", self._owner, key
        )
        if row is None or row["status"] is None:
            raise Conflict(
                "A request with this Idempotency-Key is still being worked on.", code="idempotency-in-flight"
            )
        if bytes(row["request_hash"]) != request_hash:
            raise Invalid("This Idempotency-Key was used for another request.", code="idempotency-key-reused")
        return Answer(row["status"], row["etag"], bytes(row["body"]))

    async def keep_answer(self, key: str, answer: Answer) -> None:
        """Store the answer with the write itself."""
        await self._db.execute(
            "UPDATE idempotency SET status = $3, etag = $4, body = $5 WHERE owner_id = $1 AND key = $2",
            self._owner, key, answer.status, answer.etag, answer.body,
        )  # fmt: skip

    async def portfolios(self, *, after: int = 0, limit: int = 200) -> list[Portfolio]:
        """Oldest first."""
        found = await self._db.fetch(
            f"SELECT {rows.PORTFOLIO} FROM portfolio WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3",  # noqa: S608 - fixed columns
            self._owner, after, limit,
        )  # fmt: skip
        return [rows.portfolio_of(row) for row in found]

    async def portfolio(self, portfolio_id: int) -> Portfolio:
        """By id."""
        row = await self._db.fetchrow(
            f"SELECT {rows.PORTFOLIO} FROM portfolio WHERE owner_id = $1 AND id = $2",  # noqa: S608 - fixed columns
            self._owner, portfolio_id,
        )  # fmt: skip
        if row is None:
            raise _missing_portfolio()
        return rows.portfolio_of(row)

    async def default_portfolio(self) -> Portfolio | None:
        """The one that the short forms use."""
        row = await self._db.fetchrow(
            f"SELECT {rows.PORTFOLIO} FROM portfolio WHERE owner_id = $1 AND is_default",  # noqa: S608 - fixed columns
            self._owner,
        )  # fmt: skip
        return None if row is None else rows.portfolio_of(row)

    async def create(self, new: NewPortfolio) -> Portfolio:
        """Bounded per owner."""
        count = await self._db.fetchval("SELECT count(*) FROM portfolio WHERE owner_id = $1", self._owner)
        if count >= MAX_PORTFOLIOS:
            raise Conflict(f"An account has at most {MAX_PORTFOLIOS} portfolios.", code="too-many-portfolios")
        row = await self._db.fetchrow(
            "INSERT INTO portfolio (owner_id, name, base_currency, method, cash_mode, lot_scope, fees_in_cost_basis, "  # noqa: S608 - fixed columns
            "holding_period_days, is_default) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
            f"ON CONFLICT (owner_id) WHERE is_default DO NOTHING RETURNING {rows.PORTFOLIO}",
            self._owner, new.name, new.base_currency, new.method, new.cash_mode, new.lot_scope,
            new.fees_in_cost_basis, new.holding_period_days, new.is_default,
        )  # fmt: skip
        if row is not None:
            return rows.portfolio_of(row)
        found = await self.default_portfolio()
        assert found is not None
        return found

    async def change(self, portfolio_id: int, changes: Mapping[str, object]) -> Portfolio:
        """Set some of the changeable columns."""
        names = [name for name in changes if name in _CHANGEABLE]
        sets = "".join(f", {name} = ${number}" for number, name in enumerate(names, start=3))
        row = await self._db.fetchrow(
            f"UPDATE portfolio SET updated_at = now(){sets} WHERE owner_id = $1 AND id = $2 RETURNING {rows.PORTFOLIO}",  # noqa: S608 - names from a fixed set
            self._owner, portfolio_id, *(changes[name] for name in names),
        )  # fmt: skip
        if row is None:
            raise _missing_portfolio()
        return rows.portfolio_of(row)

    async def delete(self, portfolio_id: int) -> None:
        """With everything in it."""
        gone = await self._db.fetchval(
            "DELETE FROM portfolio WHERE owner_id = $1 AND id = $2 RETURNING id", self._owner, portfolio_id
        )
        if gone is None:
            raise _missing_portfolio()

    async def next_version(self, portfolio_id: int, expected: int | None) -> Portfolio:
        """The row lock serialises writers per portfolio."""
        row = await self._db.fetchrow(
            "UPDATE portfolio SET version = version + 1, updated_at = now() "  # noqa: S608 - fixed columns
            f"WHERE owner_id = $1 AND id = $2 AND ($3::bigint IS NULL OR version = $3) RETURNING {rows.PORTFOLIO}",
            self._owner, portfolio_id, expected,
        )  # fmt: skip
        if row is not None:
            self.changes = LegChanges(portfolio_id, row["version"])
            return rows.portfolio_of(row)
        now = await self.portfolio(portfolio_id)
        raise PreconditionFailed(f"The portfolio is at version {now.version} by now: read it again.")
