"""Portfolios and transactions over HTTP: translate, call the ledger in one unit of work, translate back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from fastapi.responses import Response

from cryptopulse.common.contracts.http.portfolio import (
    Deleted,
    EntryCreate,
    EntryResponse,
    PortfolioCreate,
    PortfolioList,
    PortfolioListQuery,
    PortfolioPatch,
    PortfolioQuery,
    RevisionList,
    TransactionCreate,
    TransactionList,
    TransactionListQuery,
    TransactionPatch,
)
from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.portfolio.application.ledger import Ledger
from cryptopulse.portfolio.application.ports import (
    Answer,
    Books,
    CoinCatalogue,
    Filter,
    NewPortfolio,
    Portfolio,
    Recorded,
    Unit,
)
from cryptopulse.portfolio.application.worth import Draft
from cryptopulse.portfolio.domain.money import ZERO
from cryptopulse.portfolio.domain.transactions import Transaction
from cryptopulse.portfolio.entrypoints.requests import Asked, answer_of, response_of
from cryptopulse.portfolio.entrypoints.shapes import (
    draft_of,
    portfolio_response,
    transaction_response,
    us_of,
)

INCLUDED = 1_000
_CLEARS = frozenset({"price", "total", "currency", "fx_rate", "fee", "fee_asset", "note", "cost_basis"})


class BooksHttp:
    """Handlers named after the operation ids of the routes."""

    def __init__(self, books: Books, ledger: Ledger, catalogue: CoinCatalogue, cursor: Cursor) -> None:
        self._books = books
        self._ledger = ledger
        self._catalogue = catalogue
        self._cursor = cursor

    async def _once(self, ask: Asked, work: Callable[[Unit], Awaitable[Answer]]) -> Response:
        """Do the work in one unit; under an idempotency key the stored answer is given a second time."""
        key = ask.idempotency_key()
        async with self._books.unit(ask.owner_id) as unit:
            if key is not None:
                known = await unit.claim(key, ask.request_hash())
                if known is not None:
                    return response_of(known, {"Idempotent-Replayed": "true"})
            answer = await work(unit)
            if key is not None:
                await unit.keep_answer(key, answer)
        return response_of(answer)

    # --- portfolios ----------------------------------------------------------------------------------------------

    async def list_portfolios(self, ask: Asked) -> Response:
        query = ask.query(PortfolioListQuery)
        binding = ("portfolios", ask.owner_id)
        after = self._cursor.decode(query.cursor, binding)[0] if query.cursor else 0
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            found = await unit.portfolios(after=after, limit=query.limit + 1)
            page = found[: query.limit]
            data = [portfolio_response(p, await self._included(unit, p, query.include)) for p in page]
        following = self._cursor.encode((page[-1].id,), binding) if len(found) > query.limit else None
        return response_of(answer_of(PortfolioList(data=data, next_cursor=following)))

    @staticmethod
    async def _included(unit: Unit, portfolio: Portfolio, include: str | None) -> list[Recorded] | None:
        if include is None:
            return None
        return await unit.listed(portfolio.id, Filter(limit=INCLUDED))

    async def create_portfolio(self, ask: Asked) -> Response:
        body = ask.model(PortfolioCreate)

        async def work(unit: Unit) -> Answer:
            made = await unit.create(
                NewPortfolio(
                    name=body.name,
                    base_currency=body.base_currency,
                    method=body.method,
                    cash_mode=body.cash_mode,
                    lot_scope=body.lot_scope,
                    fees_in_cost_basis=body.fees_in_cost_basis,
                    holding_period_days=body.holding_period_days,
                )
            )
            return answer_of(portfolio_response(made), status=201, version=made.version)

        return await self._once(ask, work)

    async def get_portfolio(self, ask: Asked) -> Response:
        query = ask.query(PortfolioQuery)
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(ask.id("portfolio_id"))
            included = await self._included(unit, portfolio, query.include)
        return response_of(answer_of(portfolio_response(portfolio, included), version=portfolio.version))

    async def update_portfolio(self, ask: Asked) -> Response:
        body = ask.model(PortfolioPatch)
        changes = {name: getattr(body, name) for name in body.model_fields_set}
        empty = sorted(name for name, value in changes.items() if value is None)
        if empty:
            raise Invalid(
                f"{', '.join(empty)}: must not be null.",
                errors=tuple(FieldError(f"/{name}", "null", "must not be null") for name in empty),
            )

        async def work(unit: Unit) -> Answer:
            changed = await self._ledger.settings(
                unit, ask.id("portfolio_id"), changes, if_match=ask.if_match()
            )
            return answer_of(portfolio_response(changed), version=changed.version)

        return await self._once(ask, work)

    async def delete_portfolio(self, ask: Asked) -> Response:
        number = ask.id("portfolio_id")
        expected = ask.if_match()
        async with self._books.unit(ask.owner_id) as unit:
            await unit.next_version(number, expected)
            await unit.delete(number)
        return response_of(answer_of(Deleted(id=number)))

    # --- transactions --------------------------------------------------------------------------------------------

    async def list_transactions(self, ask: Asked) -> Response:
        query = ask.query(TransactionListQuery)
        number = ask.id("portfolio_id")
        binding = (
            "transactions",
            ask.owner_id,
            str(number),
            query.asset or "",
            query.type or "",
            query.account or "",
        )
        before = None
        if query.cursor:
            at_us, last = self._cursor.decode(query.cursor, binding)
            before = (at_us, last)
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            await unit.portfolio(number)
            chosen = Filter(query.limit + 1, before, query.asset, query.type, query.account)
            found = await unit.listed(number, chosen)
        page = found[: query.limit]
        following = None
        if len(found) > query.limit:
            following = self._cursor.encode((page[-1].transaction.at_us, page[-1].id), binding)
        data = [transaction_response(number, item) for item in page]
        return response_of(answer_of(TransactionList(data=data, next_cursor=following)))

    async def create_transaction(self, ask: Asked) -> Response:
        body = ask.model(TransactionCreate)
        number = ask.id("portfolio_id")
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(number)
            known = await unit.coins(number)
        transaction, coins = await self._ledger.valued(portfolio, draft_of(body), known)

        async def work(unit: Unit) -> Answer:
            written = await self._ledger.record(unit, number, transaction, coins, if_match=ask.if_match())
            model = transaction_response(number, written.recorded)
            return answer_of(model, status=201, version=written.portfolio.version)

        return await self._once(ask, work)

    async def get_transaction(self, ask: Asked) -> Response:
        number = ask.id("portfolio_id")
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(number)
            found = await unit.recorded(number, ask.id("transaction_id"))
        return response_of(answer_of(transaction_response(number, found), version=portfolio.version))

    async def list_transaction_revisions(self, ask: Asked) -> Response:
        number = ask.id("portfolio_id")
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            await unit.portfolio(number)
            found = await unit.revisions(number, ask.id("transaction_id"))
        return response_of(
            answer_of(RevisionList(data=[transaction_response(number, item) for item in found]))
        )

    async def update_transaction(self, ask: Asked) -> Response:
        body = ask.model(TransactionPatch)
        number = ask.id("portfolio_id")
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(number)
            old = await unit.recorded(number, ask.id("transaction_id"))
            known = await unit.coins(number)
        draft = edited(old.transaction, body)
        transaction, coins = await self._ledger.valued(portfolio, draft, known)

        async def work(unit: Unit) -> Answer:
            written = await self._ledger.revise(
                unit, number, old, transaction, coins, if_match=ask.if_match()
            )
            return answer_of(
                transaction_response(number, written.recorded), version=written.portfolio.version
            )

        return await self._once(ask, work)

    async def delete_transaction(self, ask: Asked) -> Response:
        transaction_id = ask.id("transaction_id")

        async def work(unit: Unit) -> Answer:
            portfolio = await self._ledger.void(
                unit, ask.id("portfolio_id"), transaction_id, if_match=ask.if_match()
            )
            return answer_of(Deleted(id=transaction_id), version=portfolio.version)

        return await self._once(ask, work)

    # --- the short form ------------------------------------------------------------------------------------------

    async def create_portfolio_entry(self, ask: Asked) -> Response:
        body = ask.model(EntryCreate)
        portfolio = await self._ledger.default_portfolio(ask.owner_id)
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            known = await unit.coins(portfolio.id)
        quote = self._catalogue.quote_of(body.symbol)
        draft = Draft(
            kind=body.side,
            asset=body.symbol,
            quantity=body.quantity,
            price=body.price,
            currency=quote if body.price is not None else None,
            fee=body.fee,
            at_us=None if body.timestamp is None else us_of(body.timestamp),
        )
        transaction, coins = await self._ledger.valued(portfolio, draft, known)

        async def work(unit: Unit) -> Answer:
            written = await self._ledger.record(unit, portfolio.id, transaction, coins)
            return answer_of(
                entry_response(written.portfolio, written.recorded, body.side),
                status=201,
                version=written.portfolio.version,
            )

        return await self._once(ask, work)


def entry_response(portfolio: Portfolio, recorded: Recorded, side: str) -> EntryResponse:
    """The short form of a recorded purchase or sale."""
    full = transaction_response(portfolio.id, recorded)
    return EntryResponse(
        id=full.id,
        portfolio_id=portfolio.id,
        symbol=f"{full.coin_symbol or full.asset.upper()}-{full.currency or portfolio.base_currency}",
        side="sell" if side == "sell" else "buy",
        quantity=full.quantity,
        price=full.price if full.price is not None else ZERO,
        price_source=full.price_source,
        fee=full.fee or ZERO,
        total=full.total if full.total is not None else ZERO,
        timestamp=full.timestamp,
    )


def edited(old: Transaction, body: TransactionPatch) -> Draft:
    """The old transaction with the given fields replaced, to be valued anew.

    What the old worth was derived from goes with the field that it came from: a new quantity or price drops the old
    total, a new total drops the old price, a new time or currency drops the old rate unless one is given.
    """
    given = body.model_fields_set
    changes = {
        name: getattr(body, name) for name in given if name not in {"type", "timestamp", "acquired_at"}
    }
    refused = sorted(
        n
        for n in given
        if getattr(body, n) is None and n in {"type", "asset", "account", "timestamp", "allow_uncovered"}
    )
    if refused:
        raise Invalid(
            f"{', '.join(refused)}: must not be null.",
            errors=tuple(FieldError(f"/{name}", "null", "must not be null") for name in refused),
        )
    draft = Draft(
        kind=body.type or old.kind,
        asset=old.asset,
        quantity=old.quantity,
        at_us=us_of(body.timestamp) if body.timestamp is not None else old.at_us,
        price=old.price,
        total=old.total,
        currency=old.currency,
        fx_rate=old.fx_rate,
        counter_asset=old.counter_asset,
        counter_quantity=old.counter_quantity,
        fee=old.fee,
        fee_asset=old.fee_asset,
        fee_price=old.fee_value / old.fee
        if old.fee and not {"fee", "fee_asset", "timestamp", "price", "total"} & given
        else None,
        cost_basis=old.cost_basis,
        acquired_us=us_of(body.acquired_at)
        if body.acquired_at is not None
        else (None if "acquired_at" in given else old.acquired_us),
        account=old.account,
        to_account=old.to_account,
        note=old.note,
        external_id=old.external_id,
        fingerprint=old.fingerprint,
        custom_asset=True,
        allow_uncovered=old.allow_uncovered,
    )
    if "total" in given and "price" not in given:
        draft = replace(draft, price=None)
    elif {"quantity", "price"} & given and "total" not in given:
        draft = replace(draft, total=None)
    if {"timestamp", "currency"} & given and "fx_rate" not in given:
        draft = replace(draft, fx_rate=None)
    if "asset" in given and not {"price", "total"} & given and old.price_source != "given":
        draft = replace(draft, price=None, total=None)
    if "allow_uncovered" in changes and changes["allow_uncovered"] is None:
        del changes["allow_uncovered"]
    return replace(draft, **changes)
