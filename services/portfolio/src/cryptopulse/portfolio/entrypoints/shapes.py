"""Values of the application as the models of the HTTP contract, and bodies as drafts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from cryptopulse.common.contracts.http.portfolio import (
    Holding,
    HoldingsResponse,
    MissingUnits,
    Performer,
    PortfolioResponse,
    StaleAsset,
    Totals,
    TransactionCreate,
    TransactionResponse,
)
from cryptopulse.portfolio.application.ports import Coin, Portfolio, Recorded
from cryptopulse.portfolio.application.valuation import Holdings, unit_cost
from cryptopulse.portfolio.application.worth import Draft
from cryptopulse.portfolio.domain.money import money_context
from cryptopulse.portfolio.domain.valuation import Sums, Valued, allocation, best_and_worst

PERCENT_STEP = Decimal("1e-8")


def time_of(at_us: int) -> datetime:
    """Microseconds as an aware time."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(microsecond=at_us % 1_000_000)


def us_of(at: datetime) -> int:
    """An aware time as microseconds, exactly."""
    whole = at.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000 + at.microsecond


def percent(value: Decimal | None) -> Decimal | None:
    """Percentages are printed with eight decimals."""
    if value is None:
        return None
    with money_context():
        return value.quantize(PERCENT_STEP) if abs(value) < 10**40 else value


def portfolio_response(
    portfolio: Portfolio, transactions: Sequence[Recorded] | None = None
) -> PortfolioResponse:
    """A portfolio, with its transactions where asked."""
    return PortfolioResponse(
        id=portfolio.id,
        name=portfolio.name,
        base_currency=portfolio.base_currency,
        method=portfolio.method,
        cash_mode=portfolio.cash_mode,
        lot_scope="account" if portfolio.lot_scope == "account" else "portfolio",
        fees_in_cost_basis=portfolio.fees_in_cost_basis,
        holding_period_days=portfolio.holding_period_days,
        version=portfolio.version,
        is_default=portfolio.is_default,
        transaction_count=portfolio.transaction_count,
        created_at=portfolio.created_at,
        updated_at=portfolio.updated_at,
        transactions=None
        if transactions is None
        else [transaction_response(portfolio.id, t) for t in transactions],
    )


def transaction_response(portfolio_id: int, recorded: Recorded) -> TransactionResponse:
    """One revision."""
    tx = recorded.transaction
    coin = recorded.coin
    return TransactionResponse(
        id=recorded.id,
        portfolio_id=portfolio_id,
        revision=recorded.revision,
        type=tx.kind,
        asset=tx.asset,
        coin_id=coin.coin_id,
        coin_name=coin.name,
        coin_symbol=coin.symbol or (tx.asset if tx.asset.isupper() else None),
        quantity=tx.quantity,
        price=tx.price,
        currency=tx.currency,
        total=tx.total,
        value=tx.value,
        fx_rate=tx.fx_rate,
        price_source=tx.price_source,
        counter_asset=tx.counter_asset,
        counter_quantity=tx.counter_quantity,
        fee=tx.fee,
        fee_asset=tx.fee_asset,
        fee_value=tx.fee_value,
        cost_basis=tx.cost_basis,
        acquired_at=None if tx.acquired_us is None else time_of(tx.acquired_us),
        account=tx.account,
        to_account=tx.to_account,
        timestamp=time_of(tx.at_us),
        note=tx.note,
        external_id=tx.external_id,
        allow_uncovered=tx.allow_uncovered,
        voided=recorded.voided,
        created_at=time_of(recorded.created_us),
    )


