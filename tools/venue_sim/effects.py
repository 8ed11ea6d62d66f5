"""What faults do to the market and to connections: applied when a fault starts, undone when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tools.venue_sim.faults import contents
from tools.venue_sim.faults.engine import Fault, FaultError
from tools.venue_sim.market.market import SyntheticMarket
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.net import frames
from tools.venue_sim.net.websocket import WsConnection
from tools.venue_sim.venues.binance.site import BinanceSite

if TYPE_CHECKING:
    from tools.venue_sim.simulator import Simulator

Undo = Callable[[], None]


class Effects:
    """Bound to one simulator; `Faults` calls it."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    # -- the market

    def on_market(self, fault: Fault) -> Undo:
        """Apply a fault of the market; returns what undoes it."""
        if fault.kind == "clock_skew":
            return self._clock(fault)
        if fault.kind in {"depeg", "burst"} or (fault.kind == "offset" and fault.symbol is None):
            return self._pressure(fault)
        undos = [self._on_pair(fault, pair) for pair in self._pairs(fault)]
        if not undos:
            raise FaultError(f"no pair for {fault.kind}: venue {fault.venue}, symbol {fault.symbol}")

        def undo() -> None:
            for one in undos:
                one()

        return undo

    def _pairs(self, fault: Fault) -> list[Pair]:
        pairs = self._simulator.market.all_pairs()
        return [
            pair
            for pair in pairs
            if fault.venue in {None, pair.instrument.venue} and fault.matches(pair, fault.channel or "")
        ]

    def _on_pair(self, fault: Fault, pair: Pair) -> Undo:
        names: dict[str, tuple[str, Any]] = {
            "status": ("status", str(fault.params.get("status", "HALT"))),
            "delist": ("listed", False),
            "freeze": ("frozen", True),
            "crossed_book": ("crossed", True),
            "quiet": ("quiet", True),
            "offset": ("factor", float(fault.params.get("factor", 1.0))),
        }
        name, value = names[fault.kind]
        before = getattr(pair, name)
        setattr(pair, name, value)
        return lambda: setattr(pair, name, before)

    def _clock(self, fault: Fault) -> Undo:
        shift = int(float(fault.params["ms"]) * 1000)
        clocks = self._simulator.market.clocks
        chosen = [clock for venue, clock in clocks.items() if fault.venue in {None, venue}]
        for clock in chosen:
            clock.offset_us += shift

        def undo() -> None:
            for clock in chosen:
                clock.offset_us -= shift

        return undo

    def _pressure(self, fault: Fault) -> Undo:
        market = self._simulator.market
        if not isinstance(market, SyntheticMarket):
            raise FaultError(f"{fault.kind} needs the synthetic market")
        pressure, factor = (
            market.pressure,
            float(fault.params.get("factor", 50.0 if fault.kind == "burst" else 1.0)),
        )
        if factor <= 0:
            raise FaultError("factor is above 0")
        if fault.kind == "burst":
            pressure.rate_factor *= factor

            def undo_burst() -> None:
                pressure.rate_factor /= factor

            return undo_burst
        table = pressure.asset_factor if fault.kind == "depeg" else pressure.venue_factor
        key = str(fault.params.get("asset")) if fault.kind == "depeg" else str(fault.venue)
        before = table.get(key)
        table[key] = factor

        def undo_factor() -> None:
            if before is None:
                table.pop(key, None)
            else:
                table[key] = before

        return undo_factor

    # -- connections, at once

    def on_instant(self, fault: Fault) -> int:
        """Do something to open connections (or to ids) now; returns to how many."""
        if fault.kind == "id_reset":
            return self._reset_ids(fault)
        if fault.kind == "server_shutdown":
            return self._announce_shutdown()
        done = 0
        for connection in self._connections(fault):
            self._on_connection(fault, connection)
            done += 1
        return done

    def _connections(self, fault: Fault) -> list[WsConnection]:
        found = [
            connection
            for name, site in self._simulator.sites.items()
            if fault.venue in {None, name}
            for connection in site.connections()
        ]
        wanted = int(fault.params.get("connections", len(found)))
        return found[:wanted]

    def _on_connection(self, fault: Fault, connection: WsConnection) -> None:
        params = fault.params
        if fault.kind == "close":
            connection.close(int(params.get("code", 1001)), str(params.get("reason", "")))
        elif fault.kind == "cut":
            connection.cut(reset=bool(params.get("reset", True)))
        elif fault.kind == "half_open":
            connection.muted = True
        else:
            self._inject(fault, connection)

    def _inject(self, fault: Fault, connection: WsConnection) -> None:
        sample = str(
            fault.params.get("sample", '{"e":"trade","s":"BTCUSDT","t":1,"p":"1.0","q":"1.0"}')
        ).encode()
        random = self._simulator.faults.random
        for _ in range(1 if fault.count is None else fault.count):
            opcode, payload = contents.broken(str(fault.params["content"]), sample, fault.params, random)
            connection.out.append(frames.frame(payload, opcode))
        connection.flush()

    def _announce_shutdown(self) -> int:
        site = self._simulator.sites.get("binance")
        if not isinstance(site, BinanceSite):
            return 0
        site.shutdown_event()
        return len(site.sessions)

    def _reset_ids(self, fault: Fault) -> int:
        pairs = self._pairs(fault)
        for pair in pairs:
            pair.tape.reset_ids(int(fault.params.get("first_id", 1)))
        return len(pairs)

    # -- what an ended reorder still held

    def on_release(self, venue: str, pair_identity: int, items: list[Any]) -> None:
        """Send the rest of a shuffled window."""
        site = self._simulator.sites.get(venue)
        if site is None:
            return
        for pair in self._simulator.market.all_pairs():
            if id(pair) == pair_identity:
                site.publish_held(pair, [item for item in items if not callable(item)])
