"""CoinGecko's candles and charts: the documented grains, from the price process."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tools.venue_sim.market.market import Market
from tools.venue_sim.net.messages import Request
from tools.venue_sim.venues.coingecko.catalogue import DAY_US, MINUTE_US, Coin, CoinCatalogue, rounded

MOST_DEMO_DAYS: Final = 365
OHLC_DAYS: Final = (1, 7, 14, 30, 90, 180, 365)


class CoinGeckoError(Exception):
    """An error answer of the form {"error": text}."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Charts:
    """`ohlc`, `market_chart` and `market_chart/range`; `rate` reads and prices the asked currency."""

    def __init__(self, market: Market, catalogue: CoinCatalogue, rate: Callable[[Request], float]) -> None:
        self._market = market
        self._catalogue = catalogue
        self._rate = rate

    def ohlc(self, coin: Coin, request: Request) -> Any:
        """Candles of a coin: time of the close, open, high, low, close."""
        rate = self._rate(request)
        days = whole(request, "days", 0)
        if days not in OHLC_DAYS:
            raise CoinGeckoError(400, "Invalid days parameter")
        if "interval" in request.query:
            raise CoinGeckoError(401, "The interval parameter is exclusive to paid plans")
        minutes = 30 if days <= 2 else (240 if days <= 30 else 5760)
        width = minutes * MINUTE_US
        end = self._market.now_us() // width * width
        start = end - days * DAY_US // width * width
        path = self._catalogue.path(coin, start, end, 1) / rate
        count = (end - start) // width
        rows = []
        for number in range(count):
            piece = path[number * minutes : (number + 1) * minutes + 1]
            cells = (piece[0], piece.max(), piece.min(), piece[-1])
            rows.append([(start + (number + 1) * width) // 1000, *(rounded(float(cell)) for cell in cells)])
        return rows

    def chart(self, coin: Coin, request: Request) -> Any:
        """Prices, caps and volumes of the last days."""
        rate = self._rate(request)
        text = request.query.get("days", "")
        if text != "max" and not text.replace(".", "", 1).isdigit():
            raise CoinGeckoError(400, "Invalid days parameter")
        days = MOST_DEMO_DAYS if text == "max" else float(text)
        _check_days(days)
        now = self._market.now_us()
        return self._points(coin, now - int(days * DAY_US), now, rate, request.query.get("interval"))

    def chart_range(self, coin: Coin, request: Request) -> Any:
        """The same between two moments."""
        rate = self._rate(request)
        start, end = whole(request, "from", -1), whole(request, "to", -1)
        if start < 0 or end < start:
            raise CoinGeckoError(400, "Invalid from or to parameter")
        now = self._market.now_us()
        _check_days((now / 1e6 - start) / 86_400 - 1)
        return self._points(coin, start * 1_000_000, min(end * 1_000_000, now), rate, None)

    def _points(self, coin: Coin, start: int, end: int, rate: float, interval: str | None) -> Any:
        days = (end - start) / DAY_US
        step = 5 if days <= 1 else (60 if days <= 90 else 1440)
        if interval == "hourly":
            step = 60
        elif interval == "daily":
            step = 1440
        start = math.ceil(start / (step * MINUTE_US)) * step * MINUTE_US
        path = self._catalogue.path(coin, start, end, step) / rate
        wobble = 0 if step == 1440 else 41_000 + coin.asset.image % 600
        times = [start // 1000 + number * step * 60_000 + wobble for number in range(len(path))]
        if times and times[-1] > end // 1000:
            times[-1] = end // 1000
        volume = coin.asset.volume_usd * 3.2 / rate
        wave = volume * (1 + 0.2 * np.sin(np.arange(len(path)) / 7.0))
        return {
            "prices": [list(point) for point in zip(times, path.tolist(), strict=True)],
            "market_caps": [
                list(point) for point in zip(times, (path * coin.asset.supply).tolist(), strict=True)
            ],
            "total_volumes": [list(point) for point in zip(times, wave.tolist(), strict=True)],
        }


def whole(request: Request, name: str, default: int) -> int:
    """A whole number from the query; the default when it is missing or none."""
    text = request.query.get(name, "")
    return int(text) if text.isdigit() else default


def _check_days(days: float) -> None:
    if days > MOST_DEMO_DAYS:
        raise CoinGeckoError(
            401,
            "Your request exceeds the allowed time range. Public API users are limited to querying historical data "
            "within the past 365 days.",
        )
