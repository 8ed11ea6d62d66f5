"""The command line, and the one line that the simulator prints when it is ready."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from tools.venue_sim.options import Options
from tools.venue_sim.simulator import Simulator
from tools.venue_sim.venues.binance.site import BinanceOptions
from tools.venue_sim.venues.coinbase.site import CoinbaseOptions
from tools.venue_sim.venues.coingecko.site import CoinGeckoOptions

_VENUES: Final = ("binance", "coinbase", "coingecko", "kraken", "control")


def _parser() -> argparse.ArgumentParser:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m tools.venue_sim", description=__doc__)
    ports = parser.add_argument_group("ports (0 takes a free one; a venue that is not named is not served)")
    for venue in _VENUES:
        ports.add_argument(f"--{venue}-port", type=int, default=None, metavar="N")
    parser.add_argument("--host", default=defaults.host)
    market = parser.add_argument_group("synthetic market")
    market.add_argument("--seed", type=int, default=defaults.seed)
    market.add_argument("--rate", type=float, default=defaults.rate, help="trades/s over all venues")
    market.add_argument(
        "--quote-ratio", type=float, default=defaults.quote_ratio, help="quotes for each trade"
    )
    market.add_argument(
        "--symbols-extra", type=int, default=defaults.symbols_extra, help="small coins more per venue"
    )
    market.add_argument("--coins", type=int, default=defaults.coins, help="only the N largest coins; 0: all")
    market.add_argument("--symbols", default="", help="only these, BASE-QUOTE with commas; empty: all")
    market.add_argument("--history-days", type=int, default=defaults.history_days)
    market.add_argument(
        "--keep-trades", type=int, default=defaults.keep_trades, help="live trades kept for REST"
    )
    market.add_argument("--step-ms", type=float, default=defaults.step_ms, help="time between two writes")
    play = parser.add_argument_group("recordings")
    play.add_argument("--play", type=Path, nargs="+", default=[], metavar="FILE_OR_FOLDER")
    play.add_argument("--speed", type=float, default=defaults.speed, help="0: as fast as the clients read")
    play.add_argument("--play-wait-seconds", type=float, default=defaults.play_wait_seconds,
                      help="between the first subscription and the first frame")  # fmt: skip
    limits = parser.add_argument_group("limits of the venues")
    limits.add_argument("--binance-weight", type=int, default=defaults.binance.weight_per_minute)
    limits.add_argument("--binance-ban-seconds", type=int, default=defaults.binance.ban_seconds)
    limits.add_argument("--binance-ping-seconds", type=float, default=defaults.binance.ping_seconds)
    limits.add_argument(
        "--binance-pong-timeout-seconds", type=float, default=defaults.binance.pong_timeout_seconds
    )
    limits.add_argument("--lifetime-seconds", type=float, default=defaults.binance.lifetime_seconds,
                        help="of a WebSocket connection")  # fmt: skip
    limits.add_argument(
        "--coinbase-requests-per-second", type=float, default=defaults.coinbase.requests_per_second
    )
    limits.add_argument("--coinbase-batch-ms", type=float, default=defaults.coinbase.batch_seconds * 1000)
    limits.add_argument(
        "--coingecko-plan", choices=("keyless", "demo", "pro"), default=defaults.coingecko.plan
    )
    limits.add_argument("--coingecko-key", default="", help="the only key that is taken; empty: any")
    limits.add_argument("--coingecko-per-minute", type=int, default=defaults.coingecko.per_minute)
    limits.add_argument("--coingecko-per-month", type=int, default=defaults.coingecko.per_month)
    limits.add_argument("--coingecko-cache-seconds", type=float, default=defaults.coingecko.cache_seconds)
    limits.add_argument("--coingecko-retry-after", type=int, default=None)
    parser.add_argument("--report-seconds", type=float, default=0.0, help="print rates and CPU this often")
    return parser


def parse(arguments: list[str]) -> Options:
    """Options from the command line; exits with a readable line when they are wrong."""
    parser = _parser()
    found = parser.parse_args(arguments)
    ports = {venue: getattr(found, f"{venue}_port") for venue in _VENUES}
    if all(ports[venue] is None for venue in _VENUES[:-1]):
        parser.error("no venue is served: give at least one of --binance-port, --coinbase-port, ...")
    for path in found.play:
        if not path.exists():
            parser.error(f"--play: there is no {path}")
    return Options(
        host=found.host,
        binance_port=ports["binance"],
        coinbase_port=ports["coinbase"],
        coingecko_port=ports["coingecko"],
        kraken_port=ports["kraken"],
        control_port=ports["control"],
        seed=found.seed,
        rate=found.rate,
        quote_ratio=found.quote_ratio,
        symbols_extra=found.symbols_extra,
        coins=found.coins,
        symbols=tuple(symbol for symbol in found.symbols.split(",") if symbol),
        history_days=found.history_days,
        keep_trades=found.keep_trades,
        step_ms=found.step_ms,
        report_seconds=found.report_seconds,
        play=tuple(found.play),
        speed=found.speed,
        play_wait_seconds=found.play_wait_seconds,
        binance=BinanceOptions(
            ping_seconds=found.binance_ping_seconds,
            pong_timeout_seconds=found.binance_pong_timeout_seconds,
            lifetime_seconds=found.lifetime_seconds,
            weight_per_minute=found.binance_weight,
            ban_seconds=found.binance_ban_seconds,
        ),
        coinbase=CoinbaseOptions(
            batch_seconds=found.coinbase_batch_ms / 1000,
            requests_per_second=found.coinbase_requests_per_second,
            lifetime_seconds=found.lifetime_seconds,
        ),
        coingecko=CoinGeckoOptions(
            plan=found.coingecko_plan,
            key=found.coingecko_key,
            per_minute=found.coingecko_per_minute,
            per_month=found.coingecko_per_month,
            cache_seconds=found.coingecko_cache_seconds,
            retry_after=found.coingecko_retry_after,
        ),
    )


def started_line(simulator: Simulator) -> str:
    """URLs, source and seed in one line of `name=value` words, for people and for programs."""
    options, urls = simulator.options, simulator.urls
    served = [(name, getattr(urls, name)) for name in urls.__slots__]
    words = [f"{name}={url}" for name, url in served if url]
    if options.play:
        words.append(f"source=recording files={len(options.play)} speed={options.speed:g}")
    else:
        words.append(f"source=synthetic seed={options.seed} rate={options.rate:g}/s")
    words.append(f"pairs={len(simulator.market.all_pairs())}")
    return "venue_sim ready: " + " ".join(words)
