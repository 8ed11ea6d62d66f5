"""The market of a recording: its pairs with the steps found in its numbers, its clock, its last prices."""

from __future__ import annotations

from collections.abc import Iterable

from tools.venue_sim.market.instruments import Instrument
from tools.venue_sim.market.market import Market, Now
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.market.prices import PriceModel
from tools.venue_sim.market.tape import Tape
from tools.venue_sim.playback.reader import Frame, split_native

_DOLLARS = frozenset({"USD", "USDT", "USDC", "BUSD", "FDUSD", "TUSD", "DAI"})
_MOST_DECIMALS = 8


class PlaybackMarket(Market):
    """Pairs of the recorded venues. A venue's clock is the recording's, moved by what its events are ahead of it."""

    def __init__(self, frames: list[Frame], model: PriceModel, now_us: Now) -> None:
        super().__init__(now_us)
        self._model = model
        steps: dict[tuple[str, str], tuple[int, int]] = {}
        ahead: dict[str, int] = {}
        for frame in frames:
            key = (frame.venue, frame.native)
            steps[key] = _wider(steps.get(key, (0, 0)), frame)
            if frame.event_us is not None and frame.venue not in ahead:
                ahead[frame.venue] = frame.event_us - frame.at_us
        for venue, offset in ahead.items():
            self.clocks[venue].offset_us = offset
        for (venue, native), (price_decimals, size_decimals) in sorted(steps.items()):
            self.add(self._make(venue, native, price_decimals, size_decimals))

    def _make(self, venue: str, native: str, price_decimals: int, size_decimals: int) -> Pair:
        base, quote = split_native(venue, native)
        instrument = Instrument(venue, base, quote, native, price_decimals, size_decimals, 1.0, 0.0, 0, 0.0)
        return Pair(instrument, Tape(instrument, None, own_ids=True), self.clocks[venue])

    def usd(self, symbol: str, at_us: int | None = None) -> float | None:
        """The newest recorded price in dollars; of an asset that the recording does not have, the model's."""
        for pairs in self.pairs.values():
            for pair in pairs.values():
                if pair.instrument.base == symbol and pair.instrument.quote in _DOLLARS:
                    newest = pair.last_trade()
                    if newest is not None:
                        return newest[1] / pair.price_scale
        try:
            return self._model.usd(symbol, self.now_us() if at_us is None else at_us)
        except KeyError:
            return None

    def take(self, frame: Frame) -> tuple[Pair, list[tuple[int, int, int, int, bool]]]:
        """Book a frame's trades that are new, and its quote; returns the pair and those trades."""
        pair = self.natives[frame.venue][frame.native]
        if frame.quote is not None:
            bid, bid_size, ask, ask_size = frame.quote
            pair.bid, pair.ask = units(bid, pair.price_scale), units(ask, pair.price_scale)
            pair.bid_size, pair.ask_size = units(bid_size, pair.size_scale), units(ask_size, pair.size_scale)
        booked = []
        for trade in frame.trades:
            made = pair.tape.next_id if trade.trade_id is None else trade.trade_id
            if pair.tape.ids and made < pair.tape.next_id:
                continue
            size = units(trade.size, pair.size_scale)
            price = units(trade.price, pair.price_scale)
            booked.append(pair.tape.append(price, -size if trade.sold else size, trade.time_us, made))
        if booked:
            pair.mid = float(booked[-1][1])
            pair.mean_size = float(booked[-1][2])
            if not pair.bid:
                pair.bid = pair.ask = booked[-1][1]
        return pair, booked


def units(text: str, scale: int) -> int:
    """A decimal text as an integer of 1/scale, exactly; digits beyond the scale are zeros by construction."""
    whole, _, part = text.partition(".")
    digits = len(str(scale)) - 1
    return int(whole) * scale + int((part + "0" * digits)[:digits] or "0")


def _needed(texts: Iterable[str]) -> int:
    most = 0
    for text in texts:
        part = text.partition(".")[2].rstrip("0")
        most = max(most, len(part))
    return min(most, _MOST_DECIMALS)


def _wider(known: tuple[int, int], frame: Frame) -> tuple[int, int]:
    prices = [trade.price for trade in frame.trades]
    sizes = [trade.size for trade in frame.trades]
    if frame.quote is not None:
        prices += [frame.quote[0], frame.quote[2]]
        sizes += [frame.quote[1], frame.quote[3]]
    return max(known[0], _needed(prices)), max(known[1], _needed(sizes))
