"""The list of indicators: names, parameters with bounds, formulas, and the live set. A new indicator is one line here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.contracts.intervals import length_ms
from cryptopulse.indicators.domain import averages, levels, momentum, trend, volatility, volume
from cryptopulse.indicators.domain.study import Study

DEFINITION_VERSION: Final = 1
"""Rises when any formula, seeding or the live set changes: stored states of another version are not used."""


class UnknownIndicatorError(LookupError):
    """No indicator or output of that name."""


class BadParameterError(ValueError):
    """A parameter that the indicator does not have, or out of its bounds; the text names the fix."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its default and bounds, all inclusive."""

    name: str
    default: float
    minimum: float
    maximum: float
    integer: bool = True


@dataclass(frozen=True, slots=True)
class Definition:
    """One indicator. `build` takes the parameters by name, and `bar_ms` where the length of a bar matters."""

    name: str
    title: str
    formula: str
    build: Callable[..., Study]
    parameters: tuple[Parameter, ...] = ()
    live: tuple[Mapping[str, float], ...] = ({},)
    needs_bar: bool = False

    def make(self, interval: str, given: Mapping[str, float] | None = None) -> Study:
        """A study with these parameters. Raises `BadParameterError`."""
        values = self.checked(given or {})
        arguments: dict[str, float] = {
            p.name: int(values[p.name]) if p.integer else values[p.name] for p in self.parameters
        }
        if self.needs_bar:
            arguments["bar_ms"] = length_ms(interval)
        return self.build(**arguments)

    def checked(self, given: Mapping[str, float]) -> dict[str, float]:
        """All parameters with defaults filled in. Raises `BadParameterError`."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                names = ", ".join(known) or "none"
                raise BadParameterError(f"{self.name} has no parameter {name!r}: it has {names}")
        values = {}
        for name, parameter in known.items():
            value = float(given.get(name, parameter.default))
            if not parameter.minimum <= value <= parameter.maximum or (
                parameter.integer and not value.is_integer()
            ):
                kind = "an integer" if parameter.integer else "a number"
                raise BadParameterError(
                    f"{self.name}.{name} must be {kind} from {parameter.minimum:g} to {parameter.maximum:g}"
                )
            values[name] = value
        if "fast" in values and "slow" in values and values["fast"] >= values["slow"]:
            raise BadParameterError(f"{self.name}.fast must be less than {self.name}.slow")
        return values


def _period(default: int, low: int = 1, high: int = 250) -> Parameter:
    return Parameter("period", default, low, high)


def _periods(*values: int) -> tuple[Mapping[str, float], ...]:
    return tuple({"period": value} for value in values)


DEFINITIONS: Final[tuple[Definition, ...]] = (
    Definition("sma", "Simple moving average", "mean of n closes", averages.Sma, (_period(20),), _periods(20, 50, 200)),
    Definition("ema", "Exponential moving average", "e += 2/(n+1) * (close - e), e0 = first close", averages.Ema,
               (_period(12),), _periods(12, 26, 50, 200)),
    Definition("wma", "Weighted moving average", "weights n..1 over n closes", averages.Wma, (_period(20),)),
    Definition("hma", "Hull moving average", "WMA(sqrt n) of 2*WMA(n/2) - WMA(n)", averages.Hma, (_period(9, 4),)),
    Definition("rma", "Wilder's moving average", "m += (close - m)/n, m0 = mean of n closes", averages.Rma, (_period(14),)),
    Definition("vwma", "Volume-weighted moving average", "sum(close*volume)/sum(volume) over n bars", averages.Vwma,
               (_period(20),)),
    Definition("rsi", "Relative strength index", "100*G/(G+L), G and L Wilder means of gains and losses from 0",
               momentum.Rsi, (_period(14, 2),)),
    Definition("stoch", "Stochastic oscillator", "100*(close-low_n)/(high_n-low_n), means of 3", momentum.Stochastic,
               (_period(14, 2), Parameter("smooth", 3, 1, 50), Parameter("d", 3, 1, 50))),
    Definition("stochrsi", "Stochastic RSI", "(RSI-min_n RSI)/(max_n RSI-min_n RSI), 0..1, means of 3", momentum.StochRsi,
               (_period(14, 2), Parameter("k", 3, 1, 50), Parameter("d", 3, 1, 50))),
    Definition("macd", "Moving average convergence divergence", "EMA12-EMA26, EMA9 of it, difference", trend.Macd,
               (Parameter("fast", 12, 1, 200), Parameter("slow", 26, 2, 250), Parameter("signal", 9, 1, 200))),
    Definition("bbands", "Bollinger bands", "mean of n closes +- k population deviations; %B; width in % of the mean",
               volatility.Bollinger, (_period(20, 2), Parameter("deviations", 2.0, 0.1, 10.0, integer=False))),
    Definition("atr", "Average true range", "Wilder mean of true ranges; NATR in % of the close", trend.Atr, (_period(14),)),
    Definition("adx", "Average directional index", "Wilder's directional movement, DX and its mean", trend.Adx,
               (_period(14, 2),)),
    Definition("ichimoku", "Ichimoku cloud", "midpoints of 9, 26 and 52 bars", trend.Ichimoku,
               (Parameter("conversion", 9, 2, 200), Parameter("base", 26, 2, 200), Parameter("span", 52, 2, 250))),
    Definition("supertrend", "Supertrend", "(high+low)/2 +- k ATR(n), tightening", trend.Supertrend,
               (_period(10), Parameter("multiplier", 3.0, 0.1, 20.0, integer=False))),
    Definition("psar", "Parabolic SAR", "Wilder's stop and reverse", trend.Psar,
               (Parameter("step", 0.02, 0.001, 1.0, integer=False), Parameter("maximum", 0.2, 0.01, 1.0, integer=False))),
    Definition("aroon", "Aroon", "100*(n - bars since the extreme of n+1 bars)/n", trend.Aroon, (_period(25),)),
    Definition("trix", "Triple exponential change", "100*(EMA3/EMA3[-1]-1)", trend.Trix, (_period(15),)),
    Definition("donchian", "Donchian channel", "highest high and lowest low of n bars", volatility.Donchian, (_period(20),)),
    Definition("keltner", "Keltner channel", "EMA(n) +- k ATR(m)", volatility.Keltner,
               (_period(20), Parameter("atr_period", 10, 1, 250), Parameter("multiplier", 2.0, 0.1, 20.0, integer=False))),
    Definition("cci", "Commodity channel index", "(TP-mean)/(0.015*mean deviation)", momentum.Cci, (_period(20, 2),)),
    Definition("williams_r", "Williams %R", "-100*(high_n-close)/(high_n-low_n)", momentum.WilliamsR, (_period(14),)),
    Definition("roc", "Rate of change", "100*(close/close[-n]-1)", momentum.Roc, (_period(12),)),
    Definition("obv", "On-balance volume", "sum of volume, signed by the close's move, since the anchor", volume.Obv),
    Definition("adl", "Accumulation/distribution line", "sum of volume*(2C-H-L)/(H-L) since the anchor", volume.Adl),
    Definition("mfi", "Money flow index", "100*up/(up+down) of typical price*volume over n bars", momentum.Mfi,
               (_period(14),)),
    Definition("cmf", "Chaikin money flow", "money flow volume over volume, n bars", volume.Cmf, (_period(20),)),
    Definition("vwap", "Rolling VWAP", "sum(TP*volume)/sum(volume) over n bars", volume.RollingVwap, (_period(14),)),
    Definition("vwap_day", "VWAP of the UTC day", "sum(TP*volume)/sum(volume) since 00:00 UTC",
               lambda: volume.AnchoredVwap("day")),
    Definition("vwap_week", "VWAP of the week", "sum(TP*volume)/sum(volume) since Monday 00:00 UTC",
               lambda: volume.AnchoredVwap("week")),
    Definition("volume_spike", "Volume against its usual size", "v/mean and (v-mean)/deviation of the n bars before",
               volume.VolumeSpike, (_period(20, 2),)),
    Definition("volatility", "Realised volatility", "sample deviation of n log returns * sqrt(bars a year)",
               volatility.RealisedVolatility, (_period(30, 2),), needs_bar=True),
    Definition("change", "Price change by time", "100*(price/price at or before now-window - 1)", momentum.Change),
    Definition("pivots", "Classic pivot points", "of the previous UTC day", levels.Pivots),
    Definition("levels", "Support and resistance", "clustered swings, heaviest level on each side", levels.SupportResistance),
)  # fmt: skip

BY_NAME: Final[dict[str, Definition]] = {definition.name: definition for definition in DEFINITIONS}
ALIASES: Final[dict[str, str]] = {
    "bb": "bbands",
    "bollinger": "bbands",
    "stochastic": "stoch",
    "willr": "williams_r",
    "natr": "atr",
    "sar": "psar",
    "volume": "volume_spike",
    "volume_ratio": "volume_spike",
    "volume_zscore": "volume_spike",
    "support_resistance": "levels",
    "pivot": "pivots",
    "realised_volatility": "volatility",
    "price_change": "change",
    "plus_di": "adx",
    "minus_di": "adx",
    "di": "adx",
}
_NUMBERED: Final = re.compile(r"^([a-z_]+?)_(\d+)$")


def live_studies(interval: str) -> list[Study]:
    """The live set of one series, in a fixed order."""
    return [definition.make(interval, given) for definition in DEFINITIONS for given in definition.live]


def find(name: str) -> tuple[Definition, dict[str, float]]:
    """The indicator that a name means, with the period when the name carries one (`rsi_7`). Raises `UnknownIndicatorError`."""
    text = name.strip().lower()
    text = ALIASES.get(text, text)
    if text in BY_NAME:
        return BY_NAME[text], {}
    numbered = _NUMBERED.match(text)
    if numbered:
        base = ALIASES.get(numbered[1], numbered[1])
        definition = BY_NAME.get(base)
        if definition is not None and any(p.name == "period" for p in definition.parameters):
            return definition, {"period": float(numbered[2])}
    owner = _OWNERS.get(text)
    if owner is not None:
        return BY_NAME[owner], {}
    raise UnknownIndicatorError(f"{name!r:.60} is no indicator: GET /indicators lists them")


def _owners(definitions: Iterable[Definition]) -> dict[str, str]:
    return {
        output: definition.name
        for definition in definitions
        for given in definition.live
        for output in definition.make("1h", given).outputs
    }


_OWNERS: Final = _owners(DEFINITIONS)
OUTPUTS: Final[tuple[str, ...]] = tuple(_OWNERS)
"""Every output of the live set."""
