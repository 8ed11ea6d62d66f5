"""Indicators that the `ta` package computes for us: their names, outputs and parameters. Nothing here imports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptopulse.indicators.domain.registry import BadParameterError, Parameter


@dataclass(frozen=True, slots=True)
class TaDefinition:
    """One indicator of `ta`. `least` is the number of bars under which it is not asked (it fails on short input)."""

    name: str
    title: str
    outputs: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    least: int = 60
    live_twin: bool = False
    """Whether we compute the same ourselves: then `ta` is only a second opinion (`engine=ta`)."""

    def checked(self, given: Mapping[str, float]) -> dict[str, float]:
        """All parameters with defaults filled in. Raises `BadParameterError`."""
        known = {parameter.name: parameter for parameter in self.parameters}
        values: dict[str, float] = {}
        for name in given:
            if name not in known:
                raise BadParameterError(
                    f"{self.name} has no parameter {name!r}: it has {', '.join(known) or 'none'}"
                )
        for name, parameter in known.items():
            value = float(given.get(name, parameter.default))
            if not parameter.minimum <= value <= parameter.maximum or (
                parameter.integer and not value.is_integer()
            ):
                raise BadParameterError(
                    f"{self.name}.{name} must be from {parameter.minimum:g} to {parameter.maximum:g}"
                )
            values[name] = value
        return values

    def bars_needed(self, values: Mapping[str, float]) -> int:
        """Bars to ask for before the first value wanted: enough for recursive means to settle."""
        return max(self.least, *(int(12 * value) for value in values.values()), 300)


def _window(name: str, default: int, high: int = 250) -> Parameter:
    return Parameter(name, default, 2, high)


TA_DEFINITIONS: Final[tuple[TaDefinition, ...]] = (
    TaDefinition("kama", "Kaufman's adaptive moving average", ("kama",), (_window("period", 10),)),
    TaDefinition("tsi", "True strength index", ("tsi",), (_window("slow", 25), _window("fast", 13))),
    TaDefinition("ultimate", "Ultimate oscillator", ("ultimate",)),
    TaDefinition("awesome", "Awesome oscillator", ("awesome",), (_window("fast", 5), _window("slow", 34))),
    TaDefinition(
        "ppo",
        "Percentage price oscillator",
        ("ppo", "ppo_signal", "ppo_histogram"),
        (_window("slow", 26), _window("fast", 12), _window("signal", 9)),
    ),
    TaDefinition(
        "pvo",
        "Percentage volume oscillator",
        ("pvo", "pvo_signal", "pvo_histogram"),
        (_window("slow", 26), _window("fast", 12), _window("signal", 9)),
    ),
    TaDefinition("vortex", "Vortex indicator", ("vortex_plus", "vortex_minus"), (_window("period", 14),)),
    TaDefinition("mass", "Mass index", ("mass",), (_window("fast", 9), _window("slow", 25))),
    TaDefinition("stc", "Schaff trend cycle", ("stc",), (_window("slow", 50), _window("fast", 23))),
    TaDefinition("ulcer", "Ulcer index", ("ulcer",), (_window("period", 14),)),
    TaDefinition("force", "Force index", ("force",), (_window("period", 13),)),
    TaDefinition("ease", "Ease of movement", ("ease", "ease_mean"), (_window("period", 14),)),
    TaDefinition("sma", "Simple moving average", ("sma",), (_window("period", 20),), live_twin=True),
    TaDefinition("ema", "Exponential moving average", ("ema",), (_window("period", 12),), live_twin=True),
    TaDefinition("wma", "Weighted moving average", ("wma",), (_window("period", 20),), live_twin=True),
    TaDefinition("rsi", "Relative strength index", ("rsi",), (_window("period", 14),), live_twin=True),
    TaDefinition(
        "macd",
        "Moving average convergence divergence",
        ("macd", "macd_signal", "macd_histogram"),
        (_window("slow", 26), _window("fast", 12), _window("signal", 9)),
        live_twin=True,
    ),
    TaDefinition(
        "bbands",
        "Bollinger bands",
        ("bb_upper", "bb_middle", "bb_lower"),
        (_window("period", 20), Parameter("deviations", 2.0, 0.1, 10.0, integer=False)),
        live_twin=True,
    ),
    TaDefinition("atr", "Average true range", ("atr",), (_window("period", 14),), live_twin=True),
    TaDefinition("cci", "Commodity channel index", ("cci",), (_window("period", 20),), live_twin=True),
    TaDefinition("stoch", "Stochastic oscillator", ("stoch_k",), (_window("period", 14),), live_twin=True),
    TaDefinition("williams_r", "Williams %R", ("williams_r",), (_window("period", 14),), live_twin=True),
)
TA_BY_NAME: Final[dict[str, TaDefinition]] = {one.name: one for one in TA_DEFINITIONS}

WITNESSED: Final[dict[str, tuple[str, dict[str, float], str, str]]] = {
    # live output -> (ta's indicator, parameters, its output, unit of the tolerance)
    "sma_20": ("sma", {"period": 20}, "sma", "close"),
    "ema_12": ("ema", {"period": 12}, "ema", "close"),
    "ema_26": ("ema", {"period": 26}, "ema", "close"),
    "wma_20": ("wma", {"period": 20}, "wma", "close"),
    "rsi_14": ("rsi", {"period": 14}, "rsi", "hundred"),
    "macd": ("macd", {}, "macd", "close"),
    "macd_signal": ("macd", {}, "macd_signal", "close"),
    "bb_upper": ("bbands", {}, "bb_upper", "close"),
    "bb_lower": ("bbands", {}, "bb_lower", "close"),
    "atr_14": ("atr", {"period": 14}, "atr", "close"),
    "stoch_k_14": ("stoch", {"period": 14}, "stoch_k", "hundred"),
    "williams_r_14": ("williams_r", {"period": 14}, "williams_r", "hundred"),
    "cci_20": ("cci", {"period": 20}, "cci", "hundred"),
}
WITNESS_TOLERANCE: Final = 1e-8
"""Relative to the unit: `ta`'s rolling variance alone is off by 5e-8 of a deviation in quiet markets."""
WITNESS_BARS: Final = 600


def disagreements(
    ours: Mapping[str, float | None], theirs: Mapping[str, float | None], close: float
) -> dict[str, tuple[float, float]]:
    """Outputs that differ by more than the tolerance; what either side has no value for is not compared."""
    found = {}
    for output, (_, _, _, unit) in WITNESSED.items():
        a, b = ours.get(output), theirs.get(output)
        if a is None or b is None:
            continue
        scale = max(abs(b), abs(close) if unit == "close" else 100.0)
        if abs(a - b) > WITNESS_TOLERANCE * scale:
            found[output] = (a, b)
    return found