def draft_of(body: TransactionCreate) -> Draft:
    """A body as a draft."""
    coin = None
    if body.coin_id:
        coin = Coin(
            body.coin_id, body.coin_id, body.coin_name, body.coin_symbol.upper() if body.coin_symbol else None
        )
    return Draft(
        kind=body.type,
        asset=body.asset,
        quantity=body.quantity,
        at_us=None if body.timestamp is None else us_of(body.timestamp),
        price=body.price,
        total=body.total,
        currency=body.currency,
        fx_rate=body.fx_rate,
        counter_asset=body.counter_asset,
        counter_quantity=body.counter_quantity,
        fee=body.fee,
        fee_asset=body.fee_asset,
        fee_price=body.fee_price,
        cost_basis=body.cost_basis,
        acquired_us=None if body.acquired_at is None else us_of(body.acquired_at),
        account=body.account,
        to_account=body.to_account,
        note=body.note,
        external_id=body.external_id,
        coin=coin,
        custom_asset=body.custom_asset,
        allow_uncovered=body.allow_uncovered,
    )


def holdings_response(found: Holdings) -> HoldingsResponse:
    """Holdings and totals at one snapshot."""
    valuation, portfolio = found.valuation, found.portfolio
    parts = allocation({item.position.asset: item.value for item in valuation.holdings if item.value})
    best, worst = best_and_worst(valuation)
    return HoldingsResponse(
        portfolio_id=portfolio.id,
        version=portfolio.version,
        base_currency=portfolio.base_currency,
        method=found.method,
        as_of=time_of(found.as_of_us),
        snapshot_id=valuation.snapshot_id,
        complete=valuation.sums.complete and not found.missing,
        simulated=valuation.simulated,
        holdings=[
            _holding(item, portfolio.base_currency, parts.get(item.position.asset))
            for item in valuation.holdings
        ],
        totals=_totals(valuation.sums),
        unpriced_assets=valuation.unpriced,
        stale_assets=[StaleAsset(asset=asset, age_s=age) for asset, age in valuation.stale],
        missing=[
            MissingUnits(transaction_id=item.seq, asset=item.asset, found=item.found, missing=item.missing)
            for item in found.missing
        ],
        best_performer=_performer(best),
        worst_performer=_performer(worst),
    )


def _holding(item: Valued, base_currency: str, part: Decimal | None) -> Holding:
    position = item.position
    with money_context():
        average_cost = unit_cost(position.cost, position.quantity)
        average_price = unit_cost(position.bare, position.quantity)
    return Holding(
        asset=position.asset,
        symbol=f"{position.coin_symbol or position.asset.upper()}-{base_currency}",
        coin_id=position.coin_id,
        coin_name=position.coin_name,
        coin_symbol=position.coin_symbol,
        quantity=position.quantity,
        average_cost=average_cost,
        average_price=average_price,
        cost=position.cost,
        price=item.price,
        price_age_ms=item.quote.age_ms if item.quote else None,
        price_status=item.quote.status if item.quote else None,
        value=item.value,
        unrealised_pnl=item.unrealised,
        unrealised_pnl_pct=percent(item.unrealised_pct),
        realised_pnl=position.realised,
        income=position.income,
        fees=position.fees,
        price_change_24h=item.change_24h,
        price_change_24h_pct=percent(item.change_24h_pct),
        allocation_pct=part,
        accounts=dict(position.accounts),
    )


def _totals(sums: Sums) -> Totals:
    return Totals(
        value=sums.value,
        cost=sums.cost,
        unrealised_pnl=sums.unrealised,
        unrealised_pnl_pct=percent(sums.unrealised_pct),
        realised_pnl=sums.realised,
        income=sums.income,
        fees=sums.fees,
        fees_separate=sums.fees_separate,
        removed_cost=sums.removed,
        total_pnl=sums.total_pnl,
        total_return_pct=percent(sums.total_return_pct),
        paid_in=sums.paid_in,
        price_change_24h=sums.change_24h,
        price_change_24h_pct=percent(sums.change_24h_pct),
        complete=sums.complete,
    )


def _performer(item: Valued | None) -> Performer | None:
    if item is None or item.unrealised_pct is None or item.unrealised is None:
        return None
    position = item.position
    pct = percent(item.unrealised_pct)
    assert pct is not None
    return Performer(
        asset=position.asset,
        coin_id=position.coin_id,
        coin_name=position.coin_name,
        coin_symbol=position.coin_symbol,
        profit_loss_percentage=pct,
        profit_loss=item.unrealised,
    )
