"""The values that rules of a shard watch: markets, and one threshold index per metric, made on first use and dropped with the last."""

from __future__ import annotations

from collections.abc import Iterable

from cryptopulse.alerts.domain.attachment import Wire
from cryptopulse.alerts.domain.market import Market
from cryptopulse.alerts.domain.thresholds import Number, ThresholdIndex
from cryptopulse.alerts.domain.windows import RollingExtremes, VolumeWindow
from cryptopulse.alerts.domain.wiring import Metric, price_metric

Index = ThresholdIndex[Wire]
Family = tuple[str | int, ...]


def family_of(metric: Metric) -> Family:
    """What arrives together: all outputs of one bar's indicators, all windows of one bar's volume, all of one portfolio."""
    match metric.kind:
        case "indicator":
            return ("indicator", metric.symbol, metric.source, *metric.detail[:2])
        case "volume":
            return ("volume", metric.symbol, metric.source, metric.detail[0])
        case "portfolio":
            return ("portfolio", metric.source, metric.detail[0])
        case _:
            return (metric.kind,)


class Registry:
    """Markets and indexes by their names."""

    def __init__(self) -> None:
        self.markets: dict[tuple[str, str], Market] = {}
        self.indexes: dict[Metric, Index] = {}
        self.volumes: dict[tuple[str, str, str], VolumeWindow] = {}
        self._families: dict[Family, dict[Metric, None]] = {}

    def value(self, metric: Metric) -> Number | None:
        """The last value of a metric, None before the first."""
        index = self.indexes.get(metric)
        return index.value if index is not None else None

    def family(self, *names: str | int) -> list[Metric]:
        """The metrics of a family that someone watches."""
        return list(self._families.get(names, ()))

    def families(self, kind: str) -> list[Family]:
        """The families of a kind that someone watches."""
        return [family for family in self._families if family[0] == kind]

    @property
    def has_bars(self) -> bool:
        """True when closes or volumes are watched."""
        return bool(self.volumes or ("close",) in self._families)

    def market(self, symbol: str, source: str) -> Market:
        """The market, made when it is new."""
        market = self.markets.get((symbol, source))
        if market is None:
            market = self.markets[symbol, source] = Market(symbol, source)
            self.indexes[price_metric(symbol, source)] = market.index
        return market

    def index(self, metric: Metric) -> Index:
        """The index of a metric, made and connected to its market when it is new."""
        index = self.indexes.get(metric)
        if index is not None:
            return index
        if metric.kind == "price":
            return self.market(metric.symbol, metric.source).index
        index = self.indexes[metric] = ThresholdIndex()
        self._families.setdefault(family_of(metric), {})[metric] = None
        if metric.kind == "pct":
            self._watch_window(metric, index)
        elif metric.kind == "volume":
            self.volumes.setdefault((metric.symbol, metric.source, str(metric.detail[0])), VolumeWindow())
        elif metric.kind == "spread":
            one, two = (self.market(metric.symbol, str(venue)) for venue in metric.detail)
            one.spreads.append((metric, index, two))
            two.spreads.append((metric, index, one))
        return index

    def drop_index(self, metric: Metric) -> None:
        """Nothing watches this metric any more."""
        index = self.indexes.pop(metric)
        family = self._families[family_of(metric)]
        family.pop(metric)
        if not family:
            del self._families[family_of(metric)]
        if metric.kind == "pct":
            self._leave_window(metric, index)
        elif metric.kind == "volume" and not family:
            self.volumes.pop((metric.symbol, metric.source, str(metric.detail[0])), None)
        elif metric.kind == "spread":
            for venue in metric.detail:
                market = self.market(metric.symbol, str(venue))
                market.spreads = [entry for entry in market.spreads if entry[1] is not index]

    def release(self, markets: Iterable[Market]) -> None:
        """One user less of each of these; those without users go."""
        for market in markets:
            market.users -= 1
            if market.users <= 0:
                self._drop(market)

    def prune(self) -> None:
        """Drop the markets that nobody uses."""
        for market in list(self.markets.values()):
            if market.users <= 0:
                self._drop(market)

    def _drop(self, market: Market) -> None:
        self.markets.pop((market.symbol, market.source), None)
        self.indexes.pop(price_metric(market.symbol, market.source), None)

    def _watch_window(self, metric: Metric, index: Index) -> None:
        market, window = self.market(metric.symbol, metric.source), int(metric.detail[1])
        market.windows.setdefault(window, RollingExtremes(window * 1000))
        market.changes.setdefault(window, []).append((str(metric.detail[0]), index))

    def _leave_window(self, metric: Metric, index: Index) -> None:
        market, window = self.market(metric.symbol, metric.source), int(metric.detail[1])
        left = [entry for entry in market.changes[window] if entry[1] is not index]
        if left:
            market.changes[window] = left
        else:
            del market.changes[window], market.windows[window]
