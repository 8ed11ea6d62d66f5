"""Kraken spot, as the simulator serves it."""
