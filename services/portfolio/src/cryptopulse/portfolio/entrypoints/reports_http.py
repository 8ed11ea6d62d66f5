"""Holdings, reports and watching over HTTP."""

from __future__ import annotations

from fastapi.responses import Response

from cryptopulse.common.contracts.http.portfolio import HoldingsQuery, WatchRequest, WatchResponse
from cryptopulse.common.contracts.http.portfolio_reports import AllocationPart, AllocationResponse
from cryptopulse.common.errors import Forbidden
from cryptopulse.portfolio.application.ledger import Ledger
from cryptopulse.portfolio.application.live import LiveValues
from cryptopulse.portfolio.application.valuation import Valuer
from cryptopulse.portfolio.domain.money import ZERO
from cryptopulse.portfolio.domain.valuation import allocation
from cryptopulse.portfolio.entrypoints.requests import Asked, answer_of, response_of
from cryptopulse.portfolio.entrypoints.shapes import holdings_response, us_of


class ReportsHttp:
    """Handlers named after the operation ids of the routes."""

    def __init__(self, ledger: Ledger, valuer: Valuer, live: LiveValues) -> None:
        self._ledger = ledger
        self._valuer = valuer
        self._live = live

    async def get_default_portfolio(self, ask: Asked) -> Response:
        portfolio = await self._ledger.default_portfolio(ask.owner_id)
        found = await self._valuer.holdings(ask.owner_id, portfolio.id)
        return response_of(answer_of(holdings_response(found), version=found.portfolio.version))

    async def get_holdings(self, ask: Asked) -> Response:
        query = ask.query(HoldingsQuery)
        found = await self._valuer.holdings(
            ask.owner_id,
            ask.id("portfolio_id"),
            as_of_us=None if query.as_of is None else us_of(query.as_of),
            method=query.method,
        )
        return response_of(answer_of(holdings_response(found), version=found.portfolio.version))

    async def get_allocation(self, ask: Asked) -> Response:
        found = await self._valuer.holdings(ask.owner_id, ask.id("portfolio_id"))
        valuation = found.valuation
        values = {item.position.asset: item.value for item in valuation.holdings if item.value}
        percents = allocation(values)
        answer = AllocationResponse(
            portfolio_id=found.portfolio.id,
            version=found.portfolio.version,
            base_currency=found.portfolio.base_currency,
            snapshot_id=valuation.snapshot_id,
            complete=valuation.sums.complete,
            total_value=valuation.sums.value or ZERO,
            data=[
                AllocationPart(
                    asset=item.position.asset,
                    coin_id=item.position.coin_id,
                    coin_name=item.position.coin_name,
                    value=item.value,
                    percent=percents[item.position.asset],
                )
                for item in valuation.holdings
                if item.value and item.position.asset in percents
            ],
            unpriced_assets=valuation.unpriced,
        )
        return response_of(answer_of(answer, version=found.portfolio.version))

    async def watch_portfolios(self, ask: Asked) -> Response:
        """For other services only: they have checked whose portfolios these are."""
        if ask.identity.kind != "service":
            raise Forbidden("Only services watch portfolios.", code="services-only")
        body = ask.model(WatchRequest)
        watched = self._live.watch(body.portfolio_ids, body.ttl_seconds)
        return response_of(answer_of(WatchResponse(watched=watched)))
