"""Binance spot, as the simulator serves it."""
