"""The Exchange dialect over WebSocket: matches, tickers and heartbeats by product, without a common sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from tools.venue_sim.market.pair import Pair
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.venues.coinbase import wire

if TYPE_CHECKING:
    from tools.venue_sim.venues.coinbase.site import CoinbaseSession, CoinbaseSite

CHANNELS: Final = ("matches", "heartbeat", "ticker", "ticker_batch", "status", "level2", "level2_batch")


class Exchange:
    """What a session does once its first message was in this dialect."""

    def __init__(self, site: CoinbaseSite, session: CoinbaseSession) -> None:
        self._site = site
        self._session = session
        self.channels: dict[str, dict[str, Pair]] = {}

    # -- control messages

    def on_message(self, request: dict[str, Any]) -> None:
        """`subscribe` and `unsubscribe`; one bad product or channel refuses the whole request, as on the venue."""
        kind = request.get("type")
        if kind not in {"subscribe", "unsubscribe"}:
            self._error("Malformed JSON", f"unknown type {kind}")
            return
        wanted = self._wanted(request)
        if wanted is None:
            return
        if kind == "unsubscribe":
            self._unsubscribe(wanted)
        else:
            self._subscribe(wanted)

    def _wanted(self, request: dict[str, Any]) -> list[tuple[str, list[str]]] | None:
        common = request.get("product_ids") or []
        wanted = []
        for entry in request.get("channels") or []:
            name = entry.get("name") if isinstance(entry, dict) else entry
            products = (entry.get("product_ids") or common) if isinstance(entry, dict) else common
            if name not in CHANNELS:
                self._error("Failed to subscribe", f"{name} is not a valid channel")
                return None
            if name == "level2":
                self._error("Failed to subscribe", "level2 requires authentication")
                return None
            wanted.append((str(name), [str(product) for product in products]))
        return wanted

    def _error(self, message: str, reason: str) -> None:
        self._session.connection.send(orjson.dumps({"type": "error", "message": message, "reason": reason}))

    def _subscribe(self, wanted: list[tuple[str, list[str]]]) -> None:
        chosen: list[tuple[str, Pair]] = []
        for channel, products in wanted:
            for name in products:
                pair = self._site.exact_product(name)
                if pair is None or self._site.faults.first_hit("subscribe_error", pair, channel) is not None:
                    self._error("Failed to subscribe", f"{name} is not a valid product")
                    return
                chosen.append((channel, pair))
        self._session.subscribed = True
        added = []
        for channel, pair in chosen:
            known = self.channels.setdefault(channel, {})
            if pair.instrument.native not in known:
                known[pair.instrument.native] = pair
                self._site.listen(self, channel, pair)
                added.append((channel, pair))
        self._answer()
        for channel, pair in added:
            self._greet(channel, pair)
        self._session.connection.flush()

    def _unsubscribe(self, wanted: list[tuple[str, list[str]]]) -> None:
        for channel, products in wanted:
            known = self.channels.get(channel, {})
            for name in products or list(known):
                pair = known.pop(name, None)
                if pair is not None:
                    self._site.unlisten(self, channel, pair)
            if not known:
                self.channels.pop(channel, None)
        self._answer()

    def _answer(self) -> None:
        state = [{"name": name, "product_ids": list(products)} for name, products in self.channels.items()]
        self._session.connection.send(orjson.dumps({"type": "subscriptions", "channels": state}))

    def _greet(self, channel: str, pair: Pair) -> None:
        newest = pair.last_trade()
        if newest is None:
            return
        if channel == "matches":
            self._session.push(pair, channel, wire.match_payload(pair, newest, "last_match"))
        elif channel in {"ticker", "ticker_batch"}:
            self.send_ticker(channel, pair, newest)

    def forget(self) -> None:
        """The client is gone."""
        for channel, products in self.channels.items():
            for pair in products.values():
                self._site.unlisten(self, channel, pair)

    # -- sending

    def send_payload(self, channel: str, pair: Pair, payload: bytes) -> None:
        """A ready payload."""
        self._session.push(pair, channel, payload)

    def send_ticker(self, channel: str, pair: Pair, trade: Trade) -> None:
        """The ticker after a trade."""
        row = wire.exchange_ticker(pair, trade, self._site.stats(pair))
        self._session.push(pair, channel, orjson.dumps(row))

    def beat(self) -> None:
        """The heartbeats of this second."""
        at_us = self._site.market.venue_us("coinbase")
        for pair in self.channels.get("heartbeat", {}).values():
            newest = pair.tape.next_id - 1
            payload = {
                "type": "heartbeat",
                "sequence": wire.sequence(newest) + 1,
                "last_trade_id": newest,
                "product_id": pair.instrument.native,
                "time": wire.micros_text(at_us),
            }
            self._session.push(pair, "heartbeat", orjson.dumps(payload))
