"""What wakes the alerts service: ticks, prices, candles, indicators, requests, timers."""
