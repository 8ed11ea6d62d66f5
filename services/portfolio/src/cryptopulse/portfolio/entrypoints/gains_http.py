"""Lots, realised gains, performance, history and exports over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

from fastapi.responses import Response, StreamingResponse

from cryptopulse.common.contracts.http.portfolio_reports import (
    BenchmarkResult,
    Contribution,
    ExportQuery,
    Figure,
    HistoryPoint,
    HistoryQuery,
    HistoryResponse,
    LotItem,
    LotsQuery,
    LotsResponse,
    PerformanceQuery,
    PerformanceResponse,
    RealisedItem,
    RealisedQuery,
    RealisedResponse,
    RealisedYear,
)
from cryptopulse.portfolio.application.gains import Gain, Gains, GainsReader, OpenLot
from cryptopulse.portfolio.application.performance import Performance, Performer, Span, Track, percent_of
from cryptopulse.portfolio.application.ports import Books
from cryptopulse.portfolio.application.tables import OWN_COLUMNS, gains_csv, transaction_line
from cryptopulse.portfolio.domain.book import DAY_US
from cryptopulse.portfolio.domain.money import money_context, use_money_context
from cryptopulse.portfolio.domain.returns import Known, date_of
from cryptopulse.portfolio.entrypoints.requests import Asked, answer_of, response_of
from cryptopulse.portfolio.entrypoints.shapes import percent, time_of, transaction_response, us_of

CSV_TYPE = "text/csv; charset=utf-8"


class GainsHttp:
    """Handlers named after the operation ids of the routes."""

    def __init__(self, books: Books, gains: GainsReader, performer: Performer) -> None:
        self._books = books
        self._gains = gains
        self._performer = performer

    async def list_lots(self, ask: Asked) -> Response:
        query = ask.query(LotsQuery)
        found = await self._gains.lots(ask.owner_id, ask.id("portfolio_id"), query.asset, query.method)
        answer = LotsResponse(
            portfolio_id=found.portfolio.id,
            version=found.portfolio.version,
            base_currency=found.portfolio.base_currency,
            method=found.method,
            data=[_lot(item) for item in found.lots],
        )
        return response_of(answer_of(answer, version=found.portfolio.version))

    async def list_realised(self, ask: Asked) -> Response:
        query = ask.query(RealisedQuery)
        found = await self._gains.realised(ask.owner_id, ask.id("portfolio_id"), query.year, query.method)
        if query.format == "csv":
            name = f"realised-gains-{found.portfolio.id}-{query.year or 'all'}.csv"
            return Response("".join(gains_csv(found)), media_type=CSV_TYPE, headers=_download(name))
        return response_of(answer_of(_realised(found), version=found.portfolio.version))

    async def get_performance(self, ask: Asked) -> Response:
        query = ask.query(PerformanceQuery)
        found = await self._performer.performance(
            ask.owner_id,
            ask.id("portfolio_id"),
            _span(query.window, query),
            benchmark=query.benchmark,
            risk_free=float(Decimal(query.risk_free)),
        )
        return response_of(answer_of(_performance(found), version=found.portfolio.version))

    async def get_portfolio_history(self, ask: Asked) -> Response:
        query = ask.query(HistoryQuery)
        track = await self._performer.track(ask.owner_id, ask.id("portfolio_id"), _span(query.window, query))
        return response_of(answer_of(history_response(track), version=track.portfolio.version))

    async def export_transactions(self, ask: Asked) -> Response:
        """Streams, so that a long book is never held whole."""
        query = ask.query(ExportQuery)
        number = ask.id("portfolio_id")
        async with self._books.unit(ask.owner_id, readonly=True) as unit:
            await unit.portfolio(number)
        lines = self._csv(ask.owner_id, number) if query.format == "csv" else self._json(ask.owner_id, number)
        name = f"portfolio-{number}.{query.format}"
        kind = CSV_TYPE if query.format == "csv" else "application/json"
        return StreamingResponse(lines, media_type=kind, headers=_download(name))

    async def _csv(self, owner_id: str, number: int) -> AsyncIterator[str]:
        use_money_context()
        yield ",".join(OWN_COLUMNS) + "\r\n"
        async with self._books.unit(owner_id, readonly=True) as unit:
            async for item in unit.all_recorded(number):
                yield transaction_line(item)

    async def _json(self, owner_id: str, number: int) -> AsyncIterator[str]:
        use_money_context()
        yield '{"data":['
        first = True
        async with self._books.unit(owner_id, readonly=True) as unit:
            async for item in unit.all_recorded(number):
                yield ("" if first else ",") + transaction_response(number, item).model_dump_json()
                first = False
        yield '],"next_cursor":null}'


def history_response(track: Track) -> HistoryResponse:
    """The daily values of a window."""
    carried = track.series.carried()
    return HistoryResponse(
        portfolio_id=track.portfolio.id,
        version=track.portfolio.version,
        base_currency=track.portfolio.base_currency,
        data=[
            HistoryPoint(
                day=date_of(day.day),
                value=day.value,
                net_flow=day.flow,
                daily_return=None if day.result is None else float(day.result),
                index=None if day.index is None else float(day.index),
                complete=day.value is not None and not track.series.left_out,
                carried=carried.get(day.day, []),
            )
            for day in track.days
        ],
    )


def _download(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}


def _span(window: str, query: PerformanceQuery | HistoryQuery) -> Span:
    return Span(
        window=window,
        from_day=None if query.from_ is None else us_of(query.from_) // DAY_US,
        to_day=None if query.to is None else us_of(query.to) // DAY_US,
    )


def _lot(item: OpenLot) -> LotItem:
    lot = item.lot
    with money_context():
        unit = lot.cost / lot.remaining
        gain = None if item.price is None else item.price * lot.remaining - lot.cost
    return LotItem(
        lot_id=lot.id,
        origin=lot.origin,
        asset=item.asset,
        account=item.account or "all",
        acquired_at=time_of(lot.acquired_us),
        quantity=lot.opened,
        quantity_remaining=lot.remaining,
        cost=lot.opened_cost,
        cost_remaining=lot.cost,
        unit_cost=unit,
        term="long" if item.long_term else "short",
        price=item.price,
        unrealised_pnl=gain,
    )


def _realised(found: Gains) -> RealisedResponse:
    return RealisedResponse(
        portfolio_id=found.portfolio.id,
        version=found.portfolio.version,
        base_currency=found.portfolio.base_currency,
        method=found.method,
        years=[
            RealisedYear(
                year=year.year,
                proceeds=year.proceeds,
                cost=year.cost,
                gain=year.short_gain + year.long_gain,
                short_gain=year.short_gain,
                long_gain=year.long_gain,
            )
            for year in found.years
        ],
        data=[_gain(item) for item in found.gains],
    )


def _gain(item: Gain) -> RealisedItem:
    match = item.match
    return RealisedItem(
        disposal_id=f"{match.seq}#fee" if match.fee_leg else str(match.seq),
        transaction_id=match.seq,
        asset=match.asset,
        account=match.account,
        lot_id=match.lot,
        acquired_at=time_of(match.acquired_us),
        disposed_at=time_of(match.at_us),
        quantity=match.quantity,
        proceeds=match.proceeds,
        cost=match.cost,
        gain=item.gain,
        term="long" if item.long_term else "short",
        kind=match.kind,
    )


def _figure(known: Known) -> Figure:
    return Figure(value=known.value, reason=known.reason)


def _performance(found: Performance) -> PerformanceResponse:
    fall = found.drawdown
    return PerformanceResponse(
        portfolio_id=found.portfolio.id,
        version=found.portfolio.version,
        base_currency=found.portfolio.base_currency,
        from_day=date_of(found.from_day),
        to_day=date_of(found.to_day),
        days=found.to_day - found.from_day + 1,
        start_value=found.start_value,
        end_value=found.end_value,
        net_flow=found.net_flow,
        pnl=found.pnl,
        twr=_figure(found.twr),
        twr_annualised=_figure(found.twr_annualised),
        xirr=_figure(found.money.annual),
        mwr_period=_figure(found.money.period),
        multiple_roots=found.money.multiple_roots,
        roai=_figure(found.roai),
        average_invested=found.average_invested,
        simple_return=_figure(found.simple),
        max_drawdown=Figure(value=fall.depth) if fall else Figure(value=None, reason="value-unknown"),
        drawdown_from=date_of(found.from_day + fall.peak) if fall and fall.depth < 0 else None,
        drawdown_to=date_of(found.from_day + fall.trough) if fall and fall.depth < 0 else None,
        drawdown_recovered=date_of(found.from_day + fall.recovered)
        if fall and fall.recovered is not None
        else None,
        volatility=_figure(found.volatility),
        sharpe=_figure(found.sharpe),
        sortino=_figure(found.sortino),
        calmar=_figure(found.calmar),
        best_day=_figure(found.best_day),
        worst_day=_figure(found.worst_day),
        contributions=[
            Contribution(asset=asset, gain=gain, percent_of_total=percent(percent_of(gain, found.pnl)))
            for asset, gain in found.contributions
        ],
        benchmark=None
        if found.benchmark is None
        else BenchmarkResult(
            name=found.benchmark.name,
            twr=_figure(found.benchmark.twr),
            excess=_figure(found.benchmark.excess),
        ),
        complete=found.complete,
        warnings=found.warnings,
        gap_days=found.gap_days,
    )
