"""The `ta` package in worker processes: a witness of live series, and the engine of indicators that we do not write.

Guards against what `ta` 0.11 does wrong: a plain index from 0, lengths checked before, never `fillna`, warm-up zeros
and infinities turned into no value.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any, Final

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.indicators.domain.ta_catalogue import TA_BY_NAME, WITNESSED

TIMEOUT_SECONDS: Final = 20.0
CACHED: Final = 256
MOST_WAITING: Final = 16
Columns = dict[str, list[float]]
Found = dict[str, list[float | None]]


def _frames(columns: Columns) -> Any:
    import pandas as pd

    return pd.DataFrame(columns)  # a RangeIndex: PSAR and others go wrong on any other


def _values(series: Any, *, zero_until: int = 0) -> list[float | None]:
    found: list[float | None] = []
    for index, value in enumerate(series.tolist()):
        ok = value is not None and math.isfinite(value) and index >= zero_until
        found.append(float(value) if ok else None)
    return found


def compute(name: str, parameters: dict[str, float], columns: Columns) -> Found:
    """One indicator of `ta` over all bars. Runs in a worker process."""
    from ta import momentum, trend, volatility, volume

    frame = _frames(columns)
    high, low, close, traded = frame["high"], frame["low"], frame["close"], frame["volume"]
    p = {key: int(value) if float(value).is_integer() else value for key, value in parameters.items()}
    n = p.get("period", 14)

    def fast_slow() -> dict[str, Any]:
        return {"window_slow": p["slow"], "window_fast": p["fast"], "window_sign": p["signal"]}

    def three(made: Any, kind: str) -> list[Any]:
        return [getattr(made, kind)(), getattr(made, f"{kind}_signal")(), getattr(made, f"{kind}_hist")()]

    makers: dict[str, Any] = {
        "kama": lambda: [momentum.KAMAIndicator(close, window=n).kama()],
        "tsi": lambda: [momentum.TSIIndicator(close, window_slow=p["slow"], window_fast=p["fast"]).tsi()],
        "ultimate": lambda: [momentum.UltimateOscillator(high, low, close).ultimate_oscillator()],
        "awesome": lambda: [
            momentum.AwesomeOscillatorIndicator(high, low, p["fast"], p["slow"]).awesome_oscillator()
        ],
        "ppo": lambda: three(momentum.PercentagePriceOscillator(close, **fast_slow()), "ppo"),
        "pvo": lambda: three(momentum.PercentageVolumeOscillator(traded, **fast_slow()), "pvo"),
        "vortex": lambda: [
            (made := trend.VortexIndicator(high, low, close, window=n)).vortex_indicator_pos(),
            made.vortex_indicator_neg(),
        ],
        "mass": lambda: [trend.MassIndex(high, low, p["fast"], p["slow"]).mass_index()],
        "stc": lambda: [trend.STCIndicator(close, window_slow=p["slow"], window_fast=p["fast"]).stc()],
        "ulcer": lambda: [volatility.UlcerIndex(close, window=n).ulcer_index()],
        "force": lambda: [volume.ForceIndexIndicator(close, traded, window=n).force_index()],
        "ease": lambda: [
            (made := volume.EaseOfMovementIndicator(high, low, traded, window=n)).ease_of_movement(),
            made.sma_ease_of_movement(),
        ],
        "sma": lambda: [trend.SMAIndicator(close, window=n).sma_indicator()],
        "ema": lambda: [trend.EMAIndicator(close, window=n).ema_indicator()],
        "wma": lambda: [trend.WMAIndicator(close, window=n).wma()],
        "rsi": lambda: [momentum.RSIIndicator(close, window=n).rsi()],
        "macd": lambda: [
            (made := trend.MACD(close, **fast_slow())).macd(),
            made.macd_signal(),
            made.macd_diff(),
        ],
        "bbands": lambda: [
            (
                made := volatility.BollingerBands(close, window=n, window_dev=p["deviations"])
            ).bollinger_hband(),
            made.bollinger_mavg(),
            made.bollinger_lband(),
        ],
        "atr": lambda: [volatility.AverageTrueRange(high, low, close, window=n).average_true_range()],
        "cci": lambda: [trend.CCIIndicator(high, low, close, window=n).cci()],
        "stoch": lambda: [momentum.StochasticOscillator(high, low, close, window=n).stoch()],
        "williams_r": lambda: [momentum.WilliamsRIndicator(high, low, close, lbp=n).williams_r()],
    }
    zeros = int(n) - 1 if name == "atr" else 0
    series = makers[name]()
    outputs = TA_BY_NAME[name].outputs
    return {output: _values(one, zero_until=zeros) for output, one in zip(outputs, series, strict=True)}


def witness(columns: Columns) -> dict[str, float | None]:
    """The newest value of every output that `ta` can vouch for. Runs in a worker process."""
    made: dict[tuple[str, tuple[tuple[str, float], ...]], Found] = {}
    found: dict[str, float | None] = {}
    for output, (name, given, theirs, _) in WITNESSED.items():
        parameters = TA_BY_NAME[name].checked(given)
        place = (name, tuple(sorted(parameters.items())))
        if place not in made:
            made[place] = compute(name, parameters, columns)
        found[output] = made[place][theirs][-1]
    return found


def end_with_parent() -> None:
    """End this worker when its service is gone.

    It waits on a pipe whose other end it holds itself, so that a killed service would leave it behind for ever.
    """

    def watch(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        os._exit(1)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()


def columns_of(bars: Sequence[Candle]) -> Columns:
    """Bars as columns of floats."""
    names = ("open", "high", "low", "close", "volume")
    return {name: [float(getattr(bar, name)) for bar in bars] for name in names}


class TaEngine:
    """Runs `ta` beside the loop. Answers are remembered by indicator, parameters and bars."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0
        self._cache: OrderedDict[Any, Found] = OrderedDict()

    async def series(
        self, name: str, parameters: Mapping[str, float], bars: Sequence[Candle], binding: tuple[str, ...]
    ) -> Found:
        """All values of one indicator over these bars; none where there are too few."""
        definition = TA_BY_NAME[name]
        if len(bars) < definition.least:
            return {output: [None] * len(bars) for output in definition.outputs}
        last = bars[-1]
        place = (name, tuple(sorted(parameters.items())), binding, bars[0].open_time, last.open_time, last.revision,
                 last.close, last.volume, len(bars))  # fmt: skip
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place]
        found: Found = await self._run(compute, name, dict(parameters), columns_of(bars))
        self._cache[place] = found
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return found

    async def witness(self, bars: Sequence[Candle]) -> dict[str, float | None]:
        """The newest values by `ta`."""
        found: dict[str, float | None] = await self._run(witness, columns_of(bars))
        return found

    async def _run(self, work: Any, *arguments: Any) -> Any:
        if self._waiting >= MOST_WAITING:
            raise UpstreamUnavailable("the indicator workers are busy", retry_after_seconds=2)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=end_with_parent,
                max_tasks_per_child=500,
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        except (BrokenExecutor, TimeoutError) as error:
            self.close()
            raise UpstreamUnavailable(
                "an indicator worker died or was too slow", retry_after_seconds=2
            ) from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the worker processes."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
